//! Writes the livepatch source from a plan: kept pieces in order, each under a comment that names its place.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::changes;
use super::files::FileId;
use super::items::{Cut, What};
use super::plan::{Context, Keep, Plan, Position};
use super::tokens::{
    BRANCH_HELPER, NOP_HELPER, declared, expose, rename, run_time_keys, split, static_call, without_addressable,
};
use super::unit::Unit;
use crate::extract::Request;

/// One piece of the output.
pub(super) struct Chunk {
    position: Position,
    /// The file and line it is from; none for generated text.
    from: Option<(FileId, usize, usize)>,
    pub(super) text: String,
    /// Set if the text, or part of it, stands between markers.
    marks: Vec<Mark>,
    context: Option<Context>,
}

/// A part of a chunk to be replaced by its expansion.
struct Mark {
    number: usize,
    whole: bool,
    /// It may hide `static`, which must go.
    head: bool,
    raw: String,
}

/// The source before and after expansion.
pub struct Draft<'p, 't> {
    pub(super) unit: &'p Unit<'t>,
    pub(super) plan: &'p Plan,
    pub(super) request: &'p Request,
    pub(super) chunks: Vec<Chunk>,
    pub(super) builtin: bool,
    pub warnings: Vec<String>,
}

/// Macros of patched headers that were given another meaning so far. The headers that follow are the kernel's own, and are to be
/// read as the kernel was: with what the macros meant before.
#[derive(Default)]
struct Replaced(Vec<(String, String)>);

impl Replaced {
    /// Gives a macro its new meaning, and keeps the one before.
    fn define(&mut self, name: &str, text: &str) -> String {
        if !text.starts_with("#undef") {
            return text.to_owned();
        }
        let text = format!("#pragma push_macro(\"{name}\")\n{text}");
        self.0.push((name.to_owned(), text.clone()));
        text
    }

    /// An inclusion, with the meanings before it for as long as it is read.
    fn around(&self, include: &str) -> String {
        let before = self
            .0
            .iter()
            .rev()
            .map(|(name, _)| format!("#pragma pop_macro(\"{name}\")\n"));
        let after = self.0.iter().map(|(_, text)| format!("\n{text}"));
        before.chain([include.to_owned()]).chain(after).collect()
    }
}

/// The finished text, and what its lines are from: (first line, context).
pub struct Output {
    pub source: String,
    pub lines: Vec<(usize, Option<Context>)>,
    pub expanded: Vec<String>,
}

impl<'p, 't> Draft<'p, 't> {
    pub fn new(unit: &'p Unit<'t>, plan: &'p Plan, request: &'p Request, builtin: bool) -> Self {
        let mut draft = Self {
            unit,
            plan,
            request,
            chunks: Vec::new(),
            builtin,
            warnings: Vec::new(),
        };
        draft.collect();
        draft
    }

    fn collect(&mut self) {
        let mut marks = 0;
        let mut first_code = usize::MAX;
        for (item, keep) in &self.plan.keep {
            first_code = first_code.min(*item);
            let chunk = self.item_chunk(*item, keep, &mut marks);
            self.chunks.push(chunk);
        }
        for (name, copy) in &self.plan.headers {
            let d = &self.unit.decls[copy.decl];
            let context = Context::Header(name.clone());
            let cuts = self.unit.cuts(d.file, d.start, d.end);
            let (mut text, found) = self.render(&context, d.file, d.start, d.end, &cuts, &mut marks);
            if !d.is_function() {
                text.push(';');
            }
            self.chunks.push(Chunk {
                position: copy.position,
                from: Some((d.file, d.start, d.end)),
                text,
                marks: found,
                context: Some(context),
            });
        }
        for g in &self.plan.generated {
            self.chunks.push(Chunk {
                position: g.position,
                from: None,
                text: g.text.clone(),
                marks: Vec::new(),
                context: None,
            });
        }
        let first = self
            .chunks
            .iter()
            .map(|c| c.position.0)
            .chain(self.plan.forwards.values().map(|f| f.first))
            .min()
            .unwrap_or(0);
        let forwards: BTreeSet<&String> = self.plan.forwards.values().map(|f| &f.text).collect();
        if !forwards.is_empty() {
            let text = forwards.iter().map(|f| format!("{f};")).collect::<Vec<_>>().join("\n");
            self.chunks.push(Chunk {
                position: (first, 0, 0),
                from: None,
                text,
                marks: Vec::new(),
                context: None,
            });
            // Before anything else at that position.
            let last = self.chunks.len() - 1;
            self.chunks[..=last].rotate_right(1);
        }
        self.directives();
        self.chunks.sort_by_key(|c| c.position);
    }

