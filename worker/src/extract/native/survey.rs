//! Surveys the sources of a parse for [`Changes`]: definitions, declarations, layouts, constants and macros by name. The
//! unpatched sources are parsed only if a header, or a type of the file itself, is not as it was.
// libclang's constants are named as in C.
#![allow(non_upper_case_globals)]

use std::collections::{BTreeMap, BTreeSet};

use clang_sys::*;

use super::changes::{Changes, Found, FoundConstant, FoundType, Spot, Survey};
use super::files::{FileId, Files};
use super::lexer::{self, Kind};
use super::libclang::{Cursor, Library, Next, Tu, Type};
use super::plan::is_type_kind;
use super::unit::{Decl, Private, Unit};
use crate::extract::{Error, Request};

/// What the fix changes in the headers that the parsed file reads.
///
/// # Errors
/// The unpatched sources can't be parsed.
pub fn changes(library: &Library, request: &Request, tu: &Tu<'_>, builtin: bool) -> Result<Changes, Error> {
    let Some(unpatched) = request.as_unpatched() else {
        return Ok(Changes::default());
    };
    let none = Changes::default();
    let Some(after) = unit(tu, request, &none) else {
        // Told where it is sliced.
        return Ok(none);
    };
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
    if headers.is_empty() && types_are_in(&after, &lexer::same_length_text(original)) {
        return Ok(none);
    }
    let survey_after = survey(&after, &headers);
    drop(after);
    let tu = super::parse(library, &unpatched, builtin)?;
    let before = unit(&tu, &unpatched, &none).ok_or_else(|| super::not_parsed(&tu, &unpatched))?;
    Ok(Changes::between(survey(&before, &headers), &survey_after, headers, new))
}

fn unit<'t>(tu: &'t Tu<'_>, request: &Request, none: &'t Changes) -> Option<Unit<'t>> {
    let files = Files::new(&request.src_dir, &request.obj_dir, &request.command.directory);
    Unit::new(tu, files, &request.file, Private::Slice, none)
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

fn survey(unit: &Unit<'_>, differing: &BTreeSet<String>) -> Survey {
    let mut reader = Reader {
        unit,
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
        let text = spelling(decl.cursor.ty().canonical());
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
        let name = decl.cursor.name();
        if name.is_empty() || name.contains(' ') || decl.cursor.is_anonymous() {
            return;
        }
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
        let spot = self.spot(decl.file, decl.start, decl.end);
        let known = self.found.types.get(&key);
        if known.is_none_or(|known| whole && !known.whole) {
            let new = FoundType { layout, whole, spot };
            self.found.types.insert(key, new);
        }
    }

    fn enumeration(&mut self, decl: &Decl<'_>) {
        let name = decl.cursor.name();
        let tag =
            (!name.is_empty() && !name.contains(' ') && !decl.cursor.is_anonymous()).then(|| format!("enum {name}"));
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

/// What a typedef stands for.
fn alias(cursor: Cursor<'_>) -> String {
    let ty = cursor.underlying().canonical();
    match ty.declaration() {
        // It gives the type its only name.
        Some(decl) if ty.kind() == CXType_Record && (decl.name().is_empty() || decl.name().contains(' ')) => {
            layout(decl)
        }
        Some(decl) if ty.kind() == CXType_Record && decl.name() == cursor.name() && decl.is_anonymous() => layout(decl),
        _ => spelling(ty),
    }
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
