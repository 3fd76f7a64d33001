//! Statements and envelopes as others read them: the bytes of an example, and what must not be taken for one.

use proptest::prelude::*;

use super::codestream::TaskEnding;
use super::extraction::Ended;
use super::origin::{FileUsed, Limits, TargetOrigin, ToolUsed, TreeUsed};
use super::timestamp::Timestamp;
use super::*;
use crate::outcome::{Artifact, Digest};
use crate::report::{CompileCheck, ExtractReport, Report, TargetExtraction};
use crate::spec::{Draft, FixDraft, Spec, TargetDraft};
use crate::task::{AttemptId, LivepatchId, Platform, TaskId, TaskKind};
use crate::{Arch, names::ObjectName};

fn spec() -> Spec {
    let draft = Draft {
        name: "bsc1".into(),
        cve: "2022-1048".into(),
        targets: vec![TargetDraft {
            file: "sound/core/pcm.c".into(),
            functions: vec!["f".into()],
            config: "CONFIG_SND_PCM".into(),
            object: "snd-pcm".into(),
        }],
        backend: "native".into(),
        fixes: vec![FixDraft {
            scope: "all".into(),
            name: "a.patch".into(),
            digest: Digest::of(b"fix").to_string(),
            size: 3,
        }],
        ..Draft::default()
    };
    Spec::parse(&draft).unwrap()
}

fn origin() -> Origin {
    let file = |name: &str| FileUsed {
        name: name.to_owned(),
        digests: Digests::of(name.as_bytes()),
    };
    Origin {
        worker_version: "0.1.0".into(),
        tool: ToolUsed {
            name: "native".into(),
            version: "0.1.0 (clang 19)".into(),
            sha256: None,
        },
        limits: Limits {
            time_ms: 600_000,
            memory: 1 << 32,
        },
        avoided: vec!["g".into()],
        tree: TreeUsed {
            kind: "debian".into(),
            release: "6.1.0-56-amd64".into(),
            compiler: "gcc-12".into(),
            files: vec![file("config"), file("Module.symvers"), file("modules/modules.order")],
        },
        fixes: vec![file("a.patch")],
        targets: vec![TargetOrigin {
            file: "sound/core/pcm.c".parse().unwrap(),
            source: Digests::of(b"source"),
            command: vec!["clang".into(), "-I${source}/include".into()],
            compile: vec!["gcc-12".into(), "-c".into(), "${scratch}/livepatch.c".into()],
            compiler: "gcc-12 (Debian) 12.2.0".into(),
        }],
    }
}

fn report(origin: Option<Origin>) -> ExtractReport {
    ExtractReport {
        tool: "native 0.1.0 (clang 19)".into(),
        ibt: false,
        targets: vec![TargetExtraction {
            file: "sound/core/pcm.c".parse().unwrap(),
            object: ObjectName::vmlinux(),
            source_artifact: "sound/core/pcm.c".into(),
            patched: Vec::new(),
            externalized: Vec::new(),
            warnings: Vec::new(),
            compile: CompileCheck::default(),
            tool_ms: 7,
        }],
        origin: origin.map(Box::new),
    }
}

fn artifacts() -> Vec<(Artifact, Digests)> {
    let artifact = |name: &str, text: &[u8]| {
        let digests = Digests::of(text);
        let artifact = Artifact {
            name: name.to_owned(),
            digest: digests.blake3,
            size: text.len() as u64,
        };
        (artifact, digests)
    };
    vec![
        artifact("sound/core/pcm.c", b"int klpp_f;\n"),
        artifact("work_sound_core_pcm.c/compile_commands.json", b"[]\n"),
    ]
}

fn extraction(origin: Option<Origin>) -> Statement<Slsa> {
    let platform = Platform {
        codestream: "debian12-6.1.0-56".parse().unwrap(),
        arch: Arch::X86_64,
    };
    let id = |n| uuid::Uuid::from_u128(n);
    let ended = Ended {
        farm: "farm.example.org",
        livepatch: LivepatchId(id(1)),
        spec: &spec(),
        platform: &platform,
        round: 1,
        attempt: AttemptId {
            task: TaskId(id(2)),
            number: 3,
        },
        worker: "build7",
        started: Timestamp(1_795_485_900_001),
        finished: Timestamp(1_795_485_901_234),
        report: &report(origin),
        artifacts: &artifacts(),
    };
    ended.state()
}

/// What others read must not change unnoticed.
#[test]
fn an_extraction_is_stated_like_this() {
    let payload = extraction(Some(origin())).to_payload().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    insta::assert_snapshot!(format!("{value:#}"));
    let Signed::Extraction(read) = read(&payload).unwrap() else {
        panic!("another kind")
    };
    assert_eq!(read.to_payload().unwrap(), payload, "what is read is written the same");
}

#[test]
fn a_former_version_s_extraction_says_that_its_inputs_were_not_recorded() {
    let statement = extraction(None);
    let build = &statement.predicate.build_definition;
    assert!(!build.internal_parameters.inputs_recorded);
    assert!(build.resolved_dependencies.is_empty());
    assert_eq!(build.internal_parameters.tool.name, "native");
    assert_eq!(statement.subject.len(), 1);
    // As it was stored.
    let old = r#"{"kind":"extract","tool":"native 1","targets":[]}"#;
    let Report::Extract(old) = serde_json::from_str(old).unwrap() else {
        panic!("another kind")
    };
    assert_eq!(old.origin, None);
}

