//! What one parse tells: declarations by name, macro uses, inclusions; and the file's own text cut into items.
// libclang's constants are named as in C.
#![allow(non_upper_case_globals)]

use std::collections::{BTreeMap, HashMap, HashSet};

use clang_sys::*;

use super::changes::Changes;
use super::files::{FileId, Files};
use super::items::{Item, What};
use super::lexer::identifiers;
use super::libclang::{Cursor, Entry, FileHandle, Next, Place, Storage, Tu};
use super::patched::Patched;

/// A top-level declaration.
pub struct Decl<'t> {
    pub cursor: Cursor<'t>,
    pub kind: CXCursorKind,
    pub name: String,
    pub file: FileId,
    pub start: usize,
    pub end: usize,
    pub definition: bool,
    /// True if its name is not written where it stands but comes out of a macro.
    pub from_macro: bool,
}

impl Decl<'_> {
    pub fn is_function(&self) -> bool {
        self.kind == CXCursor_FunctionDecl
    }

    pub fn is_static(&self) -> bool {
        self.cursor.storage() == Storage::Static
    }
}

/// How headers that no linux-headers package carries are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Private {
    Slice,
    Include,
}

pub struct Unit<'t> {
    pub(super) tu: &'t Tu<'t>,
    pub files: Files,
    pub main: FileId,
    pub decls: Vec<Decl<'t>>,
    /// Functions and variables by name, in the order of their declarations.
    pub by_name: HashMap<String, Vec<usize>>,
    /// Outermost macro uses: from (file, start) to end.
    pub uses: HashMap<(FileId, usize), usize>,
    pub items: Vec<Item>,
    /// The own files, in the order they are entered.
    pub own: HashSet<FileId>,
    pub(super) includes: BTreeMap<(FileId, usize), FileId>,
    pub(super) entries: HashMap<FileId, Entry>,
    pub(super) chains: HashMap<FileId, Vec<(FileId, usize)>>,
    pub(super) code: HashMap<FileId, Vec<(usize, usize, usize)>>,
    pub(super) private: Private,
    /// What the fix changes in headers.
    pub changes: &'t Changes,
    pub(super) patched: Patched,
}

impl<'t> Unit<'t> {
    /// Reads the parse once and cuts the own text into items.
    pub fn new(tu: &'t Tu<'t>, mut files: Files, file: &str, private: Private, changes: &'t Changes) -> Option<Self> {
        let mut chains_raw: Vec<(FileHandle, Vec<Place>)> = Vec::new();
        tu.inclusions(|handle, chain| chains_raw.push((handle, chain.to_vec())));
        let mut main = None;
        let mut chains = HashMap::new();
        for (handle, chain) in chains_raw {
            let id = files.id(handle);
            if chain.is_empty() && files.get(id).label == file {
                main = Some(id);
            }
            let chain = chain.iter().map(|p| (files.id(p.file), p.offset as usize)).collect();
            chains.entry(id).or_insert(chain);
        }
        files.make_private(&changes.new_headers);
        let mut unit = Self {
            tu,
            files,
            main: main?,
            decls: Vec::new(),
            by_name: HashMap::new(),
            uses: HashMap::new(),
            items: Vec::new(),
            own: HashSet::new(),
            includes: BTreeMap::new(),
            entries: HashMap::new(),
            chains,
            code: HashMap::new(),
            private,
            changes,
            patched: Patched::default(),
        };
        unit.collect();
        unit.find_patched();
        unit.scan(unit.main);
        unit.index_code();
        Some(unit)
    }

    fn collect(&mut self) {
        let tu = self.tu;
        tu.root().visit(|cursor, _| {
            self.collect_one(cursor);
            Next::Sibling
        });
    }

    fn collect_one(&mut self, cursor: Cursor<'t>) {
        let Some((place, end)) = cursor.extent() else { return };
        let file = self.files.id(place.file);
        let (start, end) = (place.offset as usize, end as usize);
        if let Some(entry) = cursor.entry() {
            let first = self.entries.entry(file).or_insert(entry);
            *first = (*first).min(entry);
        }
        match cursor.kind() {
            CXCursor_MacroDefinition => {}
            CXCursor_MacroExpansion => {
                self.uses.insert((file, start), end);
            }
            CXCursor_InclusionDirective => {
                if let Some(included) = cursor.included() {
                    let id = self.files.id(included);
                    self.includes.insert((file, start), id);
                }
            }
            kind => {
                let spelled = cursor.spelled_at();
                let from_macro = spelled != cursor.expanded_at();
                let named = matches!(kind, CXCursor_FunctionDecl | CXCursor_VarDecl);
                let index = self.decls.len();
                let source = self.files.get(file);
                let name = if named || !source.public || self.changes.headers.contains(&source.label) {
                    cursor.name()
                } else {
                    String::new()
                };
                if named {
                    self.by_name.entry(name.clone()).or_default().push(index);
                }
                // libclang doesn't count a tentative definition (`static int x;`).
                let definition =
                    cursor.is_definition() || (kind == CXCursor_VarDecl && cursor.storage() != Storage::Extern);
                self.decls.push(Decl {
                    cursor,
                    kind,
                    name,
                    file,
                    start,
                    end,
                    definition,
                    from_macro,
                });
            }
        }
    }

