//! The gRPC services. Each request is checked here, at the boundary, and answered from the store; what changes things
//! goes through [`crate::ledger`].

mod access;
mod control;
mod fleet;
mod listing;
mod livepatch;
mod paging;
mod provenance;
mod scan;
mod submit;
mod traced;
mod watch;
mod wire;
mod worker;

use std::sync::Arc;

use klp_livepatch::task::LivepatchId;
use klp_proto::v1;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::Span;

pub use access::Access;
pub use fleet::Fleet;
pub use livepatch::Livepatches;
pub use worker::Workers;

use crate::auth::{Caller, Deed, Door, Gate};
use crate::bell::Bells;
use crate::blobs::{BlobError, Blobs};
use crate::catalog::CatalogFile;
use crate::clock::Clock;
use crate::config::Current;
use crate::errands::Errands;
use crate::farm::Farm;
use crate::groups::Normalised;
use crate::logs::{LogError, Logs};
use crate::metrics::{Metrics, Scrape};
use crate::space::Space;
use crate::store::{self, LivepatchRow, Store, StoreError, Tx};
use crate::tryout::Tryouts;
use crate::versions::Versions;

/// What the services share.
pub struct Shared {
    pub config: Current,
    pub clock: Clock,
    pub store: Store,
    pub farm: Farm,
    pub tryouts: Tryouts,
    pub errands: Errands,
    pub catalog: CatalogFile,
    pub blobs: Blobs,
    pub normalised: Normalised,
    pub logs: Logs,
    pub space: Space,
    /// Rung with the number of a livepatch's newest event.
    pub events: Bells<LivepatchId>,
    pub versions: Versions,
    pub metrics: Metrics,
    pub scrape: Scrape,
    pub gate: Arc<Gate>,
    /// By which workers come.
    pub door: Door,
    /// Open streams end with it.
    pub stop: CancellationToken,
}

impl Shared {
    /// What the sender of a request is about to do.
    fn deed<T>(&self, request: &tonic::Request<T>, method: &'static str) -> Result<Deed, Status> {
        Ok(Deed::new(&Caller::of(request)?, method, self.clock.now()))
    }

    /// Runs a change, which records itself as done; if it is refused, that is recorded.
    ///
    /// # Errors
    /// What `status` makes of the change's.
    async fn change<T, E>(
        &self,
        deed: &Deed,
        object: &str,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        status: impl FnOnce(E) -> Status,
    ) -> Result<T, Status>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match self.store.write(change).await.map_err(status) {
            Ok(changed) => Ok(changed),
            Err(status) => {
                deed.refused(&self.store, object, &status).await;
                Err(status)
            }
        }
    }
}

/// How a service's streams are sent.
type Stream<T> = tokio_stream::wrappers::ReceiverStream<Result<T, Status>>;

/// What a client hears of a failure that is not its own. Details of the disk go to the log only.
fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::Full => Status::resource_exhausted(error.to_string()),
        StoreError::Closed => Status::unavailable("the coordinator is shutting down"),
        error => {
            tracing::error!(%error, "a request failed");
            Status::internal("the coordinator's database failed; its log says why")
        }
    }
}

fn blob_status(error: BlobError) -> Status {
    match &error {
        BlobError::WrongDigest { .. } | BlobError::WrongSize { .. } => Status::invalid_argument(error.to_string()),
        BlobError::Io { error: io, .. } => io_status(&error, io),
        BlobError::Remote { .. } | BlobError::Unusable { .. } => {
            tracing::error!(%error, "a request failed");
            Status::unavailable(format!(
                "the coordinator {error}; nothing was lost: workers keep what they made and send it again"
            ))
        }
    }
}

fn log_status(error: LogError) -> Status {
    match &error {
        LogError::Gap { .. } => Status::out_of_range(error.to_string()),
        LogError::Io { error: io, .. } => io_status(&error, io),
    }
}

fn io_status(error: &dyn std::error::Error, io: &std::io::Error) -> Status {
    tracing::error!(%error, "a request failed");
    match io.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Status::resource_exhausted("the coordinator's disk is full; make room in its data_dir")
        }
        _ => Status::internal("the coordinator's disk failed; its log says why"),
    }
}

/// Up to `limit` events of a livepatch after a number, as far as they are there.
pub(crate) async fn events_now(
    shared: &Shared,
    livepatch: Option<v1::LivepatchRef>,
    after: u64,
    limit: usize,
) -> Result<Vec<v1::Event>, Status> {
    let name = livepatch_name(livepatch)?;
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let query = move |db: &rusqlite::Connection| {
        let livepatch = look_up(db, &name)?;
        Ok::<_, Failed>((store::events_after(db, livepatch.id, after, limit)?, livepatch))
    };
    let (events, livepatch) = shared.store.read(query).await?;
    let told = events.into_iter().map(|event| {
        let for_good = event.ended && event.number == livepatch.last_event;
        let ended = for_good.then(|| wire::livepatch(&livepatch));
        wire::event(event, ended)
    });
    Ok(told.collect())
}

fn stopping() -> Status {
    Status::unavailable("the coordinator is shutting down; come back")
}

/// What a request names a livepatch by.
enum Name {
    Id(LivepatchId),
    Name(klp_livepatch::names::LivepatchName),
}

fn livepatch_name(wire: Option<v1::LivepatchRef>) -> Result<Name, Status> {
    use klp_proto::convert::{invalid_argument, parse};
    use v1::livepatch_ref::Ref;
    let parsed = match wire.and_then(|w| w.r#ref) {
        None => return Err(wire::invalid("livepatch", "neither id nor name is given")),
        Some(Ref::Id(id)) => parse("livepatch.id", &id).map(Name::Id),
        Some(Ref::Name(name)) => parse("livepatch.name", &name).map(Name::Name),
    };
    match &parsed {
        Ok(Name::Id(id)) => klp_telemetry::note_livepatch(*id),
        Ok(Name::Name(name)) => drop(Span::current().record("klp.name", name.as_str())),
        Err(_) => {}
    }
    parsed.map_err(|violation| invalid_argument(&[violation]))
}

/// The livepatch that a request names.
fn look_up(db: &rusqlite::Connection, name: &Name) -> Result<LivepatchRow, Failed> {
    let (found, shown) = match name {
        Name::Id(id) => (store::livepatch(db, *id)?, id.to_string()),
        Name::Name(name) => (store::find_livepatch(db, name)?, name.to_string()),
    };
    let found = found.ok_or_else(|| Failed(Status::not_found(format!("there is no livepatch `{shown}`"))))?;
    klp_telemetry::note_livepatch(found.id);
    Ok(found)
}

/// The id of the livepatch that a request names.
pub(crate) async fn find(shared: &Shared, livepatch: Option<v1::LivepatchRef>) -> Result<LivepatchId, Status> {
    let name = livepatch_name(livepatch)?;
    let found = shared.store.read(move |db| look_up(db, &name).map(|row| row.id));
    found.await.map_err(|Failed(status)| status)
}

/// A status as the error of a query, where the database's errors must become one too.
struct Failed(Status);

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Failed(store_status(error))
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<Failed> for Status {
    fn from(failed: Failed) -> Self {
        failed.0
    }
}
