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
