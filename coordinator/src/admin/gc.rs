//! Clears away what nobody needs: livepatches that ended longer ago than they are to be kept, content that no outcome
//! names, logs of tasks that are not there.
//!
//! A livepatch goes as a whole, for half of one would tell lies: groups of sources that are gone, events without tasks.
//! Content stays for an hour after it came, as it comes before the outcome that names it; should that take longer, the
//! worker is told that it is missing and sends it again.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use klp_livepatch::outcome::Digest;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Folder;
use super::check::Files;
use crate::aside::Aside;
use crate::blobs::{BATCH, BlobError, Blobs};
use crate::clock::Clock;
use crate::config::{Config, Current};
use crate::lifecycle::Millis;
use crate::logs;
use crate::store::{self, audit, forget};

/// How long content is kept for an outcome to name it.
const GRACE: Duration = Duration::from_secs(3600);
const DAY: Millis = 86_400_000;

/// What was cleared away, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleared {
    /// Names of the livepatches that are forgotten.
    pub livepatches: Vec<String>,
    pub artifacts: Files,
    /// Folders of logs, one for each task.
    pub logs: u64,
}

/// Clears the folder of a coordinator that is stopped; a dry run only looks, beside a running one too.
///
/// # Errors
/// The folder is in use, or the disk's or the database's.
pub fn offline(config: &Config, dry_run: bool) -> anyhow::Result<Cleared> {
    let dir = &config.data_dir;
    let folder = Folder::existing(dir)?;
    let before = cutoff(Clock::system().now(), config.retain_ended_days);
    if dry_run {
        return look(&folder, &Blobs::at(config, Aside::Threads)?, before);
    }
    let Some(_lock) = folder
        .try_own()
        .with_context(|| format!("can't lock {}", dir.display()))?
    else {
        bail!(
            "a coordinator uses {}: it clears away by itself each gc_period_ms; see what with --dry-run, or stop it",
            dir.display()
        );
    };
    // As a coordinator does before it clears away in a bucket: it sees that it is this farm's.
    let blobs = super::wait_for(Blobs::open(config, Aside::Threads))??;
    let cleared = clear(&folder, &blobs, before, &CancellationToken::new())?;
    cleared.context("a check or a backup reads the folder; try again when it is done")
}

/// Clears, again and again, until the coordinator stops.
pub async fn keep_clear(config: Current, blobs: Blobs, clock: Clock, aside: Aside, stop: CancellationToken) {
    let folder = Folder::new(&config.now().data_dir);
    while !stop.is_cancelled() {
        let config = config.now();
        let before = cutoff(clock.now(), config.retain_ended_days);
        let (folder, blobs, stopped) = (folder.clone(), blobs.clone(), stop.clone());
        let audit = cutoff(clock.now(), config.retain_audit_days);
        let clearing = move || {
            prune(&folder, audit)?;
            clear(&folder, &blobs, before, &stopped)
        };
        match aside.run(clearing).await {
            Ok(Ok(Some(cleared))) if cleared != Cleared::default() => tracing::info!(
                livepatches = cleared.livepatches.join(" "),
                artifacts = cleared.artifacts.count,
                bytes = cleared.artifacts.bytes,
                logs = cleared.logs,
                "cleared away what nobody needs"
            ),
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => tracing::info!("nothing is cleared away while a check or a backup reads the data folder"),
            Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "can't clear away now; will try again"),
            Err(error) => tracing::error!(%error, "clearing away broke off"),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(config.gc_period_ms.into())) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// What ended before this is forgotten.
fn cutoff(now: Millis, retain_days: u32) -> Millis {
    match retain_days {
        0 => Millis::MIN,
        days => now - DAY * Millis::from(days),
    }
}

fn came_long_ago(when: SystemTime) -> bool {
    // What came in the future is new.
    when.elapsed().is_ok_and(|age| age > GRACE)
}

/// What clearing would clear.
fn look(folder: &Folder, blobs: &Blobs, before: Millis) -> anyhow::Result<Cleared> {
    let mut db = audit::open_existing(&folder.database())?;
    let db = db.transaction()?;
    let mut cleared = Cleared::default();
    let mut logs = 0;
    for (id, name) in forget::ended_before(&db, before)? {
        cleared.livepatches.push(name.to_string());
        let tasks = forget::tasks(&db, id)?;
        logs += tasks
            .iter()
            .filter(|task| logs::folder(&folder.logs(), **task).exists())
            .count() as u64;
    }
    for task in logs::tasks(&folder.logs())? {
        logs += u64::from(!audit::has_task(&db, task)?);
    }
    cleared.logs = logs;
    blobs.each(&CancellationToken::new(), |stored| {
        if came_long_ago(stored.came) && !audit::names_content(&db, &stored.digest, before)? {
            cleared.artifacts.add(stored.size);
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(cleared)
}

/// Forgets who did what so long ago that it is not to be kept.
fn prune(folder: &Folder, before: Millis) -> anyhow::Result<()> {
    drop(audit::open_existing(&folder.database())?);
    let db = forget::open_to_forget(&folder.database())?;
    let pruned = store::prune_audit(&db, before).context("can't prune the audit log")?;
    if pruned > 0 {
        tracing::info!(entries = pruned, "the audit log is pruned");
    }
    Ok(())
}

/// Clears; `None` if somebody is reading the whole folder.
fn clear(folder: &Folder, blobs: &Blobs, before: Millis, stop: &CancellationToken) -> anyhow::Result<Option<Cleared>> {
    let Some(_lock) = folder.may_clear().context("can't lock gc-lock")? else {
        return Ok(None);
    };
    // Nothing is forgotten from a schema that this program does not know.
    drop(audit::open_existing(&folder.database())?);
    let mut db = forget::open_to_forget(&folder.database())?;
    let mut cleared = Cleared::default();
    for (id, name) in forget::ended_before(&db, before)? {
        if stop.is_cancelled() {
            return Ok(Some(cleared));
        }
        if forget::forget(&mut db, id, before).with_context(|| format!("can't forget livepatch {name}"))? {
            cleared.livepatches.push(name.to_string());
        }
    }
    for task in logs::tasks(&folder.logs())? {
        // A folder is made after its task is stored; so one that was listed before is of no task to come.
        if !audit::has_task(&db, task)? {
            fs::remove_dir_all(logs::folder(&folder.logs(), task))?;
            cleared.logs += 1;
        }
    }
    let mut remove = |batch: &mut HashMap<Digest, u64>| {
        let needed = |digest: &Digest| audit::names_content(&db, digest, Millis::MIN).map_err(Failed::from);
        for digest in blobs.remove_unless(batch.keys().copied(), needed)? {
            cleared.artifacts.add(batch.get(&digest).copied().unwrap_or_default());
        }
        batch.clear();
        Ok::<_, Failed>(())
    };
    let mut batch = HashMap::new();
    blobs.each(stop, |stored| {
        if came_long_ago(stored.came) {
            batch.insert(stored.digest, stored.size);
        }
        match batch.len() {
            BATCH.. => remove(&mut batch),
            _ => Ok(()),
        }
    })?;
    remove(&mut batch)?;
    Ok(Some(cleared))
}

/// What may fail while contents are looked at.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("can't clear the artifacts: {0}")]
    Blobs(#[from] BlobError),
    #[error("can't ask the database: {0}")]
    Sql(#[from] rusqlite::Error),
}
