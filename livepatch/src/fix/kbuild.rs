//! Which CONFIG builds a file, and into what: the kernel's Makefiles read upwards from the file's folder.
//!
//! kbuild's language is that of the kernel's Documentation/kbuild/makefiles.rst: `obj-$(CONFIG_X) += a.o dir/`, objects made
//! of several (`a-y`, `a-objs`, `a-$(CONFIG_Y)`), `subdir-`, `lib-`. What make computes in other ways is not guessed: an
//! answer is "unknown" rather than wrong, and a file that is built by several rules has several answers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::{ConfigName, ObjectName, TreePath};

/// Folders and composite objects that are followed.
const MAX_DEPTH: usize = 16;
/// Objects that are looked for on the way to one file's answers: lists that take one another in have a great many ways.
const MAX_STEPS: usize = 1000;
/// Answers for one file.
const MAX_ANSWERS: usize = 32;
/// Bytes of one Makefile.
const MAX_MAKEFILE: usize = 1 << 20;

/// One way in which a file is built.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Built {
    /// The CONFIG that decides between built in and module: that of the object's own `obj-` line, or of the next folder above
    /// whose line has one. `None`: always built in.
    pub config: Option<ConfigName>,
    /// Further CONFIGs that must be set for it to be built: parts of a composite object, folders above.
    pub also: BTreeSet<ConfigName>,
    /// The module's path without `.ko`, such as `net/sched/sch_taprio`, if `config` is `m`.
    pub module: Option<String>,
}

impl Built {
    /// The module's name alone.
    pub fn object(&self) -> ObjectName {
        let name = self.module.as_ref().and_then(|path| path.rsplit('/').next());
        name.and_then(|name| name.parse().ok())
            .unwrap_or_else(ObjectName::vmlinux)
    }
}

/// What was found out about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kbuild {
    /// Sorted; empty: unknown.
    pub built: Vec<Built>,
    /// Why there may be more, or why there is none.
    pub unclear: Vec<String>,
}

/// Finds how `file` is built. `read` gives a file's text by its path from the kernel's root.
pub fn find(file: &TreePath, read: &dyn Fn(&str) -> Option<String>) -> Kbuild {
    let mut search = Search {
        read,
        found: BTreeSet::new(),
        unclear: BTreeSet::new(),
        steps: 0,
    };
    let (dir, name) = split(file.as_str());
    match name.strip_suffix(".c").or_else(|| name.strip_suffix(".S")) {
        Some(stem) => search.object(dir, stem, &Road::default(), 0),
        None => {
            search.unclear.insert(format!("{file} is not compiled by itself"));
        }
    }
    if search.found.is_empty() && search.unclear.is_empty() {
        search
            .unclear
            .insert(format!("no Makefile builds {file} by a rule that is understood here"));
    }
    Kbuild {
        built: search.found.into_iter().collect(),
        unclear: search.unclear.into_iter().collect(),
    }
}

/// What is known on the way up.
#[derive(Clone, Default)]
struct Road {
    also: BTreeSet<ConfigName>,
    /// Objects and folders already passed.
    passed: Vec<String>,
}

struct Search<'r> {
    read: &'r dyn Fn(&str) -> Option<String>,
    found: BTreeSet<Built>,
    unclear: BTreeSet<String>,
    steps: usize,
}

