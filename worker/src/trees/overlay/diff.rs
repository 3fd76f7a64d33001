//! Reads a patch that somebody sent, and refuses what it may not do.
//!
//! Format: unified diffs as POSIX diff's `-u` has them, with or without the extended headers of git (git's
//! Documentation/diff-generate-patch.txt), one after another with any text before, between and after: a plain diff, a mail
//! of `git format-patch`, or a patch of SUSE's kernel-source with its `Git-commit:` headers. Lines are bytes and keep
//! their ends.
//!
//! No program sees the patch itself: [`FileDiff::write`] writes anew what was understood here, so that no program can
//! understand it otherwise.

use super::reads;

/// The most one patch may have, in bytes.
pub(super) const MAX_PATCH: usize = 4 << 20;
/// The longest path, in bytes.
const MAX_PATH: usize = 512;
/// What is shown of a hunk's header, in characters.
const MAX_HEADER: usize = 120;

/// What a patch does to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Modify,
    Add,
    Delete,
}

/// What a patch does to one file, in order of its hunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileDiff {
    /// Relative to the source's root; [`tree_path`] let it pass.
    pub path: String,
    pub change: Change,
    /// None for an empty file that comes or goes.
    pub hunks: Vec<Hunk>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hunk {
    /// The `@@` line, cut to a length that can be shown.
    pub header: String,
    pub old: Range,
    pub new: Range,
    /// The lines with what they begin with, each ended.
    lines: Vec<u8>,
}

/// Lines of a file: the first, from 1, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    start: u32,
    count: u32,
}

/// Why a patch is not let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Of the patch, from 1.
    pub line: usize,
    pub why: String,
}

impl FileDiff {
    /// Writes the diff as `git apply` and `patch -p1` read it.
    pub fn write(&self, out: &mut Vec<u8>) {
        if self.hunks.is_empty() {
            return;
        }
        let (old, new) = match self.change {
            Change::Modify => (format!("a/{}", self.path), format!("b/{}", self.path)),
            Change::Add => ("/dev/null".to_owned(), format!("b/{}", self.path)),
            Change::Delete => (format!("a/{}", self.path), "/dev/null".to_owned()),
        };
        out.extend_from_slice(format!("--- {old}\n+++ {new}\n").as_bytes());
        for Hunk { old, new, lines, .. } in &self.hunks {
            let header = format!("@@ -{},{} +{},{} @@\n", old.start, old.count, new.start, new.count);
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(lines);
        }
    }

    /// Whether it can only be meant for a file that is not there: old diffs say so by line numbers and a date alone.
    pub fn begins_from_nothing(&self) -> bool {
        matches!(&self.hunks[..], [only] if only.old == Range { start: 0, count: 0 })
    }
}

/// Reads all that a patch does.
///
/// # Errors
/// The first thing that it may not do, or that is no diff.
pub(super) fn parse(patch: &[u8]) -> Result<Vec<FileDiff>, Refusal> {
    if patch.len() > MAX_PATCH {
        return Err(Refusal {
            line: 1,
            why: format!(
                "it has {} KiB, and at most {} KiB are taken",
                patch.len() >> 10,
                MAX_PATCH >> 10
            ),
        });
    }
    let mut reader = Reader {
        lines: patch.split_inclusive(|b| *b == b'\n').collect(),
        at: 0,
        files: Vec::new(),
    };
    reader.read().map_err(|why| Refusal {
        line: (reader.at + 1).min(reader.lines.len().max(1)),
        why,
    })?;
    if reader.files.is_empty() {
        return Err(Refusal {
            line: 1,
            why: "it holds no unified diff (`diff -u`, `git diff`, `git format-patch`)".to_owned(),
        });
    }
    Ok(reader.files)
}

struct Reader<'a> {
    lines: Vec<&'a [u8]>,
    at: usize,
    files: Vec<FileDiff>,
}

/// What a `diff --git` line and those that follow it say.
struct GitHeader {
    path: Option<String>,
    change: Change,
}

impl<'a> Reader<'a> {
    /// A line without its end.
    fn line(&self, ahead: usize) -> &'a [u8] {
        let line = self.lines.get(self.at + ahead).copied().unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    fn read(&mut self) -> Result<(), String> {
        while self.at < self.lines.len() {
            let line = self.line(0);
            if line.starts_with(b"diff --git ") {
                self.git_file()?;
            } else if self.is_file_header() {
                let file = self.file(Change::Modify)?;
                self.files.push(file);
            } else if line.starts_with(b"diff --cc ") || line.starts_with(b"diff --combined ") {
                return Err("it is a merge's combined diff; send the merged commits' own patches".to_owned());
            } else {
                refuse_binary(line)?;
                self.at += 1;
            }
        }
        Ok(())
    }

