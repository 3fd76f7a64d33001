//! A worker from its start to its end: puts the parts together, and stops them in order.

use std::fs::{self, File};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use klp_livepatch::catalog::{Catalog, MAX_FILE};
use klp_livepatch::outcome::{Cause, Ending, Failure};
use klp_livepatch::task::{AttemptId, Incarnation};
use klp_livepatch::words::amount;
use klp_proto::protocol::SOFTWARE;
use klp_proto::v1::{self, Assignment, WorkerState};
use klp_telemetry::{redact, service};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::transport::Uri;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::attempt_log::AttemptLog;
use crate::attempts::Attempts;
use crate::config::{SUSE_INDEXES, WorkerConfig};
use crate::delivery::Courier;
use crate::errands::Errands;
use crate::identity;
use crate::inventory::Inventory;
use crate::isolation::Isolation;
use crate::outbox::{Outbox, Parcel, Product};
use crate::runner;
use crate::session::{self, Party, Standing};
use crate::told::Told;
use crate::trace;
use crate::trees::TreeStore;
use crate::trees::suse::{self, KnownKernels, SuseData};

/// How long a stopping worker tries to deliver what it has; what is left is delivered at its next start.
const LAST_DELIVERY: Duration = Duration::from_secs(5);

/// How long outcomes from before a restart may hold up the session; after that they are delivered beside it.
const LEFT_OVER_PATIENCE: Duration = Duration::from_secs(5);

/// How long an attempt may wait for a slot. It was given ahead because slots came free within milliseconds.
const SLOT_PATIENCE: Duration = Duration::from_secs(5);

/// How often the worker looks for trees and tools that came or went. They are announced with the next heartbeat.
const REFRESH: Duration = Duration::from_secs(5);

/// How long a stopping worker waits for the coordinator to hear that it takes nothing new.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the parts of a running worker share.
#[derive(Clone)]
pub struct Shared {
    pub config: Arc<WorkerConfig>,
    pub incarnation: Incarnation,
    pub attempts: Attempts,
    pub inventory: Arc<Inventory>,
    pub trees: Arc<TreeStore>,
    pub isolation: Arc<Isolation>,
    pub courier: Courier,
    errands: Errands,
    /// Cancelled when the worker takes nothing new.
    pub draining: CancellationToken,
    /// Cancelled when the coordinator has heard that this worker takes nothing new.
    pub farewell: CancellationToken,
    /// One permit for each attempt that may run now.
    slots: Arc<Semaphore>,
    tracker: TaskTracker,
    told: Arc<Told>,
    /// The fingerprint of the CAs to trust, as the coordinator tells.
    trust: Arc<watch::Sender<String>>,
}

/// Runs a worker until `shutdown`, then lets its attempts finish within the grace period or hands them back.
///
/// # Errors
/// The data folder can't be used, another worker uses it, or the coordinator refuses this worker for good.
pub async fn run(config: WorkerConfig, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let data_dir = &config.data_dir;
    fs::create_dir_all(data_dir).with_context(|| format!("can't make the data folder {}", data_dir.display()))?;
    let _lock = lock_data_dir(&config)?;
    runner::clear_scratch(data_dir).context("can't clear the scratch folder")?;
    let outbox = Outbox::open(data_dir).with_context(|| format!("can't open the outbox in {}", data_dir.display()))?;
    let left_over = outbox.list()?;

    let line = identity::line(&config.coordinator, data_dir, &config.name)?;
    // Before the trees are looked at, which may take long.
    let (trust, told_to_trust) = watch::channel(String::new());
    let renewing = identity::keep_renewed(
        line.clone(),
        config.coordinator.clone(),
        config.data_dir.clone(),
        told_to_trust,
    );
    let renewing = AbortOnDropHandle::new(tokio::spawn(renewing));
    let trees = Arc::new(open_trees(&config)?);
    let isolation = isolate(&config).await?;
    let inventory = Inventory::new(
        trees.clone(),
        config.tools.clone(),
        config.tuned.clone(),
        isolation.clone(),
    );
    inventory.refresh().await;
    let shared = Shared {
        incarnation: Incarnation(Uuid::now_v7()),
        attempts: Attempts::default(),
        inventory: Arc::new(inventory),
        trees,
        isolation,
        courier: Courier {
            worker: config.name.clone(),
            outbox: Arc::new(outbox),
            line,
        },
        errands: Errands::new(config.kernel_source.clone()),
        draining: CancellationToken::new(),
        farewell: CancellationToken::new(),
        tracker: TaskTracker::new(),
        told: Arc::default(),
        trust: Arc::new(trust),
        slots: Arc::new(Semaphore::new(config.slots as usize)),
        config: Arc::new(config),
    };
    shared.announce();
    let refreshing = tokio::spawn({
        let inventory = shared.inventory.clone();
        async move {
            loop {
                tokio::time::sleep(REFRESH).await;
                inventory.refresh().await;
            }
        }
    });

    let stop_session = CancellationToken::new();
    let session = tokio::spawn({
        let (shared, stop) = (shared.clone(), stop_session.clone());
        async move {
            // Before the session: the coordinator releases the leases of a former incarnation when a new one comes.
            shared.deliver_left_over(left_over, &stop).await;
            session::keep(&shared, &stop).await
        }
    });
    tokio::pin!(session);
    let ended = tokio::select! {
        () = shutdown => None,
        ended = &mut session => Some(ended),
    };

    refreshing.abort();
    drop(renewing);
    shared.draining.cancel();
    shared.attempts.close();
    shared.finish_or_hand_back().await;
    stop_session.cancel();
    match ended {
        Some(result) => Ok(result??),
        None => Ok(session.await??),
    }
}

