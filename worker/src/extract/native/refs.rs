//! What a declaration refers to, read off its syntax tree.
// libclang's constants are named as in C.
#![allow(non_upper_case_globals)]

use std::collections::HashSet;

use clang_sys::*;

use super::declare;
use super::files::FileId;
use super::libclang::{Cursor, Next, Place, Storage, Type};
use super::unit::Unit;

/// One reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ref {
    pub to: To,
    /// Where the name is written, if in a file; inside a macro's definition if it comes from its body.
    pub spelled: Option<(FileId, usize)>,
    /// Where it stands in the text: the outermost macro use, or the name itself.
    pub at: Option<(FileId, usize)>,
    /// The start of the function-local static variable whose initialiser holds it.
    pub in_static: Option<(FileId, usize)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum To {
    /// A function or variable of file scope.
    Symbol(String),
    /// A static variable of a function; the place of its declaration.
    Local(FileId, usize),
    /// Something else declared at this place: a type, a constant, a typedef.
    Place(FileId, usize),
    /// A structure of which only the name is needed, with the forward declaration that gives it.
    Name(FileId, usize, String),
    /// A type that the fix gives another layout.
    Changed(String),
}

/// A static variable inside a function, whose value a copy of the function does not share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalStatic {
    pub name: String,
    /// Where its name stands, or the macro use that declares it.
    pub at: (FileId, usize),
    /// What [`Ref::in_static`] is for references in its initialiser.
    pub extent: Option<(FileId, usize)>,
    pub constant: bool,
    /// The declaration of a pointer to it, with `@` for the pointer's name; none if its type has no name.
    pub pointer: Option<String>,
    /// What its type refers to.
    pub types: Vec<Ref>,
}

#[derive(Debug, Default)]
pub struct Refs {
    pub all: Vec<Ref>,
    pub local_statics: Vec<LocalStatic>,
}

/// Everything `cursor`'s declaration refers to.
pub fn refs_of(unit: &mut Unit<'_>, cursor: Cursor<'_>) -> Refs {
    let mut found = Collector {
        unit,
        seen: HashSet::new(),
        refs: Refs::default(),
    };
    found.declaration(cursor, None);
    walk(&mut found, cursor, None);
    found.refs
}

/// What the type of a declaration needs, without its body or initialiser.
pub fn refs_of_type(unit: &mut Unit<'_>, ty: Type<'_>) -> Refs {
    let mut found = Collector {
        unit,
        seen: HashSet::new(),
        refs: Refs::default(),
    };
    found.ty(ty, false, 0);
    found.refs
}

