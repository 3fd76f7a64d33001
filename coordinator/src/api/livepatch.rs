//! LivepatchService: what people ask of a coordinator.

use std::sync::Arc;
use std::time::Duration;

use klp_livepatch::Share;
use klp_livepatch::spec::{Draft, Spec};
use klp_livepatch::task::{AttemptId, LivepatchId, TaskId};
use klp_proto::v1::livepatch_service_server::LivepatchService;
use klp_proto::{MAX_ANSWER, MAX_CHUNK, convert, v1};
use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{Failed, Shared, Stream, blob_status, control, livepatch_name, look_up, paging, store_status, watch, wire};
use crate::clock::utc;
use crate::groups;
use crate::ledger::{self, Now, Submission, SubmitError};
use crate::store::{self, LivepatchState, Tx};
use crate::tryout;

pub struct Livepatches(pub Arc<Shared>);

#[tonic::async_trait]
impl LivepatchService for Livepatches {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let (id, spec, share) = submission(request.into_inner())?;
        let shared = &self.0;
        self.want_room(id).await?;
        self.try_out(id, &spec).await?;
        let now = Now::of(&shared.clock);
        let submission = Submission {
            id,
            spec,
            share,
            max_open: shared.config.max_open_livepatches,
            max_platforms: shared.config.max_platforms,
        };
        let stored = shared.store.write(move |tx| ledger::submit(tx, submission, now)).await;
        let row = stored.map_err(submit_status)?;
        tracing::info!(livepatch = %row.spec.name, id = %row.id, "submitted");
        Ok(Response::new(v1::SubmitResponse {
            livepatch: Some(wire::livepatch(&row)),
        }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let name = livepatch_name(request.into_inner().livepatch)?;
        let query = move |db: &rusqlite::Connection| {
            let livepatch = look_up(db, &name)?;
            let tasks = store::tasks_of(db, livepatch.id)?;
            Ok::<_, Failed>((livepatch, tasks))
        };
        let (livepatch, tasks) = self.0.store.read(query).await?;
        let open = tasks.iter().filter(|t| t.status.is_open()).map(|t| t.id);
        let mut live = self.0.farm.live(open.collect()).await;
        let tasks = tasks.into_iter().map(|task| {
            let live = live.remove(&task.id).unwrap_or_default();
            wire::task(task, live)
        });
        let mut answer = v1::GetResponse {
            livepatch: Some(wire::livepatch(&livepatch)),
            tasks: tasks.collect(),
            reports_omitted: false,
        };
        if answer.encoded_len() > MAX_ANSWER {
            answer.reports_omitted = true;
            answer.tasks.iter_mut().for_each(|task| task.report = None);
        }
        Ok(Response::new(answer))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let request = request.into_inner();
        let size = paging::size(request.page_size)?;
        let before = paging::position(&request.page_token)?;
        // One more than asked for tells whether there is a next page.
        let query = move |db: &rusqlite::Connection| store::livepatch_page(db, before, size + 1).map_err(Failed::from);
        let mut rows = self.0.store.read(query).await?;
        let more = rows.len() > size as usize;
        rows.truncate(size as usize);
        let next = rows.last().filter(|_| more).map(|row| paging::token(row.seq));
        Ok(Response::new(v1::ListResponse {
            livepatches: rows.iter().map(wire::livepatch).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    type WatchStream = Stream<v1::Event>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let name = livepatch_name(request.livepatch)?;
        let livepatch = self.0.store.read(move |db| look_up(db, &name)).await?;
        let (id, after) = (livepatch.id, request.after_event);
        if after > livepatch.last_event {
            let newest = livepatch.last_event;
            let message = format!("{after} is past the newest event, {newest}");
            return Err(wire::invalid("after_event", message));
        }
        let shared = Arc::clone(&self.0);
        Ok(stream(|client| async move {
            watch::events(&shared, id, after, &client).await
        }))
    }

    type LogsStream = Stream<v1::LogChunk>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let task: TaskId = field("task_id", &request.task_id)?;
        let number = request.attempt;
        let query = move |db: &rusqlite::Connection| {
            let Some(task) = store::task(db, task)? else {
                return Err(Failed(Status::not_found(format!("there is no task {task}"))));
            };
            let newest = task.status.attempt;
            let number = if number == 0 { newest } else { number };
            if number == 0 {
                let message = format!("{} has had no attempt yet, so there is no log", task.key);
                return Err(Failed(Status::failed_precondition(message)));
            }
            if number > newest {
                let message = format!("{} has had {newest} attempts; there is no attempt {number}", task.key);
                return Err(Failed(Status::not_found(message)));
            }
            let id = AttemptId { task: task.id, number };
            Ok((task.livepatch, id))
        };
        let (livepatch, id) = self.0.store.read(query).await?;
        let (shared, offset, follow) = (Arc::clone(&self.0), request.offset, request.follow);
        Ok(stream(|client| async move {
            watch::log(&shared, livepatch, id, offset, follow, &client).await
        }))
    }

    type GetArtifactStream = Stream<v1::ArtifactChunk>;

    async fn get_artifact(
        &self,
        request: Request<v1::GetArtifactRequest>,
    ) -> Result<Response<Self::GetArtifactStream>, Status> {
        let digest = field("digest", &request.into_inner().digest)?;
        let Some(mut file) = self.0.blobs.read(&digest).await.map_err(blob_status)? else {
            return Err(Status::not_found(format!(
                "no artifact with the digest {digest} is stored"
            )));
        };
        Ok(stream(|client| async move {
            loop {
                let mut data = Vec::with_capacity(MAX_CHUNK);
                let read = (&mut file).take(MAX_CHUNK as u64).read_to_end(&mut data).await;
                read.map_err(|error| super::io_status(&error, &error))?;
                if data.is_empty() || client.send(Ok(v1::ArtifactChunk { data })).await.is_err() {
                    return Ok(());
                }
            }
        }))
    }

    async fn groups(&self, request: Request<v1::GroupsRequest>) -> Result<Response<v1::GroupsResponse>, Status> {
        let name = livepatch_name(request.into_inner().livepatch)?;
        let query = move |db: &rusqlite::Connection| {
            let livepatch = look_up(db, &name)?;
            let tasks = store::tasks_of(db, livepatch.id)?;
            Ok::<_, Failed>((livepatch, tasks))
        };
        let (livepatch, tasks) = self.0.store.read(query).await?;
        if livepatch.state == LivepatchState::Running {
            let message = format!(
                "`{}` is still running; its groups are known when it has ended",
                livepatch.spec.name
            );
            return Err(Status::failed_precondition(message));
        }
        let groups = groups::of_tasks(&self.0.blobs, &tasks).await.map_err(blob_status)?;
        let group = |group: klp_livepatch::grouping::Group| v1::Group {
            arch: group.arch.to_string(),
            codestreams: group.codestreams.iter().map(ToString::to_string).collect(),
            digest: group.digest.to_string(),
        };
        Ok(Response::new(v1::GroupsResponse {
            groups: groups.into_iter().map(group).collect(),
        }))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let request = request.into_inner();
        let reason = control::reason(&request.reason)?;
        let change = move |tx: &mut Tx<'_>, id, now| ledger::cancel(tx, id, reason.as_ref(), now);
        control::change(&self.0, request.livepatch, "cancelled", change).await
    }

    async fn retry(&self, request: Request<v1::RetryRequest>) -> Result<Response<v1::RetryResponse>, Status> {
        control::retry(&self.0, request.into_inner()).await
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let request = request.into_inner();
        let reason = control::reason(&request.reason)?;
        let change = move |tx: &mut Tx<'_>, id, now| ledger::pause(tx, id, reason.as_ref(), now);
        control::change(&self.0, request.livepatch, "paused", change).await
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        control::change(&self.0, request.into_inner().livepatch, "resumed", ledger::resume).await
    }

    async fn set_share(&self, request: Request<v1::SetShareRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let request = request.into_inner();
        let share = convert::share(request.share).map_err(|violations| convert::invalid_argument(&violations))?;
        let change = move |tx: &mut Tx<'_>, id, now| ledger::set_share(tx, id, share, now);
        control::change(&self.0, request.livepatch, "given another share", change).await
    }
}

impl Livepatches {
    /// Refuses what is new while the disk has little room left; what is stored is answered as ever.
    async fn want_room(&self, id: LivepatchId) -> Result<(), Status> {
        let Some(refusal) = self.0.space.refusal() else {
            return Ok(());
        };
        let query = move |db: &rusqlite::Connection| store::livepatch(db, id).map_err(Failed::from);
        match self.0.store.read(query).await? {
            Some(_) => Ok(()),
            None => Err(Status::resource_exhausted(refusal)),
        }
    }

    /// Refuses what no kernel has, before it is stored. Whatever would be refused or answered anyway is left to the
    /// ledger.
    async fn try_out(&self, id: LivepatchId, spec: &Spec) -> Result<(), Status> {
        let shared = &self.0;
        let patience = Duration::from_millis(shared.config.tryout_ms.into());
        if patience.is_zero() {
            return Ok(());
        }
        let wanted = spec.clone();
        let query = move |db: &rusqlite::Connection| {
            if store::livepatch(db, id)?.is_some() || store::find_livepatch(db, &wanted.name)?.is_some() {
                return Ok(Vec::new());
            }
            Ok::<_, Failed>(ledger::platforms(&wanted, &store::known_platforms(db)?).unwrap_or_default())
        };
        let platforms = shared.store.read(query).await?;
        let tried = tryout::refuse_slips(&shared.tryouts, &shared.farm, spec, &platforms, patience);
        tried.await.map_err(|violations| convert::invalid_argument(&violations))
    }
}

/// A text field as its type.
fn field<T>(name: &str, text: &str) -> Result<T, Status>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    convert::parse(name, text).map_err(|violation| convert::invalid_argument(&[violation]))
}

/// A submission's id, spec and share, or all that is wrong with them.
fn submission(request: v1::SubmitRequest) -> Result<(LivepatchId, Spec, Share), Status> {
    let id = convert::parse::<LivepatchId>("id", &request.id);
    let spec = Spec::parse(&Draft::from(request.spec.unwrap_or_default()));
    match (id, spec, convert::share(request.share)) {
        (Ok(id), Ok(spec), Ok(share)) => Ok((id, spec, share)),
        (id, spec, share) => {
            let mut violations = Vec::from_iter(id.err());
            violations.extend(spec.err().into_iter().flatten());
            violations.extend(share.err().into_iter().flatten());
            Err(convert::invalid_argument(&violations))
        }
    }
}

fn submit_status(error: SubmitError) -> Status {
    let exists = |owner: String, since: i64, hint: &str| {
        let message = format!("{error}, {owner}, submitted {}; {hint}", utc(since));
        let details = ErrorDetails::with_resource_info("livepatch", &owner, "", &message);
        Status::with_error_details(Code::AlreadyExists, message, details)
    };
    match &error {
        SubmitError::Invalid(violation) => convert::invalid_argument(std::slice::from_ref(violation)),
        SubmitError::NameTaken { by, since, .. } => exists(by.to_string(), *since, "choose another name"),
        SubmitError::IdTaken { id, since, .. } => {
            exists(id.to_string(), *since, "send another spec with an id of its own")
        }
        SubmitError::TooManyOpen { .. } => Status::resource_exhausted(error.to_string()),
        SubmitError::Store(_) => match error {
            SubmitError::Store(error) => store_status(error),
            _ => Status::internal("unreachable"),
        },
    }
}

/// A response whose messages `send` sends, one at a time, as fast as the client takes them; an error it answers with
/// is the stream's last word.
fn stream<T, F>(send: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F) -> Response<Stream<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (client, messages) = mpsc::channel(4);
    let sending = send(client.clone());
    tokio::spawn(async move {
        if let Err(status) = sending.await {
            // A client that is gone needs no last word.
            let _ = client.send(Err(status)).await;
        }
    });
    Response::new(Stream::new(messages))
}
