//! The session: tells the coordinator all that this worker does, and makes it do all that the coordinator says.
//!
//! Level-triggered: every message states everything, so there is nothing to resume. When the stream breaks, running
//! attempts go on and a new session is opened, after a growing pause with jitter.

use std::collections::HashSet;
use std::time::Duration;

use klp_identity::explain;
use klp_livepatch::task::AttemptId;
use klp_proto::protocol::{self, SPOKEN};
use klp_proto::v1::{Assignment, Errand, FarmState, WorkerState};
use klp_proto::{MAX_MESSAGE, convert};
use klp_telemetry::redact;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Uri;
use tonic::{Code, Status};

use crate::attempts::Attempts;
use crate::delivery::Courier;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// Until the coordinator says how often it wants to hear.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(5);

/// Why the session is over for good.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(
        "the coordinator ended this worker's session: {0}. Is another worker running under the same name? Give each its own with --name"
    )]
    Replaced(String),
    #[error("the coordinator refuses this worker: {0}")]
    Refused(String),
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// The coordinator speaks to us.
    Open,
    /// There is none, for this reason; another is tried.
    Closed(&'a str),
}

/// Whom a session speaks for: the worker, or what a simulation has in its place.
pub trait Party: Sync {
    fn coordinator(&self) -> &Uri;
    fn courier(&self) -> &Courier;
    fn attempts(&self) -> &Attempts;
    /// All that it says of itself, but for its attempts, whether it takes new ones, and what the session speaks.
    fn describe(&self) -> WorkerState;
    /// Starts an attempt, unless it was started before or nothing new is taken.
    fn start(&self, id: AttemptId, assignment: Assignment);
    /// Runs these errands and no others.
    fn run_errands(&self, errands: Vec<Errand>);
    /// The coordinator has heard that nothing new is taken.
    fn bid_farewell(&self);
    /// Told each time that the session's loop has come round: what says so, lives.
    fn stands(&self, _standing: Standing<'_>) {}
    /// The CAs with this fingerprint are to be trusted; empty: none.
    fn trusts(&self, _sha256: &str) {}
    /// Random bits.
    fn noise(&self) -> u16;
}

/// Keeps a session open until `stop`.
///
/// # Errors
/// The coordinator said that coming back is no use.
pub async fn keep(party: &impl Party, stop: &CancellationToken) -> Result<(), SessionError> {
    let mut pause = FIRST_PAUSE;
    let mut reported = None;
    loop {
        let mut connected = false;
        let line = party.courier().line.watch();
        let ended = tokio::select! {
            ended = drive(party, &mut connected) => ended,
            () = stop.cancelled() => return Ok(()),
        };
        match ended.code() {
            Code::Aborted => return Err(SessionError::Replaced(ended.message().to_owned())),
            Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated => {
                return Err(SessionError::Refused(ended.message().to_owned()));
            }
            _ => {}
        }
        if line.has_changed().unwrap_or(false) {
            continue;
        }
        if connected {
            pause = FIRST_PAUSE;
            reported = None;
        }
        let reason = explain::tls(&ended).unwrap_or_else(|| ended.message().to_owned());
        // Until one of the two is upgraded.
        let apart = ended.code() == Code::FailedPrecondition;
        if apart {
            pause = LAST_PAUSE;
        }
        if reported != Some(apart) {
            let coordinator = redact::url(party.coordinator());
            match apart {
                true => tracing::error!(
                    coordinator,
                    reason,
                    "the coordinator and this worker can't talk; will keep trying"
                ),
                false => tracing::warn!(coordinator, reason, "not connected; will keep trying"),
            }
            reported = Some(apart);
        }
        party.stands(Standing::Closed(&reason));
        tokio::select! {
            () = tokio::time::sleep(jittered(pause, party.noise())) => {}
            () = stop.cancelled() => return Ok(()),
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// One session, until it breaks; answers why, and tells by `connected` whether the coordinator ever spoke.
async fn drive(party: &impl Party, connected: &mut bool) -> Status {
    let mut client = party.courier().client().max_encoding_message_size(MAX_MESSAGE);
    let (states, receiver) = mpsc::channel(1);
    let first = state(party);
    let (name, version) = (first.worker.clone(), first.version.clone());
    let own = protocol::Worker {
        name: &name,
        version: &version,
        speaks: SPOKEN,
    };
    let mut told_draining = first.draining;
    if states.send(first).await.is_err() {
        return Status::internal("session channel closed");
    }
    let mut farm = match client.session(ReceiverStream::new(receiver)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    let mut heartbeat = FIRST_HEARTBEAT;
    let mut next_beat = Instant::now() + heartbeat;
    let mut line = party.courier().line.watch();
    loop {
        tokio::select! {
            biased;
            message = farm.message() => {
                let message = match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return Status::unavailable("the coordinator closed the session"),
                    Err(status) => return status,
                };
                let protocol = match protocol::accept(own, &message) {
                    Ok(protocol) => protocol,
                    Err(apart) => return Status::failed_precondition(apart.to_string()),
                };
                if !*connected {
                    let (coordinator, version) = (redact::url(party.coordinator()), &message.version);
                    tracing::info!(coordinator, version, protocol, "connected");
                    *connected = true;
                }
                heartbeat = Duration::from_millis(message.heartbeat_ms.clamp(50, 60_000).into());
                next_beat = next_beat.min(Instant::now() + heartbeat);
                party.stands(Standing::Open);
                party.trusts(&message.trust_sha256);
                apply(party, message);
                if told_draining {
                    party.bid_farewell();
                }
                continue;
            }
            Ok(()) = line.changed() => return Status::unavailable("there is a new connection to go on with"),
            () = party.attempts().changed() => {}
            () = tokio::time::sleep_until(next_beat) => next_beat = Instant::now() + heartbeat,
        }
        if *connected {
            party.stands(Standing::Open);
        }
        let state = state(party);
        told_draining = state.draining;
        if states.send(state).await.is_err() {
            return Status::unavailable("session lost");
        }
    }
}

/// All that this worker does and has.
fn state(party: &impl Party) -> WorkerState {
    let (attempts, draining) = party.attempts().to_wire();
    WorkerState {
        attempts,
        draining,
        protocol: Some(SPOKEN.into()),
        ..party.describe()
    }
}

/// Starts what is new, stops what is not wanted.
fn apply(party: &impl Party, farm: FarmState) {
    party.run_errands(farm.errands);
    let mut wanted: HashSet<AttemptId> = HashSet::with_capacity(farm.assignments.len());
    for assignment in farm.assignments {
        match convert::attempt(assignment.attempt.clone()) {
            Ok(id) => {
                wanted.insert(id);
                party.start(id, assignment);
            }
            Err(violation) => tracing::error!(%violation, "the coordinator sent an assignment that can't be read"),
        }
    }
    party.attempts().cancel_unless(|id| wanted.contains(id));
}

/// Between half and all of `pause`: `noise` spreads the workers of a farm that all lost the same coordinator.
fn jittered(pause: Duration, noise: u16) -> Duration {
    pause / 2 + pause.mul_f64(f64::from(noise) / f64::from(u16::MAX)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_bounds() {
        let pause = Duration::from_secs(8);
        assert_eq!(jittered(pause, 0), Duration::from_secs(4));
        assert_eq!(jittered(pause, u16::MAX), pause);
    }
}
