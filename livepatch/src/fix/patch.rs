//! Reads patches: plain unified diffs, git's mails, and the patches of SUSE's kernel-source repository.
//!
//! Crates that read diffs know one dialect at a time. Patches of kernels mix them: prose with `---` in it, git's headers
//! for a renamed file beside a plain diff, blank context lines whose space an editor has removed. And what is said about
//! a hunk must name its line in the patch. So this is a reader of our own, after the formats of GNU diffutils' manual
//! ("Detailed Description of Unified Format") and git-diff(1).

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{Cve, InvalidName, TreePath, quoted};

/// Bytes of one patch.
pub const MAX_PATCH: usize = 8 << 20;
/// Files that one patch changes.
pub const MAX_FILES: usize = 4096;
/// Bytes of a subject that are kept.
const MAX_SUBJECT: usize = 300;
/// References of one patch that are kept.
const MAX_REFERENCES: usize = 100;

/// A commit's id, or the first 12 or more of its hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

impl CommitId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first 12 digits, which is how people name a commit.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl FromStr for CommitId {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, InvalidName> {
        if (12..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(s.to_ascii_lowercase()))
        } else {
            Err(InvalidName(format!(
                "commit {} is not 12 to 64 hexadecimal digits",
                quoted(s)
            )))
        }
    }
}

impl TryFrom<String> for CommitId {
    type Error = InvalidName;

    fn try_from(s: String) -> Result<Self, InvalidName> {
        s.parse()
    }
}

impl From<CommitId> for String {
    fn from(id: CommitId) -> String {
        id.0
    }
}

/// One patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Without `[PATCH 1/2]`; empty if the patch has none.
    pub subject: String,
    /// The commits it is made from: `Git-commit:` fields, else what stable kernels write into the text.
    pub git_commits: Vec<CommitId>,
    /// `Patch-mainline:`, the kernel release that has it.
    pub mainline: Option<String>,
    /// What `References:` lists, such as `bsc#1197597` or `CVE-2022-1048`, as it stands there.
    pub references: Vec<String>,
    pub files: Vec<FilePatch>,
}

impl Patch {
    pub fn cves(&self) -> Vec<Cve> {
        self.references
            .iter()
            .filter_map(|reference| reference.strip_prefix("CVE-")?.parse().ok())
            .collect()
    }
}

/// What a patch does to one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilePatch {
    /// `None`: the file is added.
    pub old: Option<TreePath>,
    /// `None`: the file is removed.
    pub new: Option<TreePath>,
    pub hunks: Vec<Hunk>,
    /// Its contents are not text, and not read.
    pub binary: bool,
    /// The line of the patch where this file begins, from 1.
    pub line: usize,
}

impl FilePatch {
    /// The file's name after the patch, or before if it is removed.
    pub fn path(&self) -> Option<&TreePath> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

/// A run of changed lines with their surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunk {
    /// The line of the patch that holds its `@@`, from 1.
    pub line: usize,
    /// The first line in the old file, from 1; where it has none of the old file's lines, the line before it.
    pub old_start: usize,
    pub new_start: usize,
    pub lines: Vec<HunkLine>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HunkLine {
    pub side: Side,
    /// Without the sign and the newline.
    pub text: String,
}

/// Which version of the file has a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Both,
    Old,
    New,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    #[error("the patch has {0} bytes; at most {MAX_PATCH}")]
    TooLong(usize),
    #[error("line {line}: the patch changes more than {MAX_FILES} files")]
    TooManyFiles { line: usize },
    #[error("line {line}: {why}")]
    BadPath { line: usize, why: String },
    #[error("line {line}: {shown} is not a hunk's header like `@@ -1,2 +3,4 @@`")]
    BadHunk { line: usize, shown: String },
    #[error("line {line}: a hunk with no file before it; `--- a/FILE` and `+++ b/FILE` are missing")]
    NoFile { line: usize },
    #[error("line {line}: the hunk that began in line {hunk} is cut short: {missing} of its lines are missing")]
    CutShort { line: usize, hunk: usize, missing: usize },
    #[error("there is no diff in it: no line begins with `--- ` and is followed by one with `+++ `")]
    Empty,
}

impl FromStr for Patch {
    type Err = PatchError;

