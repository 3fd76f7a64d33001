//! Surveys the sources of a parse for [`Changes`]: definitions, declarations, layouts, constants and macros by name. The
//! unpatched sources are parsed only if a header, or a type of the file itself, is not as it was.
//!
//! A livepatch is compiled from the patched file and the kernel's own headers. So these are read by the patched file, to
//! know what its source would find in them; only the file's own types are looked for in the file as it was.
// libclang's constants are named as in C.
#![allow(non_upper_case_globals)]

use std::collections::{BTreeMap, BTreeSet};

use clang_sys::*;

use super::changes::{Changes, Found, FoundConstant, FoundType, Spot, Survey};
use super::files::{FileId, Files};
use super::lexer::{self, Kind};
use super::libclang::{Cursor, Entry, Library, Next, Tu, Type};
use super::plan::is_type_kind;
use super::unit::{Decl, Private, Unit};
use crate::extract::{Error, Request};

/// What the fix changes in the headers that the parsed file reads.
///
/// # Errors
/// The unpatched sources can't be parsed.
pub fn changes(library: &Library, request: &Request, tu: &Tu<'_>) -> Result<Changes, Error> {
    let Some(unpatched) = request.as_unpatched() else {
        return Ok(Changes::default());
    };
    let none = Changes::default();
    let Some(after) = unit(tu, request, &none) else {
        // Told where it is sliced.
        return Ok(none);
    };
    let now = after.files.get(after.main).text().to_owned();
    let mut headers = BTreeSet::new();
    let mut new = BTreeSet::new();
    for (id, is_new) in after
        .files
        .differing(&request.src_dir, &request.obj_dir, &unpatched.src_dir)
    {
        let label = &after.files.get(id).label;
        if id != after.main {
            headers.insert(label.clone());
            if is_new {
                new.insert(label.clone());
            }
        }
    }
    let original = std::fs::read(unpatched.src_dir.join(&request.file)).unwrap_or_default();
    let original = lexer::same_length_text(original);
    if headers.is_empty() && types_are_in(&after, &original) {
        return Ok(none);
    }
    let mut survey_before = Survey::default();
    if !headers.is_empty() {
        let tu = super::parse_text(library, &unpatched, Some(&now))?;
        let files = files_of(&unpatched).reading(&request.file, &now);
        let before = Unit::new(&tu, files, &request.file, Private::Slice, &none);
        let before = before.ok_or_else(|| super::not_parsed(&tu, &unpatched))?;
        headers.extend(read_otherwise(&before, &after));
        let types = if now == original { Types::All } else { Types::OfHeaders };
        survey_before = survey(&before, &headers, types);
    }
    let survey_after = survey(&after, &headers, Types::All);
    drop(after);
    if now != original {
        let tu = super::parse(library, &unpatched)?;
        let before = unit(&tu, &unpatched, &none).ok_or_else(|| super::not_parsed(&tu, &unpatched))?;
        for (name, found) in survey(&before, &BTreeSet::new(), Types::OfTheFile).types {
            survey_before.add_type(name, found);
        }
    }
    Ok(Changes::between(survey_before, &survey_after, headers, new))
}

fn files_of(request: &Request) -> Files {
    Files::new(&request.src_dir, &request.obj_dir, &request.command.directory)
}

fn unit<'t>(tu: &'t Tu<'_>, request: &Request, none: &'t Changes) -> Option<Unit<'t>> {
    Unit::new(tu, files_of(request), &request.file, Private::Slice, none)
}

/// The headers of which the preprocessor reads other parts: an unchanged one may ask for a macro that changed.
fn read_otherwise(before: &Unit<'_>, after: &Unit<'_>) -> Vec<String> {
    let mut after = skipped(after);
    let before = skipped(before).into_iter();
    before
        .filter(|(label, was)| after.remove(label).is_some_and(|now| now != *was))
        .map(|(label, _)| label)
        .collect()
}

