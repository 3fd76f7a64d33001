//! The coordinator as a whole: opens its data, starts its parts, serves, and stops in order.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klp_livepatch::task::LivepatchId;
use klp_proto::v1;
use klp_proto::v1::access_service_server::AccessServiceServer;
use klp_proto::v1::fleet_service_server::FleetServiceServer;
use klp_proto::v1::livepatch_service_server::LivepatchServiceServer;
use klp_proto::v1::worker_service_server::WorkerServiceServer;
use klp_proto::{MAX_ANSWER, MAX_LOG, MAX_MESSAGE};
use klp_settings::Reload;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router};
use tower::layer::util::{Identity, Stack};

use crate::admin::{Folder, gc};
use crate::api::{Access, Fleet, Livepatches, Shared, Workers};
use crate::aside::Aside;
use crate::auth::{self, Book, Door, Gate, Guard, Tls, files};
use crate::bell::Bells;
use crate::blobs::{BlobError, Blobs};
use crate::catalog::CatalogFile;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Current};
use crate::errands::Errands;
use crate::farm::{self, Farm, Input, Pulse};
use crate::logs::{self, Logs};
use crate::metrics::{Metrics, Scrape};
use crate::space::Space;
use crate::store::{Change, Group, Sink, Store, StoreError, Writing};
use crate::tryout::Tryouts;
use crate::versions::Versions;
use crate::web;

/// The largest message about tokens and certificates, in bytes.
const MAX_SMALL: usize = 64 << 10;

