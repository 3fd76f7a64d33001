//! Which of the own macros the kept text needs.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::emit::Draft;
use super::items::What;
use super::lexer::identifiers;

impl Draft<'_, '_> {
    /// Own macros that kept text names, directly or through other macros, and those the headers look at.
    pub(super) fn needed_macros(&self) -> BTreeSet<String> {
        let mut bodies: HashMap<&str, Vec<&str>> = HashMap::new();
        // Macros of included headers that lead to patched ones, with the names on the way.
        let leads = &self.unit.changes.leads;
        let known = |bodies: &HashMap<&str, Vec<&str>>, n: &str| bodies.contains_key(n) || leads.contains_key(n);
        for item in &self.unit.items {
            match &item.what {
                What::Define { name } => bodies
                    .entry(name)
                    .or_default()
                    .push(&self.unit.files.get(item.file).text()[item.start..item.end]),
                What::Undef { name } => {
                    bodies.entry(name).or_default();
                }
                What::Patched { name, text } => bodies.entry(name).or_default().push(text),
                _ => {}
            }
        }
        let mut needed: BTreeSet<String> = BTreeSet::new();
        let mut queue: Vec<String> = Vec::new();
        for chunk in &self.chunks {
            queue.extend(
                identifiers(&chunk.text)
                    .into_iter()
                    .filter(|n| known(&bodies, n))
                    .map(str::to_owned),
            );
        }
        let own = self.unit.items.iter().filter_map(|item| match &item.what {
            What::Define { name } | What::Undef { name } => Some(name.as_str()),
            _ => None,
        });
        queue.extend(self.seen_by_headers(own.collect()));
        while let Some(name) = queue.pop() {
            if needed.insert(name.clone()) {
                for body in bodies.get(name.as_str()).into_iter().flatten() {
                    queue.extend(pasted(body, bodies.keys().copied()).map(str::to_owned));
                    queue.extend(
                        identifiers(body)
                            .into_iter()
                            .filter(|n| known(&bodies, n))
                            .map(str::to_owned),
                    );
                }
                queue.extend(leads.get(&name).into_iter().flatten().cloned());
            }
        }
        needed
    }

    /// Those of the names that a directive of an included header mentions: `pr_fmt` and its like.
    pub(super) fn seen_by_headers(&self, names: HashSet<&str>) -> Vec<String> {
        let mut found = BTreeSet::new();
        for (id, file) in self.unit.files.iter().filter(|(id, _)| !self.unit.own.contains(id)) {
            let everywhere = self.plan.dependent.contains(&id);
            let text = file.text();
            let mut at = 0;
            let mut continued = false;
            for line in text.split_inclusive('\n') {
                let is_directive = everywhere || continued || line.trim_start().starts_with('#');
                if is_directive {
                    let mut rest = line;
                    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
                        let tail = &rest[start..];
                        let len = tail
                            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                            .unwrap_or(tail.len());
                        if names.contains(&tail[..len]) {
                            found.insert(tail[..len].to_owned());
                        }
                        rest = &tail[len..];
                    }
                }
                continued = is_directive && line.trim_end().ends_with('\\');
                at += line.len();
            }
            debug_assert_eq!(at, text.len());
        }
        // With it, a trace header would define its tracepoints a second time.
        found.remove("CREATE_TRACE_POINTS");
        found.into_iter().collect()
    }
}

/// The names among `known` that a macro's body may form by pasting: those that begin with what stands before a `##`, or end
/// with what stands behind one. Too many rather than too few: a macro that isn't used costs a line.
fn pasted<'a>(body: &str, known: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut prefixes: Vec<String> = Vec::new();
    let mut suffixes: Vec<String> = Vec::new();
    let parts: Vec<&str> = body.split("##").collect();
    for pair in parts.windows(2) {
        let before = pair[0].trim_end();
        let start = before.rfind(|c| !word(c)).map_or(0, |i| i + 1);
        let after = pair[1].trim_start();
        let end = after.find(|c| !word(c)).unwrap_or(after.len());
        // Shorter ones are mostly parameters.
        if before.len() - start >= 3 {
            prefixes.push(before[start..].to_owned());
        }
        if end >= 3 {
            suffixes.push(after[..end].to_owned());
        }
    }
    known.filter(move |n| prefixes.iter().any(|p| n.starts_with(p)) || suffixes.iter().any(|s| n.ends_with(s)))
}
