//! Scans of a small repository of kernel-source's shape, made here with the real git.
#![allow(clippy::unwrap_used)]

mod scan_repo;

use std::collections::BTreeMap;
use std::sync::Arc;

use klp_livepatch::fix::functions::Thing;
use klp_livepatch::fix::lint::Topic;
use klp_livepatch::fix::supported::Support;
use klp_livepatch::report::ConfigValue;
use klp_livepatch::scan::{Proposal, ProposedTarget, Status};
use klp_livepatch::{Arch, Codestream};
use klp_worker::scan::{KernelSource, NoSources, ScanError, ScanOutcome, scan};
use scan_repo::{Repo, request};
use tokio_util::sync::CancellationToken;

async fn scanned(repo: &Repo, codestreams: &[(&str, &str)]) -> ScanOutcome {
    let source = KernelSource::open(&repo.path()).unwrap();
    let sources = Arc::new(repo.sources(codestreams));
    scan(&source, &request(codestreams), sources, &CancellationToken::new())
        .await
        .unwrap()
}

fn cs(name: &str) -> Codestream {
    name.parse().unwrap()
}

fn status<'o>(outcome: &'o ScanOutcome, name: &str) -> (Option<&'o str>, &'o Status) {
    let scan = &outcome.report.codestreams[&cs(name)];
    (scan.scope.as_deref(), &scan.status)
}

fn required(outcome: &ScanOutcome, name: &str) -> Vec<String> {
    match status(outcome, name).1 {
        Status::Affected { required } => required.iter().map(ToString::to_string).collect(),
        other => panic!("{name} is {other:?}"),
    }
}

fn proposal<'o>(outcome: &'o ScanOutcome, name: &str) -> &'o Proposal {
    outcome
        .report
        .proposals
        .iter()
        .find(|p| p.codestreams.contains(&cs(name)))
        .unwrap()
}

fn target<'p>(proposal: &'p Proposal, file: &str) -> &'p ProposedTarget {
    proposal.targets.iter().find(|t| t.file.as_str() == file).unwrap()
}

fn functions(target: &ProposedTarget) -> Vec<&str> {
    target.functions.iter().map(|f| f.name.as_str()).collect()
}

#[tokio::test]
async fn codestreams_are_told_apart_and_patches_keep_their_order() {
    let repo = Repo::new();
    let all = [
        ("15.6u1", "6.4.0-1"),
        ("15.6u2", "6.4.0-2"),
        ("15.6u3", "6.4.0-3"),
        ("15.6rtu1", "6.4.0-1"),
        ("15.7u1", "6.4.0-7"),
        ("15.6u9", "6.4.0-99"),
        ("9.9u1", "1.0-1"),
        ("other", "6.4.0-1"),
    ];
    let outcome = scanned(&repo, &all).await;
    let patches: Vec<_> = outcome.report.products["15.6"]
        .patches
        .iter()
        .map(|p| p.path.as_str())
        .collect();
    // The series' order, which is not the alphabet's.
    assert_eq!(
        patches,
        ["patches.suse/zz-toy-prepare.patch", "patches.suse/aa-toy-check.patch"]
    );
    assert_eq!(
        outcome.report.products["15.6"].patches[0].git_commits[0].short(),
        "0123456789ab"
    );
    assert_eq!(required(&outcome, "15.6u1"), patches);
    assert_eq!(required(&outcome, "15.6u2"), patches[1..]);
    assert_eq!(status(&outcome, "15.6u3"), (Some("15.6"), &Status::Patched));
    // The real-time branch has nothing of its own.
    assert_eq!(status(&outcome, "15.6rtu1").0, Some("15.6"));
    assert_eq!(required(&outcome, "15.6rtu1"), patches);
    assert_eq!(status(&outcome, "15.7u1"), (None, &Status::NotAffected));
    for (name, why) in [
        ("15.6u9", "no tag rpm-6.4.0-99"),
        ("9.9u1", "product 9.9"),
        ("other", "tells no product"),
    ] {
        match status(&outcome, name).1 {
            Status::Unknown { why: told } => assert!(told.contains(why), "{told}"),
            status => panic!("{name} is {status:?}"),
        }
    }
    // A number that begins alike is another CVE, and prose is no reference.
    let mentions: Vec<_> = outcome.report.products["15.6"]
        .mentions
        .iter()
        .map(|p| p.as_str())
        .collect();
    assert_eq!(
        mentions,
        ["patches.suse/longer-number.patch", "patches.suse/only-prose.patch"]
    );
    let problems = outcome.report.problems.join("\n");
    assert!(
        problems.contains("patches.suse/not-applied.patch is there, but not applied"),
        "{problems}"
    );
    let files: Vec<_> = outcome
        .fixes
        .iter()
        .map(|f| format!("{}/{}", f.scope, f.name))
        .collect();
    assert_eq!(files, ["15.6/01-zz-toy-prepare.patch", "15.6/02-aa-toy-check.patch"]);
    assert!(outcome.fixes[0].bytes.starts_with(b"From: "));
}

