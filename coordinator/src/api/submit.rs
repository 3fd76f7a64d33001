//! A submission on its way to the ledger: parsed, with its tool chosen, its fixes stored, and tried out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klp_livepatch::names::FixScope;
use klp_livepatch::outcome::{Artifact, Digest};
use klp_livepatch::spec::{Backend, Draft, Fix, MAX_FIX, Spec, Violation, scopes};
use klp_livepatch::task::{LivepatchId, Platform};
use klp_livepatch::{Codestream, Share, Submitter};
use klp_proto::convert::{self, invalid_argument};
use klp_proto::v1;
use klp_telemetry::grpc;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tracing::Instrument as _;

use super::{Failed, Shared, blob_status, control, stopping, store_status, traced, wire};
use crate::auth::Deed;
use crate::clock::utc;
use crate::farm::WorkerView;
use crate::ledger::{self, Now, Submission, SubmitError};
use crate::store::{self, Tx};
use crate::tryout;

/// What the farm chooses from if it is left to it, the first that will do.
const CHOICE: [Backend; 3] = [Backend::Ccp, Backend::ClangExtract, Backend::Native];

pub async fn submit(
    shared: &Shared,
    request: Request<v1::SubmitRequest>,
) -> Result<Response<v1::SubmitResponse>, Status> {
    let parent = grpc::parent(request.metadata());
    let deed = shared.deed(&request, "LivepatchService/Submit")?;
    let parsed = parse(request.into_inner())?;
    let object = format!("livepatch {}", parsed.spec.name);
    let span = traced::about("klpfarm.v1.LivepatchService/Submit", parsed.id, parent);
    span.record("klp.name", parsed.spec.name.as_str());
    let done = traced::within(span, store(shared, &deed, parsed)).await;
    if let Err(status) = &done {
        deed.refused(&shared.store, &object, status).await;
    }
    done
}

async fn store(shared: &Shared, deed: &Deed, parsed: Parsed) -> Result<Response<v1::SubmitResponse>, Status> {
    let Parsed {
        id,
        spec,
        chosen,
        share,
        submitted_by,
        contents,
    } = parsed;
    want_room(shared, id).await?;
    let spec = if chosen { spec } else { choose(shared, id, spec).await? };
    // Nothing of it is cleared away until the livepatch that names it is stored.
    let _pin = shared
        .blobs
        .pin(&spec.fixes.iter().map(artifact).collect::<Vec<_>>())
        .await;
    Box::pin(keep(shared, &spec.fixes, contents)).await?;
    try_out(shared, id, &spec).await?;
    let (now, config) = (Now::of(&shared.clock), shared.config.now());
    let submission = Submission {
        scopes: known_scopes(shared, &spec).await?,
        id,
        spec,
        share,
        submitted_by,
        max_open: config.max_open_livepatches,
        max_platforms: config.max_platforms,
    };
    let deed = deed.clone();
    let store = move |tx: &mut Tx<'_>| {
        let row = ledger::submit(tx, submission, now)?;
        deed.done(tx, &control::about(&row))?;
        let warnings = ledger::idle_fixes(tx, row.id, &row.spec)?;
        Ok((row, warnings))
    };
    let (row, warnings) = shared.store.write(store).await.map_err(submit_status)?;
    tracing::info!("submitted");
    Ok(Response::new(v1::SubmitResponse {
        livepatch: Some(wire::livepatch(&row)),
        warnings,
    }))
}

/// The scopes of fixes that the catalog's codestreams and the known branches give a meaning; `None`: the farm has no catalog
/// that can be read, or nothing asks for one.
async fn known_scopes(shared: &Shared, spec: &Spec) -> Result<Option<BTreeSet<String>>, Status> {
    if spec.fixes.iter().all(|fix| fix.scope == FixScope::all()) {
        return Ok(None);
    }
    let catalog = shared.catalog.clone();
    let read = shared.blobs.aside().run(move || catalog.now()).await;
    let catalog = match read.map_err(|_| stopping())? {
        Ok(catalog) if catalog.is_empty() => return Ok(None),
        Ok(catalog) => catalog,
        Err(error) => {
            tracing::warn!(error, "fixes are taken without asking the catalog whom they are for");
            return Ok(None);
        }
    };
    let branches = shared.config.now().all_branches();
    let products = branches.iter().map(|(product, _)| product.to_owned());
    let codestreams = catalog.entries().flat_map(|entry| scopes(&entry.codestream));
    Ok(Some(products.chain(codestreams).collect()))
}

struct Parsed {
    id: LivepatchId,
    spec: Spec,
    /// The spec names its tool; else any stands in its place.
    chosen: bool,
    share: Share,
    submitted_by: Submitter,
    contents: Vec<Vec<u8>>,
}

/// A submission's parts, or all that is wrong with them.
fn parse(request: v1::SubmitRequest) -> Result<Parsed, Status> {
    let id = convert::parse::<LivepatchId>("id", &request.id);
    let mut draft = Draft::from(request.spec.unwrap_or_default());
    let chosen = !is_auto(&draft.backend);
    if !chosen {
        draft.backend = Backend::Native.to_string();
    }
    let large = request
        .fix_contents
        .iter()
        .position(|content| content.len() as u64 > MAX_FIX);
    let large = large.map(|i| Violation {
        field: format!("fix_contents[{i}]"),
        message: format!("{} bytes; at most {MAX_FIX}", request.fix_contents[i].len()),
    });
    let submitter = convert::parse::<Submitter>("submitted_by", &request.submitted_by);
    match (id, Spec::parse(&draft), convert::share(request.share), submitter, large) {
        (Ok(id), Ok(spec), Ok(share), Ok(submitted_by), None) => Ok(Parsed {
            id,
            spec,
            chosen,
            share,
            submitted_by,
            contents: request.fix_contents,
        }),
        (id, spec, share, submitter, large) => {
            let mut violations = Vec::from_iter(id.err());
            violations.extend(submitter.err());
            violations.extend(spec.err().into_iter().flatten());
            violations.extend(share.err().into_iter().flatten());
            violations.extend(large);
            Err(invalid_argument(&violations))
        }
    }
}

