//! States what a codestream's sources were made from, by what is stored of its tasks, and signs that.

use std::collections::HashMap;

use klp_identity::{Problem, Signer};
use klp_livepatch::Arch;
use klp_livepatch::outcome::{Artifact, Digest};
use klp_livepatch::provenance::codestream::{TaskEnding, newest, source_of};
use klp_livepatch::provenance::extraction::Ended;
use klp_livepatch::provenance::timestamp::Timestamp;
use klp_livepatch::provenance::{
    Codestream, Digests, Envelope, Signature, Statement, TaskFindings, pre_authentication,
};
use klp_livepatch::report::{ExtractReport, Report};
use klp_livepatch::task::AttemptId;
use serde::Serialize;

use crate::blobs::{BlobError, Blobs};
use crate::lifecycle::State;
use crate::store::{LivepatchRow, TaskRow};

/// Why nothing can be stated.
#[derive(Debug, thiserror::Error)]
pub enum Unstated {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("{0}")]
    Other(String),
}

impl From<Problem> for Unstated {
    fn from(problem: Problem) -> Self {
        Self::Other(problem.to_string())
    }
}

/// States things of one livepatch.
pub struct Stater<'a> {
    blobs: &'a Blobs,
    signer: &'a Signer,
    livepatch: &'a LivepatchRow,
    /// Many codestreams have equal files: each is read once.
    known: HashMap<Digest, Digests>,
}

/// An extraction whose report is there.
#[derive(Clone, Copy)]
struct Extracted<'a> {
    task: &'a TaskRow,
    report: &'a ExtractReport,
}

impl<'a> Stater<'a> {
    pub fn new(blobs: &'a Blobs, signer: &'a Signer, livepatch: &'a LivepatchRow) -> Self {
        Self {
            blobs,
            signer,
            livepatch,
            known: HashMap::new(),
        }
    }

    /// The signed statements about a codestream, of which these are all tasks: one for each architecture's newest extraction,
    /// then the one about the codestream. None, if nothing was extracted.
    ///
    /// # Errors
    /// An artifact can't be read.
    pub async fn codestream(&mut self, tasks: &[TaskRow]) -> Result<Vec<String>, Unstated> {
        let extracted = tasks.iter().filter_map(|task| match &task.report {
            Some(Report::Extract(report)) => Some((task.key.platform.arch, task.key.round, Extracted { task, report })),
            _ => None,
        });
        let extracted = newest(extracted);
        let Some(first) = extracted.first() else {
            return Ok(Vec::new());
        };
        let codestream = first.task.key.platform.codestream.clone();
        let (mut envelopes, mut sources) = (Vec::new(), Vec::new());
        for extracted in extracted {
            let artifacts = self.measured(&extracted.task.artifacts).await?;
            envelopes.push(self.sign(&self.extraction(extracted, &artifacts).state())?);
            let arch = extracted.task.key.platform.arch;
            let of_it = artifacts
                .into_iter()
                .filter(|(artifact, _)| source_of(extracted.task.report.as_ref(), artifact));
            sources.extend(of_it.map(|(artifact, digests)| (arch, artifact, digests)));
        }
        envelopes.push(self.sign(&self.whole(codestream, tasks, &sources))?);
        Ok(envelopes)
    }

    fn extraction<'s>(&'s self, extracted: Extracted<'s>, artifacts: &'s [(Artifact, Digests)]) -> Ended<'s> {
        let Extracted { task, report } = extracted;
        Ended {
            farm: self.signer.farm(),
            livepatch: self.livepatch.id,
            spec: &self.livepatch.spec,
            platform: &task.key.platform,
            round: task.key.round,
            attempt: AttemptId {
                task: task.id,
                number: task.status.attempt,
            },
            worker: task.worker.as_deref().unwrap_or_default(),
            started: Timestamp(task.started.unwrap_or_default()),
            finished: Timestamp(task.ended.unwrap_or_default()),
            report,
            artifacts,
        }
    }

    fn whole(
        &self,
        codestream: klp_livepatch::Codestream,
        tasks: &[TaskRow],
        sources: &[(Arch, Artifact, Digests)],
    ) -> Statement<Codestream> {
        let whole = Codestream {
            livepatch: self.livepatch.id,
            created_on: Timestamp(self.livepatch.created),
            codestream,
            spec: self.livepatch.spec.clone(),
            tasks: tasks.iter().map(|task| findings(task).lasting()).collect(),
        };
        whole.state(sources)
    }

    async fn measured(&mut self, artifacts: &[Artifact]) -> Result<Vec<(Artifact, Digests)>, BlobError> {
        let mut measured = Vec::with_capacity(artifacts.len());
        for artifact in artifacts {
            let digests = match self.known.get(&artifact.digest) {
                Some(digests) => *digests,
                None => {
                    let digests = self.measure(&artifact.digest).await?;
                    self.known.insert(artifact.digest, digests);
                    digests
                }
            };
            measured.push((artifact.clone(), digests));
        }
        Ok(measured)
    }

    /// Of the bytes that are stored: what a worker says of them is not repeated.
    async fn measure(&self, digest: &Digest) -> Result<Digests, BlobError> {
        let failed = |error| BlobError::Io {
            what: "can't read the artifact",
            path: digest.to_string().into(),
            error,
        };
        let Some(content) = self.blobs.read(digest).await? else {
            return Err(failed(std::io::ErrorKind::NotFound.into()));
        };
        let bytes = content.all().await?;
        let digests = self.blobs.aside().run(move || Digests::of(&bytes)).await;
        let digests = digests.map_err(|error| failed(std::io::Error::other(error)))?;
        match digests.blake3 == *digest {
            true => Ok(digests),
            false => Err(failed(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "it is not what its digest says; `klp-coordinator check` tells more",
            ))),
        }
    }

    fn sign(&self, statement: &Statement<impl Serialize>) -> Result<String, Unstated> {
        let payload = statement
            .to_payload()
            .map_err(|error| Unstated::Other(error.to_string()))?;
        let signature = Signature {
            keyid: self.signer.key_id(),
            bytes: self.signer.sign(&pre_authentication(&payload))?,
        };
        let envelope = Envelope {
            payload,
            signatures: vec![signature],
        };
        Ok(envelope.to_line())
    }
}

fn findings(task: &TaskRow) -> TaskFindings {
    TaskFindings {
        arch: task.key.platform.arch,
        kind: task.key.kind,
        round: task.key.round,
        ending: match task.status.state {
            State::Waiting { .. } | State::Leased(_) => TaskEnding::Open,
            State::Succeeded => TaskEnding::Succeeded,
            State::Failed => TaskEnding::Failed,
            State::Cancelled => TaskEnding::Cancelled,
        },
        left_out: task.left_out,
        report: task.report.clone(),
        artifacts: task.artifacts.clone(),
    }
}
