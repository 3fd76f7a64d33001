//! Applies patches to copies of the files they name, in a folder that holds nothing else: whatever a program does there,
//! it meets no link and no file of the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::diff::{Change, FileDiff};
use super::failure::{Applied, FailedHunk, PatchFailure};
use crate::isolation::{Cell, Room};
use crate::process::{self, Captured, Command, End, Limits};

/// The largest file that is patched, in bytes; the kernel's largest header has 20 MiB.
const MAX_FILE: u64 = 64 << 20;

/// Lines of a hunk's context that may differ, at each end, as GNU patch counts: its own default, and klp-build's. Not 3,
/// because with the usual three lines of context nothing would be compared any more, and a line that is only added would
/// go in anywhere.
const FUZZ: &str = "--fuzz=2";

/// The copies, and what to apply to them.
pub(super) struct Stage<'a> {
    /// The tree's source.
    src: &'a Path,
    /// Holds the copies, by their paths in the tree.
    pub room: Room,
    /// A diff on its way to a program.
    diff: PathBuf,
    /// Everything that a patch named so far.
    pub touched: BTreeSet<String>,
    cell: &'a Cell,
    cancel: &'a CancellationToken,
}

impl<'a> Stage<'a> {
    /// `scratch` is an existing folder.
    pub fn new(src: &'a Path, scratch: &Path, cell: &'a Cell, cancel: &'a CancellationToken) -> std::io::Result<Self> {
        Ok(Self {
            src,
            // By its real name, because git looks for repositories above it, up to a folder that is told by that.
            room: Room::new(scratch.join("stage"))?,
            diff: scratch.join("stage.diff"),
            touched: BTreeSet::new(),
            cell,
            cancel,
        })
    }

    /// Applies one patch; returns the hunks that needed fuzz, in words.
    pub async fn apply(&mut self, files: &[FileDiff]) -> Result<Vec<String>, PatchFailure> {
        for file in files {
            self.copy(&file.path)?;
        }
        if let Err(failure) = self.fits(files) {
            let applied = self.applied(files, &failure).await?;
            return Err(failure.with_applied(applied));
        }
        if self.git(files, &[]).await?.finish.end.success() {
            self.without_lines(files)?;
            return Ok(Vec::new());
        }
        // Before fuzz is tried: what only adds lines would go in a second time.
        if self.git(files, &["-R", "--check"]).await?.finish.end.success() {
            let failure = PatchFailure::hunk(&files[0], None);
            return Err(failure.with_applied(Applied::Whole));
        }
        let mut fuzzy = Vec::new();
        for file in files {
            fuzzy.extend(self.apply_file(file).await?);
        }
        self.without_lines(files)?;
        Ok(fuzzy)
    }

