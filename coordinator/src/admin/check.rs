//! Verifies a data folder: the database in itself, and the files it speaks of.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use klp_livepatch::outcome::Digest;
use serde::Serialize;

use super::Folder;
use crate::blobs::Blobs;
use crate::disk::present;
use crate::logs;
use crate::store::audit::{self, Amounts};
use crate::store::{StoreError, is_corrupt};

/// The most problems that are told one by one.
const LISTED: usize = 1000;

/// What is to be done about a problem that only a copy from earlier can mend.
const RESTORE: &str = "restore a backup: start the coordinator with it as data_dir";

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    pub data_dir: PathBuf,
    pub sound: bool,
    /// In the order they were found, the first of them if there are very many.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub unlisted: usize,
    pub database: Amounts,
    pub artifacts: Files,
    pub logs: Files,
    /// Artifacts that no outcome names, as the upload comes before the outcome; no problem.
    pub unreferenced_artifacts: Files,
    /// Tasks' logs whose task is not in the database; no problem.
    pub unreferenced_logs: Files,
}

#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    pub what: String,
    pub next_step: &'static str,
}

/// How many files there are, and how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Files {
    pub count: u64,
    pub bytes: u64,
}

impl Files {
    pub(super) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

impl Findings {
    fn problem(&mut self, what: impl Into<String>, next_step: &'static str) {
        if self.problems.len() < LISTED {
            let what = what.into();
            self.problems.push(Problem { what, next_step });
        } else {
            self.unlisted += 1;
        }
    }
}

/// Checks a data folder; with `online`, beside the coordinator that uses it.
///
/// # Errors
/// It could not be checked.
pub fn check(dir: &Path, online: bool) -> anyhow::Result<Findings> {
    let folder = Folder::existing(dir)?;
    let mut lock = None;
    if !online {
        lock = folder
            .try_own()
            .with_context(|| format!("can't lock {}", dir.display()))?;
        ensure!(
            lock.is_some(),
            "a coordinator uses {}; stop it, or check beside it with --online",
            dir.display()
        );
    }
    let kept = folder.keep_all()?;
    let findings = examine(&folder);
    drop((kept, lock));
    findings
}

/// Checks a folder from which nothing is cleared away meanwhile.
pub(super) fn examine(folder: &Folder) -> anyhow::Result<Findings> {
    let mut findings = Findings {
        data_dir: folder.path().to_owned(),
        ..Findings::default()
    };
    match examine_all(folder, &mut findings) {
        Err(error) if error.chain().any(corrupt) => {
            let path = folder.database();
            findings.problem(
                format!("the database {} is corrupt: {error:#}", path.display()),
                RESTORE,
            );
        }
        examined => examined?,
    }
    findings.sound = findings.problems.is_empty();
    Ok(findings)
}

fn corrupt(error: &(dyn std::error::Error + 'static)) -> bool {
    let store = error.downcast_ref().is_some_and(StoreError::is_corrupt);
    store || error.downcast_ref().is_some_and(is_corrupt)
}

fn examine_all(folder: &Folder, findings: &mut Findings) -> anyhow::Result<()> {
    let mut db = audit::open_existing(&folder.database())?;
    let mut contents = Vec::new();
    {
        // One state of the database for all; the files are read later, so that it is not held for long.
        let state = db.transaction()?;
        for breach in audit::breaches(&state)? {
            findings.problem(format!("{} (the rule: {})", breach.what, breach.rule), RESTORE);
        }
        findings.database = audit::amounts(&state)?;
        audit::each_content(&state, |digest, size, user| {
            contents.push((digest, size, user));
            Ok::<_, rusqlite::Error>(())
        })?;
    }
    let blobs = Blobs::at(folder.blobs());
    for (digest, size, user) in &contents {
        match content_problem(&blobs, digest, *size)? {
            None => findings.artifacts.add(*size),
            Some(problem) => findings.problem(
                format!(
                    "artifact {user}: its content {} {problem}",
                    blobs.path(digest).display()
                ),
                "copy that file from a backup, or submit the livepatch again under another name",
            ),
        }
    }
    let mut named: Vec<String> = contents.iter().map(|(digest, ..)| digest.to_string()).collect();
    named.sort_unstable();
    blobs
        .each(|digest, size, _| {
            if named.binary_search(&digest.to_string()).is_err() {
                findings.unreferenced_artifacts.add(size);
            }
            Ok::<_, io::Error>(())
        })
        .with_context(|| format!("can't list {}", folder.blobs().display()))?;
    examine_logs(folder, &db, findings)
}

/// What is wrong with a content's file, if anything is.
fn content_problem(blobs: &Blobs, digest: &Digest, size: u64) -> anyhow::Result<Option<String>> {
    let path = blobs.path(digest);
    let read = || {
        let Some(file) = present(std::fs::File::open(&path))? else {
            return Ok(Some("is missing".to_owned()));
        };
        let found = file.metadata()?.len();
        if found != size {
            return Ok(Some(format!("has {found} bytes instead of {size}")));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file)?;
        let found = Digest::from_hasher(&hasher);
        Ok((found != *digest).then(|| format!("is damaged: its digest is {found}")))
    };
    // A file that can't be read is a finding; that another can be is seen next.
    Ok(read().unwrap_or_else(|error: io::Error| Some(format!("can't be read: {error}"))))
}

fn examine_logs(folder: &Folder, db: &rusqlite::Connection, findings: &mut Findings) -> anyhow::Result<()> {
    let dir = folder.logs();
    let listing = || format!("can't list {}", dir.display());
    for task in logs::tasks(&dir).with_context(listing)? {
        let known = audit::has_task(db, task)?;
        for log in logs::of_task(&dir, task).with_context(listing)? {
            match log.verify() {
                Ok(size) if known => findings.logs.add(size),
                Ok(size) => findings.unreferenced_logs.add(size),
                Err(error) => findings.problem(
                    format!("the log of attempt {} can't be read: {error}", log.id),
                    "copy it from a backup, or remove the file: only the text is lost",
                ),
            }
        }
    }
    Ok(())
}