    fn is_file_header(&self) -> bool {
        self.line(0).starts_with(b"--- ") && self.line(1).starts_with(b"+++ ") && self.line(2).starts_with(b"@@ -")
    }

    /// One file's part of git's output.
    fn git_file(&mut self) -> Result<(), String> {
        let mut header = GitHeader {
            path: both_names(&self.line(0)[b"diff --git ".len()..]),
            change: Change::Modify,
        };
        self.at += 1;
        while self.at < self.lines.len() && !self.is_file_header() {
            let line = self.line(0);
            if !extended_header(line, &mut header)? {
                break;
            }
            self.at += 1;
        }
        let file = if self.is_file_header() {
            self.file(header.change)?
        } else {
            match (header.change, header.path) {
                // `git format-patch` of an empty commit, or a diff whose text was lost.
                (Change::Modify, _) | (_, None) => {
                    return Err("a `diff --git` line is followed by no change of that file".to_owned());
                }
                (change, Some(name)) => FileDiff {
                    path: tree_path(name.as_bytes())?,
                    change,
                    hunks: Vec::new(),
                },
            }
        };
        self.files.push(file);
        Ok(())
    }

    /// The `---` and `+++` lines and the hunks that follow.
    fn file(&mut self, change: Change) -> Result<FileDiff, String> {
        let (old, new) = (self.line(0), self.line(1));
        let (old_name, new_name) = (name(old), name(new));
        let added = change == Change::Add || old_name == b"/dev/null";
        let deleted = change == Change::Delete || new_name == b"/dev/null";
        let change = match (added, deleted) {
            (true, true) => return Err("a file that is both added and deleted".to_owned()),
            (true, false) => Change::Add,
            (false, true) => Change::Delete,
            (false, false) => Change::Modify,
        };
        let path = match (old_name, new_name) {
            (b"/dev/null", name) | (name, b"/dev/null") => tree_path(name)?,
            (old, new) => {
                let (old, new) = (tree_path(old)?, tree_path(new)?);
                if old != new {
                    return Err(format!("it turns {old} into {new}; make it with --no-renames"));
                }
                new
            }
        };
        self.at += 2;
        let mut hunks = Vec::new();
        while self.line(0).starts_with(b"@@ -") {
            hunks.push(self.hunk(&path)?);
        }
        if let Some(b'+' | b' ') = self.line(0).first() {
            return Err("a hunk has more lines than its @@ line says".to_owned());
        }
        // Before git, a file that goes was told by an empty file of 1970.
        let gone = change == Change::Modify
            && matches!(&hunks[..], [only] if only.new == Range { start: 0, count: 0 })
            && is_epoch(new);
        Ok(FileDiff {
            path,
            change: if gone { Change::Delete } else { change },
            hunks,
        })
    }

    fn hunk(&mut self, path: &str) -> Result<Hunk, String> {
        let header = self.line(0);
        let (old, new) = ranges(header).ok_or("a damaged @@ line")?;
        self.at += 1;
        let (mut old_left, mut new_left) = (old.count, new.count);
        let mut lines = Vec::new();
        while old_left > 0 || new_left > 0 {
            let Some(line) = self.lines.get(self.at) else {
                return Err("it ends within a hunk".to_owned());
            };
            let counts = match line[0] {
                b' ' | b'\n' | b'\r' => (1, 1),
                b'-' => (1, 0),
                b'+' => {
                    reads::refuse(path, &line[1..])?;
                    (0, 1)
                }
                b'\\' => (0, 0),
                _ => return Err("a hunk has fewer lines than its @@ line says".to_owned()),
            };
            let left = (old_left.checked_sub(counts.0), new_left.checked_sub(counts.1));
            let (Some(o), Some(n)) = left else {
                return Err("a hunk's lines don't fit the numbers in its @@ line".to_owned());
            };
            (old_left, new_left) = (o, n);
            if matches!(line[0], b'\n' | b'\r') {
                // A blank line of context that lost its blank on the way.
                lines.push(b' ');
            }
            lines.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                lines.push(b'\n');
            }
            self.at += 1;
        }
        // "\ No newline at end of file" of the last line.
        if self.lines.get(self.at).is_some_and(|line| line.starts_with(b"\\")) {
            lines.extend_from_slice(b"\\ No newline at end of file\n");
            self.at += 1;
        }
        Ok(Hunk {
            header: String::from_utf8_lossy(header).chars().take(MAX_HEADER).collect(),
            old,
            new,
            lines,
        })
    }
}

