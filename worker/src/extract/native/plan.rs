//! The closure of the functions to patch: which pieces of text stay, what is renamed in them, what must be expanded.
// libclang's constants are named as in C.
#![allow(non_upper_case_globals)]

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use clang_sys::*;

use super::declare;
use super::fate::{Fate, Fates};
use super::files::FileId;
use super::refs::{LocalStatic, Ref, To, refs_of_type};
use super::unit::{Unit, What};
use crate::extract::{Dependency, Error, Externalized, PatchedFunction, Request, Symbols};

/// Where a piece goes: the item it belongs to, its phase (0 before the item, 1 the item, 2 behind it), its order there.
pub type Position = (usize, u8, usize);

/// How much of an item stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// Its types, not the variables declared along with them.
    Types,
    Whole,
    /// Only these of the functions a macro makes; taken from its expansion.
    Picked(BTreeSet<String>),
}

/// A header's function, copied.
#[derive(Debug, Clone)]
pub struct HeaderCopy {
    pub decl: usize,
    pub position: Position,
}

/// A piece of text in its own right.
#[derive(Debug, Clone)]
pub struct Generated {
    pub position: Position,
    pub text: String,
}

/// Who refers: the text a reference is found in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Context {
    Item(usize),
    Header(String),
}

#[derive(Debug, Clone)]
pub struct Edit {
    pub len: usize,
    pub text: String,
}

/// The outcome.
#[derive(Default)]
pub struct Plan {
    pub keep: BTreeMap<usize, Keep>,
    pub headers: BTreeMap<String, HeaderCopy>,
    pub generated: Vec<Generated>,
    pub edits: BTreeMap<(FileId, usize), Edit>,
    /// Macro uses to expand, by the text they are in.
    pub hidden: BTreeMap<Context, BTreeSet<(usize, usize)>>,
    /// Texts to expand whole.
    pub whole: BTreeSet<Context>,
    /// What names become in expanded text.
    pub renames: BTreeMap<String, String>,
    pub externals: Vec<Externalized>,
    pub patched: Vec<PatchedFunction>,
    pub dependencies: BTreeSet<Dependency>,
    pub warnings: Vec<String>,
    /// Included headers that rely on own text in front of them.
    pub dependent: BTreeSet<FileId>,
    /// Macro uses in front of a patched function's name that may hide `static`.
    pub heads: BTreeSet<(FileId, usize)>,
    /// Forward declarations of structures used by name only.
    pub forwards: BTreeMap<(FileId, usize), Forward>,
}

/// A forward declaration, and the first item that needs it.
#[derive(Debug, Clone)]
pub struct Forward {
    pub text: String,
    pub first: usize,
}

enum Work {
    Decl(Context, usize),
}

pub struct Planner<'p, 't> {
    unit: &'p mut Unit<'t>,
    fates: Fates<'p>,
    request: &'p Request,
    plan: Plan,
    queue: VecDeque<Work>,
    queued: HashSet<(Context, usize)>,
    first_use: BTreeMap<String, Position>,
    /// Symbols whose pointer, prototype or trace call is to be written once its first use is known.
    pending: BTreeMap<String, Pending>,
    expand: BTreeSet<String>,
}

enum Pending {
    Pointer {
        symbol: String,
        object: String,
    },
    /// The pointer to a function's static variable, written out.
    Local {
        pointer: String,
        variable: String,
    },
    Prototype,
    Trace {
        event: String,
        decl: usize,
    },
    /// A patched function that only a header declares.
    Forward,
}

impl<'p, 't> Planner<'p, 't> {
    /// `expand`: functions whose text is to be taken whole from the preprocessor.
    pub fn new(
        unit: &'p mut Unit<'t>,
        request: &'p Request,
        symbols: &'p dyn Symbols,
        expand: &BTreeSet<String>,
    ) -> Self {
        Self {
            unit,
            fates: Fates::new(request, symbols),
            request,
            plan: Plan::default(),
            queue: VecDeque::new(),
            queued: HashSet::new(),
            first_use: BTreeMap::new(),
            pending: BTreeMap::new(),
            expand: expand.clone(),
        }
    }

