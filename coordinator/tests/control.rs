//! What users and operators change while the farm runs, over real gRPC with scripted workers.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use klp_proto::convert::violations_of;
use klp_proto::v1;
use klp_proto::v1::{Cause, Disposition, LivepatchState, TaskState};
use support::{Farm, Worker, by_name, config, platform, spec};
use tonic::Code;

async fn cancel(farm: &Farm, name: &str) -> v1::Livepatch {
    let request = v1::CancelRequest {
        livepatch: by_name(name),
        reason: "wrong fix".into(),
    };
    let answer = farm.livepatches.clone().cancel(request).await.unwrap();
    answer.into_inner().livepatch.unwrap()
}

fn retry(name: &str) -> v1::RetryRequest {
    v1::RetryRequest {
        livepatch: by_name(name),
        ..Default::default()
    }
}

async fn worker(farm: &Farm, name: &str) -> v1::Worker {
    let list = farm.fleet.clone().list_workers(v1::ListWorkersRequest {}).await;
    let workers = list.unwrap().into_inner().workers;
    workers.into_iter().find(|w| w.name == name).unwrap()
}

async fn drain(farm: &Farm, name: &str, reason: &str) -> Result<v1::Worker, tonic::Status> {
    let request = v1::DrainRequest {
        worker: name.into(),
        reason: reason.into(),
    };
    let answer = farm.fleet.clone().drain(request).await?;
    Ok(answer.into_inner().worker.unwrap())
}

#[tokio::test]
async fn cancelling_ends_a_livepatch_at_once_and_fences_off_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::connected(&farm, "w1", &["a", "b"]).await;
    w.state.slots = 1;
    w.say().await;
    w.hear().await.unwrap();
    farm.submit("bsc1").await;
    let running = w.take(1).await.remove(0);
    let cancelled = cancel(&farm, "bsc1").await;
    assert_eq!(cancelled.state(), LivepatchState::Cancelled);
    assert_eq!(cancelled.counts.unwrap().cancelled, 2);
    // The worker is told to stop, without asking.
    while !w.hear().await.unwrap().assignments.is_empty() {}
    let late = w.success(&running, &[]);
    assert_eq!(w.committed(late).await, Disposition::Superseded);
    let events = farm.events("bsc1", 0).await;
    assert!(
        events
            .iter()
            .any(|e| e.message == "check a/x86_64 cancelled while it ran: wrong fix"),
        "{events:?}"
    );
    assert_eq!(
        events.last().unwrap().ended.as_ref().unwrap().state(),
        LivepatchState::Cancelled
    );
    // Again: nothing changes, not even an event.
    assert_eq!(cancel(&farm, "bsc1").await.last_event, events.len() as u64);
}

#[tokio::test]
async fn a_retry_redoes_what_failed_and_only_that() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::connected(&farm, "w1", &["a", "b"]).await;
    farm.submit("bsc1").await;
    let checks = w.take(2).await;
    let on = |wanted: &str| checks.iter().find(|c| c.platform == Some(platform(wanted))).unwrap();
    let failure = w.failure(on("a"), Cause::Yours, "no such function");
    w.committed(failure).await;
    let success = w.success(on("b"), &[]);
    w.committed(success).await;
    w.work(&farm, "bsc1").await;
    assert_eq!(
        farm.get("bsc1").await.livepatch.unwrap().state(),
        LivepatchState::Partial
    );
    let ended = farm.events("bsc1", 0).await.len() as u64;

    let mut elsewhere = retry("bsc1");
    elsewhere.codestreams = "b".into();
    let refused = farm.livepatches.clone().retry(elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("is not selected"), "{refused}");

    let answer = farm
        .livepatches
        .clone()
        .retry(retry("bsc1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (answer.retried, answer.livepatch.unwrap().state()),
        (1, LivepatchState::Running)
    );
    // Who watches from the start is not sent away by the end that was none.
    let mut watching = farm.watch("bsc1", 0).await.unwrap();
    for _ in 0..ended {
        assert_eq!(watching.message().await.unwrap().unwrap().ended, None);
    }
    w.work(&farm, "bsc1").await;
    let after = farm.get("bsc1").await;
    assert_eq!(after.livepatch.unwrap().state(), LivepatchState::Succeeded);
    let attempts: Vec<_> = after.tasks.iter().map(|t| t.attempt).collect();
    assert_eq!(attempts, [2, 1, 1, 1], "check a again, then its extract; b as it was");
    let nothing = farm.livepatches.clone().retry(retry("bsc1")).await.unwrap_err();
    assert!(nothing.message().contains("nothing to retry"), "{nothing}");
}

