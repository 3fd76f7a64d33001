//! The statement about a codestream: what its tasks found, on every architecture. It is what the files are rendered from that
//! stand around the extracted sources, so whoever has it can render them again and compare.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digests::Digests;
use super::extraction::subject_name;
use super::statement::{Resource, Statement};
use super::timestamp::Timestamp;
use crate::Arch;
use crate::outcome::Artifact;
use crate::report::Report;
use crate::spec::Spec;
use crate::task::{LivepatchId, TaskKind};

pub const PREDICATE: &str = "klp-farm:codestream/v1";

/// A codestream of a livepatch, none of whose tasks is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Codestream {
    pub livepatch: LivepatchId,
    pub created_on: Timestamp,
    pub codestream: crate::Codestream,
    pub spec: Spec,
    pub tasks: Vec<TaskFindings>,
}

/// How a task ended, and what it found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskFindings {
    pub arch: Arch,
    pub kind: TaskKind,
    pub round: u32,
    pub ending: TaskEnding,
    /// It is a check that found nothing to patch here.
    pub left_out: bool,
    pub report: Option<Report>,
    /// What the attempt stored that ended it.
    pub artifacts: Vec<Artifact>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskEnding {
    Open,
    Succeeded,
    Failed,
    Cancelled,
}

impl TaskFindings {
    /// As it is stated: without what differs from one time to the next, and what the extraction's own statement says.
    pub fn lasting(mut self) -> Self {
        if let Some(Report::Extract(report)) = &mut self.report {
            report.origin = None;
            report.targets.iter_mut().for_each(|target| target.tool_ms = 0);
        }
        self.artifacts.retain(|a| source_of(self.report.as_ref(), a));
        self
    }
}

/// Whether an artifact is a target's source, and not something that the tool wrote beside it.
pub fn source_of(report: Option<&Report>, artifact: &Artifact) -> bool {
    match report {
        Some(Report::Extract(report)) => report.targets.iter().any(|t| t.source_artifact == artifact.name),
        _ => false,
    }
}

impl Codestream {
    /// `sources`: those of its newest extractions.
    pub fn state(self, sources: &[(Arch, Artifact, Digests)]) -> Statement<Self> {
        let subject = sources
            .iter()
            .map(|(arch, a, digests)| Resource::new(subject_name(*arch, &a.name), digests));
        Statement::new(subject.collect(), PREDICATE, self)
    }

    /// The newest round in which each architecture was extracted: of what it left there is a statement of its own.
    pub fn newest_extractions(tasks: &[TaskFindings]) -> Vec<&TaskFindings> {
        let extracted = |t: &&TaskFindings| matches!(t.report, Some(Report::Extract(_)));
        newest(tasks.iter().filter(extracted).map(|t| (t.arch, t.round, t)))
    }
}

/// Of each architecture's things the one of its newest round, in the architectures' order.
pub fn newest<T>(things: impl Iterator<Item = (Arch, u32, T)>) -> Vec<T> {
    let mut newest: BTreeMap<Arch, (u32, T)> = BTreeMap::new();
    for (arch, round, thing) in things {
        if newest.get(&arch).is_none_or(|(known, _)| *known < round) {
            newest.insert(arch, (round, thing));
        }
    }
    newest.into_values().map(|(_, thing)| thing).collect()
}
