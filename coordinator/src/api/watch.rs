//! Streams that follow something: a livepatch's events, an attempt's log. Both read the store from a position on and
//! wait for a bell where it ends, so that neither a lost wake-up nor a slow reader loses anything.

use std::sync::Arc;

use klp_livepatch::task::{AttemptId, LivepatchId};
use klp_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use super::{Failed, Shared, log_status, stopping, wire};
use crate::lifecycle::AttemptState;
use crate::store;

/// How many events are read at once.
const EVENTS: u32 = 64;
/// How many bytes of a log are sent at once.
const LOG_CHUNK: u64 = 64 << 10;

/// Sends a livepatch's events after the cursor; returns when its last one is sent or the client is gone.
///
/// # Errors
/// The store's, or the coordinator stops.
pub async fn events(
    shared: &Arc<Shared>,
    id: LivepatchId,
    mut after: u64,
    client: &mpsc::Sender<Result<v1::Event, Status>>,
) -> Result<(), Status> {
    let mut bell = shared.events.listen(id);
    loop {
        let (events, livepatch) = shared
            .store
            .read(move |db| {
                let events = store::events_after(db, id, after, EVENTS)?;
                let livepatch = store::livepatch(db, id)?;
                Ok::<_, Failed>((events, livepatch))
            })
            .await?;
        let Some(livepatch) = livepatch else {
            return Err(Status::not_found("the livepatch is gone"));
        };
        let all_read = events.len() < EVENTS as usize;
        for event in events {
            after = event.number;
            // One that was retried since has ended then, but not for good.
            let for_good = event.ended && event.number == livepatch.last_event;
            let ended = for_good.then(|| wire::livepatch(&livepatch));
            if client.send(Ok(wire::event(event, ended))).await.is_err() {
                return Ok(());
            }
        }
        let running = matches!(livepatch.state, store::LivepatchState::Running);
        if !running && after >= livepatch.last_event {
            return Ok(());
        }
        if all_read {
            tokio::select! {
                () = bell.rung() => {}
                () = client.closed() => return Ok(()),
                () = shared.stop.cancelled() => return Err(stopping()),
            }
        }
    }
}

/// Sends an attempt's log from the offset on; with `follow`, until the attempt has ended. A chunk is read when there is
/// room for it in the client's channel, so at most five of them are held for one that does not read; whoever appends
/// knows nothing of it.
///
/// # Errors
/// The store's, or the coordinator stops.
pub async fn log(
    shared: &Arc<Shared>,
    livepatch: LivepatchId,
    id: AttemptId,
    mut offset: u64,
    follow: bool,
    client: &mpsc::Sender<Result<v1::LogChunk, Status>>,
) -> Result<(), Status> {
    let mut grown = shared.logs.listen(id);
    let mut happened = shared.events.listen(livepatch);
    loop {
        // Asked before the log is read: what an attempt wrote before it ended is read after this.
        let ended = !follow || has_ended(shared, id).await?;
        loop {
            let data = shared.logs.read(id, offset, LOG_CHUNK).await.map_err(log_status)?;
            if data.is_empty() {
                break;
            }
            let chunk = v1::LogChunk { offset, data };
            offset += chunk.data.len() as u64;
            if client.send(Ok(chunk)).await.is_err() {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
        tokio::select! {
            () = grown.rung() => {}
            () = happened.rung() => {}
            () = client.closed() => return Ok(()),
            () = shared.stop.cancelled() => return Err(stopping()),
        }
    }
}

async fn has_ended(shared: &Shared, id: AttemptId) -> Result<bool, Status> {
    let attempt = shared
        .store
        .read(move |db| Ok::<_, Failed>(store::attempt(db, id.task, id.number)?))
        .await?;
    Ok(attempt.is_none_or(|a| a.state != AttemptState::Leased))
}
