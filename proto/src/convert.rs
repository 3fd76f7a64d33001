//! Where wire values become domain values, and back. Every function here that can fail says which field is wrong.

use klp_livepatch::Share;
use klp_livepatch::outcome::{
    Artifact, Cause, Ending, Failure, MAX_FAILURE_TEXT as MAX_TEXT, Outcome, is_artifact_name,
};
use klp_livepatch::report::Report;
use klp_livepatch::round::WantedSymbol;
use klp_livepatch::spec::{Draft, FixDraft, Spec, Target, TargetDraft, Violation};
use klp_livepatch::task::{AttemptId, Platform, TaskKind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::v1;

mod origin;
mod report;

/// The most artifacts one outcome may name.
const MAX_ARTIFACTS: usize = 1000;

type Result<T> = std::result::Result<T, Violation>;

fn violation(field: &str, message: impl ToString) -> Violation {
    Violation {
        field: field.to_owned(),
        message: message.to_string(),
    }
}

/// Parses a text field, naming the field if it is not valid.
pub fn parse<T>(field: &str, text: &str) -> Result<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| violation(field, e))
}

fn required<T>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| violation(field, "missing"))
}

fn bounded(field: &str, text: String) -> Result<String> {
    if text.len() > MAX_TEXT {
        return Err(violation(
            field,
            format!("{} bytes long; at most {MAX_TEXT}", text.len()),
        ));
    }
    Ok(text)
}

/// INVALID_ARGUMENT with every violation in its details, and in its message for those who don't read details.
pub fn invalid_argument(violations: &[Violation]) -> Status {
    let message = violations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    let details: Vec<_> = violations
        .iter()
        .map(|v| FieldViolation::new(&v.field, &v.message))
        .collect();
    Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request(details))
}

/// The violations a status carries; empty if it carries none.
pub fn violations_of(status: &Status) -> Vec<Violation> {
    status
        .get_details_bad_request()
        .map(|bad| {
            bad.field_violations
                .into_iter()
                .map(|v| Violation {
                    field: v.field,
                    message: v.description,
                })
                .collect()
        })
        .unwrap_or_default()
}

// Specs

impl From<v1::Spec> for Draft {
    fn from(wire: v1::Spec) -> Self {
        Draft {
            name: wire.name,
            cve: wire.cve,
            targets: wire.targets.into_iter().map(TargetDraft::from).collect(),
            codestreams: wire.codestreams,
            archs: wire.archs,
            backend: wire.backend,
            memory: wire.memory,
            checks_only: wire.checks_only,
            forgiving: wire.forgiving,
            avoid: wire.avoid,
            fixes: wire.fixes.into_iter().map(FixDraft::from).collect(),
            unpatched: wire.unpatched,
        }
    }
}

impl From<Draft> for v1::Spec {
    fn from(draft: Draft) -> Self {
        v1::Spec {
            name: draft.name,
            cve: draft.cve,
            targets: draft.targets.into_iter().map(v1::Target::from).collect(),
            codestreams: draft.codestreams,
            archs: draft.archs,
            backend: draft.backend,
            memory: draft.memory,
            checks_only: draft.checks_only,
            forgiving: draft.forgiving,
            avoid: draft.avoid,
            fixes: draft.fixes.into_iter().map(v1::Fix::from).collect(),
            unpatched: draft.unpatched,
        }
    }
}

impl From<&Spec> for v1::Spec {
    fn from(spec: &Spec) -> Self {
        spec.to_draft().into()
    }
}

impl From<v1::Target> for TargetDraft {
    fn from(wire: v1::Target) -> Self {
        TargetDraft {
            file: wire.file,
            functions: wire.functions,
            config: wire.config,
            object: wire.object,
        }
    }
}

impl From<TargetDraft> for v1::Target {
    fn from(draft: TargetDraft) -> Self {
        v1::Target {
            file: draft.file,
            functions: draft.functions,
            config: draft.config,
            object: draft.object,
        }
    }
}

