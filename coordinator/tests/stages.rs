//! Checks first and sources later, fixes on their way, rounds over architectures, and scans: over real gRPC with scripted
//! workers.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use klp_livepatch::outcome::Digest;
use klp_proto::convert::violations_of;
use klp_proto::v1;
use klp_proto::v1::{LivepatchState, TaskKind};
use support::{Farm, Worker, by_name, config, platform, soon, spec};
use tonic::{Code, Status};
use uuid::Uuid;

fn extract(name: &str, backend: &str) -> v1::ExtractRequest {
    v1::ExtractRequest {
        livepatch: by_name(name),
        backend: backend.into(),
        ..Default::default()
    }
}

async fn ask(farm: &Farm, request: v1::ExtractRequest) -> Result<v1::Livepatch, Status> {
    let answer = farm.livepatches.clone().extract(request).await?;
    Ok(answer.into_inner().livepatch.unwrap())
}

#[tokio::test]
async fn what_was_only_checked_is_extracted_when_somebody_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::connected(&farm, "w1", &["a", "b"]).await;
    let checks = v1::Spec {
        checks_only: true,
        ..spec("bsc1")
    };
    farm.submit_spec(checks).await.unwrap();
    let early = ask(&farm, extract("bsc1", "native")).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "{early}");
    for check in w.take(2).await {
        let done = w.success(&check, &[]);
        w.committed(done).await;
    }
    let ended = farm.events("bsc1", 0).await.pop().unwrap().ended.unwrap();
    assert_eq!(
        (ended.state(), ended.counts.unwrap().succeeded),
        (LivepatchState::Succeeded, 2)
    );
    assert!(ended.verdict.contains("can be patched"), "{}", ended.verdict);

    // A part of it, with a tool that is chosen by what the workers have.
    let some = v1::ExtractRequest {
        codestreams: "b".into(),
        ..extract("bsc1", "auto")
    };
    let opened = ask(&farm, some.clone()).await.unwrap();
    assert_eq!(
        (opened.state(), opened.spec.unwrap().backend.as_str()),
        (LivepatchState::Running, "native")
    );
    w.runs(&[]).await;
    let task = w.take(1).await.remove(0);
    assert_eq!(
        (task.kind(), task.platform.clone()),
        (TaskKind::Extract, Some(platform("b")))
    );
    let again = ask(&farm, some).await.unwrap();
    assert_eq!(again.counts.unwrap().leased, 1, "saying it again changes nothing");
    let other = ask(&farm, extract("bsc1", "ccp")).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition, "{other}");

    // The rest of it, when the first part is done.
    let done = w.success(&task, &[]);
    w.committed(done).await;
    let rest = v1::ExtractRequest {
        codestreams: "a".into(),
        ..extract("bsc1", "native")
    };
    let opened = ask(&farm, rest.clone()).await.unwrap();
    assert_eq!(opened.state(), LivepatchState::Running);
    let task = w.take(1).await.remove(0);
    assert_eq!(task.platform, Some(platform("a")));
    let done = w.success(&task, &[]);
    w.committed(done).await;
    let all = ask(&farm, rest).await.unwrap();
    assert_eq!(all.state(), LivepatchState::Succeeded, "nothing is left to extract");
}

fn with_fix(name: &str, content: &[u8]) -> v1::SubmitRequest {
    let fix = v1::Fix {
        scope: String::new(),
        name: "01-fix.patch".into(),
        digest: Digest::of(content).to_string(),
        size: content.len() as u64,
    };
    v1::SubmitRequest {
        id: Uuid::now_v7().to_string(),
        spec: Some(v1::Spec {
            fixes: vec![fix],
            ..spec(name)
        }),
        share: None,
        fix_contents: vec![content.to_vec()],
        ..Default::default()
    }
}

