//! The texts that pages show: a platform's newest sources, read from where artifacts are kept.

use klp_proto::v1;
use klp_proto::v1::livepatch_service_server::LivepatchService;
use klp_proto::v1::report::Report;
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

/// The newest extraction of a platform that made a source.
pub fn newest<'a>(
    tasks: &'a [v1::Task],
    codestream: &str,
    arch: &str,
) -> Option<(&'a v1::Task, &'a v1::ExtractReport)> {
    let of = tasks.iter().filter(|task| {
        let platform = task.platform.as_ref();
        platform.is_some_and(|p| p.codestream == codestream && p.arch == arch)
    });
    let extracted = of.filter_map(|task| match task.report.as_ref()?.report.as_ref()? {
        Report::Extract(report) => Some((task, report)),
        _ => None,
    });
    extracted.max_by_key(|(task, _)| task.round)
}

impl Web {
    /// The sources of an extraction.
    pub async fn sources(&self, task: &v1::Task, report: &v1::ExtractReport) -> Result<Vec<Text>, Refused> {
        let mut texts = Vec::new();
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