    fn index_code(&mut self) {
        for (i, item) in self.items.iter().enumerate() {
            if matches!(item.what, What::Code { .. }) {
                self.code.entry(item.file).or_default().push((item.start, item.end, i));
            }
        }
        for list in self.code.values_mut() {
            list.sort_unstable();
        }
    }

    /// The code item that covers a place, if it is one of the own files'.
    pub fn item_at(&self, file: FileId, offset: usize) -> Option<usize> {
        let list = self.code.get(&file)?;
        let after = list.partition_point(|r| r.0 <= offset);
        let (_, end, item) = *list.get(after.checked_sub(1)?)?;
        (offset < end).then_some(item)
    }

    /// The item behind which everything `file` (a header that is not ours) declares is known.
    pub fn known_after(&self, file: FileId) -> Option<usize> {
        match self.included_by(file) {
            Some(item) => Some(self.patched.behind.get(&item).copied().unwrap_or(item)),
            None => self.patched.lead,
        }
    }

    /// The item that brings in a header that is not ours.
    fn included_by(&self, file: FileId) -> Option<usize> {
        if let Some(i) = self
            .items
            .iter()
            .position(|i| matches!(i.what, What::Include { file: f, .. } if f == file))
        {
            return Some(i);
        }
        let chain = self.chains.get(&file)?;
        let (own_file, offset) = chain.iter().find(|(f, _)| self.own.contains(f))?;
        // The directive's own offset is its `#`; libclang gives the place of the file name.
        self.items.iter().position(|i| {
            i.file == *own_file && matches!(i.what, What::Include { .. }) && i.start <= *offset && *offset <= i.end
        })
    }

    /// Headers that mention own types declared in front of their inclusion: such a header (of tracepoints, mostly) relies on
    /// its includer for them. Each with the item that includes it.
    pub fn dependent_headers(&self) -> Vec<(usize, FileId)> {
        let mut types: HashSet<&str> = HashSet::new();
        let mut found = Vec::new();
        let mut done: HashSet<FileId> = HashSet::new();
        for (i, item) in self.items.iter().enumerate() {
            match &item.what {
                What::Code { decls, .. } if self.own.contains(&item.file) => {
                    let named = decls
                        .iter()
                        .map(|d| &self.decls[*d])
                        .filter(|d| super::plan::is_type_kind(d.kind) && !d.name.is_empty() && !d.name.contains(' '));
                    types.extend(named.map(|d| d.name.as_str()));
                }
                What::Include { file, .. } if !types.is_empty() => {
                    for inner in self.brought_by(item.file, item.start, item.end, *file) {
                        let source = self.files.get(inner);
                        if done.insert(inner) && identifiers(source.text()).into_iter().any(|n| types.contains(n)) {
                            found.push((i, inner));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The headers first read through the include at this place.
    fn brought_by(&self, from: FileId, start: usize, end: usize, file: FileId) -> Vec<FileId> {
        let through = |chain: &Vec<(FileId, usize)>| {
            chain
                .iter()
                .find(|(f, _)| self.own.contains(f))
                .is_some_and(|(f, at)| *f == from && start <= *at && *at <= end)
        };
        let mut all: Vec<FileId> = self
            .chains
            .iter()
            .filter(|(_, chain)| through(chain))
            .map(|(f, _)| *f)
            .collect();
        if !all.contains(&file) {
            return Vec::new();
        }
        all.sort_unstable();
        all
    }

    /// True if what stands at this place can be written into the source: text of the own files, and what the fix adds to headers.
    pub fn is_written(&self, file: FileId, offset: usize) -> bool {
        self.own.contains(&file) || self.item_at(file, offset).is_some()
    }

    /// The function an item defines.
    pub fn function_of(&self, item: usize) -> Option<String> {
        let What::Code { decls, .. } = &self.items.get(item)?.what else {
            return None;
        };
        decls
            .iter()
            .map(|d| &self.decls[*d])
            .find(|d| d.is_function() && d.definition)
            .map(|d| d.name.clone())
    }

    /// Where in [`Unit::decls`] the definition of a function or variable is, if this translation unit has one.
    pub fn definition_index(&self, name: &str) -> Option<usize> {
        self.by_name
            .get(name)?
            .iter()
            .copied()
            .find(|i| self.decls[*i].definition)
    }

    /// The definition of a function or variable, if this translation unit has one.
    pub fn definition(&self, name: &str) -> Option<&Decl<'t>> {
        self.definition_index(name).map(|i| &self.decls[i])
    }

    pub fn declarations(&self, name: &str) -> impl Iterator<Item = &Decl<'t>> {
        self.by_name.get(name).into_iter().flatten().map(|i| &self.decls[*i])
    }

    /// True if a header that stays included declares the name.
    pub fn declared_outside(&self, name: &str) -> bool {
        self.declarations(name).any(|d| !self.is_written(d.file, d.start))
    }
}
