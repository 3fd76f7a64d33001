//! WorkerService: sessions, logs, artifacts and commits of workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::Outcome;
use klp_livepatch::spec::Violation;
use klp_livepatch::task::{AttemptId, Platform};
use klp_proto::convert::{self, invalid_argument, parse};
use klp_proto::v1::Unready;
use klp_proto::v1::worker_service_server::WorkerService;
use klp_proto::{MAX_ARTIFACT, MAX_CHUNK, protocol, v1};
use klp_telemetry::grpc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument as _, Span};

use super::{Failed, Shared, Stream, blob_status, livepatch, log_status, scan, stopping, store_status, traced, wire};
use crate::auth::Caller;
use crate::errands::Errands;
use crate::farm::{Report, Running, Signal};
use crate::ledger::{self, CommitError, Committing, Disposition, Now};
use crate::lifecycle::Holder;
use crate::store::{self, Registration};
use crate::tryout::Settled;

/// Bounds on what one worker may say of itself.
const MAX_TREES: usize = 10_000;
const MAX_ATTEMPTS: usize = 10_000;
const MAX_SLOTS: u32 = 10_000;
const MAX_TOOLS: usize = 32;
const MAX_WORD: usize = 200;

pub struct Workers(pub Arc<Shared>);

#[tonic::async_trait]
impl WorkerService for Workers {
    type SessionStream = Stream<v1::FarmState>;

    async fn session(
        &self,
        request: Request<Streaming<v1::WorkerState>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = Caller::of(&request)?;
        let (worker, messages) = mpsc::channel(1);
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Err(status) = drive(&shared, &caller, request.into_inner(), &worker).await {
                // A worker that is gone needs no last word.
                let _ = worker.send(Err(status)).await;
            }
        });
        Ok(Response::new(Stream::new(messages)))
    }

    async fn append_log(
        &self,
        request: Request<v1::AppendLogRequest>,
    ) -> Result<Response<v1::AppendLogResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = attempt(request.attempt)?;
        if request.data.len() > MAX_CHUNK {
            let message = format!("{} bytes; at most {MAX_CHUNK}", request.data.len());
            return Err(wire::invalid("data", message));
        }
        if self.0.tryouts.contains(id.task) {
            // Its problems come with the outcome; nobody will ask for the log.
            let next_offset = request.offset.saturating_add(request.data.len() as u64);
            return Ok(Response::new(v1::AppendLogResponse { next_offset }));
        }
        let known = move |db: &rusqlite::Connection| store::attempt(db, id.task, id.number).map_err(Failed::from);
        let Some(row) = self.0.store.read(known).await? else {
            return Err(unknown(id));
        };
        caller.speaks_for(&row.holder.worker)?;
        let appended = self.0.logs.append(id, request.offset, request.data).await;
        let next_offset = appended.map_err(log_status)?;
        Ok(Response::new(v1::AppendLogResponse { next_offset }))
    }

    async fn upload_artifact(
        &self,
        request: Request<Streaming<v1::UploadArtifactRequest>>,
    ) -> Result<Response<v1::UploadArtifactResponse>, Status> {
        use v1::upload_artifact_request::Part;
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|m| m.part) else {
            return Err(wire::invalid("header", "an upload begins with its header"));
        };
        let digest = wire::field("header.digest", &header.digest)?;
        if header.size > MAX_ARTIFACT {
            let message = format!("{} bytes; at most {MAX_ARTIFACT}", header.size);
            return Err(wire::invalid("header.size", message));
        }
        match self.0.blobs.size(&digest).await.map_err(blob_status)? {
            Some(size) if size == header.size => return Ok(Response::new(v1::UploadArtifactResponse {})),
            Some(size) => {
                let message = format!("the content with this digest has {size} bytes, not {}", header.size);
                return Err(wire::invalid("header.size", message));
            }
            None => {}
        }
        let mut upload = self.0.blobs.begin(digest, header.size).map_err(blob_status)?;
        while let Some(message) = parts.message().await? {
            let Some(Part::Data(data)) = message.part else {
                return Err(wire::invalid("part", "after an upload's header come its bytes"));
            };
            if data.len() > MAX_CHUNK {
                return Err(wire::invalid(
                    "data",
                    format!("{} bytes; at most {MAX_CHUNK}", data.len()),
                ));
            }
            upload.write(data).await.map_err(blob_status)?;
        }
        upload.finish().await.map_err(blob_status)?;
        Ok(Response::new(v1::UploadArtifactResponse {}))
    }

    async fn answer_errand(
        &self,
        request: Request<v1::AnswerErrandRequest>,
    ) -> Result<Response<v1::AnswerErrandResponse>, Status> {
        let caller = Caller::of(&request)?;
        scan::answer(&self.0, &caller, request.into_inner()).await
    }

    type DownloadArtifactStream = Stream<v1::ArtifactChunk>;

    async fn download_artifact(
        &self,
        request: Request<v1::GetArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        livepatch::download(&self.0, request.into_inner()).await
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitResponse>, Status> {
        let parent = grpc::parent(request.metadata());
        let caller = Caller::of(&request)?;
        let (attempt, by, outcome) = commit(request.into_inner()).map_err(|v| invalid_argument(&[v]))?;
        caller.speaks_for(&by.worker)?;
        let committing = settle(&self.0, attempt, by, outcome);
        // Without a parent nobody knows here which livepatch's trace it is.
        match parent.map(|parent| traced::span("klpfarm.v1.WorkerService/Commit", parent)) {
            None => committing.await,
            Some(span) => traced::within(span, committing).await,
        }
    }
}

