//! Going on with a livepatch that was only checked: sources are extracted where its checks succeeded.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::names::SymbolName;
use klp_livepatch::report::Report;
use klp_livepatch::spec::{Backend, Goal, Spec};
use klp_livepatch::task::{LivepatchId, TaskKind};
use klp_livepatch::words::amount;
use klp_livepatch::{Codestream, CodestreamFilter};

use super::control::{ChangeError, stored};
use super::{Now, create, record};
use crate::lifecycle::Status;
use crate::plan::{self, Aim, Next, Planned};
use crate::store::{self, Change, LivepatchRow, LivepatchState, OpenTask, Tx};

/// How sources are to be extracted.
#[derive(Clone, Debug)]
pub struct Extraction {
    pub backend: Backend,
    pub avoid: BTreeSet<SymbolName>,
    pub unpatched: bool,
    pub codestreams: CodestreamFilter,
}

impl Extraction {
    fn of(&self, spec: &Spec) -> (Spec, Aim) {
        let spec = Spec {
            goal: Goal::Sources,
            backend: self.backend,
            avoid: self.avoid.clone(),
            unpatched: self.unpatched,
            ..spec.clone()
        };
        let aim = Aim {
            codestreams: self.codestreams.clone(),
            ..Aim::of(&spec)
        };
        (spec, aim)
    }
}

/// Plans the extraction of what was checked. The same extraction again changes nothing; with another filter it goes on with
/// the codestreams that this selects.
///
/// # Errors
/// Its checks are not done or none succeeded, it is extracted otherwise, there is none of that id, or the database's.
pub fn extract(tx: &mut Tx<'_>, id: LivepatchId, how: &Extraction, now: Now) -> Result<LivepatchRow, ChangeError> {
    let livepatch = stored(tx, id)?;
    let name = &livepatch.spec.name;
    let (spec, mut aim) = how.of(&livepatch.spec);
    if livepatch.spec.goal == Goal::Sources {
        if livepatch.spec != spec {
            return Err(ChangeError::Refused(format!(
                "sources of `{name}` are extracted already, with other options; submit it under another name to have both"
            )));
        }
        let before = store::aim(tx, id)?.codestreams;
        if before == aim.codestreams {
            return Ok(livepatch);
        }
        let both = before.either(&aim.codestreams);
        aim.codestreams = both.map_err(|e| ChangeError::Refused(e.to_string()))?;
    }
    if livepatch.state == LivepatchState::Running {
        return Err(ChangeError::Refused(format!(
            "`{name}` is still at work; follow it with `klp-farm watch {name}`"
        )));
    }
    let tasks = store::planned(tx, id, None)?;
    let mut by_codestream: BTreeMap<&Codestream, Vec<Planned>> = BTreeMap::new();
    for task in &tasks {
        by_codestream
            .entry(&task.key.platform.codestream)
            .or_default()
            .push(task.clone());
    }
    let next: Vec<Next> = by_codestream
        .values()
        .flat_map(|tasks| tasks.iter().flat_map(|t| plan::next(&t.key.platform, tasks, &aim)))
        .collect();
    let again = match spec.unpatched {
        true => stopped_by_fixes(tx, id, &aim)?,
        false => Vec::new(),
    };
    if next.is_empty() && again.is_empty() && livepatch.spec.goal == Goal::Sources {
        return Ok(livepatch);
    }
    if next.is_empty() && again.is_empty() {
        return Err(ChangeError::Refused(format!(
            "no check of `{name}` succeeded on a selected codestream that {} can extract from, so there is nothing to extract; \
             see `klp-farm status {name}`",
            how.backend
        )));
    }
    store::set_extraction(tx, id, &spec, &aim)?;
    store::reopen_livepatch(tx, id)?;
    tx.note(Change::Opened(stored(tx, id)?.open()));
    let sources = amount(next.len() + again.len(), "source is", "sources are");
    let message = format!("{sources} to be extracted with {}", how.backend);
    store::append_event(tx, id, now.ms, &message, None, false)?;
    for (task, status) in again {
        let message = format!("{} is to be tried again, without the fixes", task.key);
        record(tx, &task, status, None, &message, now)?;
    }
    create(tx, id, next, now)?;
    stored(tx, id)
}

/// The checks that failed for the fixes alone, with a new chance: where these are not to be applied, they stop nothing.
fn stopped_by_fixes(tx: &Tx<'_>, id: LivepatchId, aim: &Aim) -> Result<Vec<(OpenTask, Status)>, ChangeError> {
    let mut stopped = Vec::new();
    for task in store::ended_in_vain(tx, id)? {
        if task.key.kind != TaskKind::Check || !aim.codestreams.matches(&task.key.platform.codestream) {
            continue;
        }
        let report = store::task(tx, task.id)?.and_then(|row| row.report);
        let fixes_alone = matches!(&report, Some(Report::Check(check))
            if !check.fixes.problems.is_empty() && check.targets.iter().all(|t| t.problems.is_empty()));
        if fixes_alone && let Some(status) = task.status.renew_chance() {
            stopped.push((task, status));
        }
    }
    Ok(stopped)
}