    fn item_chunk(&self, index: usize, keep: &Keep, marks: &mut usize) -> Chunk {
        let item = &self.unit.items[index];
        let context = Context::Item(index);
        let What::Code { decls, cuts } = &item.what else {
            return Chunk {
                position: (index, 1, 0),
                from: None,
                text: String::new(),
                marks: Vec::new(),
                context: None,
            };
        };
        let (mut start, mut end) = (item.start, item.end);
        let mut tail = "";
        if *keep == Keep::Types {
            // The types' own extent, without the variable declared behind it and its storage class.
            let types = || {
                decls
                    .iter()
                    .map(|d| &self.unit.decls[*d])
                    .filter(|d| d.file == item.file && super::plan::is_type_kind(d.kind))
            };
            start = types().map(|d| d.start).min().unwrap_or(start);
            end = types().map(|d| d.end).max().unwrap_or(end);
            tail = ";";
        }
        let (mut text, found) = self.render(&context, item.file, start, end, cuts, marks);
        text.push_str(tail);
        Chunk {
            position: (index, 1, 0),
            from: Some((item.file, start, end)),
            text,
            marks: found,
            context: Some(context),
        }
    }

    /// The text of a range with cuts and edits applied, and what must be expanded put between markers.
    fn render(
        &self,
        context: &Context,
        file: FileId,
        start: usize,
        end: usize,
        cuts: &[Cut],
        marks: &mut usize,
    ) -> (String, Vec<Mark>) {
        let text = self.unit.files.get(file).text();
        let mut found = Vec::new();
        let mut mark = |raw: &str, whole: bool, head: bool| {
            let number = *marks;
            *marks += 1;
            found.push(Mark {
                number,
                whole,
                head,
                raw: raw.to_owned(),
            });
            format!(" __KLP_B_{number}__ {raw} __KLP_E_{number}__ ")
        };
        let mut changes: Vec<(usize, usize, String)> = cuts
            .iter()
            .filter(|c| c.start >= start && c.end <= end)
            .map(|c| (c.start, c.end, c.instead.clone()))
            .collect();
        if self.plan.whole.contains(context) {
            let raw = apply(text, start, end, changes);
            return (mark(&raw, true, false), found);
        }
        changes.extend(
            self.plan
                .edits
                .range((file, start)..(file, end))
                .map(|((_, at), e)| (*at, at + e.len, e.text.clone())),
        );
        let hidden = self.plan.hidden.get(context);
        for (a, b) in hidden.into_iter().flatten() {
            // What is inside is expanded as it was, and renamed after.
            changes.retain(|(s, e, _)| !(s >= a && e <= b));
            if *a >= start && *b <= end {
                changes.push((
                    *a,
                    *b,
                    mark(&text[*a..*b], false, self.plan.heads.contains(&(file, *a))),
                ));
            }
        }
        (apply(text, start, end, changes), found)
    }

