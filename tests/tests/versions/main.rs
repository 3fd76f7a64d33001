//! Programs of other versions: whoever has no protocol in common is told so, goes on trying, and is told what to upgrade; who
//! says nothing is of the first version. What needs a former version's programs is tried by `deploy/try-upgrade.sh`.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod future;

use std::path::Path;
use std::time::Duration;

use klp_proto::protocol::{SOFTWARE, VERSION_HEADER};
use klp_proto::v1;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use klp_tests::{Farm, Manager, Proc, command_on, wait_until};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use future::Future;

const PATIENCE: Duration = Duration::from_secs(20);

fn state(version: &str, protocol: Option<(u32, u32)>) -> v1::WorkerState {
    v1::WorkerState {
        worker: "other".to_owned(),
        incarnation: Uuid::now_v7().to_string(),
        version: version.to_owned(),
        slots: 1,
        protocol: protocol.map(|(oldest, newest)| v1::Protocol { oldest, newest }),
        ..Default::default()
    }
}

/// A session that stays open as long as this is kept.
type Open = mpsc::Sender<v1::WorkerState>;

/// Opens a session; answers the coordinator's first word.
async fn session(farm: &Farm, state: v1::WorkerState) -> (Open, Result<v1::FarmState, Status>) {
    let mut client = WorkerServiceClient::connect(farm.url.clone()).await.unwrap();
    let (states, receiver) = mpsc::channel(1);
    states.send(state).await.unwrap();
    let mut answers = client
        .session(ReceiverStream::new(receiver))
        .await
        .unwrap()
        .into_inner();
    let word = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap();
    // Lest the session end with what hears it.
    tokio::spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
    (states, word.map(|word| word.expect("a word")))
}

