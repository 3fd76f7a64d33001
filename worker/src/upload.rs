//! Sends an artifact's bytes to the coordinator.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use klp_livepatch::outcome::Artifact;
use klp_proto::MAX_CHUNK;
use klp_proto::v1::upload_artifact_request::Part;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use klp_proto::v1::{UploadArtifactRequest, UploadHeader};
use klp_telemetry::{TraceParent, grpc};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::line::Line;

/// # Errors
/// The file can't be read, or the coordinator refused or was lost.
pub async fn upload(
    client: &mut WorkerServiceClient<Line>,
    artifact: &Artifact,
    path: &Path,
    parent: Option<TraceParent>,
) -> anyhow::Result<()> {
    // A piece is read in place: it was written here not long ago, and is read sooner than a thread is woken.
    let mut file = File::open(path)?;
    let (parts, receiver) = mpsc::channel(4);
    let header = UploadHeader {
        digest: artifact.digest.to_string(),
        size: artifact.size,
    };
    let reader = async move {
        let mut part = Part::Header(header);
        // A closed channel means that the coordinator has answered: it may have the file already.
        while parts.send(UploadArtifactRequest { part: Some(part) }).await.is_ok() {
            let mut chunk = Vec::with_capacity(MAX_CHUNK);
            (&mut file).take(MAX_CHUNK as u64).read_to_end(&mut chunk)?;
            if chunk.is_empty() {
                break;
            }
            part = Part::Data(chunk);
        }
        Ok::<_, std::io::Error>(())
    };
    let (read, answered) = tokio::join!(
        reader,
        client.upload_artifact(grpc::request(ReceiverStream::new(receiver), parent))
    );
    answered?;
    read?;
    Ok(())
}
