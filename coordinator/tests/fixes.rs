//! Fixes that are given by hand: whom they are for, and what becomes of codestreams that they don't apply to. Over real gRPC
//! with scripted workers.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use klp_livepatch::outcome::Digest;
use klp_proto::convert::violations_of;
use klp_proto::v1;
use klp_proto::v1::{LivepatchState, TaskKind};
use support::{Farm, Worker, by_name, config, platform, spec};
use uuid::Uuid;

const FIX: &[u8] = b"a fix";

/// A submission of checks with the same fix for each scope.
fn with_fixes(name: &str, scopes: &[&str]) -> v1::SubmitRequest {
    let fix = |scope: &&str| v1::Fix {
        scope: (*scope).to_owned(),
        name: "01-fix.patch".into(),
        digest: Digest::of(FIX).to_string(),
        size: FIX.len() as u64,
    };
    v1::SubmitRequest {
        id: Uuid::now_v7().to_string(),
        spec: Some(v1::Spec {
            fixes: scopes.iter().map(fix).collect(),
            checks_only: true,
            ..spec(name)
        }),
        share: None,
        fix_contents: vec![FIX.to_vec()],
        ..Default::default()
    }
}

/// What a check reports that the fix does not apply to.
fn does_not_apply(task: &v1::Assignment) -> v1::Report {
    let mut report = support::report(task);
    if let Some(v1::report::Report::Check(check)) = &mut report.report {
        check.fixes = Some(v1::FixesCheck {
            problems: vec!["it does not apply".into()],
            ..Default::default()
        });
    }
    report
}

#[tokio::test]
async fn fixes_of_scopes_that_mean_nothing_are_refused_and_of_those_that_nobody_selected_told() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = folder.path().join("catalog.toml");
    let entry = |name: &str| format!("[[codestream]]\nname = \"{name}\"\nkernel = \"6.4.0-150600.23.7\"\n");
    std::fs::write(&catalog, entry("15.6u1") + &entry("15.7u1")).unwrap();
    let mut settings = config(&folder.path().join("data"));
    settings.catalog = Some(catalog.clone());
    settings.branches = [("15.8".parse().unwrap(), "SLE15-SP8".parse().unwrap())].into();
    let farm = Farm::start(settings).await;
    let _w = Worker::connected(&farm, "w1", &["15.6u1", "15.6u2"]).await;
    let mut livepatches = farm.livepatches.clone();

    let typo = livepatches
        .submit(with_fixes("bsc1", &["15.6", "15.66"]))
        .await
        .unwrap_err();
    let violation = violations_of(&typo).remove(0);
    assert_eq!(violation.field, "fixes");
    assert!(violation.message.contains("takes fixes for 15.66;"), "{violation}");

    // 15.6u2 is only held, 15.7u1 only in the catalog, and 15.8 has a branch.
    let good = with_fixes("bsc1", &["15.6", "15.6u2", "15.7u1", "15.8", "all"]);
    let stored = livepatches.submit(good.clone()).await.unwrap().into_inner();
    assert_eq!(stored.warnings.len(), 2, "{:?}", stored.warnings);
    assert!(
        stored.warnings[0].contains("takes the fixes for 15.7u1, 15.8;"),
        "{:?}",
        stored.warnings
    );
    assert!(
        stored.warnings[1].contains("the fixes for all are"),
        "{:?}",
        stored.warnings
    );
    // A codestream leaves the catalog; what was stored is answered as ever.
    std::fs::write(&catalog, entry("15.6u1")).unwrap();
    let again = livepatches.submit(good).await.unwrap().into_inner();
    assert_eq!(again.warnings, stored.warnings);
    let first = farm.event("bsc1", |event| event.number == 1).await;
    assert!(first.message.contains("15.7u1, 15.8"), "{}", first.message);

    let plain = livepatches
        .submit(with_fixes("bsc2", &["15.6"]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(plain.warnings, Vec::<String>::new());
}

#[tokio::test]
async fn without_a_catalog_no_scope_is_called_a_slip() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let _w = Worker::connected(&farm, "w1", &["15.6u1"]).await;
    let mut livepatches = farm.livepatches.clone();
    let stored = livepatches.submit(with_fixes("bsc1", &["15.6", "15.66"])).await;
    assert_eq!(stored.unwrap().into_inner().warnings.len(), 1);
}

#[tokio::test]
async fn what_fixes_alone_kept_from_being_extracted_is_checked_again_when_they_are_not_to_be_applied() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::new(&farm, "w1", &["a", "b", "c"]);
    w.state.slots = 3;
    w.open().await;
    w.hear().await.unwrap();
    farm.livepatches
        .clone()
        .submit(with_fixes("bsc1", &["all"]))
        .await
        .unwrap();
    for check in w.take(3).await {
        // On the first the fix is all that is wrong, on the second something else is, too, on the third only that.
        let name = check.platform.clone().unwrap().codestream;
        let mut failed = w.failure(&check, v1::Cause::Yours, "no");
        let mut report = if name == "c" {
            support::report(&check)
        } else {
            does_not_apply(&check)
        };
        if let (Some(v1::report::Report::Check(found)), true) = (&mut report.report, name != "a") {
            found.targets[0].problems.push("no such function".into());
        }
        failed.report = Some(report);
        w.committed(failed).await;
    }
    w.runs(&[]).await;
    let how = |unpatched| v1::ExtractRequest {
        livepatch: by_name("bsc1"),
        backend: "auto".into(),
        unpatched,
        ..Default::default()
    };
    let mut livepatches = farm.livepatches.clone();
    let refused = livepatches.extract(how(false)).await.unwrap_err();
    assert!(refused.message().contains("nothing to extract"), "{refused}");

    livepatches.extract(how(true)).await.unwrap();
    let check = w.take(1).await.remove(0);
    assert_eq!(
        (check.kind(), check.platform.clone()),
        (TaskKind::Check, Some(platform("a")))
    );
    assert_eq!(check.fixes, []);
    let done = w.success(&check, &[]);
    w.committed(done).await;
    w.runs(&[]).await;
    let extract = w.take(1).await.remove(0);
    assert_eq!(
        (extract.kind(), extract.platform.clone()),
        (TaskKind::Extract, Some(platform("a")))
    );
    assert_eq!(extract.fixes, []);
    let done = w.success(&extract, &[]);
    w.committed(done).await;
    let ended = farm.events("bsc1", 0).await.pop().unwrap().ended.unwrap();
    assert_eq!(ended.state(), LivepatchState::Partial, "{}", ended.verdict);
}

#[tokio::test]
async fn a_check_that_succeeds_with_a_fix_that_does_not_apply_contradicts_itself() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::connected(&farm, "w1", &["a"]).await;
    farm.livepatches
        .clone()
        .submit(with_fixes("bsc1", &["all"]))
        .await
        .unwrap();
    let check = w.take(1).await.remove(0);
    let mut done = w.success(&check, &[]);
    done.report = Some(does_not_apply(&check));
    let refused = w.commit(done).await.unwrap_err();
    assert!(refused.message().contains("contradicts itself"), "{refused}");
}