#[test]
fn a_codestream_is_stated_without_what_differs_each_time() {
    let task = TaskFindings {
        arch: Arch::X86_64,
        kind: TaskKind::Extract,
        round: 1,
        ending: TaskEnding::Succeeded,
        left_out: false,
        report: Some(Report::Extract(report(Some(origin())))),
        artifacts: artifacts().into_iter().map(|(a, _)| a).collect(),
    };
    let older = TaskFindings {
        round: 0,
        ..task.clone()
    };
    let tasks = vec![older.lasting(), task.lasting()];
    assert_eq!(Codestream::newest_extractions(&tasks), [&tasks[1]]);
    assert_eq!(tasks[1].artifacts.len(), 1, "only the source");
    let codestream = Codestream {
        livepatch: LivepatchId(uuid::Uuid::from_u128(1)),
        created_on: Timestamp(0),
        codestream: "debian12-6.1.0-56".parse().unwrap(),
        spec: spec(),
        tasks,
    };
    let (artifact, digests) = artifacts().swap_remove(0);
    let payload = codestream
        .state(&[(Arch::X86_64, artifact, digests)])
        .to_payload()
        .unwrap();
    let text = String::from_utf8(payload.clone()).unwrap();
    assert!(
        !text.contains("worker_version") && text.contains("\"tool_ms\":0"),
        "{text}"
    );
    let Signed::Codestream(read) = read(&payload).unwrap() else {
        panic!("another kind")
    };
    assert_eq!(read.to_payload().unwrap(), payload);
}

#[test]
fn envelopes_are_written_and_read_as_dsse_has_them() {
    // The example of the DSSE specification, with our payload's type.
    let bytes = pre_authentication(b"hello world");
    assert_eq!(bytes, b"DSSEv1 28 application/vnd.in-toto+json 11 hello world");
    let envelope = Envelope {
        payload: b"{}".to_vec(),
        signatures: vec![Signature {
            keyid: "k".into(),
            bytes: vec![0xfb, 0xff],
        }],
    };
    let line = envelope.to_line();
    assert_eq!(
        line,
        r#"{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"k","sig":"+/8="}]}"#
    );
    assert_eq!(Envelope::parse(&line), Ok(envelope.clone()));
    assert_eq!(
        Envelope::parse(&line.replace("+/8=", "-_8=")),
        Ok(envelope),
        "either alphabet"
    );
}

#[test]
fn what_is_no_envelope_is_told() {
    let line = r#"{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]}"#;
    assert!(
        Envelope::parse(line).is_ok(),
        "a key's id is a hint, and may be missing"
    );
    for (bad, word) in [
        (line.replace("in-toto", "other"), "not application/vnd.in-toto+json"),
        (line.replace(r#"[{"sig":"AA=="}]"#, "[]"), "0 signatures"),
        (line.replace("e30=", "e30"), "payload is no base64"),
        (line.replace("AA==", "\u{e9}"), "signature is no base64"),
        ("[".repeat(100_000), "no DSSE envelope"),
        (line[..40].to_owned(), "no DSSE envelope"),
    ] {
        let error = Envelope::parse(&bad).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    let many = format!("{line}\n").repeat(MAX_ENVELOPES + 1);
    assert!(
        Envelope::parse_all(&many)
            .unwrap_err()
            .to_string()
            .contains("more than")
    );
    let error = Envelope::parse_all(&format!("{line}\n{{\n")).unwrap_err().to_string();
    assert!(error.starts_with("line 2"), "{error}");
    assert!(
        Envelope::parse_all("\n")
            .unwrap_err()
            .to_string()
            .contains("no envelope")
    );
}

#[test]
fn what_is_no_statement_of_ours_is_told() {
    let payload = String::from_utf8(extraction(Some(origin())).to_payload().unwrap()).unwrap();
    for (from, to, word) in [
        (STATEMENT, "https://in-toto.io/Statement/v0.1", "type"),
        (extraction::PREDICATE, "https://slsa.dev/provenance/v0.2", "predicate"),
        (extraction::BUILD, "https://example.org/build", "build of type"),
        ("x86_64\",\"backend", "vax\",\"backend", "no in-toto statement"),
        ("2026-", "20260-", "no in-toto statement"),
    ] {
        let changed = payload.replace(from, to);
        assert_ne!(changed, payload, "{from}");
        let error = read(changed.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    assert!(read(b"").is_err() && read(b"null").is_err());
}

proptest! {
    #[test]
    fn times_are_read_as_they_are_written(ms in 0i64..253_402_300_800_000) {
        let text = Timestamp(ms).to_string();
        prop_assert_eq!(text.len(), 24);
        prop_assert_eq!(text.parse(), Ok(Timestamp(ms)));
    }

    #[test]
    fn whatever_is_sealed_is_read(payload: Vec<u8>, bytes: Vec<u8>, keyid: String) {
        let envelope = Envelope { payload, signatures: vec![Signature { keyid, bytes }] };
        let line = envelope.to_line();
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(Envelope::parse(&line), Ok(envelope));
    }
}

#[test]
fn digests_have_one_text() {
    let empty = Sha256::of(b"");
    assert_eq!(
        empty.to_string(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    assert_eq!(empty.to_string().parse(), Ok(empty));
    assert!(empty.to_string().to_uppercase().parse::<Sha256>().is_err());
    assert_eq!(Timestamp(1_795_485_900_999).to_string(), "2026-11-24T02:05:00.999Z");
    for bad in [
        "2026-11-24T02:05:00Z",
        "2026-11-24T24:05:00.000Z",
        "2026-13-24T02:05:00.000Z",
        "2026-11-24 02:05:00.000Z",
        "",
    ] {
        assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
    }
}
