//! Scans, as clients ask for them and as workers answer.

use std::collections::HashMap;
use std::time::Duration;

use klp_livepatch::CodestreamFilter;
use klp_livepatch::catalog::Entry;
use klp_livepatch::names::{Cve, TreePath};
use klp_livepatch::spec::{Fix, FixDraft, Violation};
use klp_proto::convert::{self, invalid_argument};
use klp_proto::v1;
use tonic::{Response, Status};
use uuid::Uuid;

use super::{Shared, blob_status, stopping, submit, wire};
use crate::auth::Caller;
use crate::config::Config;

/// How long a scan may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Codestreams and patches of one scan.
const MAX_CODESTREAMS: usize = 2000;
const MAX_ADDED: usize = 100;
/// Bytes of a report.
const MAX_REPORT: usize = 3 << 20;

pub async fn scan(shared: &Shared, request: v1::ScanRequest) -> Result<Response<v1::ScanResponse>, Status> {
    let filter = check(&request)?;
    let catalog = shared.catalog.clone();
    let catalog = shared.blobs.aside().run(move || catalog.now()).await;
    let catalog = catalog.map_err(|_| stopping())?.map_err(Status::failed_precondition)?;
    let selected = catalog.entries().filter(|entry| filter.matches(&entry.codestream));
    let codestreams: Vec<v1::ScanCodestream> = selected.map(codestream).collect();
    if codestreams.is_empty() {
        return Err(Status::failed_precondition(match catalog.is_empty() {
            true => {
                "the coordinator has no catalog of codestreams; name one in its configuration (`catalog`)".to_owned()
            }
            false => format!("no codestream of the catalog matches `{}`", request.codestreams),
        }));
    }
    if codestreams.len() > MAX_CODESTREAMS {
        let message = format!("selects {} codestreams; at most {MAX_CODESTREAMS}", codestreams.len());
        return Err(wire::invalid("codestreams", message));
    }
    let order = v1::ScanOrder {
        cve: request.cve,
        codestreams,
        add_patches: request.add_patches,
        branches: branches(&shared.config.now()),
    };
    let begun = shared.errands.begin(order);
    let mut errand = begun.map_err(|error| Status::failed_precondition(error.to_string()))?;
    shared.farm.nudge(&errand.worker);
    let worker = errand.worker.to_string();
    let answer = tokio::select! {
        answer = errand.answer() => answer,
        () = tokio::time::sleep(PATIENCE) => {
            let limit = PATIENCE.as_secs();
            return Err(Status::deadline_exceeded(format!("worker {worker} did not finish the scan within {limit} s")));
        }
        () = shared.stop.cancelled() => return Err(stopping()),
    };
    // Whoever waits no longer takes the errand back; its worker is told.
    drop(errand);
    let answer = answer.map_err(|why| Status::failed_precondition(format!("worker {worker}: {why}")))?;
    let answer = Some(answer);
    Ok(Response::new(v1::ScanResponse { answer, worker }))
}

/// The branches that are configured; its worker knows the others.
fn branches(config: &Config) -> HashMap<String, String> {
    let named = config.branches.iter();
    named
        .map(|(product, branch)| (product.to_string(), branch.to_string()))
        .collect()
}

fn codestream(entry: &Entry) -> v1::ScanCodestream {
    v1::ScanCodestream {
        codestream: entry.codestream.to_string(),
        kernel: entry.kernel.to_string(),
        archs: entry.archs.iter().map(ToString::to_string).collect(),
    }
}

fn check(request: &v1::ScanRequest) -> Result<CodestreamFilter, Status> {
    let mut bad = Vec::new();
    if let Err(violation) = convert::parse::<Cve>("cve", &request.cve) {
        bad.push(violation);
    }
    let filter = convert::parse("codestreams", &request.codestreams);
    let filter = filter.map_err(|violation| bad.push(violation)).ok();
    if request.add_patches.len() > MAX_ADDED {
        bad.push(Violation {
            field: "add_patches".to_owned(),
            message: format!("{} patches; at most {MAX_ADDED}", request.add_patches.len()),
        });
    }
    for (i, path) in request.add_patches.iter().enumerate().take(MAX_ADDED) {
        bad.extend(convert::parse::<TreePath>(&format!("add_patches[{i}]"), path).err());
    }
    match filter {
        Some(filter) if bad.is_empty() => Ok(filter),
        _ => Err(invalid_argument(&bad)),
    }
}

pub async fn answer(
    shared: &Shared,
    caller: &Caller,
    request: v1::AnswerErrandRequest,
) -> Result<Response<v1::AnswerErrandResponse>, Status> {
    use v1::answer_errand_request::Answer;
    let id: Uuid = wire::field("id", &request.id)?;
    if let Some(worker) = shared.errands.whose(id) {
        caller.speaks_for(&worker)?;
    }
    let answer = match request.answer {
        None => return Err(wire::invalid("answer", "missing")),
        Some(Answer::Failed(why)) => Err(why.chars().take(2000).collect()),
        Some(Answer::Scan(scan)) => {
            if scan.report_json.len() > MAX_REPORT {
                let message = format!("{} bytes; at most {MAX_REPORT}", scan.report_json.len());
                return Err(wire::invalid("scan.report_json", message));
            }
            let fixes = fixes(&scan)?;
            let files: Vec<_> = fixes.iter().map(submit::artifact).collect();
            let missing = shared.blobs.missing(&files).await.map_err(blob_status)?;
            if let Some(digest) = missing.first() {
                return Err(Status::failed_precondition(format!("{digest} is not uploaded")));
            }
            Ok(scan)
        }
    };
    shared.errands.settle(id, answer);
    Ok(Response::new(v1::AnswerErrandResponse {}))
}

fn fixes(scan: &v1::ScanAnswer) -> Result<Vec<Fix>, Status> {
    let mut parsed = Vec::with_capacity(scan.fixes.len());
    for (i, fix) in scan.fixes.iter().enumerate() {
        let draft = FixDraft::from(fix.clone());
        let fix = Fix::parse(&draft, &format!("scan.fixes[{i}]"));
        parsed.push(fix.map_err(|violations| invalid_argument(&violations))?);
    }
    Ok(parsed)
}