    fn from_str(text: &str) -> Result<Self, PatchError> {
        if text.len() > MAX_PATCH {
            return Err(PatchError::TooLong(text.len()));
        }
        let lines: Vec<&str> = text.lines().collect();
        let mut files = Vec::new();
        let mut head = lines.len();
        let mut open: Option<FilePatch> = None;
        let mut at = 0;
        while at < lines.len() {
            let line = lines[at];
            let names = name_lines(&lines, at);
            if line.starts_with("diff --git ")
                || (names && open.as_ref().is_none_or(|f| named(f) && !f.hunks.is_empty()))
            {
                head = head.min(at);
                close(&mut files, open.take(), at)?;
                open = Some(FilePatch {
                    line: at + 1,
                    ..FilePatch::default()
                });
            }
            if names && let Some(file) = &mut open {
                file.old = side_path(&lines[at][4..], at)?;
                file.new = side_path(&lines[at + 1][4..], at + 1)?;
                at += 2;
            } else if line.starts_with("@@ -") && at >= head {
                let file = open
                    .as_mut()
                    .filter(|f| named(f))
                    .ok_or(PatchError::NoFile { line: at + 1 })?;
                let (hunk, next) = read_hunk(&lines, at)?;
                file.hunks.push(hunk);
                at = next;
            } else {
                if let Some(file) = open.as_mut().filter(|f| f.hunks.is_empty()) {
                    git_header(file, line, at)?;
                }
                at += 1;
            }
        }
        close(&mut files, open, lines.len())?;
        if files.is_empty() {
            return Err(PatchError::Empty);
        }
        let mut patch = header(&lines[..head]);
        patch.files = files;
        Ok(patch)
    }
}

fn named(file: &FilePatch) -> bool {
    file.old.is_some() || file.new.is_some()
}

/// Whether lines `at` and `at + 1` name a file's two versions.
fn name_lines(lines: &[&str], at: usize) -> bool {
    lines[at].starts_with("--- ") && lines.get(at + 1).is_some_and(|next| next.starts_with("+++ "))
}

/// What git says of a file before its hunks, or instead of them.
fn git_header(file: &mut FilePatch, line: &str, at: usize) -> Result<(), PatchError> {
    let plain = |path: &str| parse_path(path, at).map(Some);
    if let Some(both) = line.strip_prefix("diff --git a/") {
        // Where the two names differ, lines of their own follow that say so.
        let half = both.len().saturating_sub(3) / 2;
        if let (Some(old), Some(new)) = (both.get(..half), both.get(half..))
            && new.strip_prefix(" b/") == Some(old)
        {
            (file.old, file.new) = (plain(old)?, plain(old)?);
        }
    } else if let Some(path) = line.strip_prefix("rename from ") {
        file.old = plain(path)?;
    } else if let Some(path) = line
        .strip_prefix("rename to ")
        .or_else(|| line.strip_prefix("copy to "))
    {
        file.new = plain(path)?;
    } else if line.starts_with("copy from ") || line.starts_with("new file mode ") {
        file.old = None;
    } else if line.starts_with("deleted file mode ") {
        file.new = None;
    } else if line.starts_with("GIT binary patch") || line.starts_with("Binary files ") {
        file.binary = true;
    }
    Ok(())
}

fn close(files: &mut Vec<FilePatch>, file: Option<FilePatch>, at: usize) -> Result<(), PatchError> {
    let Some(file) = file.filter(named) else {
        return Ok(());
    };
    if files.len() == MAX_FILES {
        return Err(PatchError::TooManyFiles { line: at });
    }
    files.push(file);
    Ok(())
}

/// The file that `--- ` or `+++ ` names, without the folder that `patch -p1` takes away; `None` for /dev/null.
fn side_path(text: &str, at: usize) -> Result<Option<TreePath>, PatchError> {
    // A time may follow after a tab.
    let text = text.split('\t').next().unwrap_or_default().trim_end();
    if text == "/dev/null" {
        return Ok(None);
    }
    match text.split_once('/') {
        Some((_, path)) => parse_path(path, at).map(Some),
        None => Err(PatchError::BadPath {
            line: at + 1,
            why: format!("file {} must be below a folder such as a/ or b/", quoted(text)),
        }),
    }
}

fn parse_path(path: &str, at: usize) -> Result<TreePath, PatchError> {
    path.trim_end().parse().map_err(|why: InvalidName| PatchError::BadPath {
        line: at + 1,
        why: why.0,
    })
}

