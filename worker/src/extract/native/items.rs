//! Cuts the file's own text into items: includes, macros, declarations; and marks what of it was not compiled.

use super::files::FileId;
use super::lexer::{Kind, directive, identifiers};
use super::unit::{Private, Unit};

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
    /// A macro as the fix has it, where a header that stays included has another or none; the text to write.
    Patched {
        name: String,
        text: String,
    },
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

impl Unit<'_> {
    /// True if `file`'s items are ours to slice.
    pub(super) fn slices(&self, file: FileId) -> bool {
        !self.files.get(file).public
            && (self.private == Private::Slice || file == self.main || self.patched.private.contains(&file))
    }

    /// The ranges of `file` that its first reading skipped.
    pub(super) fn skipped(&self, file: FileId) -> Vec<(usize, usize)> {
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
    pub(super) fn text_of(&self, file: FileId, depth: usize) -> String {
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

    pub(super) fn cuts_at(&self, file: FileId, start: usize, end: usize, depth: usize) -> Vec<Cut> {
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

    pub(super) fn written_include(&self, file: FileId) -> String {
        let source = self.files.get(file);
        source.include_name().unwrap_or_else(|| format!("\"{}\"", source.label))
    }

    /// Cuts a file's text into items, going into the private headers it includes.
    pub(super) fn scan(&mut self, file: FileId) {
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

    pub(super) fn scan_directive(&mut self, file: FileId, start: usize, end: usize, text: &str) {
        let whole = &text[start..end];
        let (word, after) = directive(whole);
        let name = || {
            identifiers(&whole[after.min(whole.len())..])
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
                    if !self.own.contains(&included) && !self.patched.walked.contains(&included) {
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
        let Some(what) = what else { return };
        let included = match &what {
            What::Include { file, .. } => Some(*file),
            _ => None,
        };
        self.items.push(Item { file, start, end, what });
        if let Some(included) = included {
            self.patched_behind(included);
        }
    }

    /// The text ranges of `file` that hold declarations: (start, end, declarations).
    pub(super) fn code_ranges(&self, file: FileId) -> Vec<(usize, usize, Vec<usize>)> {
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
    pub(super) fn complete(&self, file: FileId, ranges: &mut [(usize, usize, Vec<usize>)]) {
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
