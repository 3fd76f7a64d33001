//! Fetches the fix patches that an assignment names.

use klp_livepatch::outcome::{Cause, Digest, Failure};
use klp_livepatch::spec::Fix;
use klp_proto::v1;
use klp_telemetry::{TraceParent, grpc};
use tonic::Code;

use crate::delivery::Courier;
use crate::trees::overlay::Patch;

/// Fetches the fixes in their order, and checks that each is what its digest says.
///
/// # Errors
/// The coordinator can't be reached or has no such file: the farm's failure.
pub async fn fetch(courier: &Courier, fixes: &[Fix], parent: Option<TraceParent>) -> Result<Vec<Patch>, Failure> {
    let mut fetched = Vec::with_capacity(fixes.len());
    for fix in fixes {
        let failed = |why: String| {
            let message = format!("worker {}: can't fetch the fix {}: {why}", courier.worker, fix.name);
            Failure::new(Cause::Farm, message)
        };
        fetched.push(Patch {
            name: fix.name.to_string(),
            bytes: one(courier, fix, parent).await.map_err(failed)?,
        });
    }
    Ok(fetched)
}

async fn one(courier: &Courier, fix: &Fix, parent: Option<TraceParent>) -> Result<Vec<u8>, String> {
    let request = v1::GetArtifactRequest {
        digest: fix.digest.to_string(),
    };
    let said = |status: tonic::Status| match status.code() {
        Code::NotFound => "the coordinator does not have it; submit the livepatch anew".to_owned(),
        _ => status.message().to_owned(),
    };
    let mut chunks = courier
        .client()
        .download_artifact(grpc::request(request, parent))
        .await
        .map_err(said)?
        .into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await.map_err(said)? {
        if (bytes.len() + chunk.data.len()) as u64 > fix.size {
            return Err(format!("more than its {} bytes came", fix.size));
        }
        bytes.extend(chunk.data);
    }
    match Digest::of(&bytes) == fix.digest {
        true => Ok(bytes),
        false => Err("what came is not what its digest says".to_owned()),
    }
}