#[tokio::test]
async fn a_paused_livepatch_starts_nothing_over_restarts_until_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    drop(Worker::connected(&farm, "w1", &["a"]).await);
    farm.submit("bsc1").await;
    let pause = v1::PauseRequest {
        livepatch: by_name("bsc1"),
        reason: "wait for the fix".into(),
    };
    let paused = farm
        .livepatches
        .clone()
        .pause(pause)
        .await
        .unwrap()
        .into_inner()
        .livepatch
        .unwrap();
    assert!(paused.paused_ms > 0);
    farm.coordinator.shutdown().await;

    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::connected(&farm, "w1", &["a"]).await;
    // Another livepatch is served, so the worker was free.
    farm.submit("bsc2").await;
    assert_eq!(w.take(1).await[0].livepatch, "bsc2");
    let task = farm.get("bsc1").await.tasks.remove(0);
    assert_eq!(task.attempt, 0);
    assert!(
        task.waiting_for.starts_with("the livepatch is paused since 20"),
        "{}",
        task.waiting_for
    );
    assert!(task.waiting_for.ends_with("(wait for the fix)"), "{}", task.waiting_for);
    let resume = v1::ResumeRequest {
        livepatch: by_name("bsc1"),
    };
    let resumed = farm.livepatches.clone().resume(resume).await.unwrap().into_inner();
    assert_eq!(resumed.livepatch.unwrap().paused_ms, 0);
    assert_eq!(w.take(1).await[0].livepatch, "bsc1");
}

#[tokio::test]
async fn a_priority_that_is_set_later_decides_what_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::connected(&farm, "w1", &["a"]).await;
    w.state.slots = 1;
    w.say().await;
    w.hear().await.unwrap();
    for name in ["first", "second", "third"] {
        farm.submit(name).await;
    }
    let first = w.take(1).await.remove(0);
    let urgent = v1::SetShareRequest {
        livepatch: by_name("third"),
        share: Some(v1::Share {
            priority: 10,
            weight: 1,
        }),
    };
    farm.livepatches.clone().set_share(urgent).await.unwrap();
    let waiting = farm.get("second").await.tasks.remove(0).waiting_for;
    assert_eq!(waiting, "the one slot of w1 is busy, 1 task ahead");
    let success = w.success(&first, &[]);
    w.committed(success).await;
    assert_eq!(w.take(1).await[0].livepatch, "third");
}

#[tokio::test]
async fn a_drain_survives_restarts_of_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = w.take(1).await.remove(0);
    let drained = drain(&farm, "w1", "new disk").await.unwrap();
    assert_eq!((drained.drain_reason.as_str(), drained.draining), ("new disk", false));
    // What it runs it may finish.
    let success = w.success(&check, &[]);
    assert_eq!(w.committed(success).await, Disposition::Committed);
    farm.coordinator.shutdown().await;

    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::connected(&farm, "w1", &["a"]).await;
    let extract = farm.get("bsc1").await.tasks.pop().unwrap();
    assert_eq!(
        (extract.kind(), extract.state()),
        (v1::TaskKind::Extract, TaskState::Waiting)
    );
    assert!(
        extract.waiting_for.starts_with("w1 is drained since 20"),
        "{}",
        extract.waiting_for
    );
    assert!(extract.waiting_for.ends_with("(new disk)"), "{}", extract.waiting_for);
    let request = v1::UndrainRequest { worker: "w1".into() };
    let undrained = farm
        .fleet
        .clone()
        .undrain(request)
        .await
        .unwrap()
        .into_inner()
        .worker
        .unwrap();
    assert_eq!(undrained.drained_ms, 0);
    assert_eq!(w.take(1).await.len(), 1);

    let unknown = drain(&farm, "w9", "x").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("the farm knows: w1"), "{unknown}");
    assert_eq!(
        violations_of(&drain(&farm, "w1", "").await.unwrap_err())[0].field,
        "reason"
    );
}

#[tokio::test]
async fn a_worker_that_keeps_failing_is_quarantined_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    (settings.quarantine_after, settings.fault_limit) = (2, 50);
    settings.quarantine_ms = 600_000;
    let farm = Farm::start(settings).await;
    let mut bad = Worker::connected(&farm, "bad", &["a"]).await;
    farm.submit("bsc1").await;
    for _ in 0..2 {
        let check = bad.take(1).await.remove(0);
        let failure = bad.failure(&check, Cause::Farm, "no space left on /scratch");
        bad.committed(failure).await;
    }
    farm.event("bsc1", |e| e.message.contains("tried again") && e.number > 4)
        .await;
    let view = worker(&farm, "bad").await;
    assert!(view.quarantined_until_ms > 0);
    assert!(
        view.quarantine_reason
            .contains("2 times in a row, the last time: no space left"),
        "{view:?}"
    );
    // After the task's own short pause, it is the quarantine that it waits for.
    let waits = loop {
        let task = farm.get("bsc1").await.tasks.remove(0);
        if !task.waiting_for.starts_with("to be tried again") {
            break task.waiting_for;
        }
    };
    assert!(waits.starts_with("bad is in quarantine until 20"), "{waits}");
    // Another one takes over; the quarantine is taken back by hand.
    let mut good = Worker::new(&farm, "good", &["a"]);
    good.open().await;
    let check = good.take(1).await.remove(0);
    assert_eq!(check.attempt.as_ref().unwrap().number, 3);
    farm.submit("bsc2").await;
    drain(&farm, "good", "to see").await.unwrap();
    let request = v1::UndrainRequest { worker: "bad".into() };
    farm.fleet.clone().undrain(request).await.unwrap();
    farm.submit("bsc3").await;
    assert!(!bad.take(1).await.is_empty());
}

