//! When a key may sign, and for whom: what a farm of today can't be made to do in a test of the whole.

use std::path::Path;

use klp_identity::authority::{AUTHORITY_LIFE, Authority, SIGNER_LIFE, Span};
use klp_identity::{Signer, Trusted};
use klp_livepatch::Arch;
use klp_livepatch::outcome::Artifact;
use klp_livepatch::provenance::codestream::TaskEnding;
use klp_livepatch::provenance::extraction::Ended;
use klp_livepatch::provenance::timestamp::Timestamp;
use klp_livepatch::provenance::{
    Codestream, Digests, Envelope, FOLDER, SIGNER, STATEMENTS, Signature, TaskFindings, pre_authentication,
};
use klp_livepatch::report::{CompileCheck, ExtractReport, Report, TargetExtraction};
use klp_livepatch::spec::{Draft, Spec, TargetDraft};
use klp_livepatch::task::{AttemptId, LivepatchId, Platform, TaskId, TaskKind};
use uuid::Uuid;

use super::inventory::Inventory;
use super::statements::{Stated, stated};

const NOW: i64 = 1_800_000_000_000;
const DAY: i64 = 86_400_000;

struct Ground {
    dir: tempfile::TempDir,
    trusted: Trusted,
    signer: Signer,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let span = Span::from_now(NOW, AUTHORITY_LIFE).unwrap();
        let (authority, _) = Authority::new("klp-farm of here", span).unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        let key = dir.path().join("key.pem");
        Signer::make(&key, Some(&authority), NOW).unwrap();
        Self {
            trusted: Trusted::authorities(&ca).unwrap(),
            signer: Signer::open(&key).unwrap(),
            dir,
        }
    }

    /// What is made of an extraction on `farm` that ended at `finished`, when it is checked at `now`.
    fn stated(&self, farm: &str, finished: i64, now: i64) -> Result<Stated, String> {
        let folder = self.dir.path().join("codestream").join(FOLDER);
        std::fs::create_dir_all(&folder).unwrap();
        let lines: String = payloads(farm, finished)
            .into_iter()
            .map(|p| self.seal(p) + "\n")
            .collect();
        std::fs::write(folder.join(STATEMENTS), lines).unwrap();
        std::fs::write(folder.join(SIGNER), self.signer.public()).unwrap();
        let inventory = Inventory::take(self.dir.path()).unwrap();
        stated(&inventory, Path::new("codestream"), &self.trusted, now).map_err(|error| format!("{error:#}"))
    }

    fn seal(&self, payload: Vec<u8>) -> String {
        let signature = Signature {
            keyid: self.signer.key_id(),
            bytes: self.signer.sign(&pre_authentication(&payload)).unwrap(),
        };
        let signatures = vec![signature];
        Envelope { payload, signatures }.to_line()
    }
}

fn payloads(farm: &str, finished: i64) -> [Vec<u8>; 2] {
    let draft = Draft {
        name: "lp".into(),
        targets: vec![TargetDraft {
            file: "a.c".into(),
            functions: vec!["f".into()],
            config: "CONFIG_A".into(),
            object: String::new(),
        }],
        ..Draft::default()
    };
    let spec = Spec::parse(&draft).unwrap();
    let platform = Platform {
        codestream: "15.6u1".parse().unwrap(),
        arch: Arch::X86_64,
    };
    let report = ExtractReport {
        tool: "native 1".into(),
        targets: vec![TargetExtraction {
            file: "a.c".parse().unwrap(),
            object: "vmlinux".parse().unwrap(),
            source_artifact: "a.c".into(),
            patched: Vec::new(),
            externalized: Vec::new(),
            warnings: Vec::new(),
            compile: CompileCheck::default(),
            tool_ms: 1,
        }],
        ..ExtractReport::default()
    };
    let digests = Digests::of(b"source");
    let artifact = Artifact {
        name: "a.c".into(),
        digest: digests.blake3,
        size: 6,
    };
    let livepatch = LivepatchId(Uuid::from_u128(1));
    let ended = Ended {
        farm,
        livepatch,
        spec: &spec,
        platform: &platform,
        round: 1,
        attempt: AttemptId {
            task: TaskId(Uuid::from_u128(2)),
            number: 1,
        },
        worker: "a",
        started: Timestamp(finished - 1),
        finished: Timestamp(finished),
        report: &report,
        artifacts: &[(artifact.clone(), digests)],
    };
    let task = TaskFindings {
        arch: Arch::X86_64,
        kind: TaskKind::Extract,
        round: 1,
        ending: TaskEnding::Succeeded,
        left_out: false,
        report: Some(Report::Extract(report.clone())),
        artifacts: vec![artifact.clone()],
    };
    let whole = Codestream {
        livepatch,
        created_on: Timestamp(finished - 2),
        codestream: platform.codestream.clone(),
        spec: spec.clone(),
        tasks: vec![task.lasting()],
    };
    let whole = whole.state(&[(Arch::X86_64, artifact, digests)]);
    [ended.state().to_payload().unwrap(), whole.to_payload().unwrap()]
}

#[test]
fn a_certificate_counts_at_the_time_of_the_extraction() {
    let (ground, life) = (Ground::new(), i64::try_from(SIGNER_LIFE.as_millis()).unwrap());
    let fine = ground.stated("here", NOW + DAY, NOW + 2 * DAY).unwrap();
    assert_eq!(
        fine.notes,
        ["x86_64: a former version extracted it: its inputs were not recorded"]
    );
    let late = ground
        .stated("here", NOW + life + DAY, NOW + life + 2 * DAY)
        .unwrap_err();
    assert!(
        late.contains("certificate ended 2030-01-14") && late.contains("before the extraction"),
        "{late}"
    );
    let older = ground.stated("here", NOW - DAY, NOW + DAY).unwrap();
    assert!(older.notes[1].contains("certified later"), "{:?}", older.notes);
    let expired = ground.stated("here", NOW + DAY, NOW + life + DAY).unwrap();
    assert!(
        expired.notes[1].contains("certificate has ended"),
        "{:?}",
        expired.notes
    );
}

#[test]
fn a_key_signs_for_its_own_farm() {
    let error = Ground::new().stated("there", NOW + DAY, NOW + DAY).unwrap_err();
    assert!(error.contains("signed by the farm here"), "{error}");
}
