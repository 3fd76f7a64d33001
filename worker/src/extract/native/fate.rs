//! Decides what becomes of each function and variable the livepatch refers to.

use std::collections::HashMap;
use std::rc::Rc;

use super::lexer::identifiers;
use super::libclang::Storage;
use super::refs::{Refs, To, is_constant, refs_of};
use super::unit::Unit;
use crate::extract::{Request, Symbols, external};

/// What becomes of a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Used as it is: exported, or a header gives it whole.
    AsIs,
    /// Its definition is copied under its own name.
    Copy,
    /// As [`Self::Copy`], under `klpr_`: the kernel's headers, from which the fix takes it, still define it.
    Renamed,
    /// It is one of the functions to patch: `klpp_`.
    Patched,
    /// Reached through a `klpe_` pointer; the object that holds it.
    External(String),
    /// A header's inline function that reaches an external symbol, or that the fix changes (so with a header's variable): copied
    /// under `klpr_`.
    Inline,
    /// A tracepoint's call or test, generated under `klpr_`; the tracepoint's name.
    Trace(String),
    /// A static call's trampoline whose key is external; the key's symbol and its object.
    StaticCall(String, String),
}

/// Decides fates, each once.
pub struct Fates<'a> {
    request: &'a Request,
    symbols: &'a dyn Symbols,
    known: HashMap<String, Fate>,
    /// Header inline functions and whether they must be rewritten; None while being decided.
    inlines: HashMap<String, Option<bool>>,
    refs: HashMap<usize, Rc<Refs>>,
}

impl<'a> Fates<'a> {
    pub fn new(request: &'a Request, symbols: &'a dyn Symbols) -> Self {
        Self {
            request,
            symbols,
            known: HashMap::new(),
            inlines: HashMap::new(),
            refs: HashMap::new(),
        }
    }

    /// The references of a declaration, read once.
    pub fn refs(&mut self, unit: &mut Unit<'_>, decl: usize) -> Rc<Refs> {
        if let Some(found) = self.refs.get(&decl) {
            return Rc::clone(found);
        }
        let cursor = unit.decls[decl].cursor;
        let refs = Rc::new(refs_of(unit, cursor));
        self.refs.insert(decl, Rc::clone(&refs));
        refs
    }

    /// The functions and variables found to be copied.
    pub fn copied(&self) -> impl Iterator<Item = String> {
        self.known
            .iter()
            .filter(|(_, f)| **f == Fate::Copy)
            .map(|(n, _)| n.clone())
    }