/// Why a coordinator can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("can't use the data folder {path}: {error}")]
    DataDir { path: PathBuf, error: std::io::Error },
    #[error("another coordinator uses the data folder {0}; stop it, or choose another data_dir")]
    InUse(PathBuf),
    #[error("can't listen on {address}: {error}")]
    Listen { address: SocketAddr, error: std::io::Error },
    #[error(
        "the database {path} is corrupt: {error}; `klp-coordinator check --data-dir {dir}` says how far. Restore a backup: \
         start with it as data_dir"
    )]
    Corrupt {
        path: PathBuf,
        dir: PathBuf,
        error: Box<StoreError>,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error(
        "there are no certificates in {0}: make them, and a first token, with `klp-coordinator init`; or serve this machine alone, \
         without TLS and tokens, with --insecure"
    )]
    Unprotected(PathBuf),
    #[error("the coordinator's keys and certificates can't be used: {0}")]
    Keys(#[from] klp_identity::Problem),
    #[error("can't serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// What a coordinator stands on beside its disk and its network. A simulation brings its own.
#[derive(Clone, Copy, Debug)]
pub struct Ground {
    pub clock: Clock,
    pub aside: Aside,
}

impl Ground {
    pub fn system() -> Self {
        Self {
            clock: Clock::system(),
            aside: Aside::Threads,
        }
    }
}

/// A connection that can be served.
pub trait Connection: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static {}

impl<C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static> Connection for C {}

/// Asks the loop that decides everything.
#[derive(Clone)]
pub struct Heart(Farm);

impl Heart {
    /// How the farm is, as its loop itself tells; `None` if that has ended. As long as the loop hangs, there is no answer.
    pub async fn pulse(&self) -> Option<Pulse> {
        self.0.pulse().await
    }
}

/// A running coordinator. Dropped without [`Coordinator::shutdown`], it goes on until its runtime ends.
pub struct Coordinator {
    address: SocketAddr,
    /// Connections are over TLS.
    tls: bool,
    http_address: Option<SocketAddr>,
    config: Current,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Serves HTTP, if it is asked for.
    web: Option<web::Served>,
    farm: JoinHandle<()>,
    heart: Heart,
    /// Compresses and clears; ends soon after `stop`.
    upkeep: JoinHandle<()>,
    writer: Writing,
    patience: Duration,
    /// Held as long as the data is used.
    _lock: File,
}

impl Coordinator {
    /// Starts a coordinator; when this returns, it accepts connections.
    ///
    /// # Errors
    /// A setting is not valid, the data can't be used, or the address can't be listened on.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let lock = lock_data_dir(&config)?;
        let (listener, address) = listen(config.listen).await?;
        let http = match config.http_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let (door, stop) = (door(&config)?, CancellationToken::new());
        // A farm of a former version gets a key to sign with here.
        auth::signing::current(&config.data_dir, Clock::system().now())?;
        if let Door::Tls(tls) = &door {
            tokio::spawn(tls.clone().keep_fresh(stop.clone()));
        }
        let incoming = auth::incoming(listener, door.clone(), stop.clone());
        let http = http.map(|(listener, address)| (listener, address, door.clone()));
        Self::open(config, lock, (address, http), (incoming, door), Ground::system(), stop).await
    }

    /// Starts a coordinator that serves the connections that come `incoming`, and listens at no address of its own.
    ///
    /// # Errors
    /// A setting is not valid, or the data can't be used.
    pub async fn start_on<C: Connection>(
        config: Config,
        incoming: impl Stream<Item = io::Result<C>> + Send + 'static,
        ground: Ground,
    ) -> Result<Self, StartError> {
        config.validate()?;
        let (lock, address) = (lock_data_dir(&config)?, config.listen);
        Self::open(
            config,
            lock,
            (address, None),
            (incoming, Door::Plain),
            ground,
            CancellationToken::new(),
        )
        .await
    }

    async fn open<C: Connection>(
        config: Config,
        lock: File,
        (address, http): (SocketAddr, Option<(TcpListener, SocketAddr, Door)>),
        (incoming, door): (impl Stream<Item = io::Result<C>> + Send + 'static, Door),
        Ground { clock, aside }: Ground,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let folder = Folder::new(&config.data_dir);
        let current = Current::new(config);
        let config = current.now();
        let events = Bells::default();
        let (inbox, inputs) = mpsc::unbounded_channel();
        // Two starts never begin the same count.
        let versions = Versions::new(clock.roll() as u64);
        let metrics = Metrics::new();
        let book = Book::default();
        let sink = Listeners {
            book: book.clone(),
            farm: inbox.clone(),
            events: events.clone(),
            versions: versions.clone(),
            metrics: metrics.clone(),
            clock,
        };
        let corrupt = |error| corrupt(&folder, error);
        let opened = Store::open(&folder.database(), config.readers as usize, aside, sink);
        let (store, writer) = opened.map_err(corrupt)?;
        let reading = book.clone();
        let read = store.read(move |db| reading.read(db).map_err(StoreError::from)).await;
        read.map_err(corrupt)?;
        let gate = Arc::new(Gate::new(&config, book, clock, store.clone()));
        let tryouts = Tryouts::default();
        let parts = (inbox, inputs);
        let started = farm::start(
            current.clone(),
            clock,
            store.clone(),
            parts,
            tryouts.clone(),
            &metrics,
            stop.clone(),
        );
        let (farm, farm_task) = started.await.map_err(corrupt)?;
        let blobs = Blobs::open(&config, aside).await?.counting(metrics.artifacts());
        let space = Space::new(config.data_dir.clone(), config.min_free_bytes);
        let logs = Logs::new(folder.logs(), MAX_LOG, space.clone(), aside).counting(metrics.logs());
        let upkeep = upkeep(&current, Ground { clock, aside }, &store, &logs, &blobs, &stop);
        let heart = Heart(farm.clone());
        let scrape = Scrape::new(metrics.clone(), farm.clone(), space.clone(), clock, aside);
        let shared = Arc::new(Shared {
            metrics,
            scrape,
            gate,
            blobs,
            normalised: Default::default(),
            logs,
            space,
            clock,
            store,
            farm,
            tryouts,
            errands: Errands::default(),
            catalog: CatalogFile::new(config.catalog.clone()),
            events,
            versions,
            door: door.clone(),
            stop: stop.clone(),
            config: current.clone(),
        });
        let patience = Duration::from_millis(config.shutdown_ms.into());
        let router = router(&config, shared.clone()).await?;
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(router.serve_with_incoming_shutdown(incoming, stopped));
        let http_address = http.as_ref().map(|(_, address, _)| *address);
        let web = match http {
            None => None,
            Some((listener, address, door)) => {
                let pages = web::router(shared.clone(), browser_services(shared));
                let served = web::start(listener, door, pages, stop.clone(), patience);
                let served = served.map_err(|error| StartError::Listen { address, error })?;
                tracing::info!(%address, "serving the dashboard");
                Some(served)
            }
        };
        tracing::info!(%address, data_dir = %config.data_dir.display(), "serving");
        Ok(Self {
            address,
            tls: matches!(door, Door::Tls(_)),
            http_address,
            config: current,
            stop,
            serving,
            web,
            farm: farm_task,
            heart,
            upkeep,
            writer,
            patience,
            _lock: lock,
        })
    }

    /// The address it listens on, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// How it is asked: by `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The address of the dashboard, if there is one.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Takes over what of these settings can be while it serves; the answer tells what, and what waits for a restart.
    ///
    /// # Errors
    /// A setting is not valid; nothing has changed then.
    pub fn reload(&self, fresh: &Config) -> Result<Reload<Config>, ConfigError> {
        self.config.reload(fresh)
    }

    /// By which to see whether it lives.
    pub fn heart(&self) -> Heart {
        self.heart.clone()
    }

    /// Waits until a part has ended that should go on as long as the coordinator does. Whoever sees this return should
    /// end the process, so that a new one picks up from the database.
    pub async fn broken(&mut self) {
        tokio::select! {
            served = &mut self.serving => tracing::error!(?served, "the server has ended"),
            looped = &mut self.farm => tracing::error!(?looped, "the farm's loop has ended"),
        }
        self.stop.cancel();
    }

    /// Ends streams, lets open requests end within `shutdown_ms`, and closes the database.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        // What has ended before must not be asked again.
        if !self.serving.is_finished() && tokio::time::timeout(self.patience, &mut self.serving).await.is_err() {
            tracing::warn!("some requests did not end in time and are cut off");
            self.serving.abort();
        }
        if let Some(web) = self.web {
            // It keeps to the same patience.
            let _ = web.await;
        }
        if !self.farm.is_finished() {
            let _ = self.farm.await;
        }
        if tokio::time::timeout(self.patience, self.upkeep).await.is_err() {
            tracing::warn!("upkeep did not end in time");
        }
        // Every handle to the store is gone or goes with its request; the writer ends after what was queued.
        if tokio::time::timeout(self.patience, self.writer).await.is_err() {
            tracing::warn!("the database is still in use; what was acknowledged is stored");
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// How connections are taken: by TLS, unless it is asked to do without.
fn door(config: &Config) -> Result<Door, StartError> {
    if config.insecure {
        return Ok(Door::Plain);
    }
    let folder = files::folder(&config.data_dir);
    if !files::server(&folder).exists() {
        return Err(StartError::Unprotected(folder));
    }
    Ok(Door::Tls(Tls::open(&folder)?))
}

/// Who hears what was committed: whoever lets callers in first, so that who is put out is out; then the farm, then those who wait for events.
struct Listeners {
    book: Book,
    farm: farm::Inbox,
    events: Bells<LivepatchId>,
    versions: Versions,
    metrics: Metrics,
    clock: Clock,
}

impl Sink for Listeners {
    fn changed(&self, changes: Vec<Change>) {
        self.book.take_in(&changes);
        self.versions.count(&changes);
        self.metrics.take_in(&changes, self.clock.now());
        let rings: Vec<_> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Event { livepatch, number } => Some((*livepatch, *number)),
                _ => None,
            })
            .collect();
        // A farm that has stopped reads everything anew when it starts.
        let _ = self.farm.send(Input::Changes(changes));
        for (livepatch, number) in rings {
            self.events.ring(&livepatch, number);
        }
    }

    fn ended(&self, group: Group) {
        self.metrics.transaction(&group);
    }
}

/// Starts what goes on beside all requests: compressing logs, and clearing away what nobody needs.
fn upkeep(
    config: &Current,
    Ground { clock, aside }: Ground,
    store: &Store,
    logs: &Logs,
    blobs: &Blobs,
    stop: &CancellationToken,
) -> JoinHandle<()> {
    let every = Duration::from_millis(config.now().log_compact_ms.into());
    let compacting = logs::keep_compact(logs.clone(), store.clone(), every, stop.clone());
    let clearing = gc::keep_clear(config.clone(), blobs.clone(), clock, aside, stop.clone());
    tokio::spawn(async {
        tokio::join!(compacting, clearing);
    })
}

/// A damaged database is told apart: there is something to be done about it.
fn corrupt(folder: &Folder, error: StoreError) -> StartError {
    if !error.is_corrupt() {
        return error.into();
    }
    StartError::Corrupt {
        path: folder.database(),
        dir: folder.path().to_owned(),
        error: Box::new(error),
    }
}

fn lock_data_dir(config: &Config) -> Result<File, StartError> {
    let folder = Folder::new(&config.data_dir);
    let path = folder.path();
    let failed = |error| StartError::DataDir {
        path: path.to_owned(),
        error,
    };
    std::fs::create_dir_all(path).map_err(failed)?;
    let lock = folder.try_own().map_err(failed)?;
    lock.ok_or_else(|| StartError::InUse(path.to_owned()))
}

async fn router(config: &Config, shared: Arc<Shared>) -> Result<Router<Stack<Guard, Identity>>, StartError> {
    let ms = |ms: u32| Duration::from_millis(ms.into());
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let livepatches = LivepatchServiceServer::new(Livepatches(shared.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_ANSWER);
    let fleet = FleetServiceServer::new(Fleet(shared.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_ANSWER);
    let access = AccessServiceServer::new(Access(shared.clone()))
        .max_decoding_message_size(MAX_SMALL)
        .max_encoding_message_size(MAX_ANSWER);
    let guard = Guard::new(shared.gate.clone(), shared.clock);
    let workers = WorkerServiceServer::new(Workers(shared))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_ANSWER);
    reporter.set_serving::<LivepatchServiceServer<Livepatches>>().await;
    reporter.set_serving::<FleetServiceServer<Fleet>>().await;
    reporter.set_serving::<WorkerServiceServer<Workers>>().await;
    reporter.set_serving::<AccessServiceServer<Access>>().await;
    let router = Server::builder()
        .trace_fn(klp_telemetry::grpc::serving)
        .http2_keepalive_interval(Some(ms(config.keepalive_ms)))
        .http2_keepalive_timeout(Some(ms(config.keepalive_timeout_ms)))
        .concurrency_limit_per_connection(config.max_requests_per_connection as usize)
        .timeout(ms(config.request_timeout_ms))
        .layer(guard)
        .add_service(health)
        .add_service(reflection)
        .add_service(livepatches)
        .add_service(fleet)
        .add_service(workers)
        .add_service(access);
    Ok(router)
}

/// What browsers' gRPC clients may ask for, by gRPC-web.
fn browser_services(shared: Arc<Shared>) -> axum::Router {
    let livepatches = LivepatchServiceServer::new(Livepatches(shared.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_ANSWER);
    let fleet = FleetServiceServer::new(Fleet(shared))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_ANSWER);
    let routes = tonic::service::Routes::new(livepatches).add_service(fleet);
    // Without tonic's fallback, which would answer for the pages.
    routes
        .into_axum_router()
        .reset_fallback()
        .layer(tonic_web::GrpcWebLayer::new())
}