    /// Copies a file from the tree, the first time that it is named.
    fn copy(&mut self, path: &str) -> Result<(), PatchFailure> {
        if !self.touched.insert(path.to_owned()) {
            return Ok(());
        }
        let refuse = |why: &str| Err(PatchFailure::refused(format!("it names {path}, {why}")));
        let folders: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
        let below = format!("{path}/");
        let file_and_folder = folders.iter().any(|folder| self.touched.contains(*folder))
            || self
                .touched
                .range(below.clone()..)
                .next()
                .is_some_and(|next| next.starts_with(&below));
        if file_and_folder {
            return refuse("which would be a file and a folder at once");
        }
        for folder in folders {
            match std::fs::symlink_metadata(self.src.join(folder)) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return refuse(&format!("but {folder} is no folder here")),
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                Err(e) => return Err(PatchFailure::io("read", &self.src.join(folder), e)),
            }
        }
        let original = self.src.join(path);
        match std::fs::symlink_metadata(&original) {
            Ok(found) if found.len() > MAX_FILE => return refuse("which is too large to be patched"),
            Ok(found) if found.is_file() => {}
            Ok(_) => return refuse("which is no plain file here"),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(PatchFailure::io("read", &original, e)),
        }
        let bytes = std::fs::read(&original).map_err(|e| PatchFailure::io("read", &original, e))?;
        self.write(path, &bytes)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> Result<(), PatchFailure> {
        let copy = self.place(path)?;
        let made = copy.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&copy, bytes))
            .map_err(|e| PatchFailure::io("write", &copy, e))
    }

    /// Where a copy is, once programs have been there.
    fn place(&self, path: &str) -> Result<PathBuf, PatchFailure> {
        let place = self.room.place(Path::new(path));
        place.map_err(|e| PatchFailure::io("look for", &self.room.path().join(path), e))
    }

    /// That what programs made of the copies are files: others will read them.
    pub fn is_plain(&self) -> Result<(), PatchFailure> {
        for path in &self.touched {
            let place = self.place(path)?;
            if place.exists() && !place.is_file() {
                return Err(PatchFailure::farm(format!(
                    "{} became something else than a file",
                    place.display()
                )));
            }
        }
        Ok(())
    }

    /// Whether each file that is changed is there, and each that is added is not.
    fn fits(&self, files: &[FileDiff]) -> Result<(), PatchFailure> {
        let mut there: BTreeMap<&str, bool> = BTreeMap::new();
        for file in files {
            let is = there
                .entry(&file.path)
                .or_insert_with(|| self.room.path().join(&file.path).is_file());
            match (file.change, *is) {
                (Change::Modify | Change::Delete, false) if !file.begins_from_nothing() => {
                    return Err(PatchFailure::file(file, "this kernel has no such file"));
                }
                (Change::Add, true) => return Err(PatchFailure::file(file, "this kernel has that file already")),
                _ => {}
            }
            *is = file.change != Change::Delete;
        }
        Ok(())
    }

    /// Files without a line, which come and go without a hunk.
    fn without_lines(&self, files: &[FileDiff]) -> Result<(), PatchFailure> {
        for file in files.iter().filter(|file| file.hunks.is_empty()) {
            let copy = self.place(&file.path)?;
            match file.change {
                Change::Add => self.write(&file.path, b"")?,
                Change::Delete if std::fs::metadata(&copy).is_ok_and(|found| found.len() > 0) => {
                    return Err(PatchFailure::file(file, "it is not empty, as the patch takes it to be"));
                }
                _ => std::fs::remove_file(&copy).map_err(|e| PatchFailure::io("remove", &copy, e))?,
            }
        }
        Ok(())
    }

    /// One file of a patch that as a whole does not apply exactly.
    async fn apply_file(&self, file: &FileDiff) -> Result<Vec<String>, PatchFailure> {
        let alone = std::slice::from_ref(file);
        if file.hunks.is_empty() || self.git(alone, &[]).await?.finish.end.success() {
            return Ok(Vec::new());
        }
        let reversed = self.git(alone, &["-R", "--check"]).await?.finish.end.success();
        let applied = if reversed { Applied::ThisFile } else { Applied::No };
        if reversed || file.change != Change::Modify {
            return Err(PatchFailure::hunk(file, None).with_applied(applied));
        }
        self.write_diff(alone)?;
        let command = Command::new("patch", self.room.path())
            // Without questions, without a guess that it is to be undone, without files beside.
            .args([
                "--force",
                FUZZ,
                "--binary",
                "--no-backup-if-mismatch",
                "--reject-file=-",
                "--",
            ])
            .arg(&file.path)
            .arg(&self.diff);
        let done = self.run(&command).await?;
        let verdicts = read_verdicts(&done.stdout);
        if done.finish.end.success() {
            let fuzzy = verdicts.into_iter().filter_map(|verdict| match verdict.how {
                How::Fuzzy(how) => Some(warning(file, verdict.hunk, &how)),
                How::Failed => None,
            });
            return Ok(fuzzy.collect());
        }
        let failed = verdicts.iter().find(|verdict| verdict.how == How::Failed);
        let number = failed.map(|verdict| verdict.hunk);
        Err(PatchFailure::hunk(
            file,
            number.and_then(|number| FailedHunk::of(file, number)),
        ))
    }

    /// Whether a patch that can't be applied seems to be applied already.
    async fn applied(&self, files: &[FileDiff], failure: &PatchFailure) -> Result<Applied, PatchFailure> {
        if self.git(files, &["-R", "--check"]).await?.finish.end.success() {
            return Ok(Applied::Whole);
        }
        match files.iter().find(|file| failure.is_about(&file.path)) {
            Some(file) if !file.hunks.is_empty() => {
                let done = self.git(std::slice::from_ref(file), &["-R", "--check"]).await?;
                Ok(if done.finish.end.success() {
                    Applied::ThisFile
                } else {
                    Applied::No
                })
            }
            _ => Ok(Applied::No),
        }
    }

    /// `git apply` compares all of a hunk's context, and changes all files or none.
    async fn git(&self, files: &[FileDiff], options: &[&str]) -> Result<Captured, PatchFailure> {
        self.write_diff(files)?;
        let command = Command::new("git", self.room.path())
            // A repository around the worker's folders is none of ours, nor is what anybody configured.
            .env(
                "GIT_CEILING_DIRECTORIES",
                self.room.path().parent().unwrap_or(self.room.path()),
            )
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["apply", "--whitespace=nowarn"])
            .args(options)
            .arg("--")
            .arg(&self.diff);
        self.run(&command).await
    }

    fn write_diff(&self, files: &[FileDiff]) -> Result<(), PatchFailure> {
        let mut bytes = Vec::new();
        files.iter().for_each(|file| file.write(&mut bytes));
        std::fs::write(&self.diff, bytes).map_err(|e| PatchFailure::io("write", &self.diff, e))
    }

    async fn run(&self, command: &Command) -> Result<Captured, PatchFailure> {
        let limits = Limits {
            wall: Duration::from_secs(60),
            memory: Some(2 << 30),
            output_kept: 1 << 20,
            ..Limits::default()
        };
        let cell = self.cell.reading([self.diff.as_path()]);
        let cell = cell
            .writing(&self.room)
            .map_err(|e| PatchFailure::io("hand over", self.room.path(), e))?;
        let command = command.clone().within(&cell);
        let done = process::capture(&command, &limits, self.cancel).await?;
        match done.finish.end {
            End::Exited(_) => Ok(done),
            _ => Err(PatchFailure::farm(format!(
                "`{}` {}",
                command.shown(),
                done.finish.describe()
            ))),
        }
    }
}

