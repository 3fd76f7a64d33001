//! The real binary: its output, its signals, its exit codes, and what survives SIGKILL.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::process::Command;

use klp_proto::v1;
use support::process::{BINARY, Process, announce_a_tree};
use tokio::sync::mpsc;
use uuid::Uuid;

fn submission(n: usize) -> v1::SubmitRequest {
    v1::SubmitRequest {
        id: Uuid::now_v7().to_string(),
        spec: Some(v1::Spec {
            name: format!("lp{n}"),
            targets: vec![v1::Target {
                file: "a.c".into(),
                functions: vec!["f".into()],
                config: "CONFIG_A".into(),
                object: String::new(),
            }],
            ..Default::default()
        }),
        share: None,
        fix_contents: Vec::new(),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_in_the_middle_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path());
    announce_a_tree(&process.url).await;
    let client = process.client().await;
    // Clients submit as fast as they can until the coordinator is killed under them.
    let (acknowledged, mut heard) = mpsc::unbounded_channel();
    let clients: Vec<_> = (0..8)
        .map(|who| {
            let (mut client, acknowledged) = (client.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    let request = submission(who * 1_000_000 + n);
                    if client.submit(request.clone()).await.is_err() {
                        return;
                    }
                    acknowledged.send(request).unwrap();
                }
            })
        })
        .collect();
    drop(acknowledged);
    let mut requests = Vec::new();
    while requests.len() < 100 {
        requests.push(heard.recv().await.unwrap());
    }
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    while let Some(request) = heard.recv().await {
        requests.push(request);
    }
    for client in clients {
        client.await.unwrap();
    }

    let process = Process::start(folder.path());
    let mut client = process.client().await;
    for request in requests {
        let name = request.spec.clone().unwrap().name;
        let livepatch = Some(v1::LivepatchRef {
            r#ref: Some(v1::livepatch_ref::Ref::Id(request.id.clone())),
        });
        let asked = v1::GetRequest {
            livepatch,
            ..Default::default()
        };
        let got = client.get(asked).await.unwrap().into_inner();
        assert_eq!(got.livepatch.unwrap().spec.unwrap().name, name);
        assert_eq!(got.tasks.len(), 1);
        // Sent again by a client that did not hear: the same answer.
        let again = client.submit(request.clone()).await.unwrap().into_inner();
        assert_eq!(again.livepatch.unwrap().id, request.id);
    }
    drop(process);
    let database = rusqlite::Connection::open(folder.path().join("farm.db")).unwrap();
    let sound: String = database
        .pragma_query_value(None, "integrity_check", |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok");
}

#[tokio::test]
async fn sigterm_ends_it_cleanly_even_with_open_streams() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path());
    announce_a_tree(&process.url).await;
    let mut client = process.client().await;
    client.submit(submission(1)).await.unwrap();
    let request = v1::WatchRequest {
        livepatch: Some(v1::LivepatchRef {
            r#ref: Some(v1::livepatch_ref::Ref::Name("lp1".into())),
        }),
        after_event: 0,
    };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let terminated = Command::new("kill")
        .arg(process.child.id().to_string())
        .status()
        .unwrap();
    assert!(terminated.success());
    let status = watch.message().await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    drop((watch, client));
    let exit = tokio::task::spawn_blocking(move || process.child.wait().unwrap())
        .await
        .unwrap();
    assert_eq!(exit.code(), Some(0));
}

#[test]
fn bad_settings_are_named_and_the_exit_code_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let run = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(BINARY).arg("--config").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let error = run("heartbeat_ms = 20000\nfault_limit = 0\n");
    assert!(
        error.contains("heartbeat_ms") && error.contains("fault_limit"),
        "{error}"
    );
    assert!(run("\nlease = 1\n").contains("c.toml, line 2: unknown setting `lease`; did you mean `lease_ms`?"));
}

#[test]
fn the_settings_in_force_can_be_printed_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let print = |args: &[&str]| {
        let output = Command::new(BINARY).args(args).arg("--print-config").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let first = print(&["--listen", "127.0.0.1:1234", "--data-dir", "/x"]);
    assert!(
        first.contains("listen = \"127.0.0.1:1234\"") && first.contains("data_dir = \"/x\""),
        "{first}"
    );
    let file = folder.path().join("c.toml");
    std::fs::write(&file, &first).unwrap();
    assert_eq!(print(&["--config", file.to_str().unwrap()]), first);
}

#[test]
fn a_configuration_is_checked_with_where_each_value_comes_from_and_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("c.toml"), folder.path().join("data"));
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(BINARY);
        command.arg("--check-config").arg("--config").arg(&file);
        command
            .arg("--data-dir")
            .arg(&data)
            .env("KLP_FARM_LISTEN", "127.0.0.1:77");
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, said, _) = check("listen = \"127.0.0.1:1\"\n\nlease_ms = 40000\n[branches]\n\"15.8\" = \"b\"\n");
    assert_eq!(code, Some(0));
    let origin = |setting: &str| {
        let line = said.lines().find(|line| line.starts_with(setting)).unwrap_or(&said);
        line.split_once("  # ").unwrap().1.to_owned()
    };
    assert_eq!(origin("listen = \"127.0.0.1:77\""), "environment: KLP_FARM_LISTEN");
    assert_eq!(origin("data_dir"), "--data-dir");
    assert_eq!(origin("lease_ms = 40000"), format!("{}:3", file.display()));
    assert_eq!(origin("\"15.8\" = \"b\""), format!("{}:5", file.display()));
    assert_eq!(origin("fault_limit"), "default");
    // What can't be used is shown all the same.
    let (code, said, error) = check("heartbeat_ms = 20000\nfault_limit = 0\n");
    assert_eq!(code, Some(1));
    assert!(said.contains("fault_limit = 0"), "{said}");
    assert!(
        error.contains("heartbeat_ms") && error.contains("fault_limit"),
        "{error}"
    );
    assert_eq!(check("fault_limt = 1\n").0, Some(1));
    assert!(!data.exists());
}
