//! The texts that pages show: a platform's newest sources, read from where artifacts are kept.

use klp_proto::v1;
use klp_proto::v1::livepatch_service_server::LivepatchService;
use klp_proto::view::findings::newest;
use tokio_stream::StreamExt;
use tonic::Request;

use crate::web::Web;
use crate::web::answer::Refused;

/// The most of a source that is shown, in bytes.
pub const MAX_SHOWN: u64 = 2 << 20;

/// A source as the page shows it, and where the whole of it is.
pub struct Text {
    pub file: String,
    pub artifact: v1::Artifact,
    pub text: String,
    /// It is longer than what is shown.
    pub cut: bool,
}

/// Whether a task is of this platform.
fn is_of(task: &v1::Task, codestream: &str, arch: &str) -> bool {
    let platform = task.platform.as_ref();
    platform.is_some_and(|p| p.codestream == codestream && p.arch == arch)
}

impl Web {
    /// A platform's tasks out of a livepatch's bare ones, with what they reported.
    pub async fn told(&self, tasks: &[v1::Task], codestream: &str, arch: &str) -> Result<Vec<v1::Task>, Refused> {
        let mut told = Vec::new();
        for task in tasks.iter().filter(|task| is_of(task, codestream, arch)) {
            told.push(self.task(&task.id).await?);
        }
        Ok(told)
    }

    /// The sources of the newest extraction among a platform's tasks.
    pub async fn sources(&self, told: &[v1::Task]) -> Result<Vec<Text>, Refused> {
        let mut texts = Vec::new();
        let Some((task, report)) = newest(told).into_values().next() else {
            return Ok(texts);
        };
        for target in &report.targets {
            let Some(artifact) = task.artifacts.iter().find(|a| a.name == target.source_artifact) else {
                continue;
            };
            texts.push(Text {
                file: target.file.clone(),
                text: self.text(&artifact.digest).await?,
                cut: artifact.size > MAX_SHOWN,
                artifact: artifact.clone(),
            });
        }
        Ok(texts)
    }

    /// The first [`MAX_SHOWN`] bytes of an artifact.
    async fn text(&self, digest: &str) -> Result<String, Refused> {
        let digest = digest.to_owned();
        let chunks = self
            .service()
            .get_artifact(Request::new(v1::GetArtifactRequest { digest }))
            .await?;
        let mut chunks = chunks.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            bytes.extend(chunk?.data);
            if bytes.len() as u64 >= MAX_SHOWN {
                bytes.truncate(MAX_SHOWN as usize);
                break;
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