/// By header, the parts that each of its readings skips.
fn skipped(unit: &Unit<'_>) -> BTreeMap<String, BTreeSet<Vec<(u32, u32)>>> {
    let mut readings: BTreeMap<FileId, BTreeMap<Entry, Vec<(u32, u32)>>> = BTreeMap::new();
    for (handle, entry, start, end) in unit.tu.all_skipped() {
        if let Some(file) = unit.files.known(handle).filter(|file| *file != unit.main) {
            let reading = readings.entry(file).or_default().entry(entry).or_default();
            reading.push((start, end));
        }
    }
    let mut all = BTreeMap::new();
    for (file, source) in unit.files.iter() {
        let mut readings = readings.remove(&file).unwrap_or_default();
        readings.values_mut().for_each(|reading| reading.sort_unstable());
        all.insert(source.label.clone(), readings.into_values().collect());
    }
    all
}

/// Whether a text has all types that the unit's main file has.
fn types_are_in(unit: &Unit<'_>, text: &str) -> bool {
    let known = normalised(text, 0, text.len());
    let own = unit
        .decls
        .iter()
        .filter(|d| d.file == unit.main && is_type_kind(d.kind));
    let source = unit.files.get(unit.main).text();
    own.into_iter()
        .all(|d| known.contains(&normalised(source, d.start, d.end)))
}

/// The tokens of a part of a text, with nothing between them that means nothing.
fn normalised(text: &str, start: usize, end: usize) -> String {
    let part = &text[start.min(text.len())..end.min(text.len())];
    let mut out = String::with_capacity(part.len());
    for token in lexer::tokens(part) {
        if !out.is_empty() {
            out.push(' ');
        }
        let word = token.text(part);
        if token.kind == Kind::Directive && word.len() > 1 {
            out.push('#');
            out.push_str(&normalised(&word[1..], 0, word.len()));
        } else {
            out.push_str(word);
        }
    }
    out
}

/// Whose types count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Types {
    All,
    OfHeaders,
    OfTheFile,
}

fn survey(unit: &Unit<'_>, differing: &BTreeSet<String>, types: Types) -> Survey {
    let mut reader = Reader {
        unit,
        types,
        differing: unit
            .files
            .iter()
            .filter(|(_, f)| differing.contains(&f.label))
            .map(|(id, _)| id)
            .collect(),
        found: Survey::default(),
    };
    for decl in &unit.decls {
        reader.declaration(decl);
    }
    if !reader.differing.is_empty() {
        reader.macros();
        reader.includes();
    }
    reader.found
}

struct Reader<'u, 't> {
    unit: &'u Unit<'t>,
    types: Types,
    differing: BTreeSet<FileId>,
    found: Survey,
}

impl Reader<'_, '_> {
    fn spot(&self, file: FileId, start: usize, end: usize) -> Spot {
        let source = self.unit.files.get(file);
        Spot {
            label: source.label.clone(),
            line: source.line(start),
            start,
            end,
            public: source.public,
        }
    }

    fn declaration(&mut self, decl: &Decl<'_>) {
        match decl.kind {
            CXCursor_StructDecl | CXCursor_UnionDecl | CXCursor_TypedefDecl => self.ty(decl),
            CXCursor_EnumDecl => self.enumeration(decl),
            CXCursor_FunctionDecl | CXCursor_VarDecl if decl.file != self.unit.main => self.symbol(decl),
            _ => {}
        }
    }

    fn symbol(&mut self, decl: &Decl<'_>) {
        let spot = self.spot(decl.file, decl.start, decl.end);
        if decl.definition && self.differing.contains(&decl.file) {
            let text = self.active(decl);
            let new = Found {
                text,
                spot: spot.clone(),
            };
            self.found.definitions.insert(decl.name.clone(), new);
        }
        let text = written(decl.cursor.ty());
        let known = self
            .found
            .declarations
            .entry(decl.name.clone())
            .or_insert_with(|| Found {
                text,
                spot: spot.clone(),
            });
        if spot.public && !known.spot.public {
            known.spot = spot;
        }
    }

