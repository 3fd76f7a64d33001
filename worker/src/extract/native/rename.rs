//! Renaming: where a name is written, or what must be expanded to reach it; and what else must change in the text for it.

use std::collections::BTreeSet;

use super::closure::{Pending, Planner};
use super::fate::Fate;
use super::files::FileId;
use super::items::What;
use super::plan::{Context, Edit};
use super::refs::{LocalStatic, Ref, To};

impl Planner<'_, '_> {
    /// The own files' declarations whose names are written there: each with its item, its file, and the name's place.
    fn written_names(&self, name: &str) -> Vec<(usize, usize, FileId, usize)> {
        let all = self.unit.by_name.get(name).into_iter().flatten().copied();
        all.filter_map(|i| {
            let d = &self.unit.decls[i];
            if !self.unit.own.contains(&d.file) || d.from_macro {
                return None;
            }
            let at = d.cursor.spelled_at()?.offset as usize;
            Some((i, self.unit.item_at(d.file, at)?, d.file, at))
        })
        .collect()
    }

    /// Renames a function or variable where it is defined and declared.
    pub(super) fn name_edits(&mut self, name: &str, definition: usize, prefix: &str) {
        for (decl, item, file, at) in self.written_names(name) {
            self.plan.edits.insert(
                (file, at),
                Edit {
                    len: name.len(),
                    text: format!("{prefix}{name}"),
                },
            );
            if decl != definition {
                self.keep_item(item, None);
            }
        }
    }

    /// Takes away what hides a patched function.
    pub(super) fn expose(&mut self, function: &str) {
        for (i, item, file, at) in self.written_names(function) {
            let start = self.unit.items[item].start;
            let source = self.unit.files.get(file);
            let text = source.text();
            let drop: Vec<(usize, usize)> = source
                .tokens()
                .iter()
                .filter(|t| t.start >= start && t.end <= at)
                .filter(|t| {
                    matches!(
                        t.text(text),
                        "static"
                            | "inline"
                            | "__inline"
                            | "__inline__"
                            | "__always_inline"
                            | "__init"
                            | "__exit"
                            | "__meminit"
                            | "__cpuinit"
                            | "__net_init"
                            | "__net_exit"
                    )
                })
                .map(|t| {
                    let blank = text[t.end..].starts_with(' ') as usize;
                    (t.start, t.end - t.start + blank)
                })
                .collect();
            if drop.iter().all(|(start, _)| !text[*start..].starts_with("static")) && self.unit.decls[i].is_static() {
                // A macro such as STATIC hides it.
                let uses: Vec<(usize, usize)> = source
                    .tokens()
                    .iter()
                    .filter(|t| t.start >= start && t.end <= at)
                    .filter_map(|t| self.unit.uses.get(&(file, t.start)).map(|end| (t.start, *end)))
                    .collect();
                for (start, end) in uses {
                    self.plan.heads.insert((file, start));
                    self.plan
                        .hidden
                        .entry(Context::Item(item))
                        .or_default()
                        .insert((start, end));
                }
            }
            for (start, len) in drop {
                self.plan.edits.insert(
                    (file, start),
                    Edit {
                        len,
                        text: String::new(),
                    },
                );
            }
        }
    }

    /// Renames the symbol where `r` refers to it: in place if its name is written in kept text, else by expanding the macro use.
    pub(super) fn rename(&mut self, context: &Context, r: &Ref, name: &str, to: String) {
        self.plan.renames.insert(name.to_owned(), to.clone());
        if let Some((file, offset)) = r.spelled
            && self.in_text(context, file, offset)
            && self.unit.files.get(file).text()[offset..].starts_with(name)
        {
            self.plan.edits.insert(
                (file, offset),
                Edit {
                    len: name.len(),
                    text: to,
                },
            );
            return;
        }
        let Some((file, offset)) = r.at else { return };
        let Some(end) = self.unit.uses.get(&(file, offset)).copied() else {
            return;
        };
        if !self.in_context(context, file, offset) {
            return;
        }
        if let Context::Item(item) = context
            && let What::Code { decls, .. } = &self.unit.items[*item].what
            && decls.iter().any(|d| {
                self.unit.decls[*d].from_macro
                    && self.unit.decls[*d].start <= offset
                    && offset < self.unit.decls[*d].end
                    && self.unit.decls[*d]
                        .cursor
                        .expanded_at()
                        .is_some_and(|p| p.offset as usize == offset)
            })
        {
            self.plan.whole.insert(context.clone());
            return;
        }
        self.plan
            .hidden
            .entry(context.clone())
            .or_default()
            .insert((offset, end));
    }

    /// True if the place is in text that will be written: the context's own, or an own macro's definition.
    pub(super) fn in_text(&self, context: &Context, file: FileId, offset: usize) -> bool {
        let inside = self.in_context(context, file, offset);
        inside
            || (self.unit.own.contains(&file)
                && self.unit.items.iter().any(|i| {
                    i.file == file && matches!(i.what, What::Define { .. }) && i.start <= offset && offset < i.end
                }))
    }