/// Takes in one of git's extended headers; false for a line that is none.
fn extended_header(line: &[u8], header: &mut GitHeader) -> Result<bool, String> {
    refuse_binary(line)?;
    let text = String::from_utf8_lossy(line);
    let is = |what: &str| text.strip_prefix(what);
    if is("old mode ").or(is("new mode ")).is_some() {
        return Err("it changes a file's mode, which no livepatch can; leave that part out".to_owned());
    }
    if is("rename ").or(is("copy ")).is_some() {
        return Err("it renames or copies a file; make it with --no-renames".to_owned());
    }
    if let Some(mode) = is("new file mode ") {
        plain_file(mode)?;
        header.change = Change::Add;
    } else if let Some(mode) = is("deleted file mode ") {
        plain_file(mode)?;
        header.change = Change::Delete;
    } else if let Some(rest) = is("index ") {
        if let Some((_, mode)) = rest.split_once(' ') {
            plain_file(mode)?;
        }
    } else if is("similarity index ").or(is("dissimilarity index ")).is_none() {
        return Ok(false);
    }
    Ok(true)
}

fn plain_file(mode: &str) -> Result<(), String> {
    match mode.trim() {
        "100644" | "100755" => Ok(()),
        "120000" => Err("it makes or changes a symbolic link, which is not allowed".to_owned()),
        "160000" => Err("it changes a submodule, which is not allowed".to_owned()),
        _ => Err("it makes something else than a plain file, which is not allowed".to_owned()),
    }
}

fn refuse_binary(line: &[u8]) -> Result<(), String> {
    let told = line.starts_with(b"Binary files ") && line.ends_with(b" differ");
    if told || line == b"GIT binary patch" {
        return Err("it changes a binary file, which no livepatch can; leave that part out".to_owned());
    }
    Ok(())
}

/// The name in a `---` or `+++` line: up to the tab that a date follows.
fn name(line: &[u8]) -> &[u8] {
    let name = line.get(4..).unwrap_or_default();
    let end = name.iter().position(|b| *b == b'\t').unwrap_or(name.len());
    name[..end].trim_ascii_end()
}

fn is_epoch(line: &[u8]) -> bool {
    let date = line.splitn(2, |b| *b == b'\t').nth(1).unwrap_or_default();
    date.starts_with(b"1970-01-01") || date.starts_with(b"1969-12-31")
}

/// `a/x` of `a/x b/x`, where both halves are the same but for their first letter.
fn both_names(names: &[u8]) -> Option<String> {
    let (a, b) = names.split_at_checked(names.len() / 2)?;
    let b = b.strip_prefix(b" ")?;
    let same = a.strip_prefix(b"a/")? == b.strip_prefix(b"b/")?;
    same.then(|| String::from_utf8_lossy(a).into_owned())
}

/// `@@ -1,2 +3,4 @@ anything`; a count of 1 may be left out.
fn ranges(header: &[u8]) -> Option<(Range, Range)> {
    let text = String::from_utf8_lossy(header);
    let (numbers, _) = text.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = numbers.split_once(" +")?;
    let range = |text: &str| {
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        let number = |text: &str| text.parse().ok().filter(|_| !text.starts_with('+'));
        Some(Range {
            start: number(start)?,
            count: number(count)?,
        })
    };
    Some((range(old)?, range(new)?))
}

/// What a name in a diff means below the source's root: its first part, `a` or `b` or a folder's name, is dropped.
///
/// # Errors
/// It leads elsewhere, or is no name a kernel source file has.
fn tree_path(name: &[u8]) -> Result<String, String> {
    let shown = klp_livepatch::names::quoted(&String::from_utf8_lossy(name));
    if name.len() > MAX_PATH {
        return Err(format!("it names the file {shown}, whose path is too long"));
    }
    if !name.iter().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(b)) {
        return Err(format!(
            "it names the file {shown}, and no kernel source file has such characters"
        ));
    }
    let outside = |part: &str| matches!(part, "" | "." | "..") || part.eq_ignore_ascii_case(".git");
    let name = std::str::from_utf8(name).unwrap_or_default();
    if name.split('/').any(outside) {
        return Err(format!(
            "it names the file {shown}, which is not below the source folder"
        ));
    }
    match name.split_once('/') {
        Some((_, path)) => Ok(path.to_owned()),
        None => Err(format!(
            "it names the file {shown} without a folder before it, such as a/ and b/; make it in the source's root"
        )),
    }
}

#[cfg(test)]
mod tests;