fn walk<'t>(found: &mut Collector<'_, '_>, cursor: Cursor<'t>, in_static: Option<(FileId, usize)>) {
    let mut nested: Vec<(Cursor<'t>, Option<(FileId, usize)>)> = Vec::new();
    cursor.visit(|child, parent| {
        match child.kind() {
            CXCursor_VarDecl if child.storage() == Storage::Static => {
                // Visited apart, so that what its initialiser holds is known to be in a static.
                let at = child.extent().map(|(p, _)| found.place(p));
                found.local_static(child, at);
                found.declaration(child, at);
                nested.push((child, at));
                return Next::Sibling;
            }
            CXCursor_VarDecl
            | CXCursor_FieldDecl
            | CXCursor_ParmDecl
            | CXCursor_FunctionDecl
            | CXCursor_TypedefDecl => found.declaration(child, in_static),
            CXCursor_TypeRef => {
                let declares = matches!(
                    parent.kind(),
                    CXCursor_VarDecl
                        | CXCursor_FieldDecl
                        | CXCursor_ParmDecl
                        | CXCursor_FunctionDecl
                        | CXCursor_TypedefDecl
                );
                if !declares {
                    found.reference(child, in_static);
                }
            }
            CXCursor_DeclRefExpr | CXCursor_MemberRefExpr | CXCursor_MemberRef => found.reference(child, in_static),
            _ => {}
        }
        if matches!(
            child.kind(),
            CXCursor_UnaryOperator
                | CXCursor_BinaryOperator
                | CXCursor_CompoundAssignOperator
                | CXCursor_ArraySubscriptExpr
                | CXCursor_CallExpr
                | CXCursor_InitListExpr
        ) {
            found.complete_type(child);
        }
        Next::Children
    });
    for (child, at) in nested {
        walk(found, child, at);
    }
}

/// True for constant data, arrays of constants included.
pub fn is_constant(ty: Type<'_>) -> bool {
    let mut ty = ty;
    while let Some(element) = ty.element() {
        ty = element;
    }
    ty.is_const()
}

struct Collector<'u, 't> {
    unit: &'u mut Unit<'t>,
    seen: HashSet<Ref>,
    refs: Refs,
}

impl Collector<'_, '_> {
    fn place(&mut self, p: Place) -> (FileId, usize) {
        (self.unit.files.id(p.file), p.offset as usize)
    }

    fn add(&mut self, r: Ref) {
        if self.seen.insert(r.clone()) {
            self.refs.all.push(r);
        }
    }

    fn to(&mut self, to: To) {
        self.add(Ref {
            to,
            spelled: None,
            at: None,
            in_static: None,
        });
    }

    /// A reference to what is declared at a place, as far as that matters.
    fn placed(&mut self, file: FileId, offset: usize) {
        self.changed(file, offset);
        if self.unit.is_written(file, offset) {
            self.to(To::Place(file, offset));
        }
    }

    /// A type at this place may have a layout that the running kernel's objects have not.
    fn changed(&mut self, file: FileId, offset: usize) {
        if let Some(name) = self.unit.other_layout(file, offset) {
            self.to(To::Changed(name));
        }
    }

    /// The type of a declaration, and the cleanup functions its attributes name (libclang shows those in print only).
    fn declaration(&mut self, cursor: Cursor<'_>, in_static: Option<(FileId, usize)>) {
        match cursor.kind() {
            CXCursor_TypedefDecl => self.ty(cursor.underlying(), false, 0),
            CXCursor_VarDecl | CXCursor_FieldDecl | CXCursor_ParmDecl | CXCursor_FunctionDecl => {
                self.ty(cursor.ty(), true, 0)
            }
            _ => {}
        }
        if cursor.kind() == CXCursor_VarDecl && cursor.children().iter().any(|c| c.kind() == CXCursor_UnexposedAttr) {
            let text = cursor.pretty();
            for part in text.split("cleanup(").skip(1) {
                if let Some((name, _)) = part.split_once(')') {
                    let at = cursor.expanded_at().map(|p| self.place(p));
                    self.add(Ref {
                        to: To::Symbol(name.trim().to_owned()),
                        spelled: None,
                        at,
                        in_static,
                    });
                }
            }
        }
    }

    /// Notes a static variable of a function, if the file itself names it (`pr_once` and its like make their own).
    fn local_static(&mut self, cursor: Cursor<'_>, extent: Option<(FileId, usize)>) {
        let (Some(spelled), Some(at)) = (
            cursor.spelled_at().map(|p| self.place(p)),
            cursor.expanded_at().map(|p| self.place(p)),
        ) else {
            return;
        };
        if !self.unit.own.contains(&spelled.0) || spelled.0 != at.0 {
            return;
        }
        let types = refs_of_type(self.unit, cursor.ty()).all;
        self.refs.local_statics.push(LocalStatic {
            name: cursor.name(),
            at,
            extent,
            constant: is_constant(cursor.ty()),
            pointer: declare::pointer(cursor, false, "@"),
            types,
        });
    }

    fn reference(&mut self, cursor: Cursor<'_>, in_static: Option<(FileId, usize)>) {
        let Some(target) = cursor.referenced() else { return };
        match target.kind() {
            CXCursor_FunctionDecl | CXCursor_VarDecl => {
                let top = target.parent().is_some_and(Cursor::is_unit);
                if !top {
                    if target.kind() == CXCursor_VarDecl
                        && target.storage() == Storage::Static
                        && let Some(p) = target.expanded_at()
                    {
                        let (file, offset) = self.place(p);
                        let spelled = cursor.spelled_at().map(|p| self.place(p));
                        let at = cursor.expanded_at().map(|p| self.place(p));
                        self.add(Ref {
                            to: To::Local(file, offset),
                            spelled,
                            at,
                            in_static,
                        });
                    }
                    return;
                }
                let spelled = cursor.spelled_at().map(|p| self.place(p));
                let at = cursor.expanded_at().map(|p| self.place(p));
                self.add(Ref {
                    to: To::Symbol(target.name()),
                    spelled,
                    at,
                    in_static,
                });
            }
            CXCursor_ParmDecl => {}
            _ => {
                // A constant or member may stand in an included list: what counts is what it belongs to.
                let owner = matches!(target.kind(), CXCursor_EnumConstantDecl | CXCursor_FieldDecl)
                    .then(|| target.parent())
                    .flatten();
                if let Some(p) = owner.unwrap_or(target).expanded_at() {
                    let (file, offset) = self.place(p);
                    self.placed(file, offset);
                }
            }
        }
    }

    /// An expression of structure type, or arithmetic on a pointer to one, needs the whole structure.
    fn complete_type(&mut self, cursor: Cursor<'_>) {
        let ty = cursor.ty();
        let ty = match ty.kind() {
            CXType_Pointer if cursor.kind() != CXCursor_CallExpr => ty.pointee().unwrap_or(ty),
            _ => ty,
        };
        let canonical = ty.canonical();
        if canonical.kind() == CXType_Record
            && let Some(decl) = canonical.declaration()
        {
            self.record(decl, true);
        }
    }

    fn record(&mut self, decl: Cursor<'_>, complete: bool) {
        let definition = decl.definition();
        let Some(p) = definition.unwrap_or(decl).expanded_at() else {
            return;
        };
        let (file, offset) = self.place(p);
        self.changed(file, offset);
        if !self.unit.is_written(file, offset) {
            return;
        }
        let name = decl.name();
        let anonymous = name.is_empty() || name.contains(' ') || decl.is_anonymous();
        if complete || anonymous {
            self.to(To::Place(file, offset));
        } else {
            let word = if decl.kind() == CXCursor_UnionDecl {
                "union"
            } else {
                "struct"
            };
            self.to(To::Name(file, offset, format!("{word} {name}")));
        }
    }

    /// `complete`: whether a structure named here must be known whole, not just by name.
    fn ty(&mut self, ty: Type<'_>, complete: bool, depth: usize) {
        if depth > 12 {
            return;
        }
        match ty.kind() {
            CXType_Pointer => {
                if let Some(p) = ty.pointee() {
                    self.ty(p, false, depth + 1);
                }
            }
            CXType_ConstantArray | CXType_IncompleteArray | CXType_VariableArray => {
                if let Some(e) = ty.element() {
                    self.ty(e, true, depth + 1);
                }
            }
            CXType_FunctionProto | CXType_FunctionNoProto => {
                // A definition needs by-value parameters whole; a declaration does not mind having them.
                if let Some(r) = ty.result() {
                    self.ty(r, true, depth + 1);
                }
                for a in ty.args() {
                    self.ty(a, true, depth + 1);
                }
            }
            CXType_Elaborated => {
                if let Some(n) = ty.named() {
                    self.ty(n, complete, depth + 1);
                }
            }
            CXType_Record => {
                if let Some(d) = ty.declaration() {
                    self.record(d, complete);
                }
            }
            CXType_Enum | CXType_Typedef => {
                if complete
                    && ty.kind() == CXType_Typedef
                    && let Some(d) = ty.declaration()
                {
                    self.ty(d.underlying(), true, depth + 1);
                }
                if let Some(d) = ty.declaration()
                    && let Some(p) = d.definition().unwrap_or(d).expanded_at()
                {
                    let (file, offset) = self.place(p);
                    self.placed(file, offset);
                }
            }
            CXType_Unexposed | CXType_Attributed | CXType_Atomic => {
                let canonical = ty.canonical();
                if canonical.kind() != ty.kind() {
                    self.ty(canonical, complete, depth + 1);
                }
            }
            _ => {}
        }
    }
}
