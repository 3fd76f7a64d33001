//! Reads a git repository by the `git` program: names are resolved and files read in batches, and nothing of what the
//! repository's owner configured is run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ScanError;
use crate::process::{self, Captured, Command, End, Limits};

/// Bytes of one file; larger ones are left out.
pub const MAX_BLOB: u64 = 16 << 20;
/// Bytes of files that one call reads.
const MAX_BATCH: u64 = 64 << 20;

/// Settings by which a repository could have programs started, or make output depend on the user.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.quotePath=true",
    "core.pager=cat",
    "color.ui=false",
    "grep.threads=2",
    "grep.fullName=true",
    "grep.lineNumber=false",
    "grep.fallbackToNoIndex=false",
    "protocol.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
];

/// A repository, bare or with a work tree.
#[derive(Clone, Debug)]
pub struct KernelSource {
    git_dir: PathBuf,
}

/// An object as git names it: hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(String);

impl ObjectId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let plain = matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| Self(text.to_owned()))
    }
}

/// An object that a name led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub id: ObjectId,
    pub kind: String,
    pub size: u64,
}

impl KernelSource {
    /// Opens the repository at `path`, which is its `.git` folder or holds that.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(path: &Path) -> Result<Self, ScanError> {
        let is_git_dir = |dir: &Path| {
            dir.join("HEAD").is_file() && (dir.join("objects").is_dir() || dir.join("commondir").is_file())
        };
        let inner = path.join(".git");
        // A further work tree has a file there that names the folder.
        let linked = std::fs::read_to_string(&inner)
            .ok()
            .and_then(|text| Some(path.join(text.strip_prefix("gitdir:")?.trim())));
        let found = [Some(inner), linked, Some(path.to_owned())];
        let found = found.into_iter().flatten().find(|dir| is_git_dir(dir));
        let git_dir = found.and_then(|dir| dir.canonicalize().ok());
        git_dir
            .map(|git_dir| Self { git_dir })
            .ok_or_else(|| ScanError::NoRepository { path: path.to_owned() })
    }

    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut git_dir = std::ffi::OsString::from("--git-dir=");
        git_dir.push(&self.git_dir);
        let mut command =
            Command::new("git", &self.git_dir).args(["--no-pager", "--no-optional-locks", "--no-replace-objects"]);
        for setting in SETTINGS {
            command = command.args(["-c", setting]);
        }
        command
            .arg(git_dir)
            .arg(subcommand)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
    }

    async fn run(&self, command: &Command, limits: &Limits, cancel: &CancellationToken) -> Result<Captured, ScanError> {
        let done = process::capture(command, limits, cancel).await?;
        match done.finish.end {
            End::Cancelled => Err(ScanError::Cancelled),
            End::Exited(_) => Ok(done),
            _ => Err(failed(command, &done)),
        }
    }

    /// What each name leads to, such as `refs/heads/x^{commit}` or `<commit>:series.conf`. Names that lead nowhere are left
    /// out.
    ///
    /// # Errors
    /// If git fails as a whole.
    pub async fn resolve(
        &self,
        names: &BTreeSet<String>,
        cancel: &CancellationToken,
    ) -> Result<BTreeMap<String, Object>, ScanError> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let input = input_of(names.iter().map(String::as_str))?;
        let command = self.command("cat-file").arg("--batch-check").input(input.path());
        let limits = Limits {
            output_kept: 64 << 20,
            ..limits()
        };
        let done = self.run(&command, &limits, cancel).await?;
        if !done.finish.end.success() || done.finish.output_cut > 0 {
            return Err(failed(&command, &done));
        }
        // One line for each name, in their order.
        let mut found = BTreeMap::new();
        let mut lines = 0;
        for (name, line) in names.iter().zip(done.stdout.lines()) {
            lines += 1;
            found.extend(object(line).map(|object| (name.clone(), object)));
        }
        if lines == names.len() {
            Ok(found)
        } else {
            Err(failed(&command, &done))
        }
    }

    /// Hands each file's bytes to `take`, every file once. Those above [`MAX_BLOB`] are left out.
    ///
    /// # Errors
    /// If git fails, or its output is not what it should be.
    pub async fn read(
        &self,
        objects: impl IntoIterator<Item = &Object>,
        cancel: &CancellationToken,
        take: &mut (dyn FnMut(&ObjectId, &[u8]) + Send),
    ) -> Result<(), ScanError> {
        let files = objects
            .into_iter()
            .filter(|object| object.kind == "blob" && object.size <= MAX_BLOB);
        let files: BTreeMap<&ObjectId, u64> = files.map(|object| (&object.id, object.size)).collect();
        let mut batch = Vec::new();
        let mut size = 0;
        let mut batches = Vec::new();
        for (id, bytes) in files {
            if size + bytes > MAX_BATCH && !batch.is_empty() {
                batches.push(std::mem::take(&mut batch));
                size = 0;
            }
            size += bytes;
            batch.push(id);
        }
        batches.extend((!batch.is_empty()).then_some(batch));
        for batch in batches {
            self.read_batch(&batch, cancel, take).await?;
        }
        Ok(())
    }

    async fn read_batch(
        &self,
        ids: &[&ObjectId],
        cancel: &CancellationToken,
        take: &mut (dyn FnMut(&ObjectId, &[u8]) + Send),
    ) -> Result<(), ScanError> {
        let input = input_of(ids.iter().map(|id| id.as_str()))?;
        let folder = tempfile::tempdir()?;
        let output = folder.path().join("files");
        let command = self
            .command("cat-file")
            .arg("--batch")
            .input(input.path())
            .output(&output);
        let limits = Limits {
            // Each file has a header besides.
            output: 2 * MAX_BATCH,
            ..limits()
        };
        let done = self.run(&command, &limits, cancel).await?;
        if !done.finish.end.success() {
            return Err(failed(&command, &done));
        }
        let bytes = tokio::fs::read(&output).await?;
        let mut rest = &bytes[..];
        for id in ids {
            let Some((content, after)) = next_file(rest, id) else {
                return Err(failed(&command, &done));
            };
            take(id, content);
            rest = after;
        }
        Ok(())
    }

    /// The files below `folder` of these commits that have one of the texts, as `<commit>:<path>`.
    ///
    /// # Errors
    /// If git fails.
    pub async fn grep(
        &self,
        texts: &[String],
        commits: &BTreeSet<&ObjectId>,
        folder: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<(ObjectId, String)>, ScanError> {
        if commits.is_empty() || texts.is_empty() {
            return Ok(Vec::new());
        }
        let patterns = texts.iter().flat_map(|text| ["-e", text]);
        let command = self
            .command("grep")
            .args(["--no-textconv", "--files-with-matches", "-I", "--fixed-strings"])
            .args(patterns)
            .args(commits.iter().map(|commit| commit.as_str()))
            .arg("--")
            .arg(folder);
        let done = self.run(&command, &limits(), cancel).await?;
        // 1: nothing was found.
        if !matches!(done.finish.end, End::Exited(0 | 1)) || done.finish.output_cut > 0 {
            return Err(failed(&command, &done));
        }
        let one = |line: &str| -> Option<(ObjectId, String)> {
            let (commit, path) = line.split_once(':')?;
            Some((ObjectId::parse(commit)?, path.to_owned()))
        };
        Ok(done.stdout.lines().filter_map(one).collect())
    }
}

