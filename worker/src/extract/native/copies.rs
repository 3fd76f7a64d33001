//! Copies of functions and variables: under their own names, or under `klpr_` where the kernel's headers have another of the
//! name.

use super::closure::{Pending, Planner};
use super::plan::{Context, Edit, HeaderCopy, is_type_kind};
use super::refs::refs_of_type;
use super::survey::is_nameless;

impl Planner<'_, '_> {
    /// Keeps the own files' definition and declarations.
    pub(super) fn copy(&mut self, name: &str) {
        let all: Vec<usize> = self.unit.by_name.get(name).into_iter().flatten().copied().collect();
        for i in all {
            let d = &self.unit.decls[i];
            if self.unit.own.contains(&d.file) && (d.definition || !d.from_macro) {
                self.want(name, i);
            }
        }
    }

    /// As [`Self::copy`], as `klpr_`, declared first if it is used in front of its definition.
    pub(super) fn copy_renamed(&mut self, context: &Context, name: &str) {
        self.copy(name);
        let Some(decl) = self.unit.definition_index(name) else {
            return;
        };
        let d = &self.unit.decls[decl];
        let (from_macro, is_function, ty) = (d.from_macro, d.is_function(), d.cursor.ty());
        let Some(item) = self.unit.item_at(d.file, d.start) else {
            return;
        };
        if from_macro {
            self.plan.whole.insert(Context::Item(item));
        }
        self.name_edits(name, decl, "klpr_");
        if is_function && self.position(context) < (item, 1, 0) {
            self.used(name, context);
            self.pending.insert(name.to_owned(), Pending::Forward("klpr_"));
            for t in refs_of_type(self.unit, ty).all {
                self.reference(context, &t);
            }
        }
    }

    /// Whether declarations are nothing but types that the kernel's headers still have, as they are.
    pub(super) fn is_the_kernels(&self, decls: &[usize]) -> bool {
        let left = &self.unit.changes.types_left;
        let mut any = false;
        !left.is_empty()
            && decls.iter().map(|i| &self.unit.decls[*i]).all(|d| {
                let typedef = d.kind == clang_sys::CXCursor_TypedefDecl;
                if !is_type_kind(d.kind) || (!typedef && is_nameless(d.cursor)) {
                    return is_type_kind(d.kind);
                }
                let found = match typedef {
                    true => left.contains(&d.name),
                    false => left.contains(&d.cursor.ty().spelling()),
                };
                any |= found;
                found
            })
            && any
    }

    pub(super) fn header_copy(&mut self, name: &str) {
        if self.plan.headers.contains_key(name) {
            return;
        }
        let Some(decl) = self.unit.definition_index(name) else {
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
}