    pub fn run(mut self) -> Result<Plan, Error> {
        for function in &self.request.functions {
            self.target(function)?;
        }
        self.dependent_headers();
        while let Some(Work::Decl(context, decl)) = self.queue.pop_front() {
            self.follow(&context, decl);
        }
        self.write_pending();
        self.doubtful_names();
        // A structure whose definition stays, in front of all uses, needs no forward declaration.
        let keep = &self.plan.keep;
        let unit = &*self.unit;
        self.plan.forwards.retain(|(file, offset), f| {
            unit.item_at(*file, *offset)
                .is_none_or(|i| !keep.contains_key(&i) || f.first < i)
        });
        self.plan.externals.sort();
        Ok(self.plan)
    }

    /// Keeps what included headers take from own text in front of them.
    fn dependent_headers(&mut self) {
        for (item, file) in self.unit.dependent_headers() {
            self.plan.dependent.insert(file);
            let inside: Vec<usize> = (0..self.unit.decls.len())
                .filter(|i| self.unit.decls[*i].file == file)
                .collect();
            for i in inside {
                let d = &self.unit.decls[i];
                let refs = if d.from_macro {
                    let ty = d.cursor.ty();
                    refs_of_type(self.unit, ty).all
                } else {
                    self.fates.refs(self.unit, i).all.clone()
                };
                for r in refs {
                    match &r.to {
                        To::Symbol(name) if self.unit.declared_outside(name) => {}
                        To::Symbol(name) if self.fates.of(self.unit, name) == Fate::Copy => {
                            self.symbol(&Context::Item(item), &r, name)
                        }
                        To::Symbol(name) => self.as_is(&Context::Item(item), name),
                        _ => self.reference(&Context::Item(item), &r),
                    }
                }
            }
        }
    }

    fn target(&mut self, function: &str) -> Result<(), Error> {
        let found = self.unit.by_name.get(function).and_then(|all| {
            all.iter()
                .copied()
                .find(|i| self.unit.decls[*i].definition && self.unit.decls[*i].is_function())
        });
        let Some(decl) = found.filter(|i| self.unit.own.contains(&self.unit.decls[*i].file)) else {
            return Err(Error::NoFunction {
                file: self.request.file.clone(),
                function: function.to_owned(),
                near_matches: self.near(function),
            });
        };
        let replacement = format!("klpp_{function}");
        let cursor = self.unit.decls[decl].cursor;
        let prototype = declare::prototype(cursor, &replacement)
            .map(|p| format!("{p};"))
            .unwrap_or_default();
        self.plan.patched.push(PatchedFunction {
            function: function.to_owned(),
            replacement,
            prototype,
        });
        self.plan
            .renames
            .insert(function.to_owned(), format!("klpp_{function}"));
        self.want(function, decl);
        self.name_edits(function, decl);
        Ok(())
    }

    /// Names the file defines that look like the one asked for.
    fn near(&self, function: &str) -> Vec<String> {
        let bare = |n: &str| n.trim_start_matches('_').to_ascii_lowercase();
        let wanted = bare(function);
        let mut near: Vec<String> = self
            .unit
            .decls
            .iter()
            .filter(|d| d.is_function() && d.definition && self.unit.own.contains(&d.file))
            .filter(|d| {
                let name = bare(&d.name);
                name.contains(&wanted) || (wanted.contains(&name) && name.len() > 4) || distance(&name, &wanted) <= 2
            })
            .map(|d| d.name.clone())
            .collect();
        near.sort();
        near.dedup();
        near.truncate(5);
        near
    }