/// Finds out how tools can be confined here.
async fn isolate(config: &WorkerConfig) -> anyhow::Result<Arc<Isolation>> {
    let program = std::env::current_exe().context("can't find this program's own file")?;
    let data_dir = std::path::absolute(&config.data_dir)?;
    let isolation = Isolation::look(&config.isolation, &config.tools, &data_dir, &program).await;
    let isolation = isolation.map_err(anyhow::Error::msg)?;
    if isolation.changes_user() {
        // What is shut for others stays so by the folders around it, which the worker made before.
        nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    }
    let fences = isolation.fences();
    let up: Vec<&str> = fences.up.iter().map(|fence| fence.name()).collect();
    tracing::info!(up = up.join(" "), "tools are confined");
    for (fence, why) in &fences.down {
        tracing::warn!("tools run without the fence `{fence}`: {why}");
    }
    Ok(isolation)
}

fn open_trees(config: &WorkerConfig) -> anyhow::Result<TreeStore> {
    let suse = match config.suse_data_dir.as_deref() {
        None => None,
        Some(dir) => {
            let known = known_kernels(config.catalog.as_deref())?;
            Some(SuseData::open(dir, &config.data_dir.join(SUSE_INDEXES), known)?)
        }
    };
    Ok(TreeStore::open(&config.trees_dir)?.with_suse(suse))
}

/// What the catalog says of SUSE's kernels.
///
/// # Errors
/// It can't be read, with its path and the line.
pub fn known_kernels(catalog: Option<&Path>) -> anyhow::Result<Arc<KnownKernels>> {
    let Some(path) = catalog else {
        return Ok(suse::unknown());
    };
    let size = fs::metadata(path)
        .with_context(|| format!("can't read the catalog {}", path.display()))?
        .len();
    anyhow::ensure!(
        size <= MAX_FILE as u64,
        "the catalog {} has {size} bytes; at most {MAX_FILE}",
        path.display()
    );
    let text = fs::read_to_string(path).with_context(|| format!("can't read the catalog {}", path.display()))?;
    let catalog = Catalog::parse(&text).with_context(|| format!("the catalog {}", path.display()))?;
    Ok(suse::known_by(&catalog))
}

fn lock_data_dir(config: &WorkerConfig) -> anyhow::Result<Flock<File>> {
    let path = config.data_dir.join("worker.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("can't open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        anyhow::anyhow!(
            "can't lock {} ({errno}): another worker uses this data folder; give each worker its own with --data-dir",
            path.display()
        )
    })
}