impl Search<'_> {
    /// Who builds `stem`.o, which is in `dir`.
    fn object(&mut self, dir: &str, stem: &str, road: &Road, depth: usize) {
        let whole = join(dir, stem);
        self.steps += 1;
        if self.steps > MAX_STEPS {
            self.unclear
                .insert("its Makefiles have too many rules that lead to one another".to_owned());
            return;
        }
        if depth > MAX_DEPTH || self.found.len() >= MAX_ANSWERS || road.passed.contains(&whole) {
            self.unclear.insert(format!("the rules for {whole}.o lead too far"));
            return;
        }
        let mut road = road.clone();
        road.passed.push(whole.clone());
        let mut known = false;
        // A Makefile further up may name the object by a longer path: `obj-y += sub/a.o`.
        let mut at = Some(dir);
        while let Some(makefile_dir) = at {
            if let Some((path, rules)) = self.rules(makefile_dir) {
                let relative = whole[makefile_dir.len()..].trim_start_matches('/');
                known |= self.by_rules(makefile_dir, &path, relative, &rules, &road, depth);
            }
            if known {
                return;
            }
            at = (!makefile_dir.is_empty()).then(|| split(makefile_dir).0);
        }
    }

    /// Follows each rule of a Makefile that has the object; false if none has.
    fn by_rules(&mut self, dir: &str, path: &str, relative: &str, rules: &[Rule], road: &Road, depth: usize) -> bool {
        let object = format!("{relative}.o");
        let taken_in = [format!("$({relative}-y)"), format!("$({relative}-objs)")];
        let mut known = false;
        for rule in rules
            .iter()
            .filter(|rule| rule.items.iter().any(|item| *item == object || taken_in.contains(item)))
        {
            known = true;
            let Some(condition) = rule.condition.clone() else {
                self.unclear.insert(format!(
                    "{path}:{}: `{}` is built under a condition that make computes",
                    rule.line, object
                ));
                continue;
            };
            match rule.list.as_str() {
                "obj" | "lib" => {
                    // A list that is taken in brings its objects, each on its own.
                    let own = if rule.items.contains(&object) { 1 } else { 2 };
                    let module = road
                        .passed
                        .iter()
                        .rev()
                        .nth(own - 1)
                        .filter(|_| rule.list == "obj")
                        .cloned();
                    self.folder(dir, condition, module, road, depth);
                }
                "" | "core" | "head" | "extra" | "always" | "targets" | "hostprogs" | "subdir" | "userprogs" => {
                    self.unclear.insert(format!(
                        "{path}:{}: {object} is in a list that says nothing about modules",
                        rule.line
                    ));
                }
                composite => {
                    let mut road = road.clone();
                    if let Condition::Config(config) | Condition::BuiltIn(config) = condition {
                        road.also.insert(config);
                    }
                    let composite_dir = join(dir, split(composite).0);
                    self.object(&composite_dir, split(composite).1, &road, depth + 1);
                }
            }
        }
        known
    }

    /// An object of `dir` is in `obj-`; now what decides whether `dir` is entered.
    fn folder(&mut self, dir: &str, own: Condition, module: Option<String>, road: &Road, depth: usize) {
        let mut also = road.also.clone();
        let parents = self.parents(dir, depth);
        let (config, module) = match own {
            Condition::Config(config) => {
                also.extend(parents.iter().flatten().cloned());
                (Some(config), module)
            }
            Condition::BuiltIn(config) => {
                also.extend(parents.iter().flatten().cloned());
                (Some(config), None)
            }
            // With `obj-y` it goes into the folder's own sum, which is a module of none: always built in once it is entered.
            Condition::Always => {
                let mut above = parents.into_iter().flatten();
                let config = above.next();
                also.extend(above);
                (config, None)
            }
            Condition::Module => (None, module),
        };
        if let Some(config) = &config {
            also.remove(config);
        }
        self.found.insert(Built { config, also, module });
    }

    /// The CONFIGs under which a folder is entered, the nearest first; `None` stands for one that could not be found.
    fn parents(&mut self, dir: &str, depth: usize) -> Vec<Option<ConfigName>> {
        let mut configs = Vec::new();
        let mut child = dir;
        for _ in depth..MAX_DEPTH {
            if child.is_empty() {
                break;
            }
            let mut above = split(child).0;
            loop {
                let relative = format!("{}/", child[above.len()..].trim_start_matches('/'));
                let entered = self.rules(above).and_then(|(_, rules)| {
                    let rule = rules.iter().find(|rule| {
                        matches!(
                            rule.list.as_str(),
                            "obj" | "core" | "drivers" | "libs" | "net" | "subdir" | "virt"
                        ) && rule.items.contains(&relative)
                    })?;
                    Some(rule.condition.clone())
                });
                match entered {
                    Some(Some(Condition::Config(config) | Condition::BuiltIn(config))) => configs.push(Some(config)),
                    Some(_) => {}
                    // A Makefile higher up may enter it by a longer path.
                    None if !above.is_empty() => {
                        above = split(above).0;
                        continue;
                    }
                    None => {}
                }
                break;
            }
            child = above;
        }
        configs
    }

    fn rules(&mut self, dir: &str) -> Option<(String, Vec<Rule>)> {
        // kbuild prefers Kbuild to Makefile; the kernel's root has both, and the architecture's folder too.
        let mut all = Vec::new();
        let mut shown = None;
        for name in ["Kbuild", "Makefile"] {
            let path = join(dir, name);
            let Some(text) = (self.read)(&path) else { continue };
            if text.len() > MAX_MAKEFILE {
                self.unclear
                    .insert(format!("{path} has more than {} KiB", MAX_MAKEFILE >> 10));
                continue;
            }
            all.extend(parse(&text));
            shown.get_or_insert(path);
        }
        shown.map(|path| (path, all))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// `-y`, `-objs`.
    Always,
    /// `obj-m`.
    Module,
    /// `$(CONFIG_X)`.
    Config(ConfigName),
    /// `$(subst m,y,$(CONFIG_X))`: built in even where that is `m`.
    BuiltIn(ConfigName),
}