#[tokio::test]
async fn fixes_are_stored_with_their_livepatch_and_given_to_its_workers() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::connected(&farm, "w1", &["a"]).await;
    let mut livepatches = farm.livepatches.clone();

    let mut without = with_fix("bsc1", b"a fix");
    without.fix_contents.clear();
    let refused = livepatches.submit(without.clone()).await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].field, "fixes[0]", "{refused}");
    let mut stray = with_fix("bsc1", b"a fix");
    stray.fix_contents.push(b"who am I?".to_vec());
    let refused = livepatches.submit(stray).await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].field, "fix_contents", "{refused}");
    let mut large = with_fix("bsc1", b"a fix");
    large.fix_contents = vec![vec![0; (1 << 20) + 1]];
    let refused = livepatches.submit(large).await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].field, "fix_contents[0]", "{refused}");

    let mut elsewhere = with_fix("bsc1", b"a fix");
    elsewhere.spec.as_mut().unwrap().fixes[0].scope = "b".into();
    let refused = livepatches.submit(elsewhere).await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].field, "fixes", "{refused}");

    livepatches.submit(with_fix("bsc1", b"a fix")).await.unwrap();
    // What is stored needs not be sent again.
    without.spec.as_mut().unwrap().name = "bsc2".into();
    livepatches.submit(without).await.unwrap();
    let check = w.take(2).await.remove(0);
    let fix = &check.fixes[0];
    assert_eq!((fix.scope.as_str(), fix.name.as_str()), ("all", "01-fix.patch"));
    let request = v1::GetArtifactRequest {
        digest: fix.digest.clone(),
    };
    let mut chunks = farm
        .workers
        .clone()
        .download_artifact(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(chunks.message().await.unwrap().unwrap().data, b"a fix");
    let lost = v1::GetArtifactRequest {
        digest: Digest::of(b"nothing").to_string(),
    };
    let lost = farm.workers.clone().download_artifact(lost).await;
    assert_eq!(lost.unwrap_err().code(), Code::NotFound);
}

fn on(arch: &str) -> v1::Platform {
    v1::Platform {
        arch: arch.into(),
        ..platform("a")
    }
}

/// A report of an extraction that needs a symbol at run time.
fn needing(of: &v1::Assignment, symbols: &[&str]) -> v1::Report {
    let mut report = support::report(of);
    if let Some(v1::report::Report::Extract(extract)) = &mut report.report {
        extract.targets[0].externalized = symbols
            .iter()
            .map(|symbol| v1::ExternalizedSymbol {
                symbol: (*symbol).into(),
                object: "vmlinux".into(),
                variable: format!("klpe_{symbol}"),
                sympos: 0,
            })
            .collect();
    }
    report
}

#[tokio::test]
async fn what_one_architecture_lacks_is_copied_in_a_further_round() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::new(&farm, "w1", &[]);
    w.state.trees = vec![on("x86_64"), on("s390x")];
    w.state.slots = 1;
    w.open().await;
    w.hear().await.unwrap();
    farm.submit("bsc1").await;
    let mut told = Vec::new();
    // Until the livepatch ends: two checks, two extractions, a verification, a further extraction, one more verification.
    for _ in 0..7 {
        let task = w.take(1).await.remove(0);
        let arch = task.platform.clone().unwrap().arch;
        told.push(format!("{} {arch} {:?}", task.kind().as_str_name(), task.avoid));
        let mut done = w.success(&task, &[]);
        done.report = Some(match task.kind() {
            TaskKind::Extract if arch == "x86_64" && task.avoid.is_empty() => needing(&task, &["lacking"]),
            TaskKind::Extract if arch == "x86_64" => needing(&task, &["there"]),
            TaskKind::Verify => v1::Report {
                report: Some(v1::report::Report::Verify(v1::VerifyReport {
                    symbols: task
                        .wanted
                        .iter()
                        .map(|wanted| v1::VerifiedSymbol {
                            object: wanted.object.clone(),
                            symbol: wanted.symbol.clone(),
                            found_in: if wanted.symbol == "there" {
                                "vmlinux".into()
                            } else {
                                String::new()
                            },
                            sympos: 0,
                        })
                        .collect(),
                })),
            },
            _ => support::report(&task),
        });
        w.runs(&[]).await;
        w.committed(done).await;
    }
    let ended = farm.events("bsc1", 0).await.pop().unwrap().ended.unwrap();
    assert_eq!(ended.state(), LivepatchState::Succeeded, "{told:?}");
    let verify = "TASK_KIND_VERIFY s390x []";
    assert_eq!(
        told[4..],
        [verify, "TASK_KIND_EXTRACT x86_64 [\"lacking\"]", verify],
        "{told:?}"
    );
}

