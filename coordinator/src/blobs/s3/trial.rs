//! What a coordinator does with a bucket before it starts: sees that it may put, get, list and delete there, and that it is
//! nobody else's.

use std::path::Path;

use futures_util::StreamExt as _;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode};
use uuid::Uuid;

use super::super::error::{BlobError, why};
use super::super::owner::{self, Claim, OWNER};
use super::S3;

/// # Errors
/// Something can't be done there, or it is another farm's; what and what next is told.
pub async fn try_out(s3: &S3, data_dir: &Path) -> Result<(), BlobError> {
    let untried = |error: Error| unusable(s3, &error);
    let (probe, text) = (s3.key(&format!("probe-{}", Uuid::now_v7())), "by klp-coordinator");
    // First: a bucket that is not there says so here, while some servers would make it.
    let below = s3.below();
    if let Some(listed) = s3.store.list(below.as_ref()).next().await {
        listed.map_err(untried)?;
    }
    s3.store.put(&probe, text.into()).await.map_err(untried)?;
    let got = s3.store.get(&probe).await.map_err(untried)?;
    let got = got.bytes().await.map_err(untried)?;
    s3.remover.delete(&probe).await.map_err(untried)?;
    if got != text.as_bytes() {
        return Err(BlobError::Unusable {
            place: s3.bucket.to_string(),
            why: "what was put there came back as something else".to_owned(),
            next_step: "see what answers at artifacts_endpoint".to_owned(),
        });
    }
    claim(s3, data_dir).await?;
    tracing::info!(artifacts = %s3.bucket, "artifacts are kept in a bucket");
    Ok(())
}

/// Marks the place as this farm's, if it is nobody's.
async fn claim(s3: &S3, data_dir: &Path) -> Result<(), BlobError> {
    let key = s3.key(OWNER);
    let (place, at) = (s3.bucket.to_string(), format!("the object {key}"));
    let found = mark(s3).await?;
    let Claim::Write(own) = owner::claim(&place, &at, found.as_deref(), data_dir)? else {
        return Ok(());
    };
    match s3.store.put_opts(&key, own.into(), PutMode::Create.into()).await {
        Ok(_) => Ok(()),
        // Somebody came first; perhaps an earlier try of this very request.
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
            let found = mark(s3).await?;
            owner::claim(&place, &at, found.as_deref().or(Some("")), data_dir).map(drop)
        }
        Err(error) => Err(unusable(s3, &error)),
    }
}

async fn mark(s3: &S3) -> Result<Option<String>, BlobError> {
    let got = match s3.store.get(&s3.key(OWNER)).await {
        Ok(object) => object.bytes().await,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => Err(error),
    };
    let bytes = got.map_err(|error| unusable(s3, &error))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// What was wrong, with what a person does next. A failed listing comes without a kind, so the server's own code counts, too.
fn unusable(s3: &S3, error: &Error) -> BlobError {
    let why = why(error);
    let said = |codes: &[&str]| codes.iter().any(|code| why.contains(code));
    let absent = matches!(error, Error::NotFound { .. }) || said(&["NoSuchBucket"]);
    let denied = matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
        || said(&[
            "AccessDenied",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
        ])
        || said(&["it answered 401", "it answered 403"]);
    let (why, next_step) = match (absent, denied) {
        (true, _) => {
            let bucket = s3.bucket.name();
            (why, format!("make the bucket {bucket}, or name another in artifacts"))
        }
        (_, true) => (
            format!("access is denied: {why}"),
            "let these credentials put, get, list and delete there, or give others: the runbook has a policy".to_owned(),
        ),
        _ => (
            why,
            "see that artifacts_endpoint and artifacts_region are right and that it can be reached from here; what is stored \
             there stays as it is"
                .to_owned(),
        ),
    };
    BlobError::Unusable {
        place: s3.bucket.to_string(),
        why,
        next_step,
    }
}