/// Takes an attempt's outcome.
async fn settle(
    shared: &Shared,
    attempt: AttemptId,
    by: Holder,
    outcome: Outcome,
) -> Result<Response<v1::CommitResponse>, Status> {
    klp_telemetry::note_attempt(attempt);
    Span::current().record("klp.worker", by.worker.as_str());
    let tried_out = match shared.tryouts.settle(attempt, &outcome) {
        Settled::Taken => Some(v1::Disposition::Committed),
        Settled::TooLate => Some(v1::Disposition::Superseded),
        Settled::Unknown => None,
    };
    if let Some(disposition) = tried_out {
        return Ok(Response::new(v1::CommitResponse {
            disposition: disposition.into(),
            missing: Vec::new(),
        }));
    }
    // Before it is asked what is there, and until what names it is stored.
    let pin = shared.blobs.pin(&outcome.artifacts).await;
    let missing = shared.blobs.missing(&outcome.artifacts).await.map_err(blob_status)?;
    let committing = Committing {
        attempt,
        by,
        outcome,
        missing,
    };
    let (now, rules) = (Now::of(&shared.clock), shared.config.now().rules());
    let store = shared.store.clone();
    let settling = async move {
        store
            .write(move |tx| ledger::commit(tx, &committing, &rules, now))
            .await
    };
    let settling = settling.instrument(tracing::info_span!("commit transaction", db.system.name = "sqlite"));
    let settled = pin.until_done(settling).await.map_err(|_| stopping())?;
    let (disposition, missing) = match settled {
        Ok(Disposition::Committed) => (v1::Disposition::Committed, Vec::new()),
        Ok(Disposition::Superseded) => (v1::Disposition::Superseded, Vec::new()),
        Ok(Disposition::ArtifactsMissing(missing)) => (v1::Disposition::ArtifactsMissing, missing),
        Err(CommitError::Unknown(id)) => return Err(unknown(id)),
        Err(error @ CommitError::Contradiction(_)) => return Err(wire::invalid("report", error.to_string())),
        Err(CommitError::Store(error)) => return Err(store_status(error)),
    };
    tracing::debug!(disposition = disposition.as_str_name(), "commit answered");
    Ok(Response::new(v1::CommitResponse {
        disposition: disposition.into(),
        missing: missing.iter().map(ToString::to_string).collect(),
    }))
}

fn unknown(id: AttemptId) -> Status {
    Status::not_found(format!("there is no attempt {id}"))
}

fn attempt(wire: Option<v1::Attempt>) -> Result<AttemptId, Status> {
    let id = convert::attempt(wire).map_err(|violation| invalid_argument(&[violation]))?;
    klp_telemetry::note_attempt(id);
    Ok(id)
}

fn commit(mut wire: v1::CommitRequest) -> Result<(AttemptId, Holder, Outcome), Violation> {
    let attempt = convert::attempt(wire.attempt.take())?;
    let by = Holder {
        worker: parse("worker", &wire.worker)?,
        incarnation: parse("incarnation", &wire.incarnation)?,
    };
    let outcome = convert::outcome(wire)?;
    let mut names = BTreeSet::new();
    if let Some(twice) = outcome.artifacts.iter().find(|a| !names.insert(&a.name)) {
        return Err(violation("artifacts.name", format!("`{}` is named twice", twice.name)));
    }
    Ok((attempt, by, outcome))
}

