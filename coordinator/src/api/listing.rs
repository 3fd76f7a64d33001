//! Livepatches looked for, and what has changed of them.

use klp_livepatch::task::{LivepatchId, TaskId};
use klp_proto::v1;
use tonic::Status;

use super::{Failed, Shared, livepatch_name, look_up, paging, wire};
use crate::plan::Ended;
use crate::store::{self, Search};
use crate::versions::Cursor;

/// Livepatches in one answer to what has changed.
const CHANGES: usize = 200;
/// Attempts of one livepatch in one answer.
const ATTEMPTS: u32 = 20_000;
/// Characters of what is looked for.
const MAX_SEARCH: usize = 100;

pub async fn list(shared: &Shared, request: v1::ListRequest) -> Result<v1::ListResponse, Status> {
    let size = paging::size(request.page_size)?;
    let before = paging::position(&request.page_token)?;
    let search = search(&request)?;
    // One more than asked for tells whether there is a next page.
    let query =
        move |db: &rusqlite::Connection| store::livepatch_page(db, &search, before, size + 1).map_err(Failed::from);
    let mut rows = shared.store.read(query).await?;
    let more = rows.len() > size as usize;
    rows.truncate(size as usize);
    let next = rows.last().filter(|_| more).map(|row| paging::token(row.seq));
    Ok(v1::ListResponse {
        livepatches: rows.iter().map(wire::livepatch).collect(),
        next_page_token: next.unwrap_or_default(),
    })
}

fn search(request: &v1::ListRequest) -> Result<Search, Status> {
    let text = request.search.trim();
    if text.chars().count() > MAX_SEARCH {
        let message = format!("longer than {MAX_SEARCH} characters");
        return Err(wire::invalid("search", message));
    }
    let state = |state| {
        use v1::LivepatchState::{Cancelled, Failed, Partial, Running, Succeeded};
        match state {
            Running => Ok(Search::state(None)),
            Succeeded => Ok(Search::state(Some(Ended::Succeeded))),
            Partial => Ok(Search::state(Some(Ended::Partial))),
            Failed => Ok(Search::state(Some(Ended::Failed))),
            Cancelled => Ok(Search::state(Some(Ended::Cancelled))),
            v1::LivepatchState::Unspecified => Err(wire::invalid("states", "not a state of a livepatch")),
        }
    };
    let states: Result<Vec<_>, _> = request.states().map(state).collect();
    let mut states = states?;
    states.sort_unstable();
    states.dedup();
    Ok(Search {
        text: text.to_owned(),
        states,
    })
}

pub async fn attempts(shared: &Shared, request: v1::AttemptsRequest) -> Result<v1::AttemptsResponse, Status> {
    let attempts = if request.task_id.is_empty() {
        let name = livepatch_name(request.livepatch)?;
        let query = move |db: &rusqlite::Connection| {
            let livepatch = look_up(db, &name)?;
            Ok::<_, Failed>(store::attempts_of(db, livepatch.id, ATTEMPTS)?)
        };
        shared.store.read(query).await?
    } else if request.livepatch.is_some() {
        let message = "a livepatch is named too; name one of the two";
        return Err(wire::invalid("task_id", message));
    } else {
        let task = task_id(&request.task_id)?;
        let query = move |db: &rusqlite::Connection| {
            if store::open_task(db, task)?.is_none() {
                return Err(unknown(task));
            }
            Ok(store::attempts_of_task(db, task)?)
        };
        shared.store.read(query).await?
    };
    Ok(v1::AttemptsResponse {
        attempts: attempts.into_iter().map(wire::attempt).collect(),
    })
}

pub async fn task(shared: &Shared, request: v1::GetTaskRequest) -> Result<v1::Task, Status> {
    let id = task_id(&request.task_id)?;
    let query = move |db: &rusqlite::Connection| store::task(db, id)?.ok_or_else(|| unknown(id));
    let task = shared.store.read(query).await?;
    let live = match task.status.is_open() {
        true => shared.farm.live(vec![id]).await.remove(&id),
        false => None,
    };
    Ok(wire::task(task, live.unwrap_or_default()))
}

fn unknown(task: TaskId) -> Failed {
    Failed(Status::not_found(format!("there is no task {task}")))
}

fn task_id(text: &str) -> Result<TaskId, Status> {
    wire::field("task_id", text)
}

pub async fn changes(shared: &Shared, request: v1::ChangesRequest) -> Result<v1::ChangesResponse, Status> {
    let cursor: Option<Cursor> = match request.cursor.as_str() {
        "" => None,
        text => Some(wire::field("cursor", text)?),
    };
    let Some((changed, next)) = cursor.and_then(|cursor| shared.versions.since(cursor, CHANGES)) else {
        return Ok(v1::ChangesResponse {
            cursor: shared.versions.now().to_string(),
            reset: true,
            livepatches: Vec::new(),
            more: false,
        });
    };
    let more = changed.len() == CHANGES;
    Ok(v1::ChangesResponse {
        cursor: next.to_string(),
        reset: false,
        livepatches: read(shared, changed).await?,
        more,
    })
}

async fn read(shared: &Shared, ids: Vec<LivepatchId>) -> Result<Vec<v1::Livepatch>, Status> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let query = move |db: &rusqlite::Connection| {
        let rows = ids.into_iter().map(|id| store::livepatch(db, id));
        rows.collect::<Result<Vec<_>, _>>().map_err(Failed::from)
    };
    let rows = shared.store.read(query).await?;
    // One that was forgotten meanwhile has changed for good.
    Ok(rows.iter().flatten().map(wire::livepatch).collect())
}
