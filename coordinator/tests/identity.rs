//! Who is let in and who is not, over real sockets: each refusal says its own reason, and what was let in can be put out.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::time::Duration;

use klp_identity::authority::{self, Span};
use klp_identity::{Authority, Role};
use klp_proto::v1;
use support::secure::{Called, Secure};
use support::{by_name, soon, spec};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use uuid::Uuid;

fn state(worker: &str) -> v1::WorkerState {
    v1::WorkerState {
        worker: worker.to_owned(),
        incarnation: Uuid::now_v7().to_string(),
        slots: 1,
        ..Default::default()
    }
}

/// A certificate that this authority made, whose key is the worker's own.
fn certificate(authority: &Authority, worker: &str, (from, until): (i64, i64)) -> String {
    let worker = worker.parse().unwrap();
    let (key, request) = authority::request(&worker).unwrap();
    let issued = authority.worker(&request, &worker, Span::of_ms(from, until).unwrap());
    key + &issued.unwrap().pem
}

const NEVER: i64 = 4_000_000_000_000;

#[tokio::test]
async fn every_method_refuses_every_lesser_role() {
    let farm = Secure::start("").await;
    let mut callers = Vec::new();
    for role in Role::ORDERED {
        let token = farm.token(&format!("a-{role}"), role).await;
        callers.push((Some(role), farm.with_token(&token)));
    }
    let worker = farm.enroll("w1").await;
    callers.push((Some(Role::Worker), farm.with_certificate(&worker).await));
    callers.push((None, farm.anonymous()));
    for (path, needs) in klp_coordinator::methods::GRPC {
        for (role, caller) in &callers {
            let (code, message) = soon(path, caller.call(path)).await;
            let needed = match needs {
                klp_coordinator::methods::Needs::Nothing => None,
                klp_coordinator::methods::Needs::Role(needed) => Some(*needed),
            };
            let shut_out = |code| matches!(code, Code::PermissionDenied | Code::Unauthenticated);
            match (needed, role) {
                // It wants a token of its own, which is not here.
                (None, _) => assert_ne!(code, Code::PermissionDenied, "{path} for {role:?}: {message}"),
                (Some(_), None) => assert_eq!(code, Code::Unauthenticated, "{path}: {message}"),
                (Some(needed), Some(role)) if role.covers(needed) => {
                    // An empty request names no worker, so what the role does not refuse may still be nonsense.
                    assert!(!shut_out(code), "{path} for {role}: {message}");
                }
                (Some(Role::Worker), Some(role)) => {
                    assert_eq!(code, Code::PermissionDenied, "{path} for {role}: {message}");
                    assert!(
                        message.contains("is for workers") && message.contains(role.as_str()),
                        "{message}"
                    );
                }
                (Some(needed), Some(role)) => {
                    assert_eq!(code, Code::PermissionDenied, "{path} for {role}: {message}");
                    let name = if *role == Role::Worker {
                        "worker w1".to_owned()
                    } else {
                        format!("a-{role}")
                    };
                    for part in [needed.as_str(), role.as_str(), name.as_str()] {
                        assert!(message.contains(part), "{path} for {role}: {message}");
                    }
                }
            }
        }
    }
    let (code, _) = farm.anonymous().call("/klpfarm.v1.LivepatchService/Destroy").await;
    assert_eq!(code, Code::Unauthenticated);
    let (code, _) = callers[3].1.call("/klpfarm.v1.LivepatchService/Destroy").await;
    assert_eq!(code, Code::Unimplemented);
}

#[tokio::test]
async fn who_is_refused_is_told_why() {
    let farm = Secure::start("").await;
    let path = "/klpfarm.v1.LivepatchService/List";
    let session = "/klpfarm.v1.WorkerService/Session";
    let refused = async |caller: Called, path: &str, said: &str| {
        let (code, message) = soon(said, caller.call(path)).await;
        assert_eq!(code, Code::Unauthenticated, "{message}");
        assert!(message.contains(said), "{message}");
    };
    refused(farm.plaintext(), path, "TLS only").await;
    refused(farm.anonymous(), path, "klp-farm token create").await;

    // Tokens.
    refused(farm.with_header("Basic amFuZQ=="), path, "must be `Bearer`").await;
    refused(farm.with_header("Bearer klpf_0_1"), path, "this is no token").await;
    let (short, other) = (
        farm.token("short", Role::Viewer).await,
        klp_identity::Token::new(klp_identity::Kind::Access),
    );
    refused(
        farm.with_token(&other.unwrap().reveal()),
        path,
        "doesn't know this token",
    )
    .await;
    let forged = format!("{}{}", &short[..22], "0".repeat(64));
    refused(farm.with_token(&forged), path, "doesn't know this token").await;
    let enrollment = farm.enrollment("w9").await;
    refused(farm.with_token(&enrollment), path, "only lets a worker in").await;
    let brief = farm.token_until("brief", Role::Viewer, farm.now() + 400).await;
    assert_eq!(farm.with_token(&brief).call(path).await.0, Code::Ok);
    tokio::time::sleep(Duration::from_millis(500)).await;
    refused(farm.with_token(&brief), path, "the token of `brief` expired at").await;
    farm.revoke_token(&short).await;
    refused(farm.with_token(&short), path, "the token of `short` was revoked at").await;

    // Certificates.
    let own = farm.authority();
    let (stranger, _) = Authority::new("another farm", Span::of_ms(0, NEVER).unwrap()).unwrap();
    for (certificate, said) in [
        (
            certificate(&stranger, "w1", (0, NEVER)),
            "was not issued by this farm's CA",
        ),
        (
            certificate(&own, "w1", (0, 1_000_000)),
            "the certificate of worker `w1` expired at 1970-01-01",
        ),
        (
            certificate(&own, "w1", (NEVER - 1_000_000, NEVER)),
            "is valid only from",
        ),
        (
            certificate(&own, "w1", (0, NEVER)),
            "is not among those that this coordinator gave",
        ),
    ] {
        refused(farm.with_certificate(&certificate).await, session, said).await;
    }
    let known = farm.enroll("w1").await;
    assert_eq!(farm.with_certificate(&known).await.call(session).await.0, Code::Ok);
    let again = farm.enroll("w1").await;
    refused(farm.with_certificate(&known).await, session, "was revoked at").await;
    farm.revoke_worker("w1").await;
    refused(farm.with_certificate(&again).await, session, "klp-farm enroll w1").await;
}

