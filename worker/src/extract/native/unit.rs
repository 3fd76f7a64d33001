//! What one parse tells: declarations by name, macro uses, inclusions; and the file's own text cut into items.
// libclang's constants are named as in C.
#![allow(non_upper_case_globals)]

use std::collections::{HashMap, HashSet};

use clang_sys::*;

use super::files::{FileId, Files};
use super::lexer::{Kind, directive};
use super::libclang::{Cursor, Entry, FileHandle, Next, Place, Storage, Tu};

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

/// A piece of the file's own text, at top level.
pub struct Item {
    pub file: FileId,
    pub start: usize,
    pub end: usize,
    pub what: What,
}

pub enum What {
    /// An inclusion that stays one, as it is to be written.
    Include {
        text: String,
        file: FileId,
    },
    Define {
        name: String,
    },
    Undef {
        name: String,
    },
    Pragma,
    /// Declarations (indexes of [`Unit::decls`]), and the parts of the text to write differently: directives of decided
    /// conditions and branches not taken go away.
    Code {
        decls: Vec<usize>,
        cuts: Vec<Cut>,
    },
}

#[derive(Debug, Clone)]
pub struct Cut {
    pub start: usize,
    pub end: usize,
    pub instead: String,
}

/// How headers that no linux-headers package carries are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Private {
    Slice,
    Include,
}

pub struct Unit<'t> {
    tu: &'t Tu<'t>,
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
    includes: HashMap<(FileId, usize), FileId>,
    entries: HashMap<FileId, Entry>,
    chains: HashMap<FileId, Vec<(FileId, usize)>>,
    code: HashMap<FileId, Vec<(usize, usize, usize)>>,
    private: Private,
}

