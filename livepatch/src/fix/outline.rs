//! What a C file defines, read before preprocessing: functions, types, data, macros, with the text of each.
//!
//! Grammars of C know no kernel source: `SYSCALL_DEFINE2(...) {`, `__must_hold(x)` behind parameters, and `#if` branches that
//! open a block each are no C until they are preprocessed, and a parser that stumbles there misses what follows. So the
//! file is cut at its brackets, with each `#else` going on from where its `#if` was, and only heads are looked at closely.

mod head;
mod walk;

use std::ops::Range;

use super::tokens::{Kind, Tokens};

/// Brackets within brackets.
const MAX_NESTING: usize = 512;
/// `#if` within `#if`.
const MAX_CONDITIONS: usize = 128;

/// How a function's definition is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Definition {
    Plain,
    /// `SYSCALL_DEFINEn(name, ...)`, or `COMPAT_SYSCALL_DEFINEn`.
    Syscall {
        compat: bool,
    },
    /// By a macro that is not known here; the name is its first argument.
    Macro {
        by: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ItemKind {
    Function(Definition),
    Prototype,
    Struct,
    Union,
    Enum,
    Typedef,
    Variable,
    /// `#define`.
    Macro,
    /// A macro's use outside functions, such as `DEFINE_MUTEX(x)`; the name is its first argument.
    MacroUse {
        of: String,
    },
    Include,
    Asm,
    /// Another directive, or text that is not understood.
    Other,
}

/// One thing a file defines at its top level.
#[derive(Clone, Debug)]
pub struct Item {
    pub kind: ItemKind,
    /// Empty where it has none.
    pub name: String,
    /// The words before a function's body that are not its name: storage, types and attributes.
    pub words: Vec<String>,
    /// Lines, from 1, both ends included.
    pub lines: (usize, usize),
    pub(super) tokens: Range<usize>,
    /// What comes before the body or the value.
    pub(super) head: Range<usize>,
    /// Stands for the `#if`s around it.
    pub(super) condition: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutlineError {
    #[error("the text is longer than {} MiB", super::tokens::MAX_TEXT >> 20)]
    TooLong,
    #[error("line {line}: brackets or `#if`s are nested too deep")]
    TooDeep { line: usize },
}

/// A file's text, cut into items.
pub struct Outline<'a> {
    pub(super) tokens: Tokens<'a>,
    pub items: Vec<Item>,
}

impl<'a> Outline<'a> {
    /// # Errors
    /// If the text is beyond the limits; text that is no C makes items of kind [`ItemKind::Other`].
    pub fn new(text: &'a str) -> Result<Self, OutlineError> {
        let tokens = Tokens::new(text).ok_or(OutlineError::TooLong)?;
        let (mut items, balanced) = walk::walk(&tokens, false)?;
        if !balanced {
            // Something swallowed the rest of the file. Kernel style puts a body's braces into the first column.
            (items, _) = walk::walk(&tokens, true)?;
        }
        Ok(Self { tokens, items })
    }

    pub fn functions(&self) -> impl Iterator<Item = &Item> {
        self.items
            .iter()
            .filter(|item| matches!(item.kind, ItemKind::Function(_)))
    }

    /// An item's words in order, to be looked at for things that matter.
    pub fn words(&self, item: &Item) -> impl Iterator<Item = (&'a str, usize)> {
        item.tokens.clone().filter_map(|at| Some((self.tokens.word(at)?, at)))
    }

    /// The line of a token that [`Outline::words`] gave.
    pub fn line(&self, at: usize) -> usize {
        self.tokens.line(at)
    }

    /// Whether a bracket with arguments follows it.
    pub fn is_call(&self, at: usize) -> bool {
        self.tokens.punct(at + 1) == '('
    }

    pub(super) fn same_text(&self, range: &Range<usize>, other: &Outline<'_>, theirs: &Range<usize>) -> bool {
        range.len() == theirs.len()
            && range.clone().zip(theirs.clone()).all(|(a, b)| {
                self.tokens.kind(a) == other.tokens.kind(b) && self.tokens.text(a) == other.tokens.text(b)
            })
    }

    /// Where the directives of an item are left out.
    fn plain(tokens: &Tokens<'_>, range: Range<usize>) -> Vec<usize> {
        let mut inside = false;
        range
            .filter(|at| match tokens.kind(*at) {
                Some(Kind::Hash) => {
                    inside = true;
                    false
                }
                Some(Kind::End) => {
                    inside = false;
                    false
                }
                _ => !inside,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
