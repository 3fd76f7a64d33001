//! A whole farm under mutual TLS, on hosts of their own: it does the main job on real kernels, changes its certificates while
//! it does, and puts out whom it is told to.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use klp_tests::{Farm, Identity, Net, SUBMIT, WorkerOptions, command_on, trees, wait_until};
use serde_json::Value;

fn away(trees: &Path) -> WorkerOptions<'_> {
    WorkerOptions {
        trees,
        codestreams: "debian12-6.1",
        slots: 2,
        ..WorkerOptions::default()
    }
}

fn certificates(farm: &Farm) -> usize {
    let listed = farm.cli(["certificates", "--output", "json"]).json();
    listed.as_array().unwrap().len()
}

#[test]
fn a_farm_with_identities_does_its_job_while_its_certificates_change() {
    let Some(net) = Net::new() else { return };
    let Some(trees) = trees() else { return };
    // The worker renews its own some seconds after it came, and again and again.
    let mut farm = Farm::start_on(Some(&net), "worker_certificate_ms = 9000\nlease_ms = 20000\n");
    farm.add_worker_on(Some(&net.away), away(&trees));
    let changed_meanwhile = (0..5).any(|n| {
        let name = if n == 0 { "lp".to_owned() } else { format!("lp{n}") };
        let submitted = farm.cli(SUBMIT.map(|arg| if arg == "lp" { name.as_str() } else { arg }));
        assert_eq!(submitted.code, Some(0), "{submitted:?}");
        farm.wait_until_extracting(&name);
        let before = certificates(&farm);
        Identity::rotate_server(Some(&net.here), farm.dir.path());
        wait_until(
            Duration::from_secs(60),
            "the worker has renewed its certificate",
            || (certificates(&farm) > before).then_some(()),
        );
        let extracts = |t: &Value| t["kind"] == "extract" && t["state"] == "running";
        let meanwhile = farm.tasks(&name).iter().any(extracts);
        farm.ends_in_success(&name);
        // Nobody lost anything: each attempt is the first of its task.
        let tasks = farm.tasks(&name);
        assert!(tasks.iter().all(|t| t["attempt"] == 1), "{tasks:?}");
        meanwhile
    });
    assert!(
        changed_meanwhile,
        "no extraction ran when the certificate was renewed, five times"
    );
    assert!(
        farm.workers[0].log().contains("certificate is renewed"),
        "{}",
        farm.workers[0].log()
    );
    let workers = farm.cli(["workers", "--output", "json"]).json();
    assert_eq!(workers[0]["connected"], true, "{workers}");
    let got = farm.cli(["get", "lp", "-o", farm.out().to_str().unwrap()]);
    assert_eq!(got.code, Some(0), "{got:?}");
    farm.is_sound("lp");

    let put_out = farm.cli(["revoke", "a"]);
    assert_eq!(put_out.code, Some(0), "{put_out:?}");
    let ended = farm.workers[0].wait();
    assert!(!ended.success());
    assert!(farm.workers[0].log().contains("revoked"), "{}", farm.workers[0].log());
    let entries = farm.cli(["audit", "--output", "json"]).json();
    let methods: Vec<&str> = entries
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|e| e["method"].as_str())
        .collect();
    for method in [
        "AccessService/RevokeWorker",
        "AccessService/RenewCertificate",
        "LivepatchService/Submit",
        "AccessService/Enroll",
        "AccessService/CreateEnrollment",
    ] {
        assert!(methods.contains(&method), "{method} in {methods:?}");
    }
}

