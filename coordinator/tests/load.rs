//! Many clients at once, and a coordinator that is killed under them.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use klp_proto::v1;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use support::process::Process;
use support::steady::{free_address, insist, sound, work};
use support::{by_name, soon, spec};
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

const CLIENTS: u32 = 50;
const EACH: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_livepatches_at_once_all_end_with_each_outcome_committed_once() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut process = Process::start_at(folder.path(), &address, None);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let workers: Vec<_> = (0..8)
        .map(|n| {
            let channel = endpoint.connect_lazy();
            tokio::spawn(async move { work(channel, &format!("w{n}"), 2).await })
        })
        .collect();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(client(endpoint.connect_lazy(), n)))
        .collect();
    // In the middle of it all, the coordinator is killed.
    let mut looking = LivepatchServiceClient::new(endpoint.connect_lazy());
    soon("some to be stored", async {
        loop {
            let list = looking.list(v1::ListRequest::default()).await;
            if list.is_ok_and(|list| list.into_inner().livepatches.len() >= 20) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let process = Process::start_at(folder.path(), &address, None);
    for client in clients {
        tokio::time::timeout(Duration::from_secs(120), client)
            .await
            .unwrap()
            .unwrap();
    }
    workers.iter().for_each(tokio::task::JoinHandle::abort);
    drop(process);
    sound(folder.path());
    let db = rusqlite::Connection::open(folder.path().join("farm.db")).unwrap();
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap();
    assert_eq!(
        count("SELECT count(*) FROM livepatches WHERE state = 'succeeded'"),
        CLIENTS * EACH
    );
    assert_eq!(count("SELECT count(*) FROM tasks"), CLIENTS * EACH * 4);
    assert_eq!(
        count("SELECT count(*) FROM attempts WHERE state = 'succeeded'"),
        CLIENTS * EACH * 4
    );
}

/// Submits its livepatches, and follows each to its end by event numbers, over breaks of the connection.
async fn client(channel: Channel, n: u32) {
    let client = LivepatchServiceClient::new(channel);
    let names: Vec<String> = (0..EACH).map(|k| format!("lp-{n}-{k}")).collect();
    for name in &names {
        let request = v1::SubmitRequest {
            id: Uuid::now_v7().to_string(),
            spec: Some(spec(name)),
            share: None,
            fix_contents: Vec::new(),
            submitted_by: String::new(),
        };
        insist(|| {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.submit(request).await }
        })
        .await;
    }
    for name in &names {
        let mut seen: Vec<v1::Event> = Vec::new();
        while seen.last().is_none_or(|event| event.ended.is_none()) {
            let request = v1::WatchRequest {
                livepatch: by_name(name),
                after_event: seen.last().map_or(0, |event| event.number),
            };
            let Ok(stream) = client.clone().watch(request).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let mut stream = stream.into_inner();
            while let Ok(Some(event)) = stream.message().await {
                seen.push(event);
            }
        }
        let numbers: Vec<u64> = seen.iter().map(|event| event.number).collect();
        assert_eq!(numbers, (1..=seen.len() as u64).collect::<Vec<_>>(), "{name}");
        let ends = seen.iter().filter_map(|event| event.task.as_ref());
        let ends = ends.filter(|task| task.ended_ms > 0).map(|task| task.id.clone());
        let ends: Vec<String> = ends.collect();
        assert_eq!(ends.len(), 4, "{name}: each of its tasks ended once");
        assert_eq!(ends.iter().collect::<BTreeSet<_>>().len(), 4, "{name}");
    }
}
