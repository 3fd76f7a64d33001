//! The clients of a bucket: where it is asked, how long an answer may take, and how often it is asked again.

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::super::error::{BlobError, why};
use super::super::place::Bucket;
use super::credentials;
use crate::config::Config;

const CONNECT: Duration = Duration::from_secs(5);
/// Without a byte of an answer.
const SILENCE: Duration = Duration::from_secs(15);
/// Of one removal as a whole.
const REMOVAL: Duration = Duration::from_secs(10);

/// One that asks again for a while, well within the time that a request of a worker may take, and one that never does.
pub(super) fn clients(config: &Config, bucket: &Bucket) -> Result<[AmazonS3; 2], BlobError> {
    // There is one already if somebody else has installed it, and it is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let patient = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: 5,
        retry_timeout: Duration::from_secs(15),
    };
    let once = RetryConfig {
        max_retries: 0,
        ..patient.clone()
    };
    let options = ClientOptions::new()
        .with_allow_http(config.artifacts_plain_http)
        .with_connect_timeout(CONNECT)
        .with_read_timeout(SILENCE)
        // A download takes as long as its reader.
        .with_timeout_disabled();
    let removing = options.clone().with_timeout(REMOVAL);
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket.name())
        .with_region(&config.artifacts_region)
        // Not every server knows the other way, and it is a request with a body to be signed anew.
        .with_disable_bulk_delete(true);
    if let Some(endpoint) = &config.artifacts_endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    let builder = credentials::add(builder, config, bucket)?;
    let build = |options, retry| {
        let built = builder.clone().with_client_options(options).with_retry(retry).build();
        built.map_err(|error| BlobError::Unusable {
            place: bucket.to_string(),
            why: why(&error),
            next_step: "see the settings that begin with artifacts".to_owned(),
        })
    };
    Ok([build(options, patient)?, build(removing, once)?])
}
