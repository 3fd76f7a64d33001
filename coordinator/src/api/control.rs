//! Changes to a livepatch that is stored, as requests ask for them.

use klp_livepatch::spec::{Backend, Goal, MAX_AVOIDED};
use klp_livepatch::task::LivepatchId;
use klp_livepatch::{CodestreamFilter, Reason};
use klp_proto::convert::{self, invalid_argument};
use klp_proto::v1;
use klp_telemetry::grpc;
use tonic::{Request, Response, Status};

use super::{Failed, Name, Shared, look_up, store_status, submit, traced, wire};
use crate::auth::Deed;
use crate::ledger::{self, ChangeError, Extraction, Now, Selection};
use crate::plan::Progress;
use crate::store::{self, LivepatchRow, Tx};

/// A reason that may be left out.
pub fn reason(text: &str) -> Result<Option<Reason>, Status> {
    Reason::optional(text).map_err(|error| wire::invalid("reason", error))
}

/// Runs `change` on the livepatch that is named, and answers it as it is then.
pub async fn change(
    shared: &Shared,
    deed: Deed,
    livepatch: Option<v1::LivepatchRef>,
    what: &str,
    change: impl FnOnce(&mut Tx<'_>, LivepatchId, Now) -> Result<LivepatchRow, ChangeError> + Send + 'static,
) -> Result<Response<v1::ChangeResponse>, Status> {
    let id = super::find(shared, livepatch).await?;
    change_this(shared, deed, id, what, change).await
}

async fn change_this(
    shared: &Shared,
    deed: Deed,
    id: LivepatchId,
    what: &str,
    change: impl FnOnce(&mut Tx<'_>, LivepatchId, Now) -> Result<LivepatchRow, ChangeError> + Send + 'static,
) -> Result<Response<v1::ChangeResponse>, Status> {
    let now = Now::of(&shared.clock);
    let done = deed.clone();
    let record = move |tx: &mut Tx<'_>| {
        let row = change(tx, id, now)?;
        done.done(tx, &about(&row))?;
        Ok::<_, ChangeError>(row)
    };
    let row = shared.change(&deed, &by_id(id), record, status).await?;
    tracing::info!(klp.livepatch = %row.id, klp.name = %row.spec.name, "{what}");
    let livepatch = Some(wire::livepatch(&row));
    Ok(Response::new(v1::ChangeResponse { livepatch }))
}

/// What the audit log calls a livepatch.
pub fn about(row: &LivepatchRow) -> String {
    format!("livepatch {}", row.spec.name)
}

/// What it calls one that nothing was done to.
fn by_id(id: LivepatchId) -> String {
    format!("livepatch {id}")
}

pub async fn retry(
    shared: &Shared,
    deed: Deed,
    request: v1::RetryRequest,
) -> Result<Response<v1::RetryResponse>, Status> {
    let selection = selection(&request)?;
    let id = super::find(shared, request.livepatch).await?;
    let now = Now::of(&shared.clock);
    let done = deed.clone();
    let record = move |tx: &mut Tx<'_>| {
        let (row, retried) = ledger::retry(tx, id, &selection, now)?;
        done.done(tx, &about(&row))?;
        Ok::<_, ChangeError>((row, retried))
    };
    let (row, retried) = shared.change(&deed, &by_id(id), record, status).await?;
    tracing::info!(klp.livepatch = %row.id, klp.name = %row.spec.name, retried, "retried");
    let livepatch = Some(wire::livepatch(&row));
    Ok(Response::new(v1::RetryResponse { livepatch, retried }))
}

/// Goes on with what was only checked.
pub async fn extract(
    shared: &Shared,
    request: Request<v1::ExtractRequest>,
) -> Result<Response<v1::ChangeResponse>, Status> {
    let parent = grpc::parent(request.metadata());
    let deed = shared.deed(&request, "LivepatchService/Extract")?;
    let request = request.into_inner();
    let how = extraction(&request)?;
    let id = super::find(shared, request.livepatch).await?;
    let span = traced::about("klpfarm.v1.LivepatchService/Extract", id, parent);
    let choose = submit::is_auto(&request.backend);
    traced::within(span, extract_this(shared, deed, id, how, choose)).await
}