    /// A declaration's text, as far as it is compiled.
    fn active(&self, decl: &Decl<'_>) -> String {
        let text = self.unit.files.get(decl.file).text();
        let mut out = String::new();
        let mut done = decl.start;
        for cut in self.unit.cuts(decl.file, decl.start, decl.end) {
            let at = cut.start.clamp(done, decl.end);
            out.push_str(&text[done..at]);
            out.push_str(&cut.instead);
            done = cut.end.clamp(done, decl.end);
        }
        out.push_str(&text[done..decl.end]);
        normalised(&out, 0, out.len())
    }

    fn ty(&mut self, decl: &Decl<'_>) {
        if decl.kind != CXCursor_TypedefDecl && is_nameless(decl.cursor) {
            return;
        }
        let name = decl.cursor.name();
        let (key, layout, whole) = match decl.kind {
            CXCursor_TypedefDecl => (name, Some(alias(decl.cursor)), true),
            kind => {
                let word = if kind == CXCursor_UnionDecl { "union" } else { "struct" };
                let whole = decl.definition;
                (format!("{word} {name}"), whole.then(|| layout(decl.cursor)), whole)
            }
        };
        self.add_type(key, decl, layout, whole);
    }

    fn add_type(&mut self, key: String, decl: &Decl<'_>, layout: Option<String>, whole: bool) {
        let own = decl.file == self.unit.main;
        if self.types == Types::OfHeaders && own || self.types == Types::OfTheFile && !own {
            return;
        }
        let spot = self.spot(decl.file, decl.start, decl.end);
        let values = values(decl.cursor);
        let found = FoundType {
            layout,
            whole,
            values,
            spot,
        };
        self.found.add_type(key, found);
    }

    fn enumeration(&mut self, decl: &Decl<'_>) {
        let tag = (!is_nameless(decl.cursor)).then(|| format!("enum {}", decl.cursor.name()));
        if let Some(tag) = &tag {
            self.add_type(tag.clone(), decl, None, decl.definition);
        }
        if decl.file == self.unit.main {
            return;
        }
        for constant in decl.cursor.children() {
            if constant.kind() != CXCursor_EnumConstantDecl {
                continue;
            }
            // In the enumeration's own file, whichever macro or list it comes from.
            let at = constant.expanded_at().map_or(decl.start, |p| p.offset as usize);
            let at = at.clamp(decl.start, decl.end);
            let new = FoundConstant {
                value: constant.enum_value(),
                spot: self.spot(decl.file, at, at),
                of: tag.clone(),
                of_start: decl.start,
            };
            self.found.constants.insert(constant.name(), new);
        }
    }

    fn macros(&mut self) {
        let mut all = Vec::new();
        self.unit.tu.root().visit(|cursor, _| {
            if cursor.kind() == CXCursor_MacroDefinition
                && let Some((place, end)) = cursor.extent()
                && let Some(file) = self.unit.files.known(place.file)
            {
                all.push((file, place.offset as usize, end as usize));
            }
            Next::Sibling
        });
        for (file, start, end) in all {
            let source = self.unit.files.get(file);
            let Some(text) = source.text().get(start..end) else {
                continue;
            };
            let mut words = lexer::identifiers(text).into_iter();
            let Some(name) = words.next() else { continue };
            let mentions = self.found.mentions.entry(name.to_owned()).or_default();
            mentions.extend(words.filter(|word| *word != name).map(str::to_owned));
            if file != self.unit.main {
                // A parameter list follows at once.
                let parameters = text[name.len()..].starts_with('(');
                let body = normalised(text, name.len(), text.len());
                let text = format!("{name}{}{body}", if parameters { "" } else { " " });
                let new = Found {
                    text,
                    spot: self.spot(file, start, end),
                };
                self.found.macros.entry(name.to_owned()).or_default().push(new);
            }
        }
    }