impl From<&Target> for v1::Target {
    fn from(target: &Target) -> Self {
        target.to_draft().into()
    }
}

impl From<v1::Fix> for FixDraft {
    fn from(wire: v1::Fix) -> Self {
        FixDraft {
            scope: wire.scope,
            name: wire.name,
            digest: wire.digest,
            size: wire.size,
        }
    }
}

impl From<FixDraft> for v1::Fix {
    fn from(draft: FixDraft) -> Self {
        v1::Fix {
            scope: draft.scope,
            name: draft.name,
            digest: draft.digest,
            size: draft.size,
        }
    }
}

impl From<&WantedSymbol> for v1::WantedSymbol {
    fn from(wanted: &WantedSymbol) -> Self {
        v1::WantedSymbol {
            object: wanted.object.to_string(),
            symbol: wanted.symbol.to_string(),
            file: wanted.file.to_string(),
        }
    }
}

impl TryFrom<v1::WantedSymbol> for WantedSymbol {
    type Error = Violation;

    fn try_from(wire: v1::WantedSymbol) -> Result<Self> {
        Ok(WantedSymbol {
            object: parse("wanted.object", &wire.object)?,
            symbol: parse("wanted.symbol", &wire.symbol)?,
            file: parse("wanted.file", &wire.file)?,
        })
    }
}

impl From<Share> for v1::Share {
    fn from(share: Share) -> Self {
        v1::Share {
            priority: share.priority().into(),
            weight: share.weight().into(),
        }
    }
}

/// A share as it arrives; none is the default one.
///
/// # Errors
/// Each value that is out of range.
pub fn share(wire: Option<v1::Share>) -> std::result::Result<Share, Vec<Violation>> {
    let wire = wire.unwrap_or_default();
    Share::new(wire.priority, wire.weight)
}

// Tasks

impl From<TaskKind> for v1::TaskKind {
    fn from(kind: TaskKind) -> Self {
        match kind {
            TaskKind::Check => v1::TaskKind::Check,
            TaskKind::Extract => v1::TaskKind::Extract,
            TaskKind::Verify => v1::TaskKind::Verify,
        }
    }
}

/// # Errors
/// The kind is unspecified or not known to this version.
pub fn task_kind(wire: i32) -> Result<TaskKind> {
    match v1::TaskKind::try_from(wire) {
        Ok(v1::TaskKind::Check) => Ok(TaskKind::Check),
        Ok(v1::TaskKind::Extract) => Ok(TaskKind::Extract),
        Ok(v1::TaskKind::Verify) => Ok(TaskKind::Verify),
        Ok(v1::TaskKind::Unspecified) | Err(_) => Err(violation("kind", "not a known task kind")),
    }
}

impl From<&Platform> for v1::Platform {
    fn from(platform: &Platform) -> Self {
        v1::Platform {
            codestream: platform.codestream.to_string(),
            arch: platform.arch.to_string(),
        }
    }
}

impl TryFrom<v1::Platform> for Platform {
    type Error = Violation;

    fn try_from(wire: v1::Platform) -> Result<Self> {
        Ok(Platform {
            codestream: parse("codestream", &wire.codestream)?,
            arch: parse("arch", &wire.arch)?,
        })
    }
}

/// # Errors
/// The platform is missing or not valid.
pub fn platform(wire: Option<v1::Platform>) -> Result<Platform> {
    required("platform", wire)?.try_into()
}

impl From<AttemptId> for v1::Attempt {
    fn from(id: AttemptId) -> Self {
        v1::Attempt {
            task_id: id.task.to_string(),
            number: id.number,
        }
    }
}

/// # Errors
/// The attempt is missing, or its id or number is not valid.
pub fn attempt(wire: Option<v1::Attempt>) -> Result<AttemptId> {
    let wire = required("attempt", wire)?;
    if wire.number == 0 {
        return Err(violation("attempt.number", "attempts are numbered from 1"));
    }
    Ok(AttemptId {
        task: parse("attempt.task_id", &wire.task_id)?,
        number: wire.number,
    })
}

