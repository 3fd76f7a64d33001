//! The statement about one architecture's extraction: SLSA's provenance (<https://slsa.dev/spec/v1.0/provenance>).
//!
//! Its subjects are the sources as the tool gave them. What the tool wrote beside them, with its paths and times, is a
//! byproduct. The README documents what the parameters mean.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digests::Digests;
use super::origin::{CONFIG, Origin, SYMVERS, ToolUsed};
use super::statement::{Resource, Statement};
use super::timestamp::Timestamp;
use crate::names::{Cve, FixName, FixScope, LivepatchName, SymbolName};
use crate::outcome::{Artifact, Digest};
use crate::report::ExtractReport;
use crate::spec::{Backend, Spec, Target};
use crate::task::{AttemptId, LivepatchId, Platform};
use crate::{Arch, Codestream};

pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";
pub const BUILD: &str = "klp-farm:extraction/v1";

/// SLSA's predicate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slsa {
    pub build_definition: BuildDefinition,
    pub run_details: RunDetails,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildDefinition {
    pub build_type: String,
    pub external_parameters: Asked,
    pub internal_parameters: Decided,
    pub resolved_dependencies: Vec<Resource>,
}

/// What whoever submitted the livepatch asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    pub livepatch: LivepatchName,
    pub cve: Option<Cve>,
    pub codestream: Codestream,
    pub arch: Arch,
    pub backend: Backend,
    pub targets: Vec<Target>,
    pub avoid: Vec<SymbolName>,
    /// In the order in which they are applied; none if they are only kept.
    pub fixes: Vec<AskedFix>,
    /// What checks find wrong with symbols stops nothing.
    pub forgiving: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AskedFix {
    pub scope: FixScope,
    pub name: FixName,
    pub blake3: Digest,
}

/// What the farm and the worker decided and measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    pub round: u32,
    /// The worker measured its inputs; if not, an earlier version made this, and of what went into it only what was asked
    /// for is known.
    pub inputs_recorded: bool,
    /// The symbols that were to be copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoided: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    pub tool: ToolUsed,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Commands>,
}

/// How one target was extracted and compiled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commands {
    pub file: String,
    pub command: Vec<String>,
    pub compile: Vec<String>,
    pub compiler: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunDetails {
    pub builder: Builder,
    pub metadata: Metadata,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub byproducts: Vec<Resource>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Builder {
    /// As [`builder_id`] makes it.
    pub id: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub version: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The livepatch's id, the task's, and the attempt's number.
    pub invocation_id: String,
    pub started_on: Timestamp,
    pub finished_on: Timestamp,
}

/// A worker of a farm.
pub fn builder_id(farm: &str, worker: &str) -> String {
    format!("klp-farm:farm/{farm}/worker/{worker}")
}

/// An extraction that has ended, as the coordinator stored it.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    pub farm: &'a str,
    pub livepatch: LivepatchId,
    pub spec: &'a Spec,
    pub platform: &'a Platform,
    pub round: u32,
    pub attempt: AttemptId,
    pub worker: &'a str,
    pub started: Timestamp,
    pub finished: Timestamp,
    pub report: &'a ExtractReport,
    /// All that it stored, with their digests.
    pub artifacts: &'a [(Artifact, Digests)],
}

/// The name that an artifact has in statements, and its place in a codestream's folder of them.
pub fn subject_name(arch: Arch, artifact: &str) -> String {
    format!("{arch}/{artifact}")
}