/// What text matching makes of these fixes: `SYSCALL_DEFINE2`, nothing, `__must_hold`, nothing.
#[tokio::test]
async fn functions_are_found_whatever_their_heads_look_like() {
    let repo = Repo::new();
    let outcome = scanned(&repo, &[("15.6u1", "6.4.0-1")]).await;
    let proposal = proposal(&outcome, "15.6u1");
    let toy = target(proposal, "fs/toy/toy.c");
    assert_eq!(functions(toy), ["toy_walk", "toy_locked", "toyctl"]);
    let entries: Vec<_> = toy.functions[2]
        .symbols(Arch::Aarch64)
        .into_iter()
        .map(|s| s.name)
        .collect();
    assert_eq!(entries[0], "__arm64_sys_toyctl");
    let data = target(proposal, "fs/toy/data.c");
    assert_eq!(functions(data), Vec::<&str>::new());
    assert_eq!(
        (data.things[0].thing, data.things[0].name.as_str()),
        (Thing::Variable, "toy_limits")
    );
    assert_eq!(data.things[0].used_by, ["toy_limit"]);
    assert!(
        proposal
            .findings
            .iter()
            .any(|f| f.topic == Topic::Data && f.symbol == "toy_limits")
    );
    assert!(proposal.findings.iter().any(|f| f.topic == Topic::Syscall));
    assert!(
        !proposal.findings.iter().any(|f| f.topic == Topic::Prerequisite),
        "{:?}",
        proposal.findings
    );
}

#[tokio::test]
async fn config_module_and_support_are_told_by_architecture() {
    let repo = Repo::new();
    let codestreams = [("15.6u1", "6.4.0-1"), ("15.6rtu1", "6.4.0-1")];
    let outcome = scanned(&repo, &codestreams).await;
    let toy = target(proposal(&outcome, "15.6u1"), "fs/toy/toy.c");
    let config: klp_livepatch::names::ConfigName = "CONFIG_TOY_FS".parse().unwrap();
    assert_eq!(toy.built.built[0].config.as_ref(), Some(&config));
    assert_eq!(toy.built.built[0].module.as_deref(), Some("fs/toy/toyfs"));
    assert_eq!(toy.configs[&Arch::X86_64].get(&config), Some(&ConfigValue::Module));
    assert_eq!(toy.configs[&Arch::S390x].get(&config), Some(&ConfigValue::BuiltIn));
    assert_eq!(toy.configs[&Arch::Aarch64].get(&config), None);
    assert_eq!(
        outcome
            .report
            .problems
            .iter()
            .filter(|p| p.contains("no configuration"))
            .count(),
        0
    );
    assert_eq!(
        toy.support,
        BTreeMap::from([("fs/toy/toyfs".to_owned(), Support::Supported)])
    );
    // The real-time kernel has another configuration, in which it is off.
    let rt = proposal(&outcome, "15.6rtu1");
    assert_eq!(rt.codestreams, [cs("15.6rtu1")]);
    assert!(
        rt.findings.iter().any(|f| f.text.contains("built on no architecture")),
        "{:?}",
        rt.findings
    );
}