/// One session, until either side ends it.
async fn drive(
    shared: &Shared,
    caller: &Caller,
    mut states: Streaming<v1::WorkerState>,
    worker: &mpsc::Sender<Result<v1::FarmState, Status>>,
) -> Result<(), Status> {
    let _counted = shared.metrics.session();
    let mut session = shared.farm.open_session();
    let mut signals = session.signals();
    let patience: Duration = shared.config.now().lease();
    let mut silent_at = Instant::now() + patience;
    let mut identity = None;
    let mut protocol = 0;
    let mut source = Announced::default();
    loop {
        // In this order: however much the worker says, it is answered and can be ended.
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return Err(stopping()),
            () = worker.closed() => return Ok(()),
            changed = signals.changed() => {
                if changed.is_err() {
                    return Err(stopping());
                }
                let signal = signals.borrow_and_update().clone();
                match signal {
                    Signal::Silence => {}
                    Signal::Orders(orders) => {
                        let mut state = wire::farm_state(&orders, &shared.config.now(), protocol);
                        state.trust_sha256 = shared.door.trust();
                        if let Some((worker, _)) = &identity {
                            state.errands = shared.errands.of(worker);
                        }
                        if worker.send(Ok(state)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Signal::Replaced(reason) => return Err(Status::aborted(reason)),
                }
            }
            state = states.message() => {
                // What can't be read is answered; a stream that breaks hears nothing any more.
                let Some(state) = state? else { return Ok(()) };
                silent_at = Instant::now() + patience;
                let has_source = state.kernel_source;
                protocol = agreed(caller, &state)?;
                let report = report(state, protocol).map_err(|violations| invalid_argument(&violations))?;
                caller.speaks_for(&report.worker)?;
                let said = (report.worker.clone(), report.registration.incarnation);
                if *identity.get_or_insert(said.clone()) != said {
                    return Err(wire::invalid("worker", "a session belongs to one incarnation of one worker"));
                }
                source.tell(&shared.errands, &report.worker, has_source && !report.draining);
                session.report(report);
            }
            () = tokio::time::sleep_until(silent_at) => {
                let silence = patience.as_secs_f32();
                return Err(Status::deadline_exceeded(format!("the worker said nothing for {silence} s")));
            }
        }
    }
}

/// The version of the protocol to talk in. Asked before anything else is read, which may mean what this program does not know.
fn agreed(caller: &Caller, state: &v1::WorkerState) -> Result<u32, Status> {
    let speaks = protocol::Range::try_from(state.protocol).map_err(|violation| invalid_argument(&[violation]))?;
    let worker = protocol::Worker {
        name: short(&state.worker),
        version: short(&state.version),
        speaks,
    };
    protocol::negotiate(protocol::SPOKEN, worker).map_err(|apart| {
        let reason = apart.to_string();
        tracing::warn!(caller = caller.name, reason, "a worker is refused");
        Status::failed_precondition(reason)
    })
}

/// Text of a worker that nobody has looked at.
fn short(text: &str) -> &str {
    match text.len() <= MAX_WORD {
        true => text,
        false => "…",
    }
}

/// Takes back what a session announced of its worker's kernel-source repository, when the session ends.
#[derive(Default)]
struct Announced(Option<(Errands, WorkerName)>);

impl Announced {
    fn tell(&mut self, errands: &Errands, worker: &WorkerName, able: bool) {
        errands.announce(worker, able);
        self.0 = Some((errands.clone(), worker.clone()));
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some((errands, worker)) = self.0.take() {
            errands.announce(&worker, false);
        }
    }
}

fn violation(field: impl Into<String>, message: impl Into<String>) -> Violation {
    Violation {
        field: field.into(),
        message: message.into(),
    }
}

/// What a worker says, or all that is wrong with it.
fn report(state: v1::WorkerState, protocol: u32) -> Result<Report, Vec<Violation>> {
    let mut bad = Vec::new();
    let worker = note(&mut bad, parse::<WorkerName>("worker", &state.worker));
    let incarnation = note(&mut bad, parse("incarnation", &state.incarnation));
    let mut bound = |field: &str, count: usize, most: usize| {
        if count > most {
            bad.push(violation(field, format!("{count}; at most {most}")));
        }
        count <= most
    };
    let bounded = bound("trees", state.trees.len(), MAX_TREES)
        & bound("attempts", state.attempts.len(), MAX_ATTEMPTS)
        & bound("tools", state.tools.len(), MAX_TOOLS)
        & bound("slots", state.slots as usize, MAX_SLOTS as usize)
        & bound("unready", state.unready.len(), MAX_TREES)
        & bound("isolation", state.isolation.len(), MAX_TOOLS)
        & bound("version", state.version.len(), MAX_WORD);
    if !bounded {
        return Err(bad);
    }
    let trees = trees(state.trees, &mut bad);
    let mut tools = Vec::with_capacity(state.tools.len());
    for (i, tool) in state.tools.into_iter().enumerate() {
        if tool.backend.len() > MAX_WORD || tool.version.len() > MAX_WORD {
            bad.push(violation(
                format!("tools[{i}]"),
                format!("longer than {MAX_WORD} bytes"),
            ));
        }
        tools.push((tool.backend, tool.version));
    }
    let mut isolation = Vec::with_capacity(state.isolation.len());
    for (i, v1::Fence { name, missing }) in state.isolation.into_iter().enumerate() {
        if name.len() > MAX_WORD || missing.len() > MAX_WORD {
            bad.push(violation(
                format!("isolation[{i}]"),
                format!("longer than {MAX_WORD} bytes"),
            ));
        }
        isolation.push((name, Some(missing).filter(|why| !why.is_empty())));
    }
    let (broken_trees, broken_tools) = unready(state.unready, &trees, &mut bad);
    let (mut attempts, mut listed) = (Vec::with_capacity(state.attempts.len()), BTreeSet::new());
    for (i, running) in state.attempts.into_iter().enumerate() {
        if running.progress.len() > MAX_WORD {
            bad.push(violation(
                format!("attempts[{i}].progress"),
                format!("longer than {MAX_WORD} bytes"),
            ));
        }
        if let Some(id) = note(&mut bad, convert::attempt(running.attempt)) {
            if !listed.insert(id) {
                bad.push(violation(format!("attempts[{i}]"), format!("{id} is listed twice")));
            }
            attempts.push(Running {
                attempt: id,
                progress: running.progress,
                waiting: running.waiting,
            });
        }
    }
    match (worker, incarnation) {
        (Some(worker), Some(incarnation)) if bad.is_empty() => Ok(Report {
            worker,
            registration: Registration {
                incarnation,
                version: state.version,
                slots: state.slots,
                trees,
                tools,
                memory: state.memory,
                broken_trees,
                broken_tools,
                isolation,
            },
            attempts,
            draining: state.draining,
            protocol,
        }),
        _ => Err(bad),
    }
}

fn note<T>(bad: &mut Vec<Violation>, result: Result<T, Violation>) -> Option<T> {
    result.map_err(|violation| bad.push(violation)).ok()
}

/// What a worker has and can't use; none of it may be among what it can use.
fn unready(
    wire: Vec<v1::Unready>,
    ready: &BTreeSet<Platform>,
    bad: &mut Vec<Violation>,
) -> (BTreeMap<Platform, String>, BTreeMap<String, String>) {
    use v1::unready::What;
    let (mut trees, mut tools) = (BTreeMap::new(), BTreeMap::new());
    for (i, Unready { what, reason }) in wire.into_iter().enumerate() {
        let mut refuse = |field: &str, message: String| bad.push(violation(format!("unready[{i}].{field}"), message));
        if reason.is_empty() || reason.len() > MAX_WORD {
            refuse("reason", format!("{} bytes; it must be 1 to {MAX_WORD}", reason.len()));
        }
        match what {
            None => refuse("what", "neither tree nor backend is given".to_owned()),
            Some(What::Backend(backend)) if backend.len() > MAX_WORD => {
                refuse("backend", format!("longer than {MAX_WORD} bytes"));
            }
            Some(What::Backend(backend)) => drop(tools.insert(backend, reason)),
            Some(What::Tree(tree)) => match Platform::try_from(tree) {
                Ok(platform) if ready.contains(&platform) => {
                    refuse("tree", format!("{platform} is claimed twice, as ready and as not"));
                }
                Ok(platform) => drop(trees.insert(platform, reason)),
                Err(v) => refuse(&format!("tree.{}", v.field), v.message),
            },
        }
    }
    (trees, tools)
}

fn trees(wire: Vec<v1::Platform>, bad: &mut Vec<Violation>) -> BTreeSet<Platform> {
    let mut trees = BTreeSet::new();
    for (i, tree) in wire.into_iter().enumerate() {
        match Platform::try_from(tree) {
            Ok(platform) => {
                let text = platform.to_string();
                if !trees.insert(platform) {
                    bad.push(violation(format!("trees[{i}]"), format!("{text} is claimed twice")));
                }
            }
            Err(v) => bad.push(violation(format!("trees[{i}].{}", v.field), v.message)),
        }
    }
    trees
}