impl Ended<'_> {
    pub fn state(&self) -> Statement<Slsa> {
        let is_source = |a: &Artifact| self.report.targets.iter().any(|t| t.source_artifact == a.name);
        let resource =
            |(a, digests): &(Artifact, Digests)| Resource::new(subject_name(self.platform.arch, &a.name), digests);
        let (sources, others): (Vec<_>, Vec<_>) = self.artifacts.iter().partition(|(a, _)| is_source(a));
        let predicate = Slsa {
            build_definition: BuildDefinition {
                build_type: BUILD.to_owned(),
                external_parameters: self.asked(),
                internal_parameters: self.decided(),
                resolved_dependencies: self
                    .report
                    .origin
                    .as_deref()
                    .map(|o| self.inputs(o))
                    .unwrap_or_default(),
            },
            run_details: RunDetails {
                builder: Builder {
                    id: builder_id(self.farm, self.worker),
                    version: self.versions(),
                },
                metadata: Metadata {
                    invocation_id: format!("{}/{}/{}", self.livepatch, self.attempt.task, self.attempt.number),
                    started_on: self.started,
                    finished_on: self.finished,
                },
                byproducts: others.into_iter().map(resource).collect(),
            },
        };
        Statement::new(sources.into_iter().map(resource).collect(), PREDICATE, predicate)
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let origin = self.report.origin.iter();
        origin
            .map(|o| ("klp-worker".to_owned(), o.worker_version.clone()))
            .collect()
    }

    fn asked(&self) -> Asked {
        let spec = self.spec;
        let fixes = spec.fixes_for(&self.platform.codestream).map(|fix| AskedFix {
            scope: fix.scope.clone(),
            name: fix.name.clone(),
            blake3: fix.digest,
        });
        Asked {
            livepatch: spec.name.clone(),
            cve: spec.cve.clone(),
            codestream: self.platform.codestream.clone(),
            arch: self.platform.arch,
            backend: spec.backend,
            targets: spec.targets.clone(),
            avoid: spec.avoid.iter().cloned().collect(),
            fixes: if spec.unpatched { Vec::new() } else { fixes.collect() },
            forgiving: spec.forgiving,
        }
    }

    fn decided(&self) -> Decided {
        let Some(origin) = &self.report.origin else {
            let (name, version) = self.report.tool.split_once(' ').unwrap_or((&self.report.tool, ""));
            return Decided {
                round: self.round,
                inputs_recorded: false,
                avoided: Vec::new(),
                time_limit_ms: None,
                memory_limit: None,
                tool: ToolUsed {
                    name: name.to_owned(),
                    version: version.to_owned(),
                    sha256: None,
                },
                targets: Vec::new(),
            };
        };
        let commands = origin.targets.iter().map(|target| Commands {
            file: target.file.to_string(),
            command: target.command.clone(),
            compile: target.compile.clone(),
            compiler: target.compiler.clone(),
        });
        Decided {
            round: self.round,
            inputs_recorded: true,
            avoided: origin.avoided.clone(),
            time_limit_ms: Some(origin.limits.time_ms),
            memory_limit: Some(origin.limits.memory),
            tool: origin.tool.clone(),
            targets: commands.collect(),
        }
    }

    /// What went into it, by digest.
    fn inputs(&self, origin: &Origin) -> Vec<Resource> {
        let tree = &origin.tree;
        let mut whole = Resource::measured(format!("tree/{}", self.platform), tree.digest());
        whole.annotations = BTreeMap::from([
            ("compiler".to_owned(), tree.compiler.clone()),
            ("kind".to_owned(), tree.kind.clone()),
            ("release".to_owned(), tree.release.clone()),
        ]);
        let mut all = vec![whole];
        all.extend(tree.files.iter().map(|file| {
            let name = match file.name.as_str() {
                CONFIG | SYMVERS => file.name.clone(),
                other => format!("tree/{}/{other}", self.platform),
            };
            Resource::new(name, &file.digests)
        }));
        all.extend(
            origin
                .fixes
                .iter()
                .map(|fix| Resource::new(format!("fix/{}", fix.name), &fix.digests)),
        );
        for target in &origin.targets {
            all.push(Resource::new(format!("source/{}", target.file), &target.source));
            all.push(Resource::measured(
                format!("command/{}", target.file),
                target.command_digest(),
            ));
        }
        if let Some(sha256) = origin.tool.sha256 {
            let mut tool = Resource::measured(format!("tool/{}", origin.tool.name), sha256);
            tool.annotations
                .insert("version".to_owned(), origin.tool.version.clone());
            all.push(tool);
        }
        all
    }
}
