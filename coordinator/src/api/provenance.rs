//! Answers what a livepatch's sources were made from, a codestream at a time.

use klp_livepatch::words::amount;
use klp_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use super::{Shared, blob_status};
use crate::auth::signing;
use crate::provenance::{Stater, Unstated};
use crate::store::{LivepatchRow, TaskRow};

/// Sends what can be stated of each codestream; of one that goes on, that it does.
pub(super) async fn codestreams(
    shared: &Shared,
    livepatch: &LivepatchRow,
    tasks: Vec<TaskRow>,
    client: &mpsc::Sender<Result<v1::CodestreamProvenance, Status>>,
) -> Result<(), Status> {
    let (data_dir, now) = (shared.config.now().data_dir.clone(), shared.clock.now());
    let opened = shared.blobs.aside().run(move || signing::current(&data_dir, now)).await;
    let unusable = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "there is no key to sign statements with");
        Status::internal("the coordinator has no key to sign with; its log says why")
    };
    let signer = opened
        .map_err(|error| unusable(&error))?
        .map_err(|error| unusable(&error))?;
    let mut stater = Stater::new(&shared.blobs, &signer, livepatch);
    // They come in natural order of their codestreams.
    for tasks in tasks.chunk_by(|a, b| a.key.platform.codestream == b.key.platform.codestream) {
        let codestream = tasks[0].key.platform.codestream.to_string();
        let open = tasks.iter().filter(|task| task.status.is_open()).count();
        let told = match open {
            0 => stater
                .codestream(tasks)
                .await
                .map(|envelopes| v1::CodestreamProvenance {
                    codestream,
                    envelopes,
                    signer_pem: signer.public().to_owned(),
                    pending: String::new(),
                }),
            open => Ok(v1::CodestreamProvenance {
                codestream,
                pending: format!("{} of it not done", amount(open, "task is", "tasks are")),
                ..Default::default()
            }),
        };
        let told = told.map_err(|error| match error {
            Unstated::Blob(error) => blob_status(error),
            Unstated::Other(error) => unusable(&error),
        })?;
        if client.send(Ok(told)).await.is_err() {
            break;
        }
    }
    Ok(())
}