async fn extract_this(
    shared: &Shared,
    deed: Deed,
    id: LivepatchId,
    mut how: Extraction,
    choose: bool,
) -> Result<Response<v1::ChangeResponse>, Status> {
    if choose {
        let (only, unpatched) = (how.codestreams.clone(), how.unpatched);
        let query = move |db: &rusqlite::Connection| {
            let livepatch = look_up(db, &Name::Id(id))?;
            let before = (livepatch.spec.goal == Goal::Sources).then_some(livepatch.spec.backend);
            let tasks = store::planned(db, livepatch.id, None)?.into_iter();
            // What failed may have failed for fixes that are not to be applied.
            let may = |progress| progress == Progress::Succeeded || (unpatched && progress == Progress::Failed);
            let checked = tasks.filter(|t| may(t.progress) && only.matches(&t.key.platform.codestream));
            Ok::<_, Failed>((before, checked.map(|t| t.key.platform).collect::<Vec<_>>()))
        };
        let (before, platforms) = shared.store.read(query).await?;
        how.backend = match before {
            Some(backend) => backend,
            None => submit::choose_for(&platforms, &shared.farm.workers().await),
        };
    }
    let change_to = move |tx: &mut Tx<'_>, id, now| ledger::extract(tx, id, &how, now);
    change_this(shared, deed, id, "to be extracted", change_to).await
}

fn extraction(request: &v1::ExtractRequest) -> Result<Extraction, Status> {
    let mut bad = Vec::new();
    let codestreams = convert::parse::<CodestreamFilter>("codestreams", &request.codestreams);
    let codestreams = codestreams.map_err(|violation| bad.push(violation)).ok();
    let backend = match submit::is_auto(&request.backend) {
        true => Some(Backend::Native),
        false => convert::parse("backend", &request.backend)
            .map_err(|violation| bad.push(violation))
            .ok(),
    };
    if request.avoid.len() > MAX_AVOIDED {
        return Err(wire::invalid(
            "avoid",
            format!("{} symbols; at most {MAX_AVOIDED}", request.avoid.len()),
        ));
    }
    let parsed = request.avoid.iter().enumerate().filter_map(|(i, name)| {
        let name = convert::parse(&format!("avoid[{i}]"), name);
        name.map_err(|violation| bad.push(violation)).ok()
    });
    let avoid = parsed.collect();
    match (codestreams, backend) {
        (Some(codestreams), Some(backend)) if bad.is_empty() => Ok(Extraction {
            backend,
            avoid,
            unpatched: request.unpatched,
            codestreams,
        }),
        _ => Err(invalid_argument(&bad)),
    }
}

fn selection(request: &v1::RetryRequest) -> Result<Selection, Status> {
    let codestreams = convert::parse::<CodestreamFilter>("codestreams", &request.codestreams);
    let mut bad = Vec::new();
    let codestreams = codestreams.map_err(|violation| bad.push(violation)).ok();
    let parsed = request.archs.iter().enumerate().filter_map(|(i, arch)| {
        let arch = convert::parse(&format!("archs[{i}]"), arch);
        arch.map_err(|violation| bad.push(violation)).ok()
    });
    let archs = parsed.collect();
    match codestreams {
        Some(codestreams) if bad.is_empty() => Ok(Selection { codestreams, archs }),
        _ => Err(invalid_argument(&bad)),
    }
}

fn status(error: ChangeError) -> Status {
    match error {
        ChangeError::Unknown(_) => Status::not_found(error.to_string()),
        ChangeError::Refused(why) => Status::failed_precondition(why),
        ChangeError::Store(error) => store_status(error),
    }
}