    pub fn symbols(&self) -> &'a dyn Symbols {
        self.symbols
    }

    pub fn of(&mut self, unit: &mut Unit<'_>, name: &str) -> Fate {
        if let Some(fate) = self.known.get(name) {
            return fate.clone();
        }
        let fate = match self.decide(unit, name) {
            Fate::External(object) if self.avoids(name) => {
                // Until it is known better, for whoever refers to itself by way of others.
                self.known.insert(name.to_owned(), Fate::External(object.clone()));
                match self.can_be_copied(unit, name) {
                    true => Fate::Copy,
                    false => Fate::External(object),
                }
            }
            fate => fate,
        };
        self.known.insert(name.to_owned(), fate.clone());
        fate
    }

    fn avoids(&self, name: &str) -> bool {
        self.request.avoid.iter().any(|avoided| avoided == name)
    }

    /// Whether a copy can stand for what the kernel has: the file or a private header defines it, and it is a function, or has
    /// a value that never changes and needs no address that is only known at run time.
    fn can_be_copied(&mut self, unit: &mut Unit<'_>, name: &str) -> bool {
        let definition = unit.definition_index(name);
        let Some(decl) = definition.filter(|i| unit.own.contains(&unit.decls[*i].file)) else {
            return false;
        };
        if unit.decls[decl].is_function() {
            return true;
        }
        let refs = self.refs(unit, decl);
        is_constant(unit.decls[decl].cursor.ty())
            && refs.all.iter().all(|r| match &r.to {
                To::Symbol(to) if to != name => matches!(
                    self.of(unit, to),
                    Fate::AsIs | Fate::Copy | Fate::Renamed | Fate::Patched
                ),
                _ => true,
            })
    }

    /// Whether the livepatch may link to a symbol. Not to what the patched module exports: the livepatch must load where that
    /// module is not.
    fn linkable(&self, name: &str) -> bool {
        let export = self.symbols.exported(name);
        export.is_some_and(|e| self.request.object == "vmlinux" || e.module != self.request.object)
    }

    /// The object a symbol that can't be linked to is in, as seen from the patched one.
    fn holder(&self, name: &str) -> Option<String> {
        if self.symbols.in_object(name) {
            return Some(self.request.object.clone());
        }
        (self.request.object != "vmlinux" && self.symbols.in_vmlinux(name)).then(|| "vmlinux".to_owned())
    }

    fn decide(&mut self, unit: &mut Unit<'_>, name: &str) -> Fate {
        if self.request.functions.iter().any(|f| f == name) {
            return Fate::Patched;
        }
        if name.starts_with("__builtin_") {
            return Fate::AsIs;
        }
        let Some(first) = unit.declarations(name).next() else {
            return Fate::AsIs;
        };
        let function = first.is_function();
        let internal = unit.declarations(name).any(|d| d.cursor.storage() == Storage::Static);
        let definition = unit.definition_index(name);
        let own_definition = definition.filter(|i| unit.own.contains(&unit.decls[*i].file));

        if unit.changes.left.contains_key(name) {
            match (own_definition, definition) {
                (Some(_), _) => return Fate::Renamed,
                (None, None) => return Fate::AsIs,
                _ => {}
            }
        }
        if function
            && internal
            && let Some(event) = tracepoint(unit, name)
        {
            let linkable =
                self.linkable(&format!("__tracepoint_{event}")) && self.linkable(&format!("__traceiter_{event}"));
            // An own header's trace functions can't be cut out of the macro that makes them.
            return if linkable && own_definition.is_none() {
                Fate::AsIs
            } else {
                Fate::Trace(event)
            };
        }
        if let Some(call) = name.strip_prefix("__SCT__")
            && !self.linkable(name)
        {
            let key = format!("__SCK__{call}");
            return match self.holder(&key) {
                Some(object) => Fate::StaticCall(key, object),
                None => Fate::AsIs,
            };
        }
        if internal {
            return self.decide_internal(unit, name, function, definition, own_definition);
        }
        if self.linkable(name) {
            return Fate::AsIs;
        }
        if function
            && let Some(i) = definition
            && own_definition.is_none()
            && unit.decls[i].cursor.is_inline()
        {
            return self.header_function(unit, name, i);
        }
        match self.holder(name) {
            Some(object) => Fate::External(object),
            None if own_definition.is_some() => Fate::Copy,
            None => Fate::AsIs,
        }
    }

    fn decide_internal(
        &mut self,
        unit: &mut Unit<'_>,
        name: &str,
        function: bool,
        definition: Option<usize>,
        own: Option<usize>,
    ) -> Fate {
        match (own, definition) {
            (Some(i), _) => {
                let decl = &unit.decls[i];
                // What a header defines (inline functions, constant tables) has a copy in many objects; which of them a name means
                // is not sure, and the compiler may have relied on its value.
                let many = decl.file != unit.main
                    && if function {
                        decl.cursor.is_inline()
                    } else {
                        is_constant(decl.cursor.ty())
                    };
                if !many && self.symbols.in_object(name) {
                    Fate::External(self.request.object.clone())
                } else {
                    Fate::Copy
                }
            }
            (None, Some(i)) if function => self.header_function(unit, name, i),
            (None, Some(_)) if unit.changes.definitions.contains_key(name) => Fate::Inline,
            _ => Fate::AsIs,
        }
    }

    fn header_function(&mut self, unit: &mut Unit<'_>, name: &str, decl: usize) -> Fate {
        if self.rewrite(unit, name, decl) {
            Fate::Inline
        } else {
            Fate::AsIs
        }
    }

    /// True if a header's function reaches, through whatever it calls, a symbol that must be externalized, or is not what the
    /// kernel's own header has.
    fn rewrite(&mut self, unit: &mut Unit<'_>, name: &str, decl: usize) -> bool {
        match self.inlines.get(name) {
            // A cycle back to a function being decided adds nothing to the answer.
            Some(known) => return known.unwrap_or(false),
            None => self.inlines.insert(name.to_owned(), None),
        };
        let refs = self.refs(unit, decl);
        let mut must = is_patched(unit, name, decl);
        for r in &refs.all {
            if let To::Symbol(to) = &r.to
                && to != name
                && matches!(
                    self.of(unit, to),
                    Fate::External(_) | Fate::Inline | Fate::Renamed | Fate::Trace(_) | Fate::StaticCall(..)
                )
            {
                must = true;
                break;
            }
        }
        self.inlines.insert(name.to_owned(), Some(must));
        must
    }
}

/// Whether the fix changes a header's function, or a macro or constant that its text names.
fn is_patched(unit: &Unit<'_>, name: &str, decl: usize) -> bool {
    if unit.changes.headers.is_empty() {
        return false;
    }
    let d = &unit.decls[decl];
    let text = unit.files.get(d.file).text();
    let words = identifiers(text.get(d.start..d.end).unwrap_or_default());
    unit.changes.definitions.contains_key(name) || words.into_iter().any(|word| unit.changes.touches(word))
}

/// Why a symbol to avoid stays externalized.
pub fn not_copied(unit: &Unit<'_>, name: &str, file: &str) -> String {
    let definition = unit.definition_index(name).map(|i| &unit.decls[i]);
    match definition.filter(|d| unit.own.contains(&d.file)) {
        Some(d) => {
            let why = match is_constant(d.cursor.ty()) {
                true => "its value has addresses in it that are only known at run time",
                false => "a copy of a variable has a value of its own",
            };
            format!(
                "{name} was to be copied rather than externalized, but {why}: it stays externalized, and must be found at run \
                 time on every kernel"
            )
        }
        None => external::not_copied(name, file),
    }
}

/// The tracepoint behind `trace_NAME`, `trace_NAME_enabled` or `trace_NAME_rcuidle`.
pub fn tracepoint(unit: &Unit<'_>, function: &str) -> Option<String> {
    let rest = function.strip_prefix("trace_")?;
    let names = [
        rest,
        rest.strip_suffix("_enabled").unwrap_or(rest),
        rest.strip_suffix("_rcuidle").unwrap_or(rest),
    ];
    names
        .into_iter()
        .find(|n| unit.by_name.contains_key(&format!("__tracepoint_{n}")))
        .map(str::to_owned)
}
