//! LivepatchService: what people ask of a coordinator.

use std::sync::Arc;

use klp_livepatch::task::{AttemptId, LivepatchId, TaskId};
use klp_livepatch::words::amount;
use klp_proto::v1::livepatch_service_server::LivepatchService;
use klp_proto::{MAX_ANSWER, MAX_CHUNK, convert, v1};
use prost::Message;
use rusqlite::Connection;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::{
    Failed, Shared, Stream, blob_status, control, listing, livepatch_name, look_up, provenance, scan, submit, watch,
    wire,
};
use crate::groups;
use crate::ledger;
use crate::store::{self, LivepatchRow, LivepatchState, TaskRow, Tx};

pub struct Livepatches(pub Arc<Shared>);

impl Livepatches {
    /// A livepatch, and of its tasks what `tasks_of` reads.
    async fn with_tasks(
        &self,
        livepatch: Option<v1::LivepatchRef>,
        tasks_of: impl FnOnce(&Connection, LivepatchId) -> rusqlite::Result<Vec<TaskRow>> + Send + 'static,
    ) -> Result<(LivepatchRow, Vec<TaskRow>), Status> {
        let name = livepatch_name(livepatch)?;
        let query = move |db: &Connection| {
            let livepatch = look_up(db, &name)?;
            let tasks = tasks_of(db, livepatch.id)?;
            Ok::<_, Failed>((livepatch, tasks))
        };
        Ok(self.0.store.read(query).await?)
    }
}