    fn includes(&mut self) {
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for ((from, _), to) in &self.unit.includes {
            if self.differing.contains(from) {
                let label = |id: FileId| self.unit.files.get(id).label.clone();
                all.entry(label(*from)).or_default().insert(label(*to));
            }
        }
        self.found.includes = all;
    }
}

/// Whether a structure, union or enumeration has no tag; libclang calls it by its first typedef then.
pub(super) fn is_nameless(cursor: Cursor<'_>) -> bool {
    is_anonymous(cursor) || cursor.ty().canonical().spelling() == cursor.name()
}

/// Whether it has no name at all; libclang calls it by its place then.
fn is_anonymous(cursor: Cursor<'_>) -> bool {
    let name = cursor.name();
    name.is_empty() || name.contains(' ') || cursor.is_anonymous()
}

/// What a typedef stands for.
fn alias(cursor: Cursor<'_>) -> String {
    let ty = cursor.underlying().canonical();
    match ty.declaration() {
        // It may give the type its only name.
        Some(decl) if ty.kind() == CXType_Record && is_nameless(decl) => layout(decl),
        _ => written(ty),
    }
}

/// What a type is: how it is written, and the layout of the structure without a name that it comes to.
fn written(ty: Type<'_>) -> String {
    let ty = ty.canonical();
    let mut inner = ty;
    while let Some(next) = inner.pointee().or_else(|| inner.element()) {
        inner = next.canonical();
    }
    match inner.declaration() {
        Some(decl) if inner.kind() == CXType_Record && is_anonymous(decl) => {
            format!("{} {{{}}}", spelling(ty), layout(decl))
        }
        _ => spelling(ty),
    }
}

/// The constants of an enumeration, or of the one that a typedef stands for.
fn values(cursor: Cursor<'_>) -> String {
    let of = match cursor.kind() {
        CXCursor_EnumDecl => Some(cursor),
        CXCursor_TypedefDecl => cursor.underlying().canonical().declaration(),
        _ => None,
    };
    let all = of.into_iter().flat_map(|of| of.children());
    let constants = all.filter(|child| child.kind() == CXCursor_EnumConstantDecl);
    constants.map(|c| format!("{}={} ", c.name(), c.enum_value())).collect()
}

/// A structure's size and its members, with those of structures in it.
fn layout(cursor: Cursor<'_>) -> String {
    let (size, align) = cursor.ty().extent();
    let mut out = format!("{size} {align}");
    cursor.visit(|child, _| {
        if child.kind() == CXCursor_FieldDecl {
            let (at, width) = (child.field_offset(), child.bit_width());
            let ty = spelling(child.ty().canonical());
            out.push_str(&format!("; {}@{at}:{width} {ty}", child.name()));
        }
        match child.kind() {
            CXCursor_FieldDecl | CXCursor_StructDecl | CXCursor_UnionDecl => Next::Children,
            _ => Next::Sibling,
        }
    });
    out
}

/// A type as it is written; those without a name are called by where they stand, which says nothing.
fn spelling(ty: Type<'_>) -> String {
    let text = ty.spelling();
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = ["(unnamed", "(anonymous"].iter().filter_map(|w| rest.find(w)).min() {
        let end = rest[start..].find(')').map_or(rest.len(), |n| start + n + 1);
        out.push_str(&rest[..start]);
        out.push_str("unnamed");
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blanks_mean_nothing() {
        let of = |text: &str| normalised(text, 0, text.len());
        assert_eq!(
            of("int f(void)\n{ /* x */ return 1; }"),
            of("int f( void ) {\n\treturn 1; // y\n}")
        );
        assert_ne!(of("return 1;"), of("return 2;"));
        assert_eq!(of("{\n#define A  1 /* x */\n}"), of("{\n# define A 1\n}"));
    }
}