/// A kernel-source repository has a hundred thousand files; on a cold disk that takes its time.
fn limits() -> Limits {
    Limits {
        wall: Duration::from_secs(900),
        ..Limits::default()
    }
}

fn failed(command: &Command, done: &Captured) -> ScanError {
    let said: String = done.stderr.trim().chars().take(500).collect();
    ScanError::Git {
        command: command.shown(),
        why: format!("{}: {said}", done.finish.describe()),
    }
}

/// A file with a name in each line. A name with a line break in it would be taken for two; none is let through.
fn input_of<'n>(names: impl Iterator<Item = &'n str>) -> Result<tempfile::NamedTempFile, ScanError> {
    let mut file = tempfile::NamedTempFile::new()?;
    let mut text = String::new();
    for name in names {
        text.extend(name.chars().filter(|c| !c.is_control()));
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// `<id> <kind> <size>`; anything else means that there is no such object.
fn object(line: &str) -> Option<Object> {
    let mut words = line.split(' ');
    let (id, kind, size) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    Some(Object {
        id: ObjectId::parse(id)?,
        kind: kind.to_owned(),
        size: size.parse().ok()?,
    })
}

/// The content of the file that `bytes` begin with, and what follows it.
fn next_file<'b>(bytes: &'b [u8], id: &ObjectId) -> Option<(&'b [u8], &'b [u8])> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let header = object(std::str::from_utf8(&bytes[..end]).ok()?).filter(|object| object.id == *id)?;
    let content = bytes.get(end + 1..)?;
    let size = usize::try_from(header.size).ok()?;
    let (content, rest) = (content.get(..size)?, content.get(size..)?);
    Some((content, rest.strip_prefix(b"\n")?))
}