#[tonic::async_trait]
impl LivepatchService for Livepatches {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        // Too large to be moved about.
        Box::pin(submit::submit(&self.0, request)).await
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let request = request.into_inner();
        let tasks_of = match request.without_reports {
            true => store::bare_tasks_of,
            false => store::tasks_of,
        };
        let (livepatch, tasks) = self.with_tasks(request.livepatch, tasks_of).await?;
        let open = tasks.iter().filter(|t| t.status.is_open()).map(|t| t.id);
        let mut live = self.0.farm.live(open.collect()).await;
        let tasks = tasks.into_iter().map(|task| {
            let live = live.remove(&task.id).unwrap_or_default();
            wire::task(task, live)
        });
        let mut answer = v1::GetResponse {
            livepatch: Some(wire::livepatch(&livepatch)),
            tasks: tasks.collect(),
            reports_omitted: request.without_reports,
        };
        if answer.encoded_len() > MAX_ANSWER {
            answer.reports_omitted = true;
            answer.tasks.iter_mut().for_each(|task| task.report = None);
        }
        Ok(Response::new(answer))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        listing::list(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::Task>, Status> {
        listing::task(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn attempts(&self, request: Request<v1::AttemptsRequest>) -> Result<Response<v1::AttemptsResponse>, Status> {
        listing::attempts(&self.0, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn changes(&self, request: Request<v1::ChangesRequest>) -> Result<Response<v1::ChangesResponse>, Status> {
        listing::changes(&self.0, request.into_inner()).await.map(Response::new)
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
        let task: TaskId = wire::field("task_id", &request.task_id)?;
        let number = request.attempt;
        let query = move |db: &Connection| {
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
                let message = {
                    let had = amount(newest, "attempt", "attempts");
                    format!("{} has had {had}; there is no attempt {number}", task.key)
                };
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
        download(&self.0, request.into_inner()).await
    }

    async fn groups(&self, request: Request<v1::GroupsRequest>) -> Result<Response<v1::GroupsResponse>, Status> {
        let (livepatch, tasks) = self.with_tasks(request.into_inner().livepatch, store::tasks_of).await?;
        if livepatch.state == LivepatchState::Running {
            let message = format!(
                "`{}` is still running; its groups are known when it has ended",
                livepatch.spec.name
            );
            return Err(Status::failed_precondition(message));
        }
        let groups = groups::of_tasks(&self.0.blobs, &self.0.normalised, &tasks)
            .await
            .map_err(blob_status)?;
        let group = |group: klp_livepatch::grouping::Group| v1::Group {
            arch: group.arch.to_string(),
            codestreams: group.codestreams.iter().map(ToString::to_string).collect(),
            digest: group.digest.to_string(),
        };
        Ok(Response::new(v1::GroupsResponse {
            groups: groups.into_iter().map(group).collect(),
        }))
    }

    type ProvenanceStream = Stream<v1::CodestreamProvenance>;

    async fn provenance(
        &self,
        request: Request<v1::ProvenanceRequest>,
    ) -> Result<Response<Self::ProvenanceStream>, Status> {
        let (livepatch, tasks) = self.with_tasks(request.into_inner().livepatch, store::tasks_of).await?;
        let shared = Arc::clone(&self.0);
        Ok(stream(|client| async move {
            provenance::codestreams(&shared, &livepatch, tasks, &client).await
        }))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let deed = self.0.deed(&request, "LivepatchService/Cancel")?;
        let request = request.into_inner();
        let reason = control::reason(&request.reason)?;
        let change = move |tx: &mut Tx<'_>, id, now| ledger::cancel(tx, id, reason.as_ref(), now);
        control::change(&self.0, deed, request.livepatch, "cancelled", change).await
    }

    async fn retry(&self, request: Request<v1::RetryRequest>) -> Result<Response<v1::RetryResponse>, Status> {
        let deed = self.0.deed(&request, "LivepatchService/Retry")?;
        control::retry(&self.0, deed, request.into_inner()).await
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let deed = self.0.deed(&request, "LivepatchService/Pause")?;
        let request = request.into_inner();
        let reason = control::reason(&request.reason)?;
        let change = move |tx: &mut Tx<'_>, id, now| ledger::pause(tx, id, reason.as_ref(), now);
        control::change(&self.0, deed, request.livepatch, "paused", change).await
    }

    async fn resume(&self, request: Request<v1::ResumeRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let deed = self.0.deed(&request, "LivepatchService/Resume")?;
        let livepatch = request.into_inner().livepatch;
        control::change(&self.0, deed, livepatch, "resumed", ledger::resume).await
    }

    async fn scan(&self, request: Request<v1::ScanRequest>) -> Result<Response<v1::ScanResponse>, Status> {
        scan::scan(&self.0, request.into_inner()).await
    }

    async fn extract(&self, request: Request<v1::ExtractRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        control::extract(&self.0, request).await
    }

    async fn set_share(&self, request: Request<v1::SetShareRequest>) -> Result<Response<v1::ChangeResponse>, Status> {
        let deed = self.0.deed(&request, "LivepatchService/SetShare")?;
        let request = request.into_inner();
        let share = convert::share(request.share).map_err(|violations| convert::invalid_argument(&violations))?;
        let change = move |tx: &mut Tx<'_>, id, now| ledger::set_share(tx, id, share, now);
        control::change(&self.0, deed, request.livepatch, "given another share", change).await
    }
}

/// The bytes of a stored file.
pub(super) async fn download(
    shared: &Shared,
    request: v1::GetArtifactRequest,
) -> Result<Response<Stream<v1::ArtifactChunk>>, Status> {
    let digest = wire::field("digest", &request.digest)?;
    let Some(mut content) = shared.blobs.read(&digest).await.map_err(blob_status)? else {
        return Err(Status::not_found(format!(
            "no artifact with the digest {digest} is stored"
        )));
    };
    Ok(stream(|client| async move {
        loop {
            let data = content.next(MAX_CHUNK).await.map_err(blob_status)?;
            if data.is_empty() || client.send(Ok(v1::ArtifactChunk { data })).await.is_err() {
                return Ok(());
            }
        }
    }))
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
    let sending = async move {
        if let Err(status) = sending.await {
            // A client that is gone needs no last word.
            let _ = client.send(Err(status)).await;
        }
    };
    tokio::spawn(sending.in_current_span());
    Response::new(Stream::new(messages))
}