#[tokio::test]
async fn a_patch_that_lacks_its_prerequisite_is_named() {
    let repo = Repo::new();
    // This kernel's tag says that the first patch is applied; its tree has it not.
    let outcome = scanned(&repo, &[("15.6u2", "6.4.0-2")]).await;
    let findings = &proposal(&outcome, "15.6u2").findings;
    let missing: Vec<_> = findings.iter().filter(|f| f.topic == Topic::Prerequisite).collect();
    assert_eq!(missing.len(), 1, "{findings:?}");
    assert!(missing[0].text.contains("hunk 1"), "{missing:?}");
}

#[tokio::test]
async fn a_fix_that_names_no_cve_is_known_by_its_commit() {
    let repo = Repo::new();
    let outcome = scanned(&repo, &[("15.6u1", "6.4.0-1"), ("16.0u0", "6.4.0-7")]).await;
    assert_eq!(required(&outcome, "16.0u0"), ["patches.suse/same-commit.patch"]);
    assert!(outcome.report.products["16.0"].patches[0].by_commit);
    assert!(outcome.report.products["15.6"].patches.iter().all(|p| !p.by_commit));
}

#[tokio::test]
async fn patches_asked_for_come_first() {
    let repo = Repo::new();
    let codestreams = [("15.6u1", "6.4.0-1"), ("15.7u1", "6.4.0-7")];
    let mut request = request(&codestreams);
    request.add_patches = vec!["patches.suse/base.patch".parse().unwrap()];
    let source = KernelSource::open(&repo.path()).unwrap();
    let outcome = scan(&source, &request, Arc::new(NoSources), &CancellationToken::new())
        .await
        .unwrap();
    let patches: Vec<_> = outcome.report.products["15.6"]
        .patches
        .iter()
        .map(|p| (p.path.as_str(), p.added))
        .collect();
    assert_eq!(
        patches,
        [
            ("patches.suse/base.patch", true),
            ("patches.suse/zz-toy-prepare.patch", false),
            ("patches.suse/aa-toy-check.patch", false),
        ]
    );
    // One that is no fix of this CVE makes nothing affected.
    assert_eq!(status(&outcome, "15.7u1"), (None, &Status::NotAffected));
    assert!(outcome.report.proposals.is_empty());
    assert!(
        outcome
            .report
            .problems
            .iter()
            .any(|p| p.contains("15.6u1: no tree of it is here"))
    );
}

#[tokio::test]
async fn nothing_that_the_repository_is_configured_with_is_run() {
    let repo = Repo::new();
    let trap = repo.path().join("trapped");
    let touch = format!("touch {}", trap.display());
    for (key, value) in [
        ("core.fsmonitor", touch.as_str()),
        ("core.pager", &touch),
        ("pager.grep", &touch),
        ("diff.external", &touch),
        ("diff.toy.textconv", &touch),
        ("core.sshCommand", &touch),
        ("grep.patternType", "perl"),
        ("grep.column", "true"),
    ] {
        repo.git(&["config", key, value]);
    }
    std::fs::write(repo.path().join(".git/info/attributes"), "*.patch diff=toy\n").unwrap();
    let outcome = scanned(&repo, &[("15.6u1", "6.4.0-1")]).await;
    assert_eq!(required(&outcome, "15.6u1").len(), 2);
    assert!(!trap.exists());
}

#[tokio::test]
async fn names_that_could_be_options_reach_no_git() {
    let repo = Repo::new();
    for kernel in ["--output=x", "6.4 x", "a..b", "x\ny", ""] {
        let outcome = scanned(&repo, &[("15.6u1", kernel)]).await;
        assert!(
            matches!(status(&outcome, "15.6u1").1, Status::Unknown { .. }),
            "{kernel:?}"
        );
    }
}

#[tokio::test]
async fn what_is_no_repository_is_refused_and_a_scan_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let error = KernelSource::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("KLP_KERNEL_SOURCE"), "{error}");
    let repo = Repo::new();
    let source = KernelSource::open(&repo.path().join(".git")).unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let ended = scan(
        &source,
        &request(&[("15.6u1", "6.4.0-1")]),
        Arc::new(NoSources),
        &cancel,
    )
    .await;
    assert!(matches!(ended, Err(ScanError::Cancelled)), "{ended:?}");
}
