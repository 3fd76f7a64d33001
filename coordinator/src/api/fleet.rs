//! FleetService: the workers, and what they hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use klp_livepatch::names::WorkerName;
use klp_livepatch::task::Platform;
use klp_livepatch::{CodestreamFilter, Reason};
use klp_proto::protocol::SOFTWARE;
use klp_proto::v1;
use klp_proto::v1::fleet_service_server::FleetService;
use tonic::{Request, Response, Status};

use super::{Failed, Shared, store_status, wire};
use crate::auth::Deed;
use crate::farm::WorkerView;
use crate::ledger::{self, ForgetError, Now};
use crate::store::{self, StoreError, Tx};

/// How many names an error lists.
const LISTED: usize = 20;

pub struct Fleet(pub Arc<Shared>);

#[tonic::async_trait]
impl FleetService for Fleet {
    async fn list_workers(
        &self,
        _request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let mut running = self.running().await?;
        let workers = self.0.farm.workers().await.into_iter().map(|view| v1::Worker {
            running: running.remove(&view.name).unwrap_or_default(),
            ..wire::worker(view)
        });
        Ok(Response::new(v1::ListWorkersResponse {
            workers: workers.collect(),
            version: SOFTWARE.to_owned(),
        }))
    }

    async fn list_codestreams(
        &self,
        request: Request<v1::ListCodestreamsRequest>,
    ) -> Result<Response<v1::ListCodestreamsResponse>, Status> {
        let filter: CodestreamFilter = wire::field("filter", &request.into_inner().filter)?;
        let holders = self.0.store.read(|db| store::holders(db).map_err(Failed::from)).await?;
        let catalog = self.0.catalog.clone();
        let catalog = self.0.blobs.aside().run(move || catalog.now()).await;
        let catalog = catalog
            .map_err(|_| super::stopping())?
            .map_err(Status::failed_precondition)?;
        let mut all: BTreeMap<Platform, Vec<String>> = BTreeMap::new();
        for (platform, workers) in holders {
            all.insert(platform, workers.iter().map(ToString::to_string).collect());
        }
        for entry in catalog.entries() {
            for arch in &entry.archs {
                let codestream = entry.codestream.clone();
                all.entry(Platform {
                    codestream,
                    arch: *arch,
                })
                .or_default();
            }
        }
        all.retain(|platform, _| filter.matches(&platform.codestream));
        let info = all.into_iter().map(|(platform, workers)| {
            let entry = catalog.get(&platform.codestream);
            v1::CodestreamInfo {
                platform: Some((&platform).into()),
                workers,
                kernel: entry.map(|e| e.kernel.to_string()).unwrap_or_default(),
                end_of_support: entry
                    .and_then(|e| e.eol)
                    .map(|date| date.to_string())
                    .unwrap_or_default(),
                project: entry.map(|e| e.project.clone()).unwrap_or_default(),
                patchid: entry.map(|e| e.patchid.clone()).unwrap_or_default(),
            }
        });
        Ok(Response::new(v1::ListCodestreamsResponse {
            codestreams: info.collect(),
        }))
    }

