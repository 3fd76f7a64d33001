//! What the store and the farm hold, as clients and workers see it.

use klp_livepatch::outcome::Artifact;
use klp_livepatch::report::Report;
use klp_livepatch::round::Input;
use klp_livepatch::spec::Violation;
use klp_proto::convert::{invalid_argument, parse};
use klp_proto::protocol::SOFTWARE;
use klp_proto::v1;
use tonic::Status;

use crate::config::Config;
use crate::farm::{Live, Order, Waiting, WorkerView};
use crate::lifecycle::{AttemptState, State};
use crate::plan::Ended;
use crate::store::{EventRow, LivepatchRow, LivepatchState, PastAttempt, TaskRow};

/// INVALID_ARGUMENT for one field.
pub fn invalid(field: &str, message: impl Into<String>) -> Status {
    invalid_argument(&[Violation {
        field: field.to_owned(),
        message: message.into(),
    }])
}

/// A text field as its type.
///
/// # Errors
/// INVALID_ARGUMENT: the text is none of that type.
pub fn field<T>(name: &str, text: &str) -> Result<T, Status>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    parse(name, text).map_err(|violation| invalid_argument(&[violation]))
}

pub fn livepatch(row: &LivepatchRow) -> v1::Livepatch {
    let (state, ended_ms, verdict) = match &row.state {
        LivepatchState::Running => (v1::LivepatchState::Running, 0, String::new()),
        LivepatchState::Ended { at, verdict } => {
            let state = match verdict.state {
                Ended::Succeeded => v1::LivepatchState::Succeeded,
                Ended::Partial => v1::LivepatchState::Partial,
                Ended::Failed => v1::LivepatchState::Failed,
                Ended::Cancelled => v1::LivepatchState::Cancelled,
            };
            (state, *at, verdict.sentence.clone())
        }
    };
    v1::Livepatch {
        id: row.id.to_string(),
        spec: Some((&row.spec).into()),
        state: state.into(),
        created_ms: row.created,
        ended_ms,
        verdict,
        counts: Some(v1::TaskCounts {
            waiting: row.counts.waiting,
            leased: row.counts.leased,
            succeeded: row.counts.succeeded,
            failed: row.counts.failed,
            cancelled: row.counts.cancelled,
        }),
        last_event: row.last_event,
        share: Some(row.share.into()),
        paused_ms: row.pause.as_ref().map_or(0, |p| p.since),
        pause_reason: row.pause.as_ref().map(|p| p.reason.clone()).unwrap_or_default(),
        submitted_by: row.submitted_by.as_str().to_owned(),
    }
}

pub fn attempt(attempt: PastAttempt) -> v1::AttemptRecord {
    let state = match attempt.state {
        AttemptState::Leased => v1::AttemptState::Leased,
        AttemptState::Succeeded => v1::AttemptState::Succeeded,
        AttemptState::Failed => v1::AttemptState::Failed,
        AttemptState::HandedBack => v1::AttemptState::HandedBack,
        AttemptState::TakenBack => v1::AttemptState::TakenBack,
        AttemptState::Lost => v1::AttemptState::Lost,
        AttemptState::Died => v1::AttemptState::Died,
        AttemptState::Cancelled => v1::AttemptState::Cancelled,
    };
    v1::AttemptRecord {
        task_id: attempt.id.task.to_string(),
        number: attempt.id.number,
        worker: attempt.worker.to_string(),
        state: state.into(),
        started_ms: attempt.started,
        ended_ms: attempt.ended.unwrap_or_default(),
        failure: attempt.failure.as_ref().map(v1::Failure::from),
    }
}

pub fn waiting(waiting: Waiting) -> v1::Waiting {
    v1::Waiting {
        reason: waiting.reason,
        tasks: u32::try_from(waiting.tasks).unwrap_or(u32::MAX),
        oldest_ms: waiting.since,
        livepatches: waiting.livepatches.iter().map(ToString::to_string).collect(),
        blocked: waiting.blocked,
    }
}

pub fn task(row: TaskRow, live: Live) -> v1::Task {
    let state = match row.status.state {
        State::Waiting { .. } => v1::TaskState::Waiting,
        State::Leased(_) => v1::TaskState::Leased,
        State::Succeeded => v1::TaskState::Succeeded,
        State::Failed => v1::TaskState::Failed,
        State::Cancelled => v1::TaskState::Cancelled,
    };
    v1::Task {
        id: row.id.to_string(),
        kind: v1::TaskKind::from(row.key.kind).into(),
        platform: Some((&row.key.platform).into()),
        round: row.key.round,
        state: state.into(),
        waiting_for: live.waiting_for,
        attempt: row.status.attempt,
        worker: row.worker.unwrap_or_default(),
        progress: live.progress,
        failure: row.failure.as_ref().map(v1::Failure::from),
        report: row.report.as_ref().map(report),
        artifacts: row.artifacts.iter().map(artifact).collect(),
        created_ms: row.created,
        started_ms: row.started.unwrap_or_default(),
        ended_ms: row.ended.unwrap_or_default(),
        left_out: row.left_out,
    }
}

