//! The closure of the functions to patch: follows references from item to item until nothing new is needed.
// libclang's constants are named as in C.
#![allow(non_upper_case_globals)]

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use clang_sys::*;

use super::changes;
use super::declare;
use super::fate::{self, Fate, Fates};
use super::items::What;
use super::plan::{Context, Forward, Keep, Plan, Position, is_type_kind};
use super::refs::{Ref, To, refs_of_type};
use super::unit::Unit;
use crate::extract::{Dependency, Error, PatchedFunction, Request, Symbols};

/// Finds the plan; see [`Planner::run`].
pub struct Planner<'p, 't> {
    pub(super) unit: &'p mut Unit<'t>,
    pub(super) fates: Fates<'p>,
    pub(super) request: &'p Request,
    pub(super) plan: Plan,
    pub(super) queue: VecDeque<(Context, usize)>,
    pub(super) queued: HashSet<(Context, usize)>,
    pub(super) first_use: BTreeMap<String, Position>,
    /// Symbols whose pointer, prototype or trace call is to be written once its first use is known.
    pub(super) pending: BTreeMap<String, Pending>,
    /// Functions whose text is to be taken whole from the preprocessor.
    pub(super) expand: BTreeSet<String>,
    /// Warnings of what the fix changes and no livepatch can.
    pub(super) doubts: BTreeSet<String>,
}

pub(super) enum Pending {
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
    /// A function of the source's own that is used in front of its definition; what its name begins with.
    Forward(&'static str),
}

impl<'p, 't> Planner<'p, 't> {
    /// `expand`: as the field.
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
            doubts: BTreeSet::new(),
        }
    }

    pub fn run(mut self) -> Result<Plan, Error> {
        for function in &self.request.functions {
            self.target(function)?;
        }
        self.dependent_headers();
        while let Some((context, decl)) = self.queue.pop_front() {
            self.follow(&context, decl);
        }
        self.write_pending();
        self.doubtful_names();
        self.plan.warnings.extend(std::mem::take(&mut self.doubts));
        // A structure whose definition stays, in front of all uses, needs no forward declaration.
        let keep = &self.plan.keep;
        let unit = &*self.unit;
        self.plan.forwards.retain(|(file, offset), f| {
            unit.item_at(*file, *offset)
                .is_none_or(|i| !keep.contains_key(&i) || f.first < i)
        });
        self.plan.externals.sort();
        for external in &self.plan.externals {
            if self.request.avoid.contains(&external.symbol) {
                let warning = fate::not_copied(unit, &external.symbol, &self.request.file);
                self.plan.warnings.push(warning);
            }
        }
        Ok(self.plan)
    }

    /// Keeps what included headers take from own text in front of them.
    pub(super) fn dependent_headers(&mut self) {
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

    pub(super) fn target(&mut self, function: &str) -> Result<(), Error> {
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
        self.declared_otherwise(function);
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
        self.name_edits(function, decl, "klpp_");
        self.expose(function);
        Ok(())
    }

    /// Names the file defines that look like the one asked for.
    pub(super) fn near(&self, function: &str) -> Vec<String> {
        let bare = |n: &str| n.trim_start_matches('_').to_ascii_lowercase();
        let wanted = bare(function);
        let mut near: Vec<String> = self
            .unit
            .decls
            .iter()
            .filter(|d| d.is_function() && d.definition && self.unit.own.contains(&d.file))
            .filter(|d| {
                let name = bare(&d.name);
                name.contains(&wanted)
                    || (wanted.contains(&name) && name.len() > 4)
                    || strsim::levenshtein(&name, &wanted) <= 2
            })
            .map(|d| d.name.clone())
            .collect();
        near.sort();
        near.dedup();
        near.truncate(5);
        near
    }

    /// Keeps the definition (a declaration) `decl` of `name`.
    pub(super) fn want(&mut self, name: &str, decl: usize) {
        let d = &self.unit.decls[decl];
        let Some(item) = self.unit.item_at(d.file, d.start) else {
            return;
        };
        self.keep_item(item, Some(name));
    }

    pub(super) fn keep_item(&mut self, item: usize, name: Option<&str>) {
        let What::Code { decls, .. } = &self.unit.items[item].what else {
            return;
        };
        let decls = decls.clone();
        if self.is_the_kernels(&decls) {
            return;
        }
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

    pub(super) fn enqueue(&mut self, context: Context, decl: usize) {
        if self.queued.insert((context.clone(), decl)) {
            self.queue.push_back((context, decl));
        }
    }

    pub(super) fn follow(&mut self, context: &Context, decl: usize) {
        let refs = self.fates.refs(self.unit, decl);
        // The initialiser of a variable that stays the kernel's is not written, so what it names is not needed.
        let mut dropped = Vec::new();
        for local in &refs.local_statics {
            if self.local_static(context, decl, local, &refs.all) {
                dropped.push(local.extent);
            }
        }
        for r in &refs.all {
            if r.in_static.is_none() || !dropped.contains(&r.in_static) {
                self.reference(context, r);
            }
        }
    }

    pub(super) fn position(&self, context: &Context) -> Position {
        match context {
            Context::Item(i) => (*i, 1, 0),
            Context::Header(name) => self.plan.headers.get(name).map_or((0, 0, 0), |h| h.position),
        }
    }

    pub(super) fn used(&mut self, name: &str, context: &Context) {
        let position = match self.position(context) {
            (i, 1, _) => (i, 0, 0),
            (i, phase, n) => (i, phase, n.saturating_sub(1)),
        };
        let first = self.first_use.entry(name.to_owned()).or_insert(position);
        *first = (*first).min(position);
    }

    pub(super) fn reference(&mut self, context: &Context, r: &Ref) {
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
            To::Changed(name) => {
                if let Some(spot) = self.unit.changes.layouts.get(name) {
                    self.doubts.insert(changes::another_layout(name, spot));
                }
            }
        }
    }

    /// Notes that the kernel knows a function or variable by another declaration.
    fn declared_otherwise(&mut self, name: &str) {
        if let Some(spot) = self.unit.changes.declarations.get(name) {
            self.doubts.insert(changes::declared_otherwise(name, spot));
        }
    }

    pub(super) fn symbol(&mut self, context: &Context, r: &Ref, name: &str) {
        self.declared_otherwise(name);
        let fate = self.fates.of(self.unit, name);
        match fate {
            Fate::AsIs => self.as_is(context, name),
            Fate::Copy => self.copy(name),
            Fate::Renamed => {
                self.copy_renamed(context, name);
                self.rename(context, r, name, format!("klpr_{name}"));
            }
            Fate::Patched => {
                if !self
                    .unit
                    .declarations(name)
                    .any(|d| !d.definition && !d.from_macro && self.unit.own.contains(&d.file))
                {
                    self.pending.insert(name.to_owned(), Pending::Forward("klpp_"));
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
    pub(super) fn as_is(&mut self, context: &Context, name: &str) {
        if let Some(export) = self.fates.symbols().exported(name)
            && export.module != "vmlinux"
        {
            self.plan.dependencies.insert(Dependency {
                symbol: name.to_owned(),
                module: export.module.clone(),
                namespace: Some(export.namespace.clone()).filter(|n| !n.is_empty()),
            });
        }
        if let Some(spot) = self.unit.changes.left.get(name)
            && self.unit.definition(name).is_none()
        {
            self.doubts.insert(changes::left_behind(name, spot));
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

    pub(super) fn pointer(&mut self, context: &Context, declared: &str, symbol: &str, object: String) {
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
}
