//! Cuts a file into its top-level pieces.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::head::{Braced, braced, classify, is_whole_use};
use super::{Item, ItemKind, MAX_CONDITIONS, MAX_NESTING, Outline, OutlineError};
use crate::fix::tokens::{Kind, Tokens};

/// A piece that is being read.
#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    /// Its first brace outside of other brackets, and what that opens.
    brace: Option<(usize, Braced)>,
}

/// How things were where an `#if` began.
struct Branch {
    stack: Vec<char>,
    piece: Option<Piece>,
    condition: u64,
    /// No item before this one begins where `piece` does.
    items: usize,
}

struct Walk<'t, 'a> {
    tokens: &'t Tokens<'a>,
    stack: Vec<char>,
    piece: Option<Piece>,
    branches: Vec<Branch>,
    condition: u64,
    items: Vec<Item>,
    /// Braces in the first column begin and end bodies, whatever else is open.
    by_column: bool,
}

/// The items, and whether all that was opened was closed.
pub(super) fn walk(tokens: &Tokens<'_>, by_column: bool) -> Result<(Vec<Item>, bool), OutlineError> {
    let mut walk = Walk {
        tokens,
        stack: Vec::new(),
        piece: None,
        branches: Vec::new(),
        condition: 0,
        items: Vec::new(),
        by_column,
    };
    let mut at = 0;
    while at < tokens.all.len() {
        at = walk.step(at);
        if walk.stack.len() > MAX_NESTING || walk.branches.len() > MAX_CONDITIONS {
            return Err(OutlineError::TooDeep { line: tokens.line(at) });
        }
    }
    let balanced = walk.stack.is_empty();
    walk.end(tokens.all.len());
    Ok((walk.items, balanced))
}

impl Walk<'_, '_> {
    /// Takes in the token at `at`, and a directive whole; returns what comes next.
    fn step(&mut self, at: usize) -> usize {
        if self.tokens.kind(at) == Some(Kind::Hash) {
            let end = (at..self.tokens.all.len())
                .find(|at| self.tokens.kind(*at) == Some(Kind::End))
                .map_or(self.tokens.all.len(), |end| end + 1);
            self.directive(at, end);
            return end;
        }
        let punct = self.tokens.punct(at);
        if punct == ';' && self.piece.is_none() && self.stack.is_empty() {
            return at + 1;
        }
        let piece = *self.piece.get_or_insert(Piece { start: at, brace: None });
        let first_column = self.by_column && self.tokens.begins_line(at);
        match punct {
            '{' => {
                if first_column {
                    self.stack.clear();
                }
                if self.stack.is_empty() && piece.brace.is_none() {
                    let what = braced(self.tokens, &Outline::plain(self.tokens, piece.start..at));
                    self.piece = Some(Piece {
                        brace: Some((at, what)),
                        ..piece
                    });
                }
                self.stack.push('{');
            }
            '(' | '[' => self.stack.push(punct),
            ')' | ']' => {
                let opener = if punct == ')' { '(' } else { '[' };
                self.stack.pop_if(|open| *open == opener);
                if self.stack.is_empty() && is_whole_use(self.tokens, piece.start, at) {
                    self.end(at + 1);
                }
            }
            '}' => {
                // Round brackets that a branch left open end with their block.
                while self.stack.pop().is_some_and(|open| open != '{') {}
                if first_column {
                    self.stack.clear();
                }
                let ends = self
                    .piece
                    .and_then(|piece| piece.brace)
                    .is_none_or(|(_, what)| what == Braced::Body);
                if self.stack.is_empty() && ends {
                    self.end(at + 1);
                }
            }
            ';' if self.stack.is_empty() && !self.old_style_parameters(piece, at) => self.end(at + 1),
            _ => {}
        }
        at + 1
    }

    /// Whether this `;` ends a parameter of a definition in the style before 1989: `int f(a) int a; {`.
    fn old_style_parameters(&self, piece: Piece, at: usize) -> bool {
        if piece.brace.is_some() {
            return false;
        }
        let mut ahead = at + 1;
        let mut last = ';';
        while ahead - at < 64 {
            match (self.tokens.kind(ahead), self.tokens.punct(ahead)) {
                (Some(Kind::Punct), '{') => {
                    let parts = Outline::plain(self.tokens, piece.start..at);
                    return last == ';' && super::head::old_style(self.tokens, &parts);
                }
                (Some(Kind::Punct), c) if ";*,[]".contains(c) => last = c,
                (Some(Kind::Word | Kind::Number), _) => last = ' ',
                _ => return false,
            }
            ahead += 1;
        }
        false
    }

    fn directive(&mut self, at: usize, end: usize) {
        match self.tokens.text(at + 1) {
            "if" | "ifdef" | "ifndef" => {
                self.branches.push(Branch {
                    stack: self.stack.clone(),
                    piece: self.piece,
                    condition: self.condition,
                    items: self.items.len(),
                });
                self.condition = self.hashed(self.condition, at, end);
            }
            "else" | "elif" | "elifdef" | "elifndef" => {
                let Some(branch) = self.branches.last_mut() else {
                    return;
                };
                self.stack.clone_from(&branch.stack);
                if self.piece.is_none() && branch.piece.is_some() {
                    // The first branch ended what both go on with: it is one piece, with both ends.
                    self.piece = branch.piece;
                    let start = self.piece.map_or(0, |piece| piece.start);
                    // It can only be among those of the branch that ends: looking at all would take the product of both.
                    let mut ended = self.items.split_off(branch.items);
                    ended.retain(|item| item.tokens.start != start);
                    self.items.append(&mut ended);
                    branch.items = self.items.len();
                }
                self.condition = self.hashed(self.condition, at, end);
            }
            "endif" => {
                if let Some(branch) = self.branches.pop() {
                    self.condition = branch.condition;
                }
            }
            name if self.piece.is_none() => {
                let (kind, name) = match name {
                    "define" => (ItemKind::Macro, self.tokens.text(at + 2).to_owned()),
                    "include" => (
                        ItemKind::Include,
                        (at + 2..end).map(|at| self.tokens.text(at)).collect(),
                    ),
                    other => (ItemKind::Other, format!("#{other}")),
                };
                self.push(kind, name, at..end, at..end, Vec::new());
            }
            _ => {}
        }
    }

    fn hashed(&self, condition: u64, at: usize, end: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        condition.hash(&mut hasher);
        for at in at..end {
            self.tokens.text(at).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Ends the piece before the token at `end`.
    fn end(&mut self, end: usize) {
        let Some(piece) = self.piece.take() else { return };
        self.stack.clear();
        let tokens = piece.start..end;
        let head_end = piece.brace.map_or(end, |(at, _)| at);
        let body = piece.brace.is_some_and(|(_, what)| what == Braced::Body);
        let plain = Outline::plain(self.tokens, tokens.clone());
        for found in classify(self.tokens, &plain, body.then_some(head_end)) {
            self.push(
                found.kind,
                found.name,
                tokens.clone(),
                piece.start..head_end,
                found.words,
            );
        }
    }

    fn push(
        &mut self,
        kind: ItemKind,
        name: String,
        tokens: std::ops::Range<usize>,
        head: std::ops::Range<usize>,
        words: Vec<String>,
    ) {
        let lines = (
            self.tokens.line(tokens.start),
            self.tokens.line(tokens.end.saturating_sub(1)),
        );
        self.items.push(Item {
            kind,
            name,
            words,
            lines,
            tokens,
            head,
            condition: self.condition,
        });
    }
}