impl Shared {
    fn announce(&self) {
        let mut state = WorkerState::default();
        self.inventory.describe(&mut state);
        let WorkerState { trees, tools, .. } = state;
        let trees: Vec<String> = trees.iter().map(|t| format!("{}/{}", t.codestream, t.arch)).collect();
        let tools: Vec<String> = tools.iter().map(|t| format!("{} {}", t.backend, t.version)).collect();
        tracing::info!(klp.worker = %self.config.name, slots = self.config.slots, trees = trees.join(" "), tools = tools.join(", "), "worker starts");
        if trees.is_empty() {
            let dir = self.config.trees_dir.display();
            match self.config.tuned.now().codestreams.as_str() {
                "" => tracing::warn!("no kernel tree in {dir}: add one with `klp-worker tree add debian --latest 1`"),
                filter => tracing::warn!("no kernel tree in {dir} matches --codestreams `{filter}` from its start on"),
            }
        }
    }

    /// Puts a product into the outbox. If the disk refuses, the attempt has failed by this worker's fault; that is then
    /// delivered from memory.
    fn store(&self, id: AttemptId, traceparent: String, product: Product) -> Parcel {
        let error = match self.courier.outbox.put(id, self.incarnation, &traceparent, product) {
            Ok(parcel) => return parcel,
            Err(error) => error,
        };
        let (name, dir) = (&self.config.name, self.config.data_dir.display());
        let message = format!("worker {name}: can't store the outcome in {dir}: {error}. Is the disk full?");
        tracing::error!(message);
        Parcel {
            attempt: id,
            incarnation: self.incarnation,
            outcome: Product::failed(Failure::new(Cause::Farm, message)).into_outcome_without_files(),
            tryout: false,
            traceparent,
        }
    }

    /// Delivers what survived a restart. All of it gets a short while; what takes longer goes on beside the session.
    async fn deliver_left_over(&self, parcels: Vec<Parcel>, stop: &CancellationToken) {
        let until = tokio::time::Instant::now() + LEFT_OVER_PATIENCE;
        for parcel in parcels {
            let span = trace::delivery(&self.config.name, &parcel);
            span.in_scope(|| tracing::info!("delivering an outcome from before the restart"));
            let courier = self.courier.clone();
            let delivering = async move { courier.deliver(&parcel).await };
            let delivering = self.tracker.spawn(delivering.instrument(span));
            tokio::select! {
                _ = tokio::time::timeout_at(until, delivering) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Waits for a slot, first come, first served, but not for long: another worker may have one.
    ///
    /// # Errors
    /// Why the attempt is handed back.
    async fn slot(&self, id: AttemptId, cancel: &CancellationToken) -> Result<OwnedSemaphorePermit, &'static str> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        self.attempts.set_waiting(id, true);
        let slot = tokio::time::timeout(SLOT_PATIENCE, Arc::clone(&self.slots).acquire_owned());
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(self.why_stopped()),
            () = self.draining.cancelled() => Err(self.why_stopped()),
            slot = slot => {
                let slot = slot.ok().and_then(Result::ok).ok_or("no slot came free on the worker")?;
                self.attempts.set_waiting(id, false);
                Ok(slot)
            }
        }
    }

    /// Why an attempt is cancelled.
    pub fn why_stopped(&self) -> &'static str {
        match self.draining.is_cancelled() {
            true => "the worker is stopping",
            false => "no longer wanted",
        }
    }

    async fn finish_or_hand_back(&self) {
        self.tracker.close();
        let (running, _) = self.attempts.counts();
        let grace = self.config.tuned.now().grace;
        service::stopping(grace + FAREWELL + LAST_DELIVERY);
        if running > 0 {
            tracing::info!(running, ?grace, "stopping: waiting for attempts to finish");
        }
        if tokio::time::timeout(grace, self.finished_running()).await.is_err() {
            tracing::info!("stopping: handing back what still runs");
            self.attempts.cancel_all();
        }
        let _ = tokio::time::timeout(FAREWELL, self.farewell.cancelled()).await;
        if tokio::time::timeout(LAST_DELIVERY, self.tracker.wait()).await.is_err() {
            tracing::warn!("the coordinator could not be told everything; the rest is delivered at the next start");
        }
    }