/// Whether the tool is left to the farm.
pub(super) fn is_auto(backend: &str) -> bool {
    matches!(backend, "" | "auto")
}

/// Refuses what is new while the disk has little room left; what is stored is answered as ever.
async fn want_room(shared: &Shared, id: LivepatchId) -> Result<(), Status> {
    let Some(refusal) = shared.space.refusal() else {
        return Ok(());
    };
    let query = move |db: &rusqlite::Connection| store::livepatch(db, id).map_err(Failed::from);
    match shared.store.read(query).await? {
        Some(_) => Ok(()),
        None => Err(Status::resource_exhausted(refusal)),
    }
}

/// Puts the tool into a spec that leaves it to the farm: the one that was chosen before, if this is a repetition.
async fn choose(shared: &Shared, id: LivepatchId, spec: Spec) -> Result<Spec, Status> {
    let wanted = spec.clone();
    let query = move |db: &rusqlite::Connection| {
        if let Some(stored) = store::livepatch(db, id)? {
            return Ok((Some(stored.spec.backend), Vec::new()));
        }
        let platforms = ledger::platforms(&wanted, &store::known_platforms(db)?).unwrap_or_default();
        Ok::<_, Failed>((None, platforms))
    };
    let (before, platforms) = shared.store.read(query).await?;
    let backend = match before {
        Some(backend) => backend,
        None => choose_for(&platforms, &shared.farm.workers().await),
    };
    Ok(Spec { backend, ..spec })
}

/// The first tool that can extract from every codestream, on some architecture, by what those have that hold its trees.
pub(super) fn choose_for(platforms: &[Platform], workers: &[WorkerView]) -> Backend {
    let holds = |backend: Backend, platform: &Platform| {
        let has = |w: &WorkerView| {
            let tools = &w.registration.tools;
            w.registration.trees.contains(platform) && tools.iter().any(|(name, _)| name == backend.as_str())
        };
        backend.extracts(platform.arch) && workers.iter().any(has)
    };
    let serves = |backend: &Backend| {
        let mut codestreams: BTreeMap<&Codestream, bool> = BTreeMap::new();
        for platform in platforms {
            *codestreams.entry(&platform.codestream).or_default() |= holds(*backend, platform);
        }
        !codestreams.is_empty() && codestreams.values().all(|served| *served)
    };
    CHOICE.into_iter().find(serves).unwrap_or(Backend::Native)
}

/// Stores the fixes that came along, and asks for those that did not.
async fn keep(shared: &Shared, fixes: &[Fix], contents: Vec<Vec<u8>>) -> Result<(), Status> {
    for content in contents {
        let digest = Digest::of(&content);
        if !fixes
            .iter()
            .any(|f| f.digest == digest && f.size == content.len() as u64)
        {
            return Err(wire::invalid(
                "fix_contents",
                format!("no fix of the spec has the digest {digest} of one of them"),
            ));
        }
        if shared.blobs.size(&digest).await.map_err(blob_status)?.is_none() {
            let upload = shared.blobs.begin(digest, content.len() as u64);
            let mut upload = upload.map_err(blob_status)?;
            upload.write(content).await.map_err(blob_status)?;
            upload.finish().await.map_err(blob_status)?;
        }
    }
    let mut absent = Vec::new();
    let digests: Vec<Digest> = fixes.iter().map(|fix| fix.digest).collect();
    let sizes = shared.blobs.sizes(&digests).await.map_err(blob_status)?;
    for (i, (fix, stored)) in fixes.iter().zip(sizes).enumerate() {
        if stored != Some(fix.size) {
            absent.push(Violation {
                field: format!("fixes[{i}]"),
                message: format!(
                    "the content of {} is not stored; send it along in fix_contents",
                    fix.name
                ),
            });
        }
    }
    match absent.is_empty() {
        true => Ok(()),
        false => Err(invalid_argument(&absent)),
    }
}

/// A fix as the file that it is.
pub(super) fn artifact(fix: &Fix) -> Artifact {
    Artifact {
        name: fix.name.to_string(),
        digest: fix.digest,
        size: fix.size,
    }
}

/// Refuses what no kernel has, before it is stored. Whatever would be refused or answered anyway is left to the
/// ledger.
async fn try_out(shared: &Shared, id: LivepatchId, spec: &Spec) -> Result<(), Status> {
    let patience = Duration::from_millis(shared.config.now().tryout_ms.into());
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
    let tried = tryout::refuse_slips(&shared.tryouts, &shared.farm, id, spec, &platforms, patience);
    tried
        .instrument(tracing::info_span!("tryout"))
        .await
        .map_err(|violations| invalid_argument(&violations))
}

fn submit_status(error: SubmitError) -> Status {
    let exists = |owner: String, since: i64, hint: &str| {
        let message = format!("{error}, {owner}, submitted {}; {hint}", utc(since));
        let details = ErrorDetails::with_resource_info("livepatch", &owner, "", &message);
        Status::with_error_details(Code::AlreadyExists, message, details)
    };
    match &error {
        SubmitError::Invalid(violation) => invalid_argument(std::slice::from_ref(violation)),
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