fn workers(farm: &Farm) -> serde_json::Value {
    farm.cli(["workers", "--output", "json"]).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_protocol_in_common_is_refused_and_told_what_to_upgrade() {
    let farm = Farm::start();
    for (version, protocol, behind) in [("9.9.9", (99, 99), "coordinator"), ("0.0.1", (0, 0), "worker")] {
        let (_open, word) = session(&farm, state(version, Some(protocol))).await;
        let status = word.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        for part in [
            format!("the coordinator ({SOFTWARE}) speaks version 1"),
            format!("worker `other` ({version}) version {}", protocol.0),
            format!("Upgrade the {behind}"),
        ] {
            assert!(status.message().contains(&part), "{part:?} in {:?}", status.message());
        }
    }
    let (_open, word) = session(&farm, state("9.9.9", Some((2, 1)))).await;
    let status = word.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    // Of a future version anything may mean something else; so nothing else was read, and nothing stored.
    let unread = v1::WorkerState {
        slots: u32::MAX,
        version: "9".repeat(100_000),
        ..state("", Some((99, 99)))
    };
    let (_open, word) = session(&farm, unread).await;
    let status = word.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert_eq!(workers(&farm), serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_says_no_protocol_is_welcome_as_one_of_the_first_version_and_marked_where_its_version_differs() {
    let farm = Farm::with_settings("http_listen = \"127.0.0.1:0\"\n");
    for (version, protocol, skew, mark) in [
        ("0.0.1", None, "older", Some("older than the coordinator")),
        ("7.0.0", Some((1, 99)), "too_new", Some("upgrade the coordinator")),
        (SOFTWARE, Some((1, 1)), "same", None),
    ] {
        let (_open, word) = session(&farm, state(version, protocol)).await;
        let word = word.unwrap();
        assert_eq!((word.protocol, word.version.as_str()), (1, SOFTWARE), "{word:?}");
        let told = &workers(&farm)[0];
        assert_eq!(told["connected"], true, "{told}");
        assert_eq!(
            (&told["protocol"], &told["version"]),
            (&1.into(), &version.into()),
            "{told}"
        );
        assert_eq!(told["skew"], skew, "{told}");
        let table = farm.cli(["workers"]).stdout;
        let get = |path: &str| {
            let url = format!("{}{path}", farm.http.as_deref().unwrap());
            let request = ureq::get(&url).header("cache-control", "no-cache");
            request.call().unwrap().body_mut().read_to_string().unwrap()
        };
        let page = wait_until(PATIENCE, "the page tells it", || {
            Some(get("/workers")).filter(|page| page.contains(&format!("version {version}, protocol 1")))
        });
        match mark {
            Some(mark) => {
                assert!(
                    table.contains(mark) && table.contains(&format!("({SOFTWARE})")),
                    "{table}"
                );
                assert!(page.contains(mark), "{page}");
            }
            None => assert!(
                !table.contains("coordinator") && !page.contains("the coordinator"),
                "{table}{page}"
            ),
        }
        let counted = format!("klp_farm_connected_workers_by_skew{{skew=\"{skew}\"}} 1");
        wait_until(PATIENCE, "the worker is counted", || {
            get("/metrics").contains(&counted).then_some(())
        });
    }
    wait_until(PATIENCE, "the session's end is noticed", || {
        (workers(&farm)[0]["connected"] == false).then_some(())
    });
    let told = &workers(&farm)[0];
    assert_eq!(
        (&told["protocol"], &told["skew"]),
        (&serde_json::Value::Null, &"same".into()),
        "{told}"
    );
}

fn worker(coordinator: &str, manager: &Manager, folder: &Path) -> Proc {
    let mut command = command_on(None, "klp-worker");
    command.args([
        "--coordinator",
        coordinator,
        "--name",
        "w",
        "--isolation",
        "none",
        "--grace",
        "0",
    ]);
    command.arg("--data-dir").arg(folder.join("w"));
    command.arg("--trees").arg(folder.join("trees"));
    manager.manages(&mut command, Duration::from_secs(60));
    Proc::start_as("w", command, folder)
}

#[test]
fn a_worker_takes_nothing_from_a_coordinator_it_can_t_talk_to_and_says_so_until_that_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let manager = Manager::new(folder.path());
    let future = Future::start();
    let mut worker = worker(&future.url, &manager, folder.path());
    // Refused first, then spoken to in a version of the future. The pauses between are long.
    let ready = manager.hears("READY=1");
    assert!(ready.contains("Upgrade this worker at last"), "{ready}");
    let said = manager.hears("speaks version 99");
    assert!(
        said.contains("the coordinator (99.0.0) speaks version 99")
            && said.contains(&format!("worker `w` ({SOFTWARE}) version 1. Upgrade the worker"))
            && said.contains("will keep trying"),
        "{said}"
    );
    assert!(
        worker.log().contains("can't talk; will keep trying"),
        "{}",
        worker.log()
    );
    assert!(!worker.log().contains("session: connected"), "{}", worker.log());
    // What came with it was neither begun nor answered.
    assert_eq!(future.calls(), 0, "{}", worker.log());

    let address = future.url.trim_start_matches("http://").to_owned();
    drop(future);
    let mut command = command_on(None, "klp-coordinator");
    command.args(["--insecure", "--listen", &address, "--data-dir"]);
    command.arg(folder.path().join("coordinator"));
    let _coordinator = Proc::start_as("coordinator", command, folder.path());
    manager.hears("STATUS=connected to");
    assert!(worker.log().contains("session: connected"), "{}", worker.log());
    assert!(worker.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_coordinator_has_not_got_is_told_with_its_version_and_what_to_upgrade() {
    let farm = Farm::start();
    let mut client = tonic::client::Grpc::new(Channel::from_shared(farm.url.clone()).unwrap().connect().await.unwrap());
    client.ready().await.unwrap();
    let path = "/klpfarm.v1.LivepatchService/Destroy".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<v1::ListWorkersRequest, v1::ListWorkersResponse>::default();
    let asked = client.unary(Request::new(v1::ListWorkersRequest {}), path, codec).await;
    let status = asked.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(
        status.message().ends_with("/klpfarm.v1.LivepatchService/Destroy"),
        "{status:?}"
    );
    assert_eq!(status.metadata().get(VERSION_HEADER).unwrap(), SOFTWARE);

    for (version, said) in [
        (
            Some("0.0.1"),
            format!(
                "the coordinator (0.0.1) is older than this klp-farm ({SOFTWARE}) and does not know `ListWorkers`; upgrade it"
            ),
        ),
        (
            Some("99.0.0"),
            format!(
                "the coordinator (99.0.0) is newer than this klp-farm ({SOFTWARE}) and does not know `ListWorkers`; upgrade klp-farm"
            ),
        ),
        (
            None,
            format!(
                "the coordinator is older than this klp-farm ({SOFTWARE}) and does not know what this command asks for; upgrade it"
            ),
        ),
    ] {
        let other = Farm::at(future::without_methods(version).await);
        let told = other.cli(["workers"]);
        assert_eq!(told.code, Some(1), "{told:?}");
        assert!(told.stderr.contains(&said), "{said:?} in {told:?}");
    }
}
