//! What is converted there and back, and what is refused.

use klp_livepatch::fix::lint::{Finding, Severity, Topic};
use klp_livepatch::names::ObjectName;
use klp_livepatch::outcome::Digest;
use klp_livepatch::provenance::origin::{FileUsed, Limits, TargetOrigin, ToolUsed, TreeUsed};
use klp_livepatch::provenance::{Digests, Origin, Sha256};
use klp_livepatch::report::{
    CheckReport, CompileCheck, ConfigValue, ExternalizedSymbol, ExtractReport, FixesCheck, FunctionCheck,
    PatchedFunction, TargetCheck, TargetExtraction, Traced, VerifiedSymbol, VerifyReport,
};
use uuid::Uuid;

use super::*;

fn outcome_with_everything() -> Outcome {
    Outcome {
        ending: Ending::Failed(Failure {
            cause: Cause::Codestream,
            message: "does not compile".into(),
        }),
        report: Some(Report::Extract(ExtractReport {
            tool: "native 0.1.0".into(),
            ibt: true,
            targets: vec![TargetExtraction {
                file: "sound/core/pcm.c".parse().unwrap(),
                object: "snd-pcm".parse().unwrap(),
                source_artifact: "sound/core/pcm.c".into(),
                patched: vec![PatchedFunction {
                    function: "f".parse().unwrap(),
                    replacement: "klpp_f".parse().unwrap(),
                    prototype: "int klpp_f(void);".into(),
                    sympos: 2,
                }],
                externalized: vec![ExternalizedSymbol {
                    symbol: "g".into(),
                    object: ObjectName::vmlinux(),
                    variable: "klpe_g".into(),
                    sympos: 1,
                }],
                warnings: vec!["w".into()],
                compile: CompileCheck {
                    passed: false,
                    errors: vec!["e".into()],
                    ..Default::default()
                },
                tool_ms: 812,
            }],
            origin: Some(Box::new(origin())),
        })),
        artifacts: vec![Artifact {
            name: "sound/core/pcm.c".into(),
            digest: Digest::of(b"x"),
            size: 1,
        }],
    }
}

fn origin() -> Origin {
    let file = |name: &str| FileUsed {
        name: name.into(),
        digests: Digests::of(name.as_bytes()),
    };
    Origin {
        worker_version: "0.1.0".into(),
        tool: ToolUsed {
            name: "ccp".into(),
            version: "build 1".into(),
            sha256: Some(Sha256::of(b"ccp")),
        },
        limits: Limits { time_ms: 1, memory: 2 },
        avoided: vec!["g".into()],
        tree: TreeUsed {
            kind: "debian".into(),
            release: "6.1.0-55-amd64".into(),
            compiler: "gcc-12".into(),
            files: vec![file("config")],
        },
        fixes: vec![file("a.patch")],
        targets: vec![TargetOrigin {
            file: "sound/core/pcm.c".parse().unwrap(),
            source: Digests::of(b"source"),
            command: vec!["klp-ccp".into()],
            compile: vec!["gcc-12".into(), "-c".into()],
            compiler: "gcc-12 12.2.0".into(),
        }],
    }
}

fn succeeded(report: Report) -> Outcome {
    Outcome {
        ending: Ending::Succeeded,
        report: Some(report),
        artifacts: vec![],
    }
}

fn check() -> Report {
    let function = |traced| FunctionCheck {
        function: "f".parse().unwrap(),
        sympos: 3,
        traced,
        clones: vec!["f.isra.0".into()],
        inlined_into: vec!["g".into()],
    };
    Report::Check(CheckReport {
        targets: vec![TargetCheck {
            file: "sound/core/pcm.c".parse().unwrap(),
            config: Some(ConfigValue::Module),
            object: Some("snd-pcm".parse().unwrap()),
            module_path: Some("kernel/sound/core/snd-pcm.ko".into()),
            left_out: Some("not built".into()),
            functions: [Traced::Yes, Traced::No, Traced::Unknown].map(function).to_vec(),
            problems: vec!["p".into()],
            warnings: vec!["w".into()],
        }],
        fixes: FixesCheck {
            problems: vec!["q".into()],
            warnings: vec!["x".into()],
            findings: vec![finding(Severity::Warning, 12), finding(Severity::Note, 0)],
            omitted: 3,
        },
    })
}

fn finding(severity: Severity, line: usize) -> Finding {
    Finding {
        severity,
        topic: Topic::PerCpu,
        file: "sound/core/pcm.c".into(),
        line,
        symbol: "f".into(),
        text: "is odd".into(),
    }
}

fn verify() -> Report {
    let symbol = |found_in| VerifiedSymbol {
        object: "snd-pcm".parse().unwrap(),
        symbol: "g".into(),
        found_in,
        sympos: 1,
    };
    Report::Verify(VerifyReport {
        symbols: vec![symbol(None), symbol(Some(ObjectName::vmlinux()))],
    })
}

fn id() -> AttemptId {
    AttemptId {
        task: klp_livepatch::task::TaskId(Uuid::from_u128(7)),
        number: 2,
    }
}

#[test]
fn an_outcome_survives_the_wire() {
    for before in [
        outcome_with_everything(),
        succeeded(check()),
        succeeded(verify()),
        Outcome {
            ending: Ending::HandedBack {
                reason: "stopping".into(),
            },
            report: None,
            artifacts: vec![],
        },
    ] {
        let wire = commit_request(id(), "w1", "i1", &before);
        assert_eq!(attempt(wire.attempt.clone()).unwrap(), id());
        assert_eq!(outcome(wire).unwrap(), before);
    }
}

#[test]
fn bad_fields_are_named() {
    let good = commit_request(id(), "w1", "i1", &outcome_with_everything());

    let mut bad = good.clone();
    bad.artifacts[0].name = "../../etc/passwd".into();
    assert_eq!(outcome(bad).unwrap_err().field, "artifacts.name");

    let mut bad = good.clone();
    bad.ending = None;
    assert_eq!(outcome(bad).unwrap_err().field, "ending");

    assert_eq!(
        attempt(Some(v1::Attempt {
            task_id: "x".into(),
            number: 1
        }))
        .unwrap_err()
        .field,
        "attempt.task_id"
    );
    assert_eq!(
        attempt(Some(v1::Attempt {
            task_id: id().task.to_string(),
            number: 0
        }))
        .unwrap_err()
        .field,
        "attempt.number"
    );
}

#[test]
fn a_status_carries_every_violation() {
    let violations = vec![violation("name", "empty"), violation("cve", "odd")];
    let status = invalid_argument(&violations);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(violations_of(&status), violations);
    assert_eq!(violations_of(&Status::internal("x")), vec![]);
}