    /// Renames a patched function where it is defined and declared, and takes away what hides it.
    fn name_edits(&mut self, function: &str, definition: usize) {
        let all: Vec<usize> = self.unit.by_name.get(function).into_iter().flatten().copied().collect();
        for i in all {
            let d = &self.unit.decls[i];
            if !self.unit.own.contains(&d.file) || d.from_macro {
                continue;
            }
            let (file, cursor) = (d.file, d.cursor);
            let Some(at) = cursor.spelled_at().map(|p| p.offset as usize) else {
                continue;
            };
            let Some(item) = self.unit.item_at(file, at) else {
                continue;
            };
            self.plan.edits.insert(
                (file, at),
                Edit {
                    len: function.len(),
                    text: format!("klpp_{function}"),
                },
            );
            if i != definition {
                self.keep_item(item, None);
            }
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

    /// Keeps the definition (a declaration) `decl` of `name`.
    fn want(&mut self, name: &str, decl: usize) {
        let d = &self.unit.decls[decl];
        let Some(item) = self.unit.item_at(d.file, d.start) else {
            return;
        };
        self.keep_item(item, Some(name));
    }

    fn keep_item(&mut self, item: usize, name: Option<&str>) {
        let What::Code { decls, .. } = &self.unit.items[item].what else {
            return;
        };
        let decls = decls.clone();
        let made: usize = decls
            .iter()
            .filter(|i| {
                self.unit.decls[**i].from_macro
                    && self.unit.decls[**i].definition
                    && matches!(self.unit.decls[**i].kind, CXCursor_FunctionDecl | CXCursor_VarDecl)
            })
            .count();
        let functions = decls
            .iter()
            .any(|i| self.unit.decls[*i].is_function() && self.unit.decls[*i].definition);
        let patched = name.is_some_and(|n| {
            self.request.functions.iter().any(|f| f == n)
                && decls
                    .iter()
                    .any(|i| self.unit.decls[*i].name == n && self.unit.decls[*i].from_macro)
        });
        let before = self.plan.keep.get(&item).cloned();
        let keep = match name {
            Some(n) if (made > 1 && functions) || patched => {
                let mut names = match &before {
                    Some(Keep::Picked(names)) => names.clone(),
                    _ => BTreeSet::new(),
                };
                names.insert(n.to_owned());
                self.plan.whole.insert(Context::Item(item));
                Keep::Picked(names)
            }
            None if before.is_none()
                && decls.iter().any(|i| is_type_kind(self.unit.decls[*i].kind))
                && decls.iter().any(|i| self.unit.decls[*i].kind == CXCursor_VarDecl) =>
            {
                Keep::Types
            }
            None if before.is_some() => return,
            _ => Keep::Whole,
        };
        if before.as_ref() == Some(&keep) {
            return;
        }
        for i in decls {
            let follow = match &keep {
                Keep::Whole => true,
                Keep::Types => is_type_kind(self.unit.decls[i].kind),
                Keep::Picked(names) => names.contains(&self.unit.decls[i].name),
            };
            if follow {
                self.enqueue(Context::Item(item), i);
            }
        }
        if name.is_some_and(|n| self.expand.contains(n)) {
            self.plan.whole.insert(Context::Item(item));
        }
        self.plan.keep.insert(item, keep);
    }

    fn enqueue(&mut self, context: Context, decl: usize) {
        if self.queued.insert((context.clone(), decl)) {
            self.queue.push_back(Work::Decl(context, decl));
        }
    }

    fn follow(&mut self, context: &Context, decl: usize) {
        let refs = self.fates.refs(self.unit, decl);
        for r in &refs.all {
            self.reference(context, r);
        }
        for local in &refs.local_statics {
            self.local_static(context, decl, local, &refs.all);
        }
    }

    /// A static variable inside a function stays the kernel's own where its symbol is sure, else it is copied with a warning.
    fn local_static(&mut self, context: &Context, decl: usize, local: &LocalStatic, refs: &[Ref]) {
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
            let file = self.unit.files.get(local.at.0);
            self.plan.warnings.push(format!(
                "{}:{}: {function}'s static variable {} is copied: the livepatch starts with a fresh one",
                file.label,
                file.line(local.at.1),
                local.name
            ));
            return;
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
    }

    /// The one symbol the compiler made of a function's static variable: `NAME.NUMBER`.
    fn only_variant(&self, name: &str) -> Option<String> {
        let symbols = self.fates.symbols();
        let all = symbols.variants(&BTreeSet::from([name.to_owned()]));
        let mut numbered = all
            .into_iter()
            .filter(|s| s[name.len() + 1..].bytes().all(|b| b.is_ascii_digit()));
        let only = numbered.next()?;
        (numbered.next().is_none() && symbols.occurrences(&only) == 1 && !symbols.in_object(name)).then_some(only)
    }

    fn position(&self, context: &Context) -> Position {
        match context {
            Context::Item(i) => (*i, 1, 0),
            Context::Header(name) => self.plan.headers.get(name).map_or((0, 0, 0), |h| h.position),
        }
    }

    fn used(&mut self, name: &str, context: &Context) {
        let position = match self.position(context) {
            (i, 1, _) => (i, 0, 0),
            (i, phase, n) => (i, phase, n.saturating_sub(1)),
        };
        let first = self.first_use.entry(name.to_owned()).or_insert(position);
        *first = (*first).min(position);
    }

    fn reference(&mut self, context: &Context, r: &Ref) {
        match &r.to {
            To::Place(file, offset) => {
                if let Some(item) = self.unit.item_at(*file, *offset) {
                    self.keep_item(item, None);
                }
            }
            To::Name(file, offset, text) => {
                let first = self.position(context).0;
                let forward = self.plan.forwards.entry((*file, *offset)).or_insert_with(|| Forward {
                    text: text.clone(),
                    first,
                });
                forward.first = forward.first.min(first);
            }
            To::Symbol(name) => self.symbol(context, r, name),
            // Dealt with where its function is followed.
            To::Local(..) => {}
        }
    }

    fn symbol(&mut self, context: &Context, r: &Ref, name: &str) {
        let fate = self.fates.of(self.unit, name);
        match fate {
            Fate::AsIs => self.as_is(context, name),
            Fate::Copy => {
                let all: Vec<usize> = self.unit.by_name.get(name).into_iter().flatten().copied().collect();
                for i in all {
                    let d = &self.unit.decls[i];
                    if self.unit.own.contains(&d.file) && (d.definition || !d.from_macro) {
                        self.want(name, i);
                    }
                }
            }
            Fate::Patched => {
                if !self
                    .unit
                    .declarations(name)
                    .any(|d| !d.definition && !d.from_macro && self.unit.own.contains(&d.file))
                {
                    self.pending.insert(name.to_owned(), Pending::Forward);
                    self.used(name, context);
                }
                self.rename(context, r, name, format!("klpp_{name}"));
            }
            Fate::External(object) => {
                self.used(name, context);
                self.pointer(context, name, name, object);
                self.rename(context, r, name, format!("(*klpe_{name})"));
                self.unstatic(context, r, name);
            }
            Fate::StaticCall(key, object) => {
                let ty = self.unit.declarations(name).next().map(|d| d.cursor.ty());
                if let Some(ty) = ty {
                    let text = format!("(*(typeof({}) *)klpe_{key}->func)", declare::spell(ty));
                    for t in refs_of_type(self.unit, ty).all {
                        self.reference(context, &t);
                    }
                    self.used(&key, context);
                    self.pointer(context, &key, &key, object);
                    self.rename(context, r, name, text);
                }
            }
            Fate::Inline => {
                self.header_copy(name);
                self.rename(context, r, name, format!("klpr_{name}"));
            }
            Fate::Trace(event) => {
                self.trace(name, &event);
                self.rename(context, r, name, format!("klpr_{name}"));
            }
        }
    }

    /// A symbol used as it is still needs a declaration, and a module that exports it.
    fn as_is(&mut self, context: &Context, name: &str) {
        if let Some(export) = self.fates.symbols().exported(name)
            && export.module != "vmlinux"
        {
            self.plan.dependencies.insert(Dependency {
                symbol: name.to_owned(),
                module: export.module.clone(),
                namespace: Some(export.namespace.clone()).filter(|n| !n.is_empty()),
            });
        }
        if self.unit.declared_outside(name) {
            return;
        }
        let plain = self
            .unit
            .by_name
            .get(name)
            .into_iter()
            .flatten()
            .copied()
            .find(|i| !self.unit.decls[*i].definition && !self.unit.decls[*i].from_macro);
        match plain {
            Some(decl) => self.want(name, decl),
            None if self.unit.declarations(name).next().is_some() => {
                self.used(name, context);
                if self.pending.insert(name.to_owned(), Pending::Prototype).is_none() {
                    // Its type is written out, so what that names must be known.
                    let ty = self.unit.declarations(name).next().map(|d| d.cursor.ty());
                    for t in ty.map(|ty| refs_of_type(self.unit, ty).all).into_iter().flatten() {
                        self.reference(context, &t);
                    }
                }
            }
            None => {}
        }
    }

    fn pointer(&mut self, context: &Context, declared: &str, symbol: &str, object: String) {
        if self.pending.contains_key(symbol) {
            return;
        }
        self.pending.insert(
            symbol.to_owned(),
            Pending::Pointer {
                symbol: symbol.to_owned(),
                object,
            },
        );
        if self.unit.declared_outside(declared) {
            return;
        }
        // The pointer's type is written out, so what it names must be known.
        let ty = self.unit.declarations(declared).next().map(|d| d.cursor.ty());
        if let Some(ty) = ty {
            for t in refs_of_type(self.unit, ty).all {
                self.reference(context, &t);
            }
        }
    }

    fn header_copy(&mut self, name: &str) {
        if self.plan.headers.contains_key(name) {
            return;
        }
        let Some(decl) = self
            .unit
            .by_name
            .get(name)
            .and_then(|all| all.iter().copied().find(|i| self.unit.decls[*i].definition))
        else {
            return;
        };
        let d = &self.unit.decls[decl];
        let (file, cursor, from_macro) = (d.file, d.cursor, d.from_macro);
        let position = match self.unit.known_after(file) {
            Some(i) => (i, 2, 2 * decl + 1),
            None => (0, 0, 2 * decl + 1),
        };
        self.plan.headers.insert(name.to_owned(), HeaderCopy { decl, position });
        let context = Context::Header(name.to_owned());
        self.plan.renames.insert(name.to_owned(), format!("klpr_{name}"));
        if from_macro || self.expand.contains(name) {
            self.plan.whole.insert(context.clone());
        } else if let Some(at) = cursor.spelled_at() {
            self.plan.edits.insert(
                (file, at.offset as usize),
                Edit {
                    len: name.len(),
                    text: format!("klpr_{name}"),
                },
            );
        }
        self.enqueue(context, decl);
    }

    fn trace(&mut self, name: &str, event: &str) {
        if self.pending.contains_key(name) {
            return;
        }
        let Some(decl) = self
            .unit
            .by_name
            .get(name)
            .and_then(|all| all.iter().copied().find(|i| self.unit.decls[*i].definition))
        else {
            return;
        };
        let d = &self.unit.decls[decl];
        let (file, start, ty) = (d.file, d.start, d.cursor.ty());
        let own = self
            .unit
            .own
            .contains(&file)
            .then(|| self.unit.item_at(file, start))
            .flatten();
        let position = match own {
            Some(item) => (item, 2, 2 * decl + 1),
            None => self
                .unit
                .known_after(file)
                .map_or((0, 0, 2 * decl + 1), |i| (i, 2, 2 * decl + 1)),
        };
        if self.unit.files.get(file).text()[start..]
            .split('(')
            .next()
            .is_some_and(|w| w.contains("CONDITION"))
        {
            self.plan.warnings.push(format!(
                "{name}: the tracepoint's condition is not tested by the livepatch's copy of the call"
            ));
        }
        self.pending.insert(
            name.to_owned(),
            Pending::Trace {
                event: event.to_owned(),
                decl,
            },
        );
        self.first_use.insert(name.to_owned(), position);
        let before = (position.0, position.1, position.2 - 1);
        let context = own.map_or(Context::Header(name.to_owned()), Context::Item);
        for t in refs_of_type(self.unit, ty).all {
            self.reference(&context, &t);
        }
        let mut wanted = vec![format!("__tracepoint_{event}")];
        if !name.ends_with("_enabled") {
            wanted.push(format!("__traceiter_{event}"));
        }
        for symbol in wanted {
            match self.fates.of(self.unit, &symbol) {
                Fate::External(object) => self.pointer(&context, &symbol, &symbol, object),
                _ => self.as_is(&context, &symbol),
            }
            let first = self.first_use.entry(symbol).or_insert(before);
            *first = (*first).min(before);
        }
    }

    /// Renames the symbol where `r` refers to it: in place if its name is written in kept text, else by expanding the macro use.
    fn rename(&mut self, context: &Context, r: &Ref, name: &str, to: String) {
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
    fn in_text(&self, context: &Context, file: FileId, offset: usize) -> bool {
        let inside = self.in_context(context, file, offset);
        inside
            || (self.unit.own.contains(&file)
                && self.unit.items.iter().any(|i| {
                    i.file == file && matches!(i.what, What::Define { .. }) && i.start <= offset && offset < i.end
                }))
    }

    fn in_context(&self, context: &Context, file: FileId, offset: usize) -> bool {
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
    fn unstatic(&mut self, _context: &Context, r: &Ref, name: &str) {
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
                "{}:{}: a static variable initialised with {name} is made automatic",
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

    /// Warns of names that do not say for sure what they mean.
    fn doubtful_names(&mut self) {
        let symbols = self.fates.symbols();
        for e in self.plan.externals.iter().filter(|e| e.object == self.request.object) {
            let n = symbols.occurrences(&e.symbol);
            if n > 1 {
                self.plan.warnings.push(format!(
                    "{}: {n} symbols of {} have this name; the loader needs the position of the right one",
                    e.symbol, e.object
                ));
            }
        }
        let copied: BTreeSet<String> = self.fates.copied().collect();
        for variant in symbols.variants(&copied) {
            let base = variant.split('.').next().unwrap_or_default();
            self.plan.warnings.push(format!(
                "{base} is copied: the compiler kept it only as {variant}, with another interface"
            ));
        }
    }

    fn write_pending(&mut self) {
        for (name, pending) in std::mem::take(&mut self.pending) {
            let position = self.first_use.get(&name).copied().unwrap_or((0, 0, 0));
            let text = match &pending {
                Pending::Pointer { symbol, object } => {
                    let variable = format!("klpe_{symbol}");
                    self.plan.externals.push(Externalized {
                        symbol: symbol.clone(),
                        object: object.clone(),
                        variable: variable.clone(),
                    });
                    self.pointer_text(symbol, &variable)
                }
                Pending::Local { pointer, variable } => {
                    self.plan.externals.push(Externalized {
                        symbol: name.clone(),
                        object: self.request.object.clone(),
                        variable: variable.clone(),
                    });
                    Some(pointer.clone())
                }
                Pending::Prototype => self
                    .unit
                    .definition(&name)
                    .or_else(|| self.unit.declarations(&name).next())
                    .and_then(|d| {
                        if d.is_function() {
                            declare::prototype(d.cursor, &name)
                        } else {
                            declare::declare(&declare::spell(d.cursor.ty()), &name)
                        }
                        .map(|p| format!("extern {p};"))
                    }),
                Pending::Forward => self
                    .unit
                    .definition(&name)
                    .and_then(|d| declare::prototype(d.cursor, &format!("klpp_{name}")))
                    .map(|p| format!("{p};")),
                Pending::Trace { event, decl } => {
                    let external = |symbol: String| {
                        if self.plan.externals.iter().any(|e| e.symbol == symbol) {
                            format!("(*klpe_{symbol})")
                        } else {
                            symbol
                        }
                    };
                    trace_text(
                        self.unit,
                        *decl,
                        &name,
                        &external(format!("__tracepoint_{event}")),
                        &external(format!("__traceiter_{event}")),
                    )
                }
            };
            match text {
                Some(text) => self.plan.generated.push(Generated { position, text }),
                None => self
                    .plan
                    .warnings
                    .push(format!("{name}: its type can't be written down")),
            }
        }
    }

    fn pointer_text(&self, symbol: &str, variable: &str) -> Option<String> {
        if self.unit.declared_outside(symbol) {
            return Some(format!("static typeof({symbol}) *{variable};"));
        }
        // The definition tells most (an array's length); a declaration will do.
        let d = self
            .unit
            .definition(symbol)
            .or_else(|| self.unit.declarations(symbol).next())?;
        declare::pointer(d.cursor, d.is_function(), variable).or_else(|| {
            let source = self.unit.files.get(d.file);
            let at = d.cursor.spelled_at()?.offset as usize;
            let head = source
                .text()
                .get(d.start..at)?
                .trim()
                .trim_start_matches("static")
                .trim_start()
                .to_owned();
            let rest = source.text().get(at + symbol.len()..d.end)?;
            let dims = rest.split('=').next().unwrap_or("").trim();
            Some(if dims.is_empty() {
                format!("static {head} *{variable};")
            } else {
                format!("static {head} (*{variable}){dims};")
            })
        })
    }
}

pub fn is_type_kind(kind: CXCursorKind) -> bool {
    matches!(
        kind,
        CXCursor_StructDecl | CXCursor_UnionDecl | CXCursor_EnumDecl | CXCursor_TypedefDecl
    )
}

/// A call of a tracepoint the livepatch can't link to: the test its key makes at run time, the call through its iterator.
fn trace_text(unit: &Unit<'_>, decl: usize, name: &str, tracepoint: &str, call: &str) -> Option<String> {
    let d = &unit.decls[decl];
    let head = declare::prototype(d.cursor, &format!("klpr_{name}"))?;
    let key = format!("static_key_enabled(&{tracepoint}.key)");
    if name.ends_with("_enabled") {
        return Some(format!("static inline {head}\n{{\n\treturn {key};\n}}"));
    }
    let mut args = vec!["NULL".to_owned()];
    args.extend(d.cursor.params().into_iter().map(|p| p.name()));
    Some(format!(
        "static inline {head}\n{{\n\tif (unlikely({key})) {{\n\t\tpreempt_disable_notrace();\n\t\t{call}({});\n\t\tpreempt_enable_notrace();\n\t}}\n}}",
        args.join(", ")
    ))
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = row[0];
        row[0] = left;
        for (j, cb) in b.iter().enumerate() {
            let here = (diagonal + usize::from(ca != *cb)).min(left + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = here;
            left = here;
        }
    }
    row[b.len()]
}