#[tokio::test]
async fn a_scan_is_answered_by_a_worker_that_can_or_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = folder.path().join("catalog.toml");
    let text = "[[codestream]]\nname = \"15.6u1\"\nkernel = \"6.4.0-150600.23.7\"\n";
    std::fs::write(&catalog, text).unwrap();
    let mut settings = config(&folder.path().join("data"));
    settings.catalog = Some(catalog);
    settings.branches = [("15.8".parse().unwrap(), "SLE15-SP8".parse().unwrap())].into();
    let farm = Farm::start(settings).await;
    let request = v1::ScanRequest {
        cve: "2026-1234".into(),
        ..Default::default()
    };
    let mut livepatches = farm.livepatches.clone();
    let nobody = livepatches.scan(request.clone()).await.unwrap_err();
    assert_eq!(nobody.code(), Code::FailedPrecondition);
    assert!(nobody.message().contains("KLP_KERNEL_SOURCE"), "{nobody}");
    let bad = v1::ScanRequest {
        cve: "x".into(),
        add_patches: vec!["../x".into()],
        ..Default::default()
    };
    let bad = violations_of(&livepatches.scan(bad).await.unwrap_err());
    assert_eq!(
        bad.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(),
        ["cve", "add_patches[0]"]
    );

    let mut w = Worker::new(&farm, "w1", &[]);
    w.state.kernel_source = true;
    w.open().await;
    w.hear().await.unwrap();
    let asked = tokio::spawn(async move { livepatches.scan(request).await });
    let errand = soon("an errand", async {
        loop {
            if let Some(errand) = w.hear().await.unwrap().errands.pop() {
                return errand;
            }
        }
    });
    let errand = errand.await;
    let order = errand.scan.unwrap();
    assert_eq!(order.codestreams[0].kernel, "6.4.0-150600.23.7");
    assert_eq!(order.branches, [("15.8".to_owned(), "SLE15-SP8".to_owned())].into());
    let fix = |digest: Digest| v1::Fix {
        scope: "15.6".into(),
        name: "01-a.patch".into(),
        digest: digest.to_string(),
        size: 5,
    };
    let answer = |fixes| v1::AnswerErrandRequest {
        id: errand.id.clone(),
        answer: Some(v1::answer_errand_request::Answer::Scan(v1::ScanAnswer {
            report_json: "{}".into(),
            fixes,
        })),
    };
    let mut workers = farm.workers.clone();
    let early = workers
        .answer_errand(answer(vec![fix(Digest::of(b"a fix"))]))
        .await
        .unwrap_err();
    assert_eq!(
        early.code(),
        Code::FailedPrecondition,
        "what is named must have been uploaded: {early}"
    );
    w.upload(b"a fix").await;
    workers
        .answer_errand(answer(vec![fix(Digest::of(b"a fix"))]))
        .await
        .unwrap();
    let answered = asked.await.unwrap().unwrap().into_inner();
    assert_eq!(
        (answered.worker.as_str(), answered.answer.unwrap().fixes.len()),
        ("w1", 1)
    );
    // One that nobody waits for any more is taken, and forgotten.
    workers.answer_errand(answer(Vec::new())).await.unwrap();
}