    async fn queue(&self, _request: Request<v1::QueueRequest>) -> Result<Response<v1::QueueResponse>, Status> {
        let waiting = self.0.farm.waiting().await;
        Ok(Response::new(v1::QueueResponse {
            waiting: waiting.into_iter().map(wire::waiting).collect(),
        }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::WorkerResponse>, Status> {
        let deed = self.0.deed(&request, "FleetService/Drain")?;
        let request = request.into_inner();
        let worker: WorkerName = wire::field("worker", &request.worker)?;
        let reason: Reason = wire::field("reason", &request.reason)?;
        let now = Now::of(&self.0.clock);
        let (name, done) = (worker.clone(), deed.clone());
        let drain = move |tx: &mut Tx<'_>| {
            let drained = ledger::drain(tx, &name, &reason, now)?;
            recorded(tx, &done, &name, drained)
        };
        let drained = self.0.store.write(drain).await;
        self.thought_of(&deed, &worker, drained, "drained").await
    }

    async fn undrain(&self, request: Request<v1::UndrainRequest>) -> Result<Response<v1::WorkerResponse>, Status> {
        let deed = self.0.deed(&request, "FleetService/Undrain")?;
        let worker: WorkerName = wire::field("worker", &request.into_inner().worker)?;
        let (name, done) = (worker.clone(), deed.clone());
        let undrain = move |tx: &mut Tx<'_>| {
            let undrained = ledger::undrain(tx, &name)?;
            recorded(tx, &done, &name, undrained)
        };
        let undrained = self.0.store.write(undrain).await;
        self.thought_of(&deed, &worker, undrained, "undrained").await
    }

    async fn forget(&self, request: Request<v1::ForgetRequest>) -> Result<Response<v1::ForgetResponse>, Status> {
        let deed = self.0.deed(&request, "FleetService/Forget")?;
        let worker: WorkerName = wire::field("worker", &request.into_inner().worker)?;
        let refused = async |status: Status| {
            deed.refused(&self.0.store, &about(&worker), &status).await;
            status
        };
        if self.view(&worker).await.is_some_and(|view| view.connected) {
            let message = format!("worker `{worker}` is connected; stop it first, then forget it");
            return Err(refused(Status::failed_precondition(message)).await);
        }
        let (name, done) = (worker.clone(), deed.clone());
        let forget = move |tx: &mut Tx<'_>| {
            ledger::forget(tx, &name)?;
            Ok(done.done(tx, &about(&name))?)
        };
        let forgotten: Result<(), ForgetError> = self.0.store.write(forget).await;
        match forgotten {
            Ok(()) => {}
            Err(ForgetError::Unknown(_)) => return Err(refused(self.unknown(&worker).await).await),
            Err(error @ ForgetError::Holds(_)) => {
                return Err(refused(Status::failed_precondition(error.to_string())).await);
            }
            Err(ForgetError::Store(error)) => return Err(store_status(error)),
        }
        tracing::info!(klp.worker = %worker, "forgotten");
        Ok(Response::new(v1::ForgetResponse {}))
    }
}

impl Fleet {
    /// What each worker runs, as far as the database knows, with what it last said of it.
    async fn running(&self) -> Result<BTreeMap<WorkerName, Vec<v1::Running>>, Status> {
        let leased = self
            .0
            .store
            .read(|db| store::leased_now(db).map_err(Failed::from))
            .await?;
        let mut live = self.0.farm.live(leased.iter().map(|l| l.task).collect()).await;
        let mut running: BTreeMap<WorkerName, Vec<v1::Running>> = BTreeMap::new();
        for leased in leased {
            running.entry(leased.worker).or_default().push(v1::Running {
                livepatch: leased.livepatch.to_string(),
                kind: v1::TaskKind::from(leased.key.kind).into(),
                platform: Some((&leased.key.platform).into()),
                since_ms: leased.started,
                progress: live.remove(&leased.task).unwrap_or_default().progress,
            });
        }
        Ok(running)
    }

    async fn view(&self, worker: &WorkerName) -> Option<WorkerView> {
        let workers = self.0.farm.workers().await;
        workers.into_iter().find(|view| view.name == *worker)
    }

    async fn unknown(&self, worker: &WorkerName) -> Status {
        let workers = self.0.farm.workers().await;
        let known: Vec<&str> = workers.iter().map(|view| view.name.as_str()).take(LISTED).collect();
        let known = match known.is_empty() {
            true => "none ever registered".to_owned(),
            false => format!("the farm knows: {}", known.join(", ")),
        };
        Status::not_found(format!("there is no worker `{worker}`; {known}"))
    }

    /// The worker after the farm has changed its mind about it.
    async fn thought_of(
        &self,
        deed: &Deed,
        worker: &WorkerName,
        changed: Result<Option<()>, StoreError>,
        what: &str,
    ) -> Result<Response<v1::WorkerResponse>, Status> {
        if changed.map_err(store_status)?.is_none() {
            let status = self.unknown(worker).await;
            deed.refused(&self.0.store, &about(worker), &status).await;
            return Err(status);
        }
        tracing::info!(klp.worker = %worker, "{what}");
        // The farm heard of the change before the store answered.
        let worker = self.view(worker).await.map(wire::worker);
        Ok(Response::new(v1::WorkerResponse { worker }))
    }
}

/// What the audit log calls a worker.
pub fn about(worker: &WorkerName) -> String {
    format!("worker {worker}")
}

/// Records a change with whose it is, if there was something to change.
fn recorded(tx: &Tx<'_>, deed: &Deed, worker: &WorkerName, changed: Option<()>) -> Result<Option<()>, StoreError> {
    if changed.is_some() {
        deed.done(tx, &about(worker))?;
    }
    Ok(changed)
}