fn warning(file: &FileDiff, number: usize, how: &str) -> String {
    let header = file.hunks.get(number - 1).map_or("", |hunk| hunk.header.as_str());
    format!(
        "{}: hunk {number} of {} (`{header}`) applied {how}; look whether it is where it should be",
        file.path,
        file.hunks.len()
    )
}

#[derive(Debug, PartialEq, Eq)]
enum How {
    Failed,
    /// As in "with fuzz 2 (offset 3 lines)".
    Fuzzy(String),
}

/// What GNU patch says about one hunk.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    /// From 1.
    hunk: usize,
    how: How,
}

/// Lines such as `Hunk #2 FAILED at 30.` and `Hunk #1 succeeded at 12 with fuzz 2 (offset 3 lines).`
fn read_verdicts(said: &str) -> Vec<Verdict> {
    said.lines()
        .filter_map(|line| {
            let (number, rest) = line.strip_prefix("Hunk #")?.split_once(' ')?;
            let hunk = number.parse().ok().filter(|number| *number > 0)?;
            let how = if rest.starts_with("FAILED") {
                How::Failed
            } else {
                let at = rest.find("with fuzz")?;
                How::Fuzzy(rest[at..].trim_end_matches('.').to_owned())
            };
            Some(Verdict { hunk, how })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_patch_says_is_understood() {
        let said = "patching file x.c\nHunk #1 succeeded at 3 (offset 2 lines).\n\
                    Hunk #2 succeeded at 9 with fuzz 2 (offset 1 line).\nHunk #3 FAILED at 30.\nHunk #0 FAILED\n";
        assert_eq!(
            read_verdicts(said),
            [
                Verdict {
                    hunk: 2,
                    how: How::Fuzzy("with fuzz 2 (offset 1 line)".into())
                },
                Verdict {
                    hunk: 3,
                    how: How::Failed
                }
            ]
        );
    }
}