    /// Adds the includes, and the macros that what is kept needs.
    fn directives(&mut self) {
        let needed = self.needed_macros();
        let last = self
            .unit
            .items
            .iter()
            .rposition(|item| matches!(item.what, What::Include { .. }));
        let mut replaced = Replaced::default();
        let mut add = Vec::new();
        for (i, item) in self.unit.items.iter().enumerate() {
            let text = match &item.what {
                What::Include { text, .. } => replaced.around(&format!("#include {text}")),
                What::Define { name } | What::Undef { name } if needed.contains(name.as_str()) => {
                    let changes = self
                        .plan
                        .edits
                        .range((item.file, item.start)..(item.file, item.end))
                        .map(|((_, at), e)| (*at, at + e.len, e.text.clone()))
                        .collect();
                    apply(self.unit.files.get(item.file).text(), item.start, item.end, changes)
                }
                What::Patched { name, text } if needed.contains(name) => {
                    if let Some(constant) = self.unit.changes.constants.get(name) {
                        self.warnings.push(changes::renumbered(name, constant));
                    }
                    match last.is_some_and(|last| i < last) {
                        true => replaced.define(name, text),
                        false => text.clone(),
                    }
                }
                What::Pragma => self.unit.files.get(item.file).text()[item.start..item.end].to_owned(),
                _ => continue,
            };
            let from = (!matches!(item.what, What::Include { .. })).then_some((item.file, item.start, item.end));
            add.push(Chunk {
                position: (i, 1, 0),
                from,
                text,
                marks: Vec::new(),
                context: None,
            });
        }
        self.chunks.extend(add);
    }

    /// True if something must be taken from the preprocessor.
    pub fn needs_expansion(&self) -> bool {
        self.chunks.iter().any(|c| !c.marks.is_empty())
    }

    /// The text with markers, for the preprocessor.
    pub fn probe(&self) -> String {
        self.write(|c| c.text.clone()).source
    }

    /// The finished source; `preprocessed` is what the preprocessor made of [`Self::probe`].
    pub fn finish(&self, preprocessed: &str) -> Output {
        let mut expanded = Vec::new();
        let (mut branch, mut nop) = (false, false);
        let mut texts = Vec::new();
        for chunk in &self.chunks {
            let mut text = chunk.text.clone();
            for mark in &chunk.marks {
                let (begin, end) = (
                    format!("__KLP_B_{}__", mark.number),
                    format!("__KLP_E_{}__", mark.number),
                );
                let inside = between(preprocessed, &begin, &end).unwrap_or(&mark.raw);
                let new = self.expansion(chunk, mark, inside, &mut nop);
                if let Some((file, start, _)) = chunk.from {
                    let source = self.unit.files.get(file);
                    let what = mark.raw.split(['(', ' ', '\n', ';']).next().unwrap_or("");
                    let what = if mark.whole { "the whole piece" } else { what };
                    expanded.push(format!("{}:{} {what}", source.label, source.line(start)));
                }
                let marked = format!(" {begin} {} {end} ", mark.raw);
                text = text.replace(&marked, &new);
            }
            let (text, helper) = if text.contains("klpe_") {
                run_time_keys(&without_addressable(&text))
            } else {
                (text, false)
            };
            branch |= helper;
            texts.push(text);
        }
        let mut texts = texts.into_iter();
        let helpers = [branch.then_some(BRANCH_HELPER), nop.then_some(NOP_HELPER)];
        let mut out = self.write_with(
            |_| texts.next().unwrap_or_default(),
            &helpers.into_iter().flatten().collect::<Vec<_>>(),
        );
        out.expanded = expanded;
        out
    }

    fn expansion(&self, chunk: &Chunk, mark: &Mark, inside: &str, nop: &mut bool) -> String {
        if !mark.whole {
            if let Some(call) = static_call(&mark.raw, &self.plan.renames, nop) {
                return call;
            }
            let text = rename(inside.trim(), &self.plan.renames);
            return if mark.head { expose(&text) } else { text };
        }
        let picked = match &chunk.context {
            Some(Context::Item(i)) => match self.plan.keep.get(i) {
                Some(Keep::Picked(names)) => Some(names.clone()),
                _ => None,
            },
            Some(Context::Header(name)) => Some(BTreeSet::from([name.clone()])),
            None => None,
        };
        let mut parts = Vec::new();
        for part in split(inside) {
            let names = declared(part);
            if picked
                .as_ref()
                .is_some_and(|p| !p.iter().any(|n| names.contains(n.as_str())))
            {
                continue;
            }
            let patched = self.request.functions.iter().any(|f| names.contains(f.as_str()));
            let part = if patched { expose(part) } else { part.to_owned() };
            parts.push(rename(&part, &self.plan.renames));
        }
        parts.join("\n")
    }