#[tokio::test]
async fn an_enrollment_lets_one_worker_in_once() {
    let farm = Secure::start("").await;
    let token = farm.enrollment("w1").await;
    farm.enroll_with(&token, "w1").await.unwrap();
    let twice = farm.enroll_with(&token, "w1").await.unwrap_err();
    assert_eq!(twice.code(), Code::Unauthenticated);
    assert!(twice.message().contains("was used or revoked"), "{twice:?}");
    let never = farm.enrollment_for("w2", 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let late = farm.enroll_with(&never, "w2").await.unwrap_err();
    assert!(late.message().contains("has expired"), "{late:?}");
    let access = farm.token("x", Role::Admin).await;
    let wrong = farm.enroll_with(&access, "w2").await.unwrap_err();
    assert!(wrong.message().contains("no enrollment token"), "{wrong:?}");
    let taken_back = farm.enrollment("w3").await;
    farm.revoke_worker("w3").await;
    assert!(farm.enroll_with(&taken_back, "w3").await.is_err());
}

#[tokio::test]
async fn a_worker_speaks_for_itself_alone_and_is_put_out_at_once() {
    let farm = Secure::start("").await;
    let worker = farm.with_certificate(&farm.enroll("w1").await).await;
    let speak = async |name: &str| {
        let (states, receiver) = mpsc::channel(4);
        states.send(state(name)).await.unwrap();
        let answers = worker.workers().session(ReceiverStream::new(receiver)).await.unwrap();
        (states, answers.into_inner())
    };
    let (_states, mut answers) = speak("w2").await;
    let status = soon("a refusal", answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("`w1`") && status.message().contains("`w2`"),
        "{status:?}"
    );
    let commit = v1::CommitRequest {
        attempt: Some(v1::Attempt {
            task_id: Uuid::now_v7().to_string(),
            number: 1,
        }),
        worker: "w2".to_owned(),
        incarnation: Uuid::now_v7().to_string(),
        ending: Some(v1::commit_request::Ending::HandedBack("for a test".to_owned())),
        ..Default::default()
    };
    let status = worker.workers().commit(commit).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");

    let (_states, mut answers) = speak("w1").await;
    soon("orders", answers.message()).await.unwrap().unwrap();
    farm.revoke_worker("w1").await;
    let status = loop {
        match soon("the end of the session", answers.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the session ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert!(status.message().contains("revoked"), "{status:?}");
    soon("the worker is gone", async {
        while farm.admin().list_workers().await.iter().any(|worker| worker.connected) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_token_has_open_is_closed_with_it() {
    let farm = Secure::start("").await;
    let submitter = farm.with_token(&farm.token("jane", Role::Submitter).await);
    farm.known_tree().await;
    submitter.submit(spec("lp")).await.unwrap();
    let viewer = farm.token("wall", Role::Viewer).await;
    let watching = v1::WatchRequest {
        livepatch: by_name("lp"),
        after_event: 0,
    };
    let watched = farm.with_token(&viewer).livepatches().watch(watching.clone()).await;
    let mut events = watched.unwrap().into_inner();
    soon("the first event", events.message()).await.unwrap().unwrap();
    let brief = farm.token_until("brief", Role::Viewer, farm.now() + 700).await;
    let mut others = farm
        .with_token(&brief)
        .livepatches()
        .watch(watching)
        .await
        .unwrap()
        .into_inner();
    farm.revoke_token(&viewer).await;
    let ended = soon("the end of the watch", events.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    let expired = loop {
        match soon("the end of its time", others.message()).await {
            Ok(event) => assert!(event.is_some()),
            Err(status) => break status,
        }
    };
    assert!(expired.message().contains("expired"), "{expired:?}");
}

#[tokio::test]
async fn who_did_what_is_recorded_and_so_is_who_might_not() {
    let farm = Secure::start("").await;
    farm.known_tree().await;
    let jane = farm.with_token(&farm.token("jane", Role::Submitter).await);
    jane.submit(spec("lp")).await.unwrap();
    let cancel = v1::CancelRequest {
        livepatch: by_name("lp"),
        ..Default::default()
    };
    jane.livepatches().cancel(cancel).await.unwrap();
    let pause = v1::PauseRequest {
        livepatch: by_name("lp"),
        ..Default::default()
    };
    jane.livepatches().pause(pause).await.unwrap_err();
    let (code, _) = jane.call("/klpfarm.v1.FleetService/Drain").await;
    assert_eq!(code, Code::PermissionDenied);
    let entries = soon("all entries", async {
        loop {
            let entries = farm.audit().await;
            let of_jane: Vec<_> = entries.into_iter().filter(|e| e.caller == "jane").collect();
            if of_jane.len() >= 4 {
                return of_jane;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let told: Vec<_> = entries
        .iter()
        .rev()
        .map(|e| (e.method.as_str(), e.object.as_str()))
        .collect();
    assert_eq!(told[0], ("LivepatchService/Submit", "livepatch lp"));
    assert_eq!(told[1], ("LivepatchService/Cancel", "livepatch lp"));
    assert_eq!((told[2].0, told[3].0), ("LivepatchService/Pause", "refused"));
    assert_eq!(
        (entries[3].outcome.as_str(), entries[3].role.as_str()),
        ("done", "submitter")
    );
    assert!(
        entries[1].outcome.contains("refused: `lp` has ended"),
        "{:?}",
        entries[1]
    );
    assert!(
        entries[0].object.contains("FleetService/Drain") && entries[0].address == "127.0.0.1",
        "{:?}",
        entries[0]
    );
}

#[tokio::test]
async fn who_asks_or_fails_too_often_has_to_wait() {
    let farm = Secure::start("requests_per_second = 1\nrequests_burst = 5\nauth_failures_per_minute = 3\n").await;
    let path = "/klpfarm.v1.LivepatchService/List";
    let eager = farm.with_token(&farm.token("eager", Role::Viewer).await);
    let mut codes = Vec::new();
    for _ in 0..7 {
        codes.push(eager.call(path).await);
    }
    assert_eq!(codes[0].0, Code::Ok);
    let (code, message) = &codes[6];
    assert_eq!(*code, Code::ResourceExhausted);
    assert!(message.contains("eager") && message.contains("wait"), "{message}");
    // One caller's haste is nobody else's.
    let calm = farm.with_token(&farm.token("calm", Role::Viewer).await);
    assert_eq!(calm.call(path).await.0, Code::Ok);

    let forged = format!("klpf_{}_{}", "0".repeat(16), "0".repeat(64));
    let mut last = (Code::Ok, String::new());
    for _ in 0..5 {
        last = farm.with_token(&forged).call(path).await;
    }
    assert_eq!(last.0, Code::ResourceExhausted, "{}", last.1);
    // Whatever it says now: nobody looks at it.
    assert_eq!(calm.call(path).await.0, Code::ResourceExhausted);
}

#[tokio::test]
async fn a_renewed_certificate_of_the_coordinator_is_taken_without_a_restart() {
    let farm = Secure::start("").await;
    let before = farm.admin();
    let shown = farm.shown_certificate().await;
    let made = klp_coordinator::admin::init::rotate_server(&farm.config, &["other.example".to_owned()]).unwrap();
    assert!(made.names.contains(&"127.0.0.1".to_owned()) && made.names.contains(&"other.example".to_owned()));
    soon("the new certificate", async {
        while farm.shown_certificate().await == shown {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    // Who was connected stays so, and who comes anew is served.
    before.list_workers().await;
    farm.admin().list_workers().await;
    // What makes no sense is not taken.
    let server = farm.config.data_dir.join("tls/server.pem");
    std::fs::write(&server, "nonsense").unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    farm.admin().list_workers().await;
}

#[tokio::test]
async fn nobody_is_served_without_identities_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = support::config(dir.path());
    config.insecure = false;
    let error = klp_coordinator::Coordinator::start(config.clone())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("klp-coordinator init") && error.contains("--insecure"),
        "{error}"
    );
    config.insecure = true;
    config.listen = ([0, 0, 0, 0], 0).into();
    let error = klp_coordinator::Coordinator::start(config)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("setting insecure") && error.contains("0.0.0.0"),
        "{error}"
    );
}

#[tokio::test]
async fn strangers_may_look_where_that_was_asked_for() {
    let farm = Secure::start("anonymous = \"viewer\"\n").await;
    let stranger = farm.anonymous();
    assert_eq!(stranger.call("/klpfarm.v1.LivepatchService/List").await.0, Code::Ok);
    for path in [
        "/klpfarm.v1.LivepatchService/Cancel",
        "/klpfarm.v1.WorkerService/Session",
    ] {
        let (code, message) = stranger.call(path).await;
        assert_eq!(code, Code::PermissionDenied, "{message}");
    }
}