/// One assignment to a list of objects.
#[derive(Debug)]
struct Rule {
    /// `obj` of `obj-$(CONFIG_X)`, or a composite object's name.
    list: String,
    /// `None`: computed by make.
    condition: Option<Condition>,
    items: Vec<String>,
    line: usize,
}

/// The assignments that add objects or folders. The rest of make is passed over; what stands between `ifeq` and `else` is
/// taken in as if it held, because a path that is built somewhere is an answer.
fn parse(text: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, first)) = lines.next() {
        let mut line = first.to_owned();
        while let Some(rest) = line.strip_suffix('\\') {
            line = rest.to_owned() + " ";
            match lines.next() {
                Some((_, next)) => line += next,
                None => break,
            }
        }
        let line = line.split('#').next().unwrap_or_default();
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let name = name.trim_end_matches(['+', ':', '?']).trim();
        let Some((list, condition)) = list_of(name) else {
            continue;
        };
        let items = value
            .split_whitespace()
            .map(|item| item.trim_start_matches("./").to_owned())
            .collect();
        rules.push(Rule {
            list,
            condition,
            items,
            line: number + 1,
        });
    }
    rules
}

/// `a-$(CONFIG_X)` as the list `a` and its condition; `None` if the name is no list of objects.
fn list_of(name: &str) -> Option<(String, Option<Condition>)> {
    if let Some(open) = name.find("-$(").or_else(|| name.find("-${")) {
        let list = name[..open].to_owned();
        let inner = name[open + 3..].strip_suffix([')', '}'])?;
        let condition = match inner.strip_prefix("subst m,y,$(") {
            Some(inner) => inner
                .strip_suffix(')')
                .and_then(|c| c.parse().ok())
                .map(Condition::BuiltIn),
            None => inner.parse().ok().map(Condition::Config),
        };
        return (!list.contains(char::is_whitespace)).then_some((list, condition));
    }
    if name.contains(char::is_whitespace) {
        return None;
    }
    let (list, kind) = name.rsplit_once('-')?;
    let condition = match kind {
        "y" | "objs" => Condition::Always,
        "m" => Condition::Module,
        _ => return None,
    };
    Some((list.to_owned(), Some(condition)))
}

/// Folder and name; the folder is empty for the kernel's root.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn join(dir: &str, name: &str) -> String {
    match (dir, name) {
        ("", name) => name.to_owned(),
        (dir, "") => dir.to_owned(),
        _ => format!("{dir}/{name}"),
    }
}

#[cfg(test)]
mod tests;