    fn write(&self, mut text: impl FnMut(&Chunk) -> String) -> Output {
        self.write_with(&mut text, &[])
    }

    fn write_with(&self, mut text: impl FnMut(&Chunk) -> String, helpers: &[&str]) -> Output {
        let mut out = String::new();
        let mut lines = Vec::new();
        let _ = writeln!(
            out,
            "/*\n * Livepatch source for {}: {}\n * Extracted by klp-farm (native backend).\n */",
            self.request.file,
            self.request.functions.join(", ")
        );
        if self.builtin && self.has_static_calls() {
            out.push_str("#include <linux/static_call_types.h>\n");
        }
        if self.builtin {
            // Headers must show what they show to built-in code.
            out.push_str("#undef MODULE\n");
        }
        if let Some(name) = self.request.command.define("KBUILD_MODNAME") {
            let _ = writeln!(out, "#undef KBUILD_MODNAME\n#define KBUILD_MODNAME {name}");
        }
        let mut last: Option<(FileId, usize)> = None;
        let mut helpers_due = !helpers.is_empty();
        let mut included = true;
        for chunk in &self.chunks {
            let body = text(chunk);
            let body = body.trim_matches('\n');
            if body.trim().is_empty() {
                continue;
            }
            let is_include = body.starts_with("#include ") && chunk.from.is_none();
            if helpers_due
                && !is_include
                && chunk.context.is_some() | chunk.from.is_none()
                && self.includes_before(chunk)
            {
                for h in helpers {
                    let _ = writeln!(out, "\n{h}");
                }
                helpers_due = false;
            }
            if let Some((file, start, end)) = chunk.from {
                let source = self.unit.files.get(file);
                let line = source.line(start);
                if last.is_none_or(|(f, l)| f != file || line > l + 1 || line < l) {
                    let _ = writeln!(out, "\n/* {}:{line} */", source.label);
                }
                last = Some((file, source.line(end)));
            } else {
                if included != is_include {
                    out.push('\n');
                }
                last = None;
            }
            included = is_include;
            lines.push((out.matches('\n').count() + 1, chunk.context.clone()));
            out.push_str(body);
            out.push('\n');
            if body.ends_with('\\') {
                // A macro whose last line is an empty continuation.
                out.push('\n');
            }
        }
        Output {
            source: out,
            lines,
            expanded: Vec::new(),
        }
    }

    /// True if some include stands before the chunk, so that a helper's types are known.
    fn includes_before(&self, chunk: &Chunk) -> bool {
        self.unit
            .items
            .iter()
            .take(chunk.position.0 + usize::from(chunk.position.1 == 2))
            .any(|i| matches!(i.what, What::Include { .. }))
    }

    fn has_static_calls(&self) -> bool {
        self.request.src_dir.join(super::STATIC_CALL_TYPES).is_file()
    }
}

fn apply(text: &str, start: usize, end: usize, mut changes: Vec<(usize, usize, String)>) -> String {
    changes.sort();
    let mut out = String::with_capacity(end - start);
    let mut done = start;
    for (a, b, instead) in changes {
        if a < done || b > end {
            continue;
        }
        out.push_str(&text[done..a]);
        out.push_str(&instead);
        done = b;
    }
    out.push_str(&text[done..end]);
    out
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let a = text.find(begin)? + begin.len();
    let b = a + text[a..].find(end)?;
    Some(&text[a..b])
}