/// What a source was made with is told by its statement, and would be most of each answer.
fn report(report: &Report) -> v1::Report {
    let mut wire = v1::Report::from(report);
    if let Some(v1::report::Report::Extract(extract)) = &mut wire.report {
        extract.origin = None;
    }
    wire
}

fn artifact(artifact: &Artifact) -> v1::Artifact {
    artifact.into()
}

/// An event; the last one comes with the livepatch as it ended.
pub fn event(row: EventRow, livepatch: Option<v1::Livepatch>) -> v1::Event {
    v1::Event {
        number: row.number,
        time_ms: row.time,
        message: row.message,
        task: row.task.map(|t| task(t, Live::default())),
        ended: livepatch,
    }
}

/// A worker, but for what it runs: the database knows that.
pub fn worker(view: WorkerView) -> v1::Worker {
    use v1::unready::What;
    let skew = view.skew();
    let tool = |(backend, version): (String, String)| v1::Tool { backend, version };
    let fence = |(name, missing): (String, Option<String>)| v1::Fence {
        name,
        missing: missing.unwrap_or_default(),
    };
    let (drain, quarantine) = (view.standing.drain.as_ref(), view.quarantine.as_ref());
    let unready = |what, reason: &String| v1::Unready {
        what: Some(what),
        reason: reason.clone(),
    };
    let trees = view.registration.broken_trees.iter();
    let trees = trees.map(|(platform, reason)| unready(What::Tree(platform.into()), reason));
    let tools = view.registration.broken_tools.iter();
    let tools = tools.map(|(backend, reason)| unready(What::Backend(backend.clone()), reason));
    v1::Worker {
        name: view.name.to_string(),
        connected: view.connected,
        last_seen_ms: view.last_seen,
        slots: view.registration.slots,
        slots_busy: view.busy,
        prefetched: view.prefetched,
        trees: view.registration.trees.iter().map(v1::Platform::from).collect(),
        tools: view.registration.tools.into_iter().map(tool).collect(),
        draining: view.draining,
        protocol: view.protocol.unwrap_or_default(),
        skew: skew.into(),
        version: view.registration.version,
        drained_ms: drain.map_or(0, |d| d.since),
        drain_reason: drain.map(|d| d.reason.clone()).unwrap_or_default(),
        quarantined_until_ms: quarantine.map_or(0, |q| q.until),
        quarantine_reason: quarantine.map(|q| q.reason.clone()).unwrap_or_default(),
        unready: trees.chain(tools).collect(),
        memory: view.registration.memory,
        memory_busy: view.memory_busy,
        registered_ms: view.registered,
        replaced: view.replaced,
        unleased_tasks: view.unleased.iter().map(ToString::to_string).collect(),
        running: Vec::new(),
        isolation: view.registration.isolation.into_iter().map(fence).collect(),
    }
}

pub fn farm_state(orders: &[Order], config: &Config, protocol: u32) -> v1::FarmState {
    let avoid = |order: &Order| {
        let spec = order.spec.avoid.iter();
        match order.input.as_deref() {
            Some(Input::Avoid(lacking)) => spec.chain(lacking).map(ToString::to_string).collect(),
            _ => spec.map(ToString::to_string).collect(),
        }
    };
    let wanted = |order: &Order| match order.input.as_deref() {
        Some(Input::Verify(wanted)) => wanted.iter().map(v1::WantedSymbol::from).collect(),
        _ => Vec::new(),
    };
    let fixes = |order: &Order| match order.spec.unpatched {
        true => Vec::new(),
        false => order
            .spec
            .fixes_for(&order.key.platform.codestream)
            .map(|fix| fix.to_draft().into())
            .collect(),
    };
    let assignment = |order: &Order| v1::Assignment {
        attempt: Some(order.attempt.into()),
        kind: v1::TaskKind::from(order.key.kind).into(),
        platform: Some((&order.key.platform).into()),
        targets: order.spec.targets.iter().map(v1::Target::from).collect(),
        backend: order.spec.backend.to_string(),
        time_limit_ms: config.time_limit_ms,
        // Who says that a lot is needed must be allowed to use it.
        memory_limit: config.memory_limit.max(order.spec.memory.unwrap_or_default()),
        livepatch: order.spec.name.to_string(),
        memory: config.memory(order.key.kind, &order.spec),
        tryout: order.tryout,
        avoid: avoid(order),
        wanted: wanted(order),
        fixes: fixes(order),
        forgiving: order.spec.forgiving,
        traceparent: order.parent.to_string(),
    };
    v1::FarmState {
        assignments: orders.iter().map(assignment).collect(),
        lease_ms: config.lease_ms,
        heartbeat_ms: config.heartbeat_ms,
        errands: Vec::new(),
        protocol,
        version: SOFTWARE.to_owned(),
        // Of the connection.
        trust_sha256: String::new(),
    }
}