#[test]
fn a_farm_replaces_its_ca_while_it_works_and_nobody_is_refused() {
    let Some(net) = Net::new() else { return };
    let Some(trees) = trees() else { return };
    let mut farm = Farm::start_on(Some(&net), "lease_ms = 20000\n");
    let slots = 1;
    farm.add_worker_on(Some(&net.away), WorkerOptions { slots, ..away(&trees) });
    let papers = |name: &str, from: &Path| {
        let folder = farm.dir.path().join(name).join("tls");
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["ca.pem", "worker.pem"] {
            std::fs::copy(from.join(file), folder.join(file)).unwrap();
        }
        folder
    };
    let own = farm.dir.path().join("a/tls");
    let before = papers("before", &own);
    let signed = |name: &str| {
        let out = farm.out().join(name);
        let got = farm.cli(["get", name, "-o", out.to_str().unwrap()]);
        assert_eq!(got.code, Some(0), "{got:?}");
        out
    };
    let submitted = farm.cli(SUBMIT.into_iter().chain(["--wait"]));
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    let signed_before = signed("lp");
    let names: Vec<String> = (0..4).map(|n| format!("lp{n}")).collect();
    for name in &names {
        let submitted = farm.cli(SUBMIT.map(|arg| if arg == "lp" { name.as_str() } else { arg }));
        assert_eq!(submitted.code, Some(0), "{submitted:?}");
    }
    let extracts = |t: &Value| t["kind"] == "extract" && t["state"] == "running";
    let ca = |farm: &Farm| farm.cli(["certificates", "--output", "json"]).json()[0]["ca_sha256"].clone();
    let former = ca(&farm);
    let mut issuers = Vec::new();
    for step in ["trust", "issue", "retire"] {
        wait_until(Duration::from_secs(60), "an extraction runs", || {
            names
                .iter()
                .any(|name| farm.tasks(name).iter().any(extracts))
                .then_some(())
        });
        let known = certificates(&farm);
        let taken = Identity::rotate_ca(Some(&net.here), farm.dir.path(), step);
        issuers.push(taken["issuer_sha256"].clone());
        wait_until(
            Duration::from_secs(30),
            "the worker has fetched what it is to trust",
            || (certificates(&farm) > known).then_some(()),
        );
        wait_until(Duration::from_secs(10), "and has it on its disk", || {
            let trusts = std::fs::read_to_string(own.join("ca.pem")).unwrap();
            (trusts.matches("BEGIN").count() == taken["trusted_sha256"].as_array().unwrap().len()).then_some(())
        });
        assert_eq!(ca(&farm), taken["issuer_sha256"], "{step}");
        // What people are given.
        let told = farm.cli(["ca"]).stdout;
        assert_eq!(told, std::fs::read_to_string(own.join("ca.pem")).unwrap(), "{step}");
    }
    assert!(
        issuers[0] == former && issuers[1] != former && issuers[2] == issuers[1],
        "{issuers:?}"
    );
    for name in &names {
        farm.ends_in_success(name);
        let tasks = farm.tasks(name);
        assert!(tasks.iter().all(|t| t["attempt"] == 1), "{tasks:?}");
        farm.is_sound(name);
    }
    let log = farm.workers[0].log();
    assert_eq!(log.matches("the farm's CAs have changed").count(), 3, "{log}");
    for bad in ["not connected", "can't be renewed", "can't deliver"] {
        assert!(!log.contains(bad), "{bad}: {log}");
    }

    // What was signed is verified by the CA that was there then.
    let tls = farm.dir.path().join("coordinator/tls");
    let all = farm.dir.path().join("ca-all.pem");
    let read = |name: &str| std::fs::read_to_string(tls.join(name)).unwrap();
    std::fs::write(&all, read("ca.pem") + &read("ca-former.pem")).unwrap();
    let signed_after = signed("lp0");
    for (folder, ca, code) in [
        (&signed_before, tls.join("ca.pem"), 1),
        (&signed_before, tls.join("ca-former.pem"), 0),
        (&signed_before, all.clone(), 0),
        (&signed_after, tls.join("ca.pem"), 0),
        (&signed_after, all, 0),
    ] {
        let verified = farm.cli([
            "verify-provenance".as_ref(),
            folder.as_os_str(),
            "--ca".as_ref(),
            ca.as_os_str(),
        ]);
        assert_eq!(verified.code, Some(code), "{folder:?} by {ca:?}: {verified:?}");
    }

    // Who missed it is told so: by TLS, that it does not know the coordinator, and by the coordinator, that it is not known.
    let url = farm.url.as_str();
    let comes_back = |dir: &Path| {
        let mut command = command_on(Some(&net.away), "klp-worker");
        command
            .args([
                "--coordinator",
                url,
                "--grace",
                "0",
                "--trees",
                "/nowhere",
                "--data-dir",
            ])
            .arg(dir);
        klp_tests::Proc::start_as("late", command, farm.dir.path())
    };
    let mut late = comes_back(before.parent().unwrap());
    wait_until(Duration::from_secs(20), "it says why it can't connect", || {
        late.log()
            .contains("not issued by the CA that is trusted here")
            .then_some(())
    });
    late.kill();
    std::fs::copy(own.join("ca.pem"), before.join("ca.pem")).unwrap();
    let mut late = comes_back(before.parent().unwrap());
    assert!(!late.wait().success());
    let log = late.log();
    assert!(
        log.contains("was issued by a CA that this farm has replaced") && log.contains("klp-farm enroll a"),
        "{log}"
    );
}

/// `klp-farm list` from the other host, as somebody who is not let in.
fn asks(net: &Net, farm: &Farm, url: &str, set: &[(&str, &str)]) -> Output {
    let mut command = command_on(Some(&net.away), "klp-farm");
    command
        .args(["--coordinator", url, "list"])
        .current_dir(farm.dir.path());
    command
        .env_remove("KLP_FARM_TOKEN")
        .env_remove("KLP_FARM_CA")
        .envs(set.iter().copied());
    command.output().unwrap()
}