impl<'t> Unit<'t> {
    /// Reads the parse once and cuts the own text into items.
    pub fn new(tu: &'t Tu<'t>, mut files: Files, file: &str, private: Private) -> Option<Self> {
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
        let mut unit = Self {
            tu,
            files,
            main: main?,
            decls: Vec::new(),
            by_name: HashMap::new(),
            uses: HashMap::new(),
            items: Vec::new(),
            own: HashSet::new(),
            includes: HashMap::new(),
            entries: HashMap::new(),
            chains,
            code: HashMap::new(),
            private,
        };
        unit.collect();
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
                let name = if named || !self.files.get(file).public {
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

    /// True if `file`'s items are ours to slice.
    fn slices(&self, file: FileId) -> bool {
        !self.files.get(file).public && (self.private == Private::Slice || file == self.main)
    }

    /// The ranges of `file` that its first reading skipped.
    fn skipped(&self, file: FileId) -> Vec<(usize, usize)> {
        let all = self.tu.skipped(self.files.get(file).handle);
        let first = self
            .entries
            .get(&file)
            .copied()
            .or_else(|| all.iter().map(|r| r.0).min());
        let source = self.files.get(file);
        // libclang's ranges start and end somewhere in a directive; ours run from the start of one to the start of the other.
        let tokens = source.tokens();
        let bound = |at: usize| {
            let after = tokens.partition_point(|t| t.start <= at);
            let inside = after
                .checked_sub(1)
                .map(|i| tokens[i])
                .filter(|t| t.kind == Kind::Directive && at <= t.end);
            inside.map_or(at, |t| t.start)
        };
        all.into_iter()
            .filter(|r| Some(r.0) == first)
            .map(|(_, a, b)| (bound(a as usize), bound(b as usize)))
            .collect()
    }

    /// The parts of [start, end) in any file to write differently, so that only what was compiled remains.
    pub fn cuts(&self, file: FileId, start: usize, end: usize) -> Vec<Cut> {
        self.cuts_at(file, start, end, 0)
    }

    /// A whole file with its cuts made.
    fn text_of(&self, file: FileId, depth: usize) -> String {
        let text = self.files.get(file).text();
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for cut in self.cuts_at(file, 0, text.len(), depth) {
            out.push_str(&text[done..cut.start]);
            out.push_str(&cut.instead);
            done = cut.end;
        }
        out.push_str(&text[done..]);
        out
    }

    fn cuts_at(&self, file: FileId, start: usize, end: usize, depth: usize) -> Vec<Cut> {
        let skipped = self.skipped(file);
        let source = self.files.get(file);
        let text = source.text();
        let mut cuts: Vec<Cut> = Vec::new();
        for t in source
            .tokens()
            .iter()
            .filter(|t| t.kind == Kind::Directive && t.start >= start && t.end <= end)
        {
            let (word, _) = directive(t.text(text));
            let inactive = skipped.iter().any(|(a, b)| *a <= t.start && t.start < *b);
            if inactive {
                continue;
            }
            let kept = matches!(word, "define" | "undef" | "pragma" | "include");
            if !kept {
                // A taken `#if` goes; an untaken one starts a skipped range that reaches to its `#else` or `#endif`.
                cuts.push(Cut {
                    start: t.start,
                    end: t.end,
                    instead: String::new(),
                });
            } else if word == "include"
                && let Some(included) = self.includes.get(&(file, t.start))
            {
                // A list included inside a declaration becomes part of its text.
                let instead = if self.slices(*included) && depth < 4 {
                    self.text_of(*included, depth + 1)
                } else {
                    format!("#include {}", self.written_include(*included))
                };
                cuts.push(Cut {
                    start: t.start,
                    end: t.end,
                    instead,
                });
            }
        }
        cuts.extend(
            skipped
                .into_iter()
                .filter(|(a, b)| *a >= start && *b <= end)
                .map(|(a, b)| Cut {
                    start: a,
                    end: b,
                    instead: String::new(),
                }),
        );
        cuts.sort_by_key(|c| (c.start, c.end));
        merge_cuts(cuts, text)
    }

    fn written_include(&self, file: FileId) -> String {
        let source = self.files.get(file);
        source.include_name().unwrap_or_else(|| format!("\"{}\"", source.label))
    }

    /// Cuts a file's text into items, going into the private headers it includes.
    fn scan(&mut self, file: FileId) {
        self.own.insert(file);
        let ranges = self.code_ranges(file);
        let skipped = self.skipped(file);
        let tokens = self.files.get(file).tokens().to_vec();
        let text = self.files.get(file).text().to_owned();
        let mut ranges = ranges.into_iter().peekable();
        let mut tokens = tokens.into_iter().filter(|t| t.kind == Kind::Directive).peekable();
        loop {
            // Directives in front of the next code range stand alone; those inside belong to it.
            let code_start = ranges.peek().map_or(usize::MAX, |r| r.0);
            match tokens.peek().copied() {
                Some(t) if t.start < code_start => {
                    tokens.next();
                    if !skipped.iter().any(|(a, b)| *a <= t.start && t.start < *b) {
                        self.scan_directive(file, t.start, t.end, &text);
                    }
                }
                _ => {
                    let Some((start, end, decls)) = ranges.next() else {
                        break;
                    };
                    let mut inner = Vec::new();
                    while let Some(t) = tokens.next_if(|t| t.start < end) {
                        if !skipped.iter().any(|(a, b)| *a <= t.start && t.start < *b) {
                            inner.push(t);
                        }
                    }
                    let mut cuts = self.cuts(file, start, end);
                    // Macros defined inside a structure are used outside it, so they become items of their own; a body that
                    // also undefines them keeps them where they are.
                    if !inner.iter().any(|t| directive(t.text(&text)).0 == "undef") {
                        for t in inner.iter().filter(|t| directive(t.text(&text)).0 == "define") {
                            self.scan_directive(file, t.start, t.end, &text);
                            cuts.push(Cut {
                                start: t.start,
                                end: t.end,
                                instead: String::new(),
                            });
                        }
                        cuts.sort_by_key(|c| (c.start, c.end));
                        cuts = merge_cuts(cuts, &text);
                    }
                    self.items.push(Item {
                        file,
                        start,
                        end,
                        what: What::Code { decls, cuts },
                    });
                }
            }
        }
    }

    fn scan_directive(&mut self, file: FileId, start: usize, end: usize, text: &str) {
        let whole = &text[start..end];
        let (word, after) = directive(whole);
        let name = || {
            super::lexer::identifiers(&whole[after.min(whole.len())..])
                .first()
                .map(|n| (*n).to_owned())
        };
        let what = match word {
            "define" => name().map(|name| What::Define { name }),
            "undef" => name().map(|name| What::Undef { name }),
            "pragma" => (!whole.contains("once")).then_some(What::Pragma),
            "include" => {
                let Some(included) = self.includes.get(&(file, start)).copied() else {
                    return;
                };
                if self.slices(included) {
                    if !self.own.contains(&included) {
                        self.scan(included);
                    }
                    return;
                }
                // As it was written if that doesn't depend on where it stands.
                let written = whole[after.min(whole.len())..].trim();
                let written = written
                    .split_once('>')
                    .filter(|_| written.starts_with('<'))
                    .map(|(name, _)| format!("{name}>"));
                Some(What::Include {
                    text: written.unwrap_or_else(|| self.written_include(included)),
                    file: included,
                })
            }
            _ => None,
        };
        if let Some(what) = what {
            self.items.push(Item { file, start, end, what });
        }
    }

    /// The text ranges of `file` that hold declarations: (start, end, declarations).
    fn code_ranges(&self, file: FileId) -> Vec<(usize, usize, Vec<usize>)> {
        let first = self.entries.get(&file).copied();
        let mut found: Vec<(usize, usize, usize)> = self
            .decls
            .iter()
            .enumerate()
            .filter(|(_, d)| d.file == file && d.cursor.entry().is_none_or(|e| Some(e) == first))
            .map(|(i, d)| (d.start, d.end, i))
            .collect();
        found.sort_by_key(|r| (r.0, r.2));
        let mut merged: Vec<(usize, usize, Vec<usize>)> = Vec::new();
        for (start, end, decl) in found {
            match merged.last_mut() {
                Some(last) if start < last.1 => {
                    last.1 = last.1.max(end);
                    last.2.push(decl);
                }
                _ => merged.push((start, end, vec![decl])),
            }
        }
        self.complete(file, &mut merged);
        merged
    }

    /// Extends each range over the tokens that belong to it: leading attributes, trailing ones and the semicolon.
    fn complete(&self, file: FileId, ranges: &mut [(usize, usize, Vec<usize>)]) {
        let source = self.files.get(file);
        let (text, tokens) = (source.text(), source.tokens());
        let skipped = self.skipped(file);
        let active = |at: usize| !skipped.iter().any(|(a, b)| *a <= at && at < *b);
        for i in 0..ranges.len() {
            let next_start = ranges.get(i + 1).map_or(text.len(), |r| r.0);
            let body = ranges[i].2.last().is_some_and(|d| {
                self.decls[*d].is_function() && self.decls[*d].definition && !self.decls[*d].from_macro
            });
            let after = tokens.partition_point(|t| t.start < ranges[i].1);
            let tail = tokens[after..]
                .iter()
                .take_while(|t| t.start < next_start)
                .filter(|t| active(t.start));
            for (n, t) in tail.enumerate() {
                if t.text(text) == ";" && t.kind == Kind::Punct {
                    if !body || n == 0 {
                        ranges[i].1 = t.end;
                    }
                    break;
                }
                if body || t.kind == Kind::Directive || t.text(text) == "{" {
                    break;
                }
            }
            let floor = if i == 0 { 0 } else { ranges[i - 1].1 };
            let mut start = ranges[i].0;
            let before = tokens.partition_point(|t| t.start < start);
            for t in tokens[..before]
                .iter()
                .rev()
                .take_while(|t| t.start >= floor)
                .filter(|t| active(t.start))
            {
                if t.kind == Kind::Directive || t.text(text) == ";" || t.text(text) == "}" {
                    break;
                }
                start = t.start;
            }
            ranges[i].0 = start;
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
                What::Code { decls, .. } => {
                    let named = decls
                        .iter()
                        .map(|d| &self.decls[*d])
                        .filter(|d| super::plan::is_type_kind(d.kind) && !d.name.is_empty() && !d.name.contains(' '));
                    types.extend(named.map(|d| d.name.as_str()));
                }
                What::Include { file, .. } if !types.is_empty() => {
                    for inner in self.brought_by(item.file, item.start, item.end, *file) {
                        let source = self.files.get(inner);
                        if done.insert(inner)
                            && super::lexer::identifiers(source.text())
                                .into_iter()
                                .any(|n| types.contains(n))
                        {
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

    /// The definition of a function or variable, wherever it is.
    pub fn definition(&self, name: &str) -> Option<&Decl<'t>> {
        self.declarations(name).find(|d| d.definition)
    }

    pub fn declarations(&self, name: &str) -> impl Iterator<Item = &Decl<'t>> {
        self.by_name.get(name).into_iter().flatten().map(|i| &self.decls[*i])
    }

    /// True if a header that stays included declares the name.
    pub fn declared_outside(&self, name: &str) -> bool {
        self.declarations(name).any(|d| !self.own.contains(&d.file))
    }
}

/// Joins overlapping cuts and lets those that empty a line take the line's end with them.
fn merge_cuts(cuts: Vec<Cut>, text: &str) -> Vec<Cut> {
    let mut out: Vec<Cut> = Vec::new();
    for mut cut in cuts {
        if cut.instead.is_empty() {
            let line = text[..cut.start].rfind('\n').map_or(0, |n| n + 1);
            if text[line..cut.start].trim().is_empty() && text[cut.end..].starts_with('\n') {
                cut.start = line;
                cut.end += 1;
            }
        }
        match out.last_mut() {
            Some(last) if cut.start < last.end => last.end = last.end.max(cut.end),
            _ => out.push(cut),
        }
    }
    out
}