// Outcomes

impl From<Cause> for v1::Cause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Yours => v1::Cause::Yours,
            Cause::Codestream => v1::Cause::Codestream,
            Cause::Farm => v1::Cause::Farm,
        }
    }
}

impl From<&Failure> for v1::Failure {
    fn from(failure: &Failure) -> Self {
        v1::Failure {
            cause: v1::Cause::from(failure.cause).into(),
            message: failure.message.clone(),
        }
    }
}

impl TryFrom<v1::Failure> for Failure {
    type Error = Violation;

    fn try_from(wire: v1::Failure) -> Result<Self> {
        let cause = match v1::Cause::try_from(wire.cause) {
            Ok(v1::Cause::Yours) => Cause::Yours,
            Ok(v1::Cause::Codestream) => Cause::Codestream,
            Ok(v1::Cause::Farm) => Cause::Farm,
            Ok(v1::Cause::Unspecified) | Err(_) => return Err(violation("failure.cause", "not a known cause")),
        };
        Ok(Failure {
            cause,
            message: bounded("failure.message", wire.message)?,
        })
    }
}

impl From<&Artifact> for v1::Artifact {
    fn from(artifact: &Artifact) -> Self {
        v1::Artifact {
            name: artifact.name.clone(),
            digest: artifact.digest.to_string(),
            size: artifact.size,
        }
    }
}

impl TryFrom<v1::Artifact> for Artifact {
    type Error = Violation;

    fn try_from(wire: v1::Artifact) -> Result<Self> {
        if !is_artifact_name(&wire.name) {
            return Err(violation("artifacts.name", "not a relative path of plain components"));
        }
        if wire.size > crate::MAX_ARTIFACT {
            return Err(violation(
                "artifacts.size",
                format!("at most {} bytes", crate::MAX_ARTIFACT),
            ));
        }
        Ok(Artifact {
            digest: parse("artifacts.digest", &wire.digest)?,
            name: wire.name,
            size: wire.size,
        })
    }
}

/// The commit of an outcome by a worker.
pub fn commit_request(id: AttemptId, worker: &str, incarnation: &str, outcome: &Outcome) -> v1::CommitRequest {
    use v1::commit_request::Ending as Wire;
    v1::CommitRequest {
        attempt: Some(id.into()),
        worker: worker.to_owned(),
        incarnation: incarnation.to_owned(),
        ending: Some(match &outcome.ending {
            Ending::Succeeded => Wire::Succeeded(v1::Succeeded {}),
            Ending::Failed(failure) => Wire::Failed(failure.into()),
            Ending::HandedBack { reason } => Wire::HandedBack(reason.clone()),
        }),
        report: outcome.report.as_ref().map(v1::Report::from),
        artifacts: outcome.artifacts.iter().map(v1::Artifact::from).collect(),
    }
}

/// The outcome in a commit.
///
/// # Errors
/// The first field that is not valid.
pub fn outcome(wire: v1::CommitRequest) -> Result<Outcome> {
    use v1::commit_request::Ending as Wire;
    let ending = match required("ending", wire.ending)? {
        Wire::Succeeded(v1::Succeeded {}) => Ending::Succeeded,
        Wire::Failed(failure) => Ending::Failed(failure.try_into()?),
        Wire::HandedBack(reason) => Ending::HandedBack {
            reason: bounded("handed_back", reason)?,
        },
    };
    if wire.artifacts.len() > MAX_ARTIFACTS {
        return Err(violation(
            "artifacts",
            format!("{} artifacts; at most {MAX_ARTIFACTS}", wire.artifacts.len()),
        ));
    }
    Ok(Outcome {
        ending,
        report: wire.report.map(Report::try_from).transpose()?,
        artifacts: wire
            .artifacts
            .into_iter()
            .map(Artifact::try_from)
            .collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests;