    pub(super) fn in_context(&self, context: &Context, file: FileId, offset: usize) -> bool {
        match context {
            Context::Item(i) => {
                let item = &self.unit.items[*i];
                item.file == file && item.start <= offset && offset < item.end
            }
            Context::Header(name) => self.plan.headers.get(name).is_some_and(|h| {
                let d = &self.unit.decls[h.decl];
                d.file == file && d.start <= offset && offset < d.end
            }),
        }
    }

    /// A static variable can't be initialised with what is only known at run time.
    pub(super) fn unstatic(&mut self, _context: &Context, r: &Ref, name: &str) {
        let Some((file, offset)) = r.in_static else { return };
        let source = self.unit.files.get(file);
        let (text, tokens) = (source.text(), source.tokens());
        // The declaration's extent may begin at the type; its storage class is then in front of it.
        let at = tokens.partition_point(|t| t.start <= offset);
        let mut depth = 0;
        let mut before = tokens[..at].iter().rev().take_while(|t| match t.text(text) {
            "}" => {
                depth += 1;
                true
            }
            "{" => {
                depth -= 1;
                depth >= 0
            }
            ";" => depth > 0,
            _ => true,
        });
        let storage = before.find(|t| t.text(text) == "static");
        if let Some(t) = storage.copied() {
            let blank = usize::from(text[t.end..].starts_with(' '));
            self.plan.warnings.push(format!(
                "{}:{}: a static variable initialised with {name} is made automatic; its address must not outlive the call",
                source.label,
                source.line(offset)
            ));
            self.plan.edits.insert(
                (file, t.start),
                Edit {
                    len: t.end - t.start + blank,
                    text: String::new(),
                },
            );
        }
    }

    /// A static variable inside a function stays the kernel's own where its symbol is sure, else it is copied with a warning.
    /// A constant may be copied, unless its initialiser holds what is known at run time only. True if it is the kernel's.
    pub(super) fn local_static(&mut self, context: &Context, decl: usize, local: &LocalStatic, refs: &[Ref]) -> bool {
        if local.constant {
            let inside = refs
                .iter()
                .filter(|r| r.in_static.is_some() && r.in_static == local.extent);
            let names: Vec<&String> = inside
                .filter_map(|r| if let To::Symbol(n) = &r.to { Some(n) } else { None })
                .collect();
            if !names
                .into_iter()
                .any(|n| matches!(self.fates.of(self.unit, n), Fate::External(_)))
            {
                return false;
            }
        }
        let function = self.unit.decls[decl].name.clone();
        let uses: Vec<(FileId, usize)> = refs
            .iter()
            .filter(|r| r.to == To::Local(local.at.0, local.at.1))
            .filter_map(|r| {
                r.spelled.filter(|(file, at)| {
                    self.in_context(context, *file, *at)
                        && self.unit.files.get(*file).text()[*at..].starts_with(&local.name)
                })
            })
            .collect();
        let all_seen = refs
            .iter()
            .filter(|r| r.to == To::Local(local.at.0, local.at.1))
            .count()
            == uses.len();
        let symbol = self.only_variant(&local.name);
        let statement = super::tokens::statement(self.unit.files.get(local.at.0), local.at.1);
        let (Some(symbol), Some(pointer), Some((start, end)), true) = (
            symbol,
            &local.pointer,
            statement,
            all_seen && !self.plan.whole.contains(context),
        ) else {
            if local.constant {
                return false;
            }
            let file = self.unit.files.get(local.at.0);
            self.plan.warnings.push(format!(
                "{}:{}: {function}'s static variable {} is copied: the livepatch starts with a fresh one",
                file.label,
                file.line(local.at.1),
                local.name
            ));
            return false;
        };
        let variable = format!("klpe_{function}_{}", local.name);
        self.plan.edits.insert(
            (local.at.0, start),
            Edit {
                len: end - start,
                text: String::new(),
            },
        );
        for (file, at) in uses {
            self.plan.edits.insert(
                (file, at),
                Edit {
                    len: local.name.len(),
                    text: format!("(*{variable})"),
                },
            );
        }
        for t in &local.types {
            self.reference(context, t);
        }
        self.used(&symbol, context);
        self.pending.insert(
            symbol.clone(),
            Pending::Local {
                pointer: pointer.replace('@', &variable),
                variable,
            },
        );
        true
    }

    /// The one symbol the compiler made of a function's static variable: `NAME.NUMBER`.
    pub(super) fn only_variant(&self, name: &str) -> Option<String> {
        let symbols = self.fates.symbols();
        let all = symbols.variants(&BTreeSet::from([name.to_owned()]));
        let mut numbered = all
            .into_iter()
            .filter(|s| s[name.len() + 1..].bytes().all(|b| b.is_ascii_digit()));
        let only = numbered.next()?;
        (numbered.next().is_none() && symbols.occurrences(&only) == 1 && !symbols.in_object(name)).then_some(only)
    }
}
