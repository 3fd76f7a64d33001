//! What users change about a livepatch that is stored: cancel it, retry what failed, pause and resume it, set its share.
//! Each is one transaction, and harmless when repeated.

use std::collections::BTreeSet;

use klp_livepatch::task::{AttemptId, LivepatchId};
use klp_livepatch::{Arch, CodestreamFilter, Reason, Share};

use super::{Now, record, settle};
use crate::lifecycle::{AttemptState, State};
use crate::store::{self, Change, EndedAttempt, LivepatchRow, LivepatchState, Pause, StoreError, Tx};

/// Why a livepatch was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("there is no livepatch {0}")]
    Unknown(LivepatchId),
    /// What was asked makes no sense in the state it is in.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for ChangeError {
    fn from(error: rusqlite::Error) -> Self {
        ChangeError::Store(error.into())
    }
}

/// Which tasks of a livepatch are retried.
#[derive(Clone, Debug)]
pub struct Selection {
    pub codestreams: CodestreamFilter,
    /// Empty: all.
    pub archs: BTreeSet<Arch>,
}

/// Ends all open tasks of a livepatch; one that has ended is left as it is.
///
/// # Errors
/// There is none of that id, or the database's.
pub fn cancel(
    tx: &mut Tx<'_>,
    id: LivepatchId,
    reason: Option<&Reason>,
    now: Now,
) -> Result<LivepatchRow, ChangeError> {
    let livepatch = stored(tx, id)?;
    if livepatch.state != LivepatchState::Running {
        return Ok(livepatch);
    }
    let why = reason.map(|r| format!(": {r}")).unwrap_or_default();
    for task in store::open_tasks_of(tx, id)? {
        let Some(status) = task.status.cancel() else { continue };
        let running = matches!(task.status.state, State::Leased(_));
        if running {
            let attempt = AttemptId {
                task: task.id,
                number: status.attempt,
            };
            let state = AttemptState::Cancelled;
            let started = store::end_attempt(tx, attempt, state, None, None, now.ms)?;
            tx.note(Change::Attempt(EndedAttempt {
                livepatch: id,
                kind: task.key.kind,
                state,
                cause: None,
                again: false,
                lasted: now.ms - started,
            }));
        }
        let what = if running { " while it ran" } else { "" };
        let message = format!("{} cancelled{what}{why}", task.key);
        record(tx, &task, status, None, &message, now)?;
    }
    settle::conclude(tx, id, reason, now)?;
    stored(tx, id)
}

/// Gives the selected tasks that failed or were cancelled a new chance; answers how many these are.
///
/// # Errors
/// None of the selected tasks failed or was cancelled; there is no such livepatch; the database's.
pub fn retry(
    tx: &mut Tx<'_>,
    id: LivepatchId,
    selection: &Selection,
    now: Now,
) -> Result<(LivepatchRow, u32), ChangeError> {
    let livepatch = stored(tx, id)?;
    let ended = store::ended_in_vain(tx, id)?;
    let selected = ended.iter().filter(|task| {
        let platform = &task.key.platform;
        selection.codestreams.matches(&platform.codestream)
            && (selection.archs.is_empty() || selection.archs.contains(&platform.arch))
    });
    let selected: Vec<_> = selected.collect();
    if selected.is_empty() {
        let name = &livepatch.spec.name;
        return Err(ChangeError::Refused(match ended.len() {
            0 => format!("no task of `{name}` has failed or was cancelled, so there is nothing to retry"),
            1 => format!("the one task of `{name}` that failed or was cancelled is not selected"),
            n => format!("{n} tasks of `{name}` failed or were cancelled, and none of them is selected"),
        }));
    }
    if livepatch.state != LivepatchState::Running {
        store::reopen_livepatch(tx, id)?;
        tx.note(Change::Opened(livepatch.open()));
    }
    for task in &selected {
        let Some(status) = task.status.renew_chance() else {
            continue;
        };
        let message = format!("{} is to be tried again, as asked for", task.key);
        record(tx, task, status, None, &message, now)?;
    }
    // At most what one livepatch may hold.
    let retried = u32::try_from(selected.len()).unwrap_or(u32::MAX);
    Ok((stored(tx, id)?, retried))
}

/// Starts nothing more of a livepatch until it is resumed.
///
/// # Errors
/// It has ended, there is none of that id, or the database's.
pub fn pause(tx: &mut Tx<'_>, id: LivepatchId, reason: Option<&Reason>, now: Now) -> Result<LivepatchRow, ChangeError> {
    let livepatch = running(tx, id, "paused")?;
    let reason = reason.map(ToString::to_string).unwrap_or_default();
    if livepatch.pause.as_ref().is_some_and(|p| p.reason == reason) {
        return Ok(livepatch);
    }
    let message = match reason.as_str() {
        "" => "paused".to_owned(),
        why => format!("paused: {why}"),
    };
    let since = livepatch.pause.map_or(now.ms, |p| p.since);
    store::set_pause(tx, id, Some(&Pause { since, reason }))?;
    changed(tx, id, &message, now)
}

/// Takes a pause back.
///
/// # Errors
/// There is none of that id, or the database's.
pub fn resume(tx: &mut Tx<'_>, id: LivepatchId, now: Now) -> Result<LivepatchRow, ChangeError> {
    let livepatch = stored(tx, id)?;
    if livepatch.pause.is_none() {
        return Ok(livepatch);
    }
    store::set_pause(tx, id, None)?;
    if livepatch.state != LivepatchState::Running {
        return stored(tx, id);
    }
    changed(tx, id, "resumed", now)
}

/// Sets how a livepatch competes with others.
///
/// # Errors
/// It has ended, there is none of that id, or the database's.
pub fn set_share(tx: &mut Tx<'_>, id: LivepatchId, share: Share, now: Now) -> Result<LivepatchRow, ChangeError> {
    let livepatch = running(tx, id, "given another share")?;
    if livepatch.share == share {
        return Ok(livepatch);
    }
    store::set_share(tx, id, share)?;
    changed(tx, id, &format!("has {share} from now on"), now)
}

/// Says that an open livepatch is another than before.
fn changed(tx: &mut Tx<'_>, id: LivepatchId, message: &str, now: Now) -> Result<LivepatchRow, ChangeError> {
    store::append_event(tx, id, now.ms, message, None, false)?;
    let livepatch = stored(tx, id)?;
    tx.note(Change::Opened(livepatch.open()));
    Ok(livepatch)
}

pub(super) fn stored(tx: &Tx<'_>, id: LivepatchId) -> Result<LivepatchRow, ChangeError> {
    store::livepatch(tx, id)?.ok_or(ChangeError::Unknown(id))
}

fn running(tx: &Tx<'_>, id: LivepatchId, what: &str) -> Result<LivepatchRow, ChangeError> {
    let livepatch = stored(tx, id)?;
    match &livepatch.state {
        LivepatchState::Running => Ok(livepatch),
        LivepatchState::Ended { verdict, .. } => Err(ChangeError::Refused(format!(
            "`{}` has ended and can't be {what}: {}",
            livepatch.spec.name, verdict.sentence
        ))),
    }
}