    /// What it has and does, for the service manager.
    fn activity(&self) -> String {
        let mut state = WorkerState::default();
        self.inventory.describe(&mut state);
        let (running, _) = self.attempts.counts();
        format!(
            "{running} running in {}, {}",
            amount(self.config.slots, "slot", "slots"),
            amount(state.trees.len(), "tree", "trees")
        )
    }

    async fn finished_running(&self) {
        while self.attempts.counts().0 > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Party for Shared {
    fn coordinator(&self) -> &Uri {
        &self.config.coordinator
    }

    fn courier(&self) -> &Courier {
        &self.courier
    }

    fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    fn describe(&self) -> WorkerState {
        let mut state = WorkerState {
            worker: self.config.name.to_string(),
            incarnation: self.incarnation.to_string(),
            slots: self.config.slots,
            memory: self.config.tuned.now().memory,
            version: SOFTWARE.to_owned(),
            kernel_source: self.errands.can_scan(),
            ..WorkerState::default()
        };
        self.inventory.describe(&mut state);
        state
    }

    fn stands(&self, standing: Standing<'_>) {
        let coordinator = redact::url(&self.config.coordinator);
        self.told.tell(|| match standing {
            Standing::Open => format!("connected to {coordinator}; {}", self.activity()),
            Standing::Closed(why) => format!(
                "not connected to {coordinator} ({why}); will keep trying; {}",
                self.activity()
            ),
        });
    }

    fn start(&self, id: AttemptId, assignment: Assignment) {
        let Some(cancel) = self.attempts.begin(id) else { return };
        let shared = self.clone();
        let parent = assignment.traceparent.parse().ok();
        let span = trace::attempt(&self.config.name, id, &assignment, parent);
        self.attempts.attach(id, &span);
        let attempt = async move {
            let traceparent = assignment.traceparent.clone();
            let tryout = assignment.tryout;
            let log = AttemptLog::default();
            let sending = {
                let (log, client) = (log.clone(), shared.courier.client());
                async move { log.send(id, client, parent).await }
            };
            let sender = tokio::spawn(sending.in_current_span());
            // In a task of its own: whatever happens there, the attempt must come to an end here.
            let running = {
                let (shared, log) = (shared.clone(), log.clone());
                async move {
                    let _slot = match tryout {
                        true => None,
                        false => match shared.slot(id, &cancel).await {
                            Ok(slot) => Some(slot),
                            Err(reason) => return handed_back(reason),
                        },
                    };
                    runner::run(&shared, id, assignment, &log, cancel).await
                }
            };
            let running = tokio::spawn(running.in_current_span());
            let product = running.await.unwrap_or_else(|error| {
                let message = format!("worker {}: the attempt broke off: {error}", shared.config.name);
                Product::failed(Failure::new(Cause::Farm, message))
            });
            trace::ended(&product.ending);
            let at_fault = matches!(&product.ending, Ending::Failed(failure) if failure.cause == Cause::Farm);
            let parcel = Parcel {
                tryout,
                ..shared.store(id, traceparent, product)
            };
            log.close();
            shared.attempts.ended(id);
            // The log first, so that whoever sees the verdict can read why.
            let _ = tokio::time::timeout(Duration::from_secs(10), sender).await;
            shared.courier.deliver(&parcel).await;
            if at_fault {
                // Before the farm hears that there is a slot again: what is broken here must not be tried here again.
                shared.inventory.doubt();
                shared.inventory.refresh().await;
            }
            shared.attempts.remove(id);
        };
        self.tracker.spawn(attempt.instrument(span));
    }

    fn run_errands(&self, errands: Vec<v1::Errand>) {
        self.errands.apply(errands, &self.courier, &self.trees);
    }

    fn bid_farewell(&self) {
        self.farewell.cancel();
    }

    fn trusts(&self, sha256: &str) {
        self.trust.send_if_modified(|told| {
            let other = *told != sha256;
            if other {
                sha256.clone_into(told);
            }
            other
        });
    }

    fn noise(&self) -> u16 {
        // The low bits are random; truncation is meant.
        Uuid::now_v7().as_u128() as u16
    }
}

/// What an attempt commits that does not run to its end here.
pub fn handed_back(reason: &str) -> Product {
    Product {
        ending: Ending::HandedBack {
            reason: reason.to_owned(),
        },
        report: None,
        files: Vec::new(),
    }
}
