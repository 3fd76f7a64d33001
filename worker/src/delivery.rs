//! Delivers a finished attempt's outcome: its artifacts first, then the commit, again and again until it is answered.

use std::sync::Arc;
use std::time::Duration;

use klp_livepatch::names::WorkerName;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use klp_proto::v1::{CommitResponse, Disposition};
use klp_proto::{MAX_MESSAGE, convert};
use tonic::Code;
use tonic::transport::Channel;

use crate::outbox::{Outbox, Parcel};
use crate::upload::upload;

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// What delivery needs of the worker.
#[derive(Clone)]
pub struct Courier {
    pub worker: WorkerName,
    pub outbox: Arc<Outbox>,
    pub channel: Channel,
}

impl Courier {
    pub fn client(&self) -> WorkerServiceClient<Channel> {
        WorkerServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Returns when the coordinator has acknowledged the outcome, or has said that it can never take it.
    pub async fn deliver(&self, parcel: &Parcel) {
        let attempt = parcel.attempt;
        let mut pause = FIRST_RETRY;
        loop {
            match self.try_once(parcel).await {
                Ok(Disposition::Committed) => tracing::info!(%attempt, "outcome committed"),
                Ok(Disposition::Superseded) => tracing::warn!(%attempt, "outcome superseded: the farm moved on"),
                Ok(Disposition::ArtifactsMissing | Disposition::Unspecified) => {
                    tracing::warn!(%attempt, "the coordinator lacks artifacts; uploading them again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_RETRY);
                    continue;
                }
                Err(error) if is_final(&error) => {
                    tracing::error!(%attempt, error = format!("{error:#}"), "the coordinator refuses this outcome; dropping it");
                }
                Err(error) => {
                    tracing::debug!(%attempt, error = format!("{error:#}"), "delivery failed; will try again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_RETRY);
                    continue;
                }
            }
            if let Err(error) = self.outbox.remove(attempt) {
                tracing::error!(%attempt, %error, "can't remove a delivered outcome from the outbox");
            }
            return;
        }
    }

    async fn try_once(&self, parcel: &Parcel) -> anyhow::Result<Disposition> {
        let mut client = self.client();
        for artifact in &parcel.outcome.artifacts {
            let path = self.outbox.blob_path(parcel.attempt, artifact.digest);
            upload(&mut client, artifact, &path).await?;
        }
        let incarnation = parcel.incarnation.to_string();
        let request = convert::commit_request(parcel.attempt, self.worker.as_str(), &incarnation, &parcel.outcome);
        let CommitResponse { disposition, .. } = client.commit(request).await?.into_inner();
        Ok(Disposition::try_from(disposition).unwrap_or(Disposition::Unspecified))
    }
}

/// Whether the same request can never succeed.
fn is_final(error: &anyhow::Error) -> bool {
    error.downcast_ref::<tonic::Status>().is_some_and(|status| {
        matches!(
            status.code(),
            Code::InvalidArgument | Code::NotFound | Code::Unimplemented
        )
    })
}