#[test]
fn people_who_are_not_let_in_are_told_what_to_do() {
    let Some(net) = Net::new() else { return };
    let farm = Farm::start_on(Some(&net), "");
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("coordinator.toml"), "").unwrap();
    let stranger = Identity::make(None, other.path());
    let own = farm.identity.as_ref().unwrap();
    let (ca, wrong_ca) = (own.ca.to_str().unwrap(), stranger.ca.to_str().unwrap());
    let created = farm
        .cli(["token", "create", "wall", "--role", "viewer", "--output", "json"])
        .json();
    let viewer = created["token"].as_str().unwrap();
    let plain = farm.url.replace("https://", "http://");
    let told = |url: &str, set: &[(&str, &str)], said: &str| {
        let output = asks(&net, &farm, url, set);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}: {error}");
        assert!(error.contains(said), "{said}: {error}");
        assert!(!error.contains(&viewer[22..]), "{error}");
    };
    let url = farm.url.as_str();
    told(&plain, &[], "TLS only");
    told(url, &[], "--ca");
    told(url, &[("KLP_FARM_CA", wrong_ca)], "not issued by the CA");
    told(url, &[("KLP_FARM_CA", ca)], "klp-farm token create");
    told(
        url,
        &[("KLP_FARM_CA", ca), ("KLP_FARM_TOKEN", &stranger.admin)],
        "doesn't know this token",
    );
    told(
        url,
        &[("KLP_FARM_CA", ca), ("KLP_FARM_TOKEN", "klpf_12")],
        "this is no token",
    );
    let let_in = asks(&net, &farm, url, &[("KLP_FARM_CA", ca), ("KLP_FARM_TOKEN", viewer)]);
    assert_eq!(let_in.status.code(), Some(0), "{let_in:?}");

    // A token in a file, which may only look.
    let file = farm.dir.path().join("token");
    std::fs::write(&file, format!("{viewer}\n")).unwrap();
    let mut command = command_on(Some(&net.away), "klp-farm");
    command
        .args(["--coordinator", url, "--ca", ca, "--token-file"])
        .arg(&file)
        .args(["drain", "a", "--reason", "x"]);
    let output = command.env_remove("KLP_FARM_TOKEN").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    for part in ["needs the role operator", "wall is viewer"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // Once revoked, it is nobody's.
    let id = created["about"]["id"].as_str().unwrap();
    assert_eq!(farm.cli(["token", "revoke", id]).code, Some(0));
    told(
        url,
        &[("KLP_FARM_CA", ca), ("KLP_FARM_TOKEN", viewer)],
        "was revoked at",
    );
    let listed = farm.cli(["token", "list", "--output", "json"]);
    assert!(
        listed
            .json()
            .as_array()
            .unwrap()
            .iter()
            .any(|t| t["id"] == id && t["revoked_ms"].is_i64())
    );
    assert!(!listed.stdout.contains(&viewer[22..]));
}

#[test]
fn workers_that_are_not_let_in_are_told_what_to_do() {
    let Some(net) = Net::new() else { return };
    let farm = Farm::start_on(Some(&net), "");
    let data_dir = farm.dir.path().join("w");
    let worker = |args: &[&str], token: &str| {
        let mut command = command_on(Some(&net.away), "klp-worker");
        command
            .args(args)
            .arg("--data-dir")
            .arg(&data_dir)
            .env("KLP_FARM_TOKEN", token);
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let url = farm.url.as_str();
    let (code, error) = worker(&["--coordinator", url], "");
    assert!(code == Some(1) && error.contains("klp-farm enroll NAME"), "{error}");
    let printed = farm.cli(["enroll", "w", "--output", "json"]).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (token, print) = (text(&printed["token"]), text(&printed["ca_sha256"]));
    let wrong = "0".repeat(64);
    let (code, error) = worker(&["enroll", "--coordinator", url, "--ca-sha256", &wrong], &token);
    assert!(code == Some(1) && error.contains("not issued by the CA"), "{error}");
    let (code, error) = worker(&["enroll", "--coordinator", url, "--ca-sha256", &print], "");
    assert!(code == Some(1) && error.contains("KLP_FARM_TOKEN"), "{error}");
    let (code, error) = worker(&["enroll", "--coordinator", url, "--ca-sha256", &print], &token);
    assert!(code == Some(0), "{error}");
    let (code, error) = worker(&["enroll", "--coordinator", url, "--ca-sha256", &print], &token);
    assert!(
        code == Some(1) && error.contains("was used or revoked") && !error.contains(&token[22..]),
        "{error}"
    );
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(data_dir.join("tls/worker.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, error) = worker(&["--coordinator", url, "--name", "other"], "");
    assert!(code == Some(1) && error.contains("that of worker `w`"), "{error}");
    farm.cli(["revoke", "w"]);
    let (code, error) = worker(&["--coordinator", url, "--grace", "0"], "");
    assert!(
        code == Some(1) && error.contains("was revoked at") && error.contains("klp-farm enroll w"),
        "{error}"
    );
}
