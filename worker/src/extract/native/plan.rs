//! What is to be written: which pieces of text stay, what is renamed in them, what must be expanded.
// libclang's constants are named as in C.
#![allow(non_upper_case_globals)]

use std::collections::{BTreeMap, BTreeSet};

use clang_sys::*;

use super::files::FileId;
use crate::extract::{Dependency, Externalized, PatchedFunction};

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

/// True for declarations of types.
pub fn is_type_kind(kind: CXCursorKind) -> bool {
    matches!(
        kind,
        CXCursor_StructDecl | CXCursor_UnionDecl | CXCursor_EnumDecl | CXCursor_TypedefDecl
    )
}