#[tokio::test]
async fn a_task_that_takes_down_its_worker_twice_is_set_aside_with_both_attempts() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    (settings.lease_ms, settings.heartbeat_ms) = (500, 100);
    settings.quarantine_after = 1_000;
    let farm = Farm::start(settings).await;
    let mut w = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    w.take(1).await;
    // The first time it comes back at once.
    drop(w);
    let mut w = Worker::new(&farm, "w1", &["a"]);
    w.open().await;
    let second = w.take(1).await.remove(0);
    assert_eq!(second.attempt.as_ref().unwrap().number, 2);
    // The second time only after its lease has run out, when another might have taken over.
    drop(w);
    farm.event("bsc1", |e| e.message.contains("the lease of worker w1 ran out"))
        .await;
    drain(&farm, "w1", "look at it").await.unwrap();
    let _w = Worker::connected(&farm, "w1", &["a"]).await;
    let ended = farm.event("bsc1", |e| e.ended.is_some()).await;
    assert_eq!(ended.ended.unwrap().state(), LivepatchState::Failed);
    let failure = farm.get("bsc1").await.tasks.remove(0).failure.unwrap();
    assert_eq!(failure.cause(), Cause::Farm);
    for part in ["set aside", "attempt 1 on w1", "attempt 2 on w1", "--attempt"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_tree_that_is_not_ready_is_named_and_served_when_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::new(&farm, "w1", &[]);
    w.state.unready = vec![v1::Unready {
        what: Some(v1::unready::What::Tree(platform("a"))),
        reason: "its .config is gone".into(),
    }];
    w.open().await;
    w.hear().await.unwrap();
    farm.submit("bsc1").await;
    let task = farm.get("bsc1").await.tasks.remove(0);
    assert_eq!(
        task.waiting_for,
        "no tree of a/x86_64 can be used: on w1: its .config is gone"
    );
    assert_eq!(worker(&farm, "w1").await.unready.len(), 1);
    w.state.trees = vec![platform("a")];
    w.say().await;
    let mut again = Worker::new(&farm, "w1", &["a"]);
    again.state.unready = w.state.unready.clone();
    again.open().await;
    let refused = again.hear().await.unwrap_err();
    assert_eq!(violations_of(&refused)[0].field, "unready[0].tree");
    let mut w = Worker::new(&farm, "w1", &["a"]);
    w.open().await;
    assert_eq!(w.take(1).await.len(), 1);
}

#[tokio::test]
async fn memory_is_lent_to_so_many_attempts_as_fit() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::new(&farm, "w1", &["a"]);
    (w.state.slots, w.state.memory) = (8, 600 << 20);
    w.open().await;
    for name in ["one", "two", "three"] {
        farm.submit(name).await;
    }
    let two = w.take(2).await;
    assert!(two.iter().all(|a| a.memory == 256 << 20));
    let third = farm.get("three").await.tasks.remove(0);
    assert_eq!(third.waiting_for, "it needs 256 MiB of memory, more than is free on w1");
    assert_eq!(worker(&farm, "w1").await.memory_busy, 512 << 20);
    let success = w.success(&two[0], &[]);
    w.committed(success).await;
    assert_eq!(w.take(1).await[0].livepatch, "three");
    let extract = farm.get(&two[0].livepatch).await.tasks.pop().unwrap();
    assert_eq!(
        extract.waiting_for,
        "it needs 1024 MiB of memory and no worker that could run it lends more than 600 MiB"
    );
    let mut large = spec("large");
    large.memory = 5;
    let bad = farm.submit_spec(large).await.unwrap_err();
    assert_eq!(violations_of(&bad)[0].field, "memory");
}

#[tokio::test]
async fn a_worker_that_is_gone_for_good_is_forgotten_with_its_trees() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let w = Worker::connected(&farm, "w1", &["a"]).await;
    let request = || v1::ForgetRequest { worker: "w1".into() };
    let connected = farm.fleet.clone().forget(request()).await.unwrap_err();
    assert_eq!(connected.code(), Code::FailedPrecondition);
    drop(w);
    support::soon("the worker to be gone", async {
        while worker(&farm, "w1").await.connected {}
    })
    .await;
    farm.fleet.clone().forget(request()).await.unwrap();
    let nobody = farm.submit_spec(spec("bsc1")).await.unwrap_err();
    assert!(nobody.message().contains("holds no tree yet"), "{nobody}");
    let unknown = farm.fleet.clone().forget(request()).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let _back = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
}

#[tokio::test]
async fn two_workers_with_one_name_are_told_apart_by_how_often_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut older = Worker::connected(&farm, "w1", &["a"]).await;
    let _newer = Worker::connected(&farm, "w1", &["a"]).await;
    let told = older.hear().await.unwrap_err();
    assert_eq!(told.code(), Code::Aborted);
    assert_eq!(worker(&farm, "w1").await.replaced, 1);
}