/// Reads the hunk whose header is at `at`; with the line after it.
fn read_hunk(lines: &[&str], at: usize) -> Result<(Hunk, usize), PatchError> {
    let Some((old_start, old_len, new_start, new_len)) = hunk_header(lines[at]) else {
        return Err(PatchError::BadHunk {
            line: at + 1,
            shown: quoted(lines[at]),
        });
    };
    let (mut old_left, mut new_left) = (old_len, new_len);
    let mut hunk = Hunk {
        line: at + 1,
        old_start,
        new_start,
        lines: Vec::new(),
    };
    let mut next = at + 1;
    while old_left > 0 || new_left > 0 {
        let cut_short = || PatchError::CutShort {
            line: next + 1,
            hunk: at + 1,
            missing: old_left.max(new_left),
        };
        let line = *lines.get(next).ok_or_else(cut_short)?;
        let (side, text) = match line.as_bytes().first() {
            // Some editors and mailers take a blank context line's only space away.
            None => (Side::Both, line),
            Some(b' ') => (Side::Both, &line[1..]),
            Some(b'-') => (Side::Old, &line[1..]),
            Some(b'+') => (Side::New, &line[1..]),
            // `\ No newline at end of file`: what is made here is read, never written, so it makes no difference.
            Some(b'\\') => {
                next += 1;
                continue;
            }
            Some(_) => return Err(cut_short()),
        };
        let (old, new) = (side != Side::New, side != Side::Old);
        if (old && old_left == 0) || (new && new_left == 0) {
            return Err(cut_short());
        }
        old_left -= usize::from(old);
        new_left -= usize::from(new);
        hunk.lines.push(HunkLine {
            side,
            text: text.to_owned(),
        });
        next += 1;
    }
    Ok((hunk, next))
}

/// The numbers of `@@ -1,2 +3,4 @@`; a missing length is 1.
fn hunk_header(line: &str) -> Option<(usize, usize, usize, usize)> {
    let rest = line.strip_prefix("@@ -")?;
    let (ranges, _) = rest.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |text: &str| -> Option<(usize, usize)> {
        let (start, len) = text.split_once(',').unwrap_or((text, "1"));
        let number = |text: &str| text.parse::<u32>().ok().map(|n| n as usize);
        Some((number(start)?, number(len)?))
    };
    let ((old_start, old_len), (new_start, new_len)) = (range(old)?, range(new)?);
    Some((old_start, old_len, new_start, new_len))
}

/// What the lines before the first file say.
fn header(lines: &[&str]) -> Patch {
    let mut patch = Patch::default();
    for (at, line) in lines.iter().enumerate() {
        let folded = || {
            let rest = lines[at + 1..]
                .iter()
                .take_while(|next| next.starts_with([' ', '\t']) && !next.trim().is_empty());
            rest.fold(String::new(), |text, next| text + " " + next.trim())
        };
        if let Some(text) = field(line, "Subject") {
            if patch.subject.is_empty() {
                patch.subject = subject(&(text.to_owned() + &folded()));
            }
        } else if let Some(text) = field(line, "Git-commit") {
            patch.git_commits.extend(commit(text));
        } else if let Some(text) = field(line, "Patch-mainline") {
            patch.mainline = Some(text.chars().take(MAX_SUBJECT).collect()).filter(|text: &String| !text.is_empty());
        } else if let Some(text) = field(line, "References") {
            let text = text.to_owned() + &folded();
            let words = text
                .split([' ', '\t', ',', ';'])
                .filter(|word| !word.is_empty() && word.len() <= 100);
            let room = MAX_REFERENCES.saturating_sub(patch.references.len());
            patch.references.extend(words.take(room).map(str::to_owned));
        }
    }
    if patch.git_commits.is_empty() {
        patch
            .git_commits
            .extend(lines.iter().find_map(|line| stable_commit(line)));
    }
    patch
}

/// A header field's value; the names are compared as mail does, without regard to case.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (found, value) = line.split_once(':')?;
    found.eq_ignore_ascii_case(name).then(|| value.trim())
}

/// The id that a `Git-commit:` field begins with; remarks such as `(partial)` may follow.
fn commit(text: &str) -> Option<CommitId> {
    text.split_whitespace().next()?.parse().ok()
}

/// `commit <id> upstream.` and `[ Upstream commit <id> ]`, as stable kernels write.
fn stable_commit(line: &str) -> Option<CommitId> {
    let words: Vec<&str> = line.split_whitespace().take(6).collect();
    match words[..] {
        ["commit", id, "upstream." | "upstream"] | ["[", "Upstream", "commit", id, "]"] => id.parse().ok(),
        _ => None,
    }
}

/// A subject without `[PATCH ...]`, cut at [`MAX_SUBJECT`].
fn subject(text: &str) -> String {
    let text = text.trim();
    let bare = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((tag, rest)) if tag.to_ascii_uppercase().contains("PATCH") => rest.trim(),
        _ => text,
    };
    bare.chars().take(MAX_SUBJECT).collect()
}

#[cfg(test)]
mod tests;
