//! What of patched headers is written into the source: behind each inclusion, the new and changed macros, constants, types and
//! declarations of the headers it brings, for the kernel's own headers lack them.

use std::collections::{HashMap, HashSet};

use super::changes::Piece;
use super::files::FileId;
use super::items::{Cut, Item, What};
use super::unit::Unit;

#[derive(Default)]
pub(super) struct Patched {
    /// Private headers that differ, and those that would include one.
    pub private: HashSet<FileId>,
    /// Headers whose changes have been written, or that have none.
    pub walked: HashSet<FileId>,
    /// The last item written behind an inclusion.
    pub behind: HashMap<usize, usize>,
    /// The last item written for headers that the compiler is told to include in front of all.
    pub lead: Option<usize>,
    /// Types that have another layout, by the text they are in.
    layouts: HashMap<FileId, Vec<(usize, usize, String)>>,
}

/// A part of a header, at an offset of its text.
enum Step {
    Include(FileId),
    Piece(Piece),
    Code(usize, usize, Vec<usize>),
}

impl Unit<'_> {
    /// Finds what [`Patched`] has to know before the own files are cut, and writes what stands in front of them.
    pub(super) fn find_patched(&mut self) {
        for (name, spot) in &self.changes.layouts {
            if let Some((id, _)) = self.files.iter().find(|(_, f)| f.label == spot.label) {
                let list = self.patched.layouts.entry(id).or_default();
                list.push((spot.start, spot.end, name.clone()));
            }
        }
        if self.changes.headers.is_empty() {
            return;
        }
        let private = |id: FileId| !self.files.get(id).public && id != self.main;
        let mut found: HashSet<FileId> = self
            .files
            .iter()
            .filter(|(id, f)| private(*id) && self.changes.headers.contains(&f.label))
            .map(|(id, _)| id)
            .collect();
        loop {
            let more: Vec<FileId> = self
                .includes
                .iter()
                .filter(|((from, _), to)| private(*from) && found.contains(to) && !found.contains(from))
                .map(|((from, _), _)| *from)
                .collect();
            if more.is_empty() {
                break;
            }
            found.extend(more);
        }
        self.patched.private = found;
        let mut leading: Vec<FileId> = self
            .chains
            .iter()
            .filter(|(id, chain)| chain.is_empty() && **id != self.main)
            .map(|(id, _)| *id)
            .collect();
        leading.sort_unstable();
        for file in leading {
            self.walk(file);
        }
        self.patched.lead = self.items.len().checked_sub(1);
    }

    /// Writes what the fix changes in the headers that the last item includes.
    pub(super) fn patched_behind(&mut self, included: FileId) {
        if self.changes.headers.is_empty() {
            return;
        }
        let inclusion = self.items.len() - 1;
        self.walk(included);
        if self.items.len() - 1 > inclusion {
            self.patched.behind.insert(inclusion, self.items.len() - 1);
        }
    }

    fn walk(&mut self, file: FileId) {
        if self.own.contains(&file) || !self.patched.walked.insert(file) {
            return;
        }
        for (start, step) in self.steps(file) {
            match step {
                Step::Include(included) => self.walk_include(file, start, included),
                Step::Piece(piece) => self.write_piece(file, &piece),
                Step::Code(start, end, decls) => {
                    let cuts: Vec<Cut> = self.cuts(file, start, end);
                    let what = What::Code { decls, cuts };
                    self.items.push(Item { file, start, end, what });
                }
            }
        }
    }

    /// The changed parts of a header and its inclusions, in the order of its text.
    fn steps(&self, file: FileId) -> Vec<(usize, Step)> {
        let includes = self.includes.range((file, 0)..(file + 1, 0));
        let mut steps: Vec<(usize, Step)> = includes.map(|((_, at), to)| (*at, Step::Include(*to))).collect();
        let label = &self.files.get(file).label;
        let Some(pieces) = self.changes.pieces.get(label) else {
            return steps;
        };
        let mut declared = HashSet::new();
        for piece in pieces {
            match piece {
                Piece::Declared { start } => {
                    declared.insert(*start);
                }
                piece => steps.push((piece.start(), Step::Piece(piece.clone()))),
            }
        }
        if !declared.is_empty() {
            for (start, end, decls) in self.code_ranges(file) {
                if decls.iter().any(|d| declared.contains(&self.decls[*d].start)) {
                    steps.push((start, Step::Code(start, end, decls)));
                }
            }
        }
        steps.sort_by_key(|(start, _)| *start);
        steps
    }

    /// An inclusion that the fix adds to a header is not there in the kernel's.
    fn walk_include(&mut self, file: FileId, start: usize, included: FileId) {
        let (from, to) = (self.files.get(file), self.files.get(included));
        let new = self.changes.headers.contains(&from.label)
            && self
                .changes
                .included_before
                .get(&from.label)
                .is_none_or(|before| !before.contains(&to.label));
        if new
            && !self.changes.new_headers.contains(&to.label)
            && !self.own.contains(&included)
            && !self.patched.walked.contains(&included)
        {
            let what = What::Include {
                text: self.written_include(included),
                file: included,
            };
            let end = start;
            self.items.push(Item { file, start, end, what });
        }
        self.walk(included);
    }

    fn write_piece(&mut self, file: FileId, piece: &Piece) {
        let (name, start, end, text) = match piece {
            Piece::Macro {
                name,
                start,
                end,
                replaces,
            } => {
                let body = self.files.get(file).text().get(*start..*end).unwrap_or_default();
                let undef = if *replaces {
                    format!("#undef {name}\n")
                } else {
                    String::new()
                };
                (name, *start, *end, format!("{undef}#define {body}"))
            }
            Piece::Gone { name } => (name, 0, 0, format!("#undef {name}")),
            Piece::Constant {
                name,
                value,
                start,
                end,
            } => (name, *start, *end, format!("#define {name} ({value})")),
            Piece::Declared { .. } => return,
        };
        let name = name.clone();
        let what = What::Patched { name, text };
        self.items.push(Item { file, start, end, what });
    }

    /// The type around this place, if the fix gives it another layout.
    pub fn other_layout(&self, file: FileId, offset: usize) -> Option<String> {
        let list = self.patched.layouts.get(&file)?;
        let (.., name) = list.iter().find(|(start, end, _)| *start <= offset && offset < *end)?;
        Some(name.clone())
    }
}
