//! `klp-coordinator init` as an operator runs it, and what comes of a backup.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use klp_coordinator::Coordinator;
use klp_coordinator::admin::{Backup, backup};
use klp_identity::Role;
use serde_json::Value;
use support::process::run;
use support::secure::Secure;
use tonic::Code;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn what_init_makes_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let (code, out, _) = run(&dir, &["init", "--name", "farm.example.org", "--output", "json"]).await;
    assert_eq!(code, 0, "{out}");
    let made: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(made["names"][0], "farm.example.org");
    let tls = dir.join("tls");
    for (file, expected) in [
        ("ca.key", 0o600),
        ("server.key", 0o600),
        ("ca.pem", 0o644),
        ("server.pem", 0o644),
    ] {
        assert_eq!(mode(&tls.join(file)), expected, "{file}");
    }
    assert_eq!(mode(&tls), 0o700);
    let ca = std::fs::read(tls.join("ca.pem")).unwrap();
    let (code, _, err) = run(&dir, &["init"]).await;
    assert!(
        code == 2 && err.contains("exists already") && err.contains("--rotate-server"),
        "{err}"
    );
    let server = std::fs::read(tls.join("server.pem")).unwrap();
    let (code, out, _) = run(&dir, &["init", "--rotate-server"]).await;
    assert!(code == 0 && out.contains("certificate for farm.example.org"), "{out}");
    assert_ne!(std::fs::read(tls.join("server.pem")).unwrap(), server);
    assert_eq!(std::fs::read(tls.join("ca.pem")).unwrap(), ca);
    let (code, another, _) = run(&dir, &["init", "--new-token"]).await;
    assert!(code == 0 && another.starts_with("klpf_"), "{another}");
    // The secret is nowhere on the disk.
    let secret = &another.trim()[22..];
    for file in ["farm.db", "farm.db-wal"] {
        let bytes = std::fs::read(dir.join(file)).unwrap_or_default();
        assert!(
            !bytes.windows(secret.len()).any(|window| window == secret.as_bytes()),
            "{file}"
        );
    }
    let (code, _, err) = run(&folder.path().join("none"), &["init", "--rotate-server"]).await;
    assert!(code == 2 && err.contains("there is no CA"), "{err}");
}

#[tokio::test]
async fn a_running_coordinator_keeps_its_data_and_a_backup_lets_in_whom_it_did() {
    let farm = Secure::start("").await;
    let (token, worker) = (farm.token("jane", Role::Viewer).await, farm.enroll("w1").await);
    let (code, _, err) = run(&farm.config.data_dir, &["init", "--new-token"]).await;
    assert!(code == 2 && err.contains("a coordinator uses"), "{err}");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    assert!(matches!(backup(&farm.config, &copy).unwrap(), Backup::Done(_)));
    assert_eq!(mode(&copy.join("tls/ca.key")), 0o600);
    let mut config = farm.config.clone();
    config.data_dir = copy;
    let restored = farm.moved_to(Coordinator::start(config).await.unwrap());
    let list = "/klpfarm.v1.LivepatchService/List";
    assert_eq!(restored.with_token(&token).call(list).await.0, Code::Ok);
    let session = "/klpfarm.v1.WorkerService/Session";
    assert_eq!(restored.with_certificate(&worker).await.call(session).await.0, Code::Ok);
}
