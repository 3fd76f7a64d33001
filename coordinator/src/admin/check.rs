//! Verifies a data folder: the database in itself, and the files it speaks of.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use klp_livepatch::outcome::Digest;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Folder;
use crate::aside::Aside;
use crate::blobs::{BlobError, Blobs};
use crate::config::Config;
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
    /// The bucket that artifacts are in, where they are not in the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts_in: Option<String>,
    /// Artifacts of which only sizes were compared, not digests: those in a bucket, unless it was asked for.
    pub unread_artifacts: Files,
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

/// How thoroughly artifacts are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Files are read, objects in a bucket are listed.
    Usual,
    /// Objects are read, too.
    Deep,
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

/// Checks a data folder, and the artifacts where they are; with `online`, beside the coordinator that uses it.
///
/// # Errors
/// It could not be checked.
pub fn check(config: &Config, online: bool, depth: Depth) -> anyhow::Result<Findings> {
    let dir = &config.data_dir;
    let folder = Folder::existing(dir)?;
    let blobs = Blobs::at(config, Aside::Threads)?;
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
    let findings = examine(&folder, &blobs, depth);
    drop((kept, lock));
    findings
}

/// Checks a folder from which nothing is cleared away meanwhile.
pub(super) fn examine(folder: &Folder, blobs: &Blobs, depth: Depth) -> anyhow::Result<Findings> {
    let mut findings = Findings {
        data_dir: folder.path().to_owned(),
        artifacts_in: blobs.folder().is_none().then(|| blobs.whereabouts()),
        ..Findings::default()
    };
    match examine_all(folder, blobs, depth, &mut findings) {
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

fn examine_all(folder: &Folder, blobs: &Blobs, depth: Depth, findings: &mut Findings) -> anyhow::Result<()> {
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
    examine_artifacts(blobs, depth, &contents, findings)?;
    examine_logs(folder, &db, findings)
}

/// Looks for what the database names. A listing tells what there is, where each look would be a question of its own.
fn examine_artifacts(
    blobs: &Blobs,
    depth: Depth,
    contents: &[(Digest, u64, String)],
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let mut there = HashMap::new();
    let listed = blobs.each(&CancellationToken::new(), |stored| {
        there.insert(stored.digest, stored.size);
        Ok::<_, BlobError>(())
    });
    listed.context("can't list the artifacts")?;
    let read = depth == Depth::Deep || blobs.folder().is_some();
    for (digest, size, user) in contents {
        let problem = match there.get(digest) {
            None => Some("is missing".to_owned()),
            Some(found) if found != size => Some(format!("has {found} bytes instead of {size}")),
            Some(_) if read => damage(blobs, digest),
            Some(_) => {
                findings.unread_artifacts.add(*size);
                None
            }
        };
        match problem {
            None => findings.artifacts.add(*size),
            Some(problem) => findings.problem(
                format!(
                    "artifact {user}: its content {} {problem}",
                    blobs.whereabouts_of(digest)
                ),
                "copy it there from a backup, or submit the livepatch again under another name",
            ),
        }
    }
    for (digest, ..) in contents {
        there.remove(digest);
    }
    there
        .values()
        .for_each(|size| findings.unreferenced_artifacts.add(*size));
    Ok(())
}

/// What is wrong with a content that is there, if anything is. One that can't be read is a finding; that another can be is
/// seen next.
fn damage(blobs: &Blobs, digest: &Digest) -> Option<String> {
    match blobs.measure(digest) {
        Ok(Some(found)) if found == *digest => None,
        Ok(Some(found)) => Some(format!("is damaged: its digest is {found}")),
        Ok(None) => Some("is missing".to_owned()),
        Err(error) => Some(format!("can't be read: {error}")),
    }
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
