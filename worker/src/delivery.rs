//! Delivers a finished attempt's outcome: its artifacts first, then the commit, again and again until it is answered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::{Cause, Failure, Outcome};
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use klp_proto::v1::{CommitResponse, Disposition};
use klp_proto::{MAX_ANSWER, convert};
use klp_telemetry::{attribute, grpc};
use tonic::Code;
use tonic::transport::{Endpoint, Uri};
use tracing::Instrument as _;

use crate::line::Line;
use crate::outbox::{Outbox, Parcel, Product};
use crate::upload::upload;

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// The way to the coordinator. It is probed: whoever waits for an answer on a connection that is half-open would wait for
/// ever.
pub fn endpoint(coordinator: Uri) -> Endpoint {
    let endpoint = Endpoint::from(coordinator);
    let named = endpoint
        .clone()
        .user_agent(concat!("klp-worker/", env!("CARGO_PKG_VERSION")));
    named
        .unwrap_or(endpoint)
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

/// What delivery needs of the worker.
#[derive(Clone)]
pub struct Courier {
    pub worker: WorkerName,
    pub outbox: Arc<Outbox>,
    pub line: Line,
}

impl Courier {
    pub fn client(&self) -> WorkerServiceClient<Line> {
        WorkerServiceClient::new(self.line.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// To be called in the attempt's span. Returns when the coordinator has acknowledged the outcome, with what became of it. One that it can never take is
    /// replaced by a failure that says so, lest the attempt wait for its lease to run out without a word; `None` if it
    /// takes not even that.
    pub async fn deliver(&self, parcel: &Parcel) -> Option<Disposition> {
        let attempt = parcel.attempt;
        let mut pause = FIRST_RETRY;
        let mut outcome = parcel.outcome.clone();
        let mut replaced = false;
        let mut reported = false;
        loop {
            let answer = match self.try_once(parcel, &outcome).await {
                Ok(answer @ Disposition::Committed) => {
                    tracing::info!("outcome committed");
                    Some(answer)
                }
                Ok(answer @ Disposition::Superseded) if !parcel.holds_work() => {
                    tracing::debug!(%attempt, "outcome superseded, and nobody waits for it");
                    Some(answer)
                }
                Ok(answer @ Disposition::Superseded) => {
                    tracing::warn!("outcome superseded: the farm moved on");
                    Some(answer)
                }
                Ok(Disposition::ArtifactsMissing | Disposition::Unspecified) => {
                    tracing::warn!("the coordinator lacks artifacts; uploading them again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_RETRY);
                    continue;
                }
                Err(error) if is_final(&error) && !replaced => {
                    let message = format!("worker {}: the outcome could not be delivered: {error:#}", self.worker);
                    tracing::error!(message, "reporting a failure in its place");
                    outcome = Product::failed(Failure::new(Cause::Farm, message)).into_outcome_without_files();
                    replaced = true;
                    continue;
                }
                Err(error) if is_final(&error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the coordinator takes nothing for this attempt"
                    );
                    None
                }
                Err(error) => {
                    if !reported {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "can't deliver an outcome yet; will keep trying"
                        );
                        reported = true;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_RETRY);
                    continue;
                }
            };
            match self.outbox.remove(attempt) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::error!(%error, "can't remove a delivered outcome from the outbox");
                }
                _ => {}
            }
            return answer;
        }
    }

    async fn try_once(&self, parcel: &Parcel, outcome: &Outcome) -> anyhow::Result<Disposition> {
        let mut client = self.client();
        let parent = parcel.parent();
        for artifact in &outcome.artifacts {
            let path = self.outbox.blob_path(parcel.attempt, artifact.digest);
            let span = tracing::info_span!("upload", otel.kind = "client", klp.artifact = artifact.name);
            attribute(&span, "klp.size", i64::try_from(artifact.size).unwrap_or(i64::MAX));
            upload(&mut client, artifact, &path, parent).instrument(span).await?;
        }
        let incarnation = parcel.incarnation.to_string();
        let request = convert::commit_request(parcel.attempt, self.worker.as_str(), &incarnation, outcome);
        let span = tracing::info_span!("commit", otel.kind = "client");
        let committing = async { client.commit(grpc::request(request, parent)).await };
        let CommitResponse { disposition, .. } = committing.instrument(span).await?.into_inner();
        Ok(Disposition::try_from(disposition).unwrap_or(Disposition::Unspecified))
    }
}

/// Whether trying again can't help: the coordinator refuses the request itself, or a file of the outcome is gone.
fn is_final(error: &anyhow::Error) -> bool {
    let refused = |status: &tonic::Status| {
        matches!(
            status.code(),
            Code::InvalidArgument | Code::NotFound | Code::OutOfRange | Code::Unimplemented
        )
    };
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    error.downcast_ref::<tonic::Status>().is_some_and(refused) || error.downcast_ref::<io::Error>().is_some_and(gone)
}
