//! Short attempts are assigned ahead of free slots, over real gRPC with scripted workers.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use klp_proto::v1;
use support::{Farm, Worker, config, spec};

/// A worker with one slot.
async fn worker(farm: &Farm, name: &str, trees: usize) -> Worker {
    let codestreams: Vec<String> = (0..trees).map(|n| format!("{name}-{n}")).collect();
    let codestreams: Vec<&str> = codestreams.iter().map(String::as_str).collect();
    let mut worker = Worker::new(farm, name, &codestreams);
    worker.state.slots = 1;
    worker.open().await;
    worker.hear().await.unwrap();
    worker
}

async fn submit(farm: &Farm, name: &str, to: &str) {
    let spec = v1::Spec {
        codestreams: format!("{to}-"),
        ..spec(name)
    };
    farm.submit_spec(spec).await.unwrap();
}

async fn view(farm: &Farm, name: &str) -> v1::Worker {
    let list = farm.fleet.clone().list_workers(v1::ListWorkersRequest {}).await;
    let workers = list.unwrap().into_inner().workers;
    workers.into_iter().find(|w| w.name == name).unwrap()
}

/// Does nothing for `time`, and succeeds at a check, until `tasks` are done or more than one is assigned at a time.
/// Answers what was assigned last, and how many were done.
async fn check(worker: &mut Worker, time: Duration, tasks: usize) -> (Vec<v1::Assignment>, usize) {
    let mut done = BTreeSet::new();
    loop {
        let assignments = worker.hear().await.unwrap().assignments;
        if assignments.len() > 1 || done.len() == tasks {
            return (assignments, done.len());
        }
        for assignment in assignments {
            if done.insert(assignment.attempt.clone().unwrap().task_id) {
                worker.runs(std::slice::from_ref(&assignment)).await;
                tokio::time::sleep(time).await;
                let success = worker.success(&assignment, &[]);
                assert_eq!(worker.committed(success).await, v1::Disposition::Committed);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_ends_its_attempts_at_once_is_given_some_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut fast = worker(&farm, "fast", 400).await;
    // No extraction: it would wait for the slot, and nothing is given ahead of it.
    fast.state.tools.clear();
    fast.say().await;
    submit(&farm, "bsc1", "fast").await;
    let (ahead, done) = check(&mut fast, Duration::ZERO, 400).await;
    assert!(ahead.len() > 1, "after {done} checks it still was given one at a time");
    let seen = view(&farm, "fast").await;
    assert_eq!((seen.slots_busy, seen.prefetched as usize), (1, ahead.len() - 1));
    // What it was given it still holds when it has been slow for long; but no more is added.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let success = fast.success(&ahead[0], &[]);
    assert_eq!(fast.committed(success).await, v1::Disposition::Committed);
    assert_eq!(view(&farm, "fast").await.prefetched as usize, ahead.len() - 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_attempts_take_their_time_is_given_one_for_each_slot() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut slow = worker(&farm, "slow", 12).await;
    slow.state.tools.clear();
    slow.say().await;
    submit(&farm, "bsc1", "slow").await;
    let (assigned, done) = check(&mut slow, Duration::from_millis(60), 10).await;
    assert_eq!((assigned.len(), done), (1, 10));
}
