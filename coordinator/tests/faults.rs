//! What happens when workers or the coordinator go away, or say what is not so.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use klp_coordinator::Coordinator;
use klp_livepatch::outcome::Digest;
use klp_proto::convert::violations_of;
use klp_proto::v1::{self, Disposition, LivepatchState, TaskState};
use support::{Farm, Worker, config, platform, soon};
use tonic::Code;

fn number(assignment: &v1::Assignment) -> u32 {
    assignment.attempt.as_ref().unwrap().number
}

#[tokio::test]
async fn an_expired_lease_goes_to_another_worker_and_the_late_result_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    (settings.lease_ms, settings.heartbeat_ms) = (1_500, 200);
    let farm = Farm::start(settings).await;
    let mut first = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let lost = first.take(1).await.remove(0);
    // From now on the first worker is silent.
    let gone = soon("the session to end", async {
        loop {
            if let Err(status) = first.hear().await {
                return status;
            }
        }
    });
    assert_eq!(gone.await.code(), Code::DeadlineExceeded);
    first.hang_up();

    let mut second = Worker::connected(&farm, "w2", &["a"]).await;
    second.say().await;
    let again = second.take(1).await.remove(0);
    assert_eq!(
        again.attempt.as_ref().unwrap().task_id,
        lost.attempt.as_ref().unwrap().task_id
    );
    assert_eq!((number(&lost), number(&again)), (1, 2));

    // The first comes back with its result: refused, and the event log knows only of the second's.
    let late = first.failure(&lost, v1::Cause::Yours, "late");
    assert_eq!(first.committed(late).await, Disposition::Superseded);
    // Nor can it commit what is another's.
    let stolen = first.failure(&again, v1::Cause::Yours, "stolen");
    assert_eq!(first.committed(stolen).await, Disposition::Superseded);
    let success = second.success(&again, &[]);
    assert_eq!(second.committed(success).await, Disposition::Committed);
    let task = farm.get("bsc1").await.tasks.remove(0);
    assert_eq!(
        (task.state(), task.attempt, task.worker.as_str()),
        (TaskState::Succeeded, 2, "w2")
    );
    farm.event("bsc1", |e| e.message.contains("the lease of worker w1 ran out"))
        .await;
}

#[tokio::test]
async fn a_worker_that_is_silent_for_half_a_lease_is_offered_nothing_until_it_speaks() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    (settings.lease_ms, settings.heartbeat_ms) = (2_000, 600);
    let farm = Farm::start(settings).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    farm.submit("bsc1").await;
    let task = farm.get("bsc1").await.tasks.remove(0);
    assert_eq!(task.attempt, 0);
    assert!(
        task.waiting_for.starts_with("w1 is connected but silent since 20"),
        "{}",
        task.waiting_for
    );
    worker.say().await;
    assert_eq!(number(&worker.take(1).await[0]), 1);
}

#[tokio::test]
async fn a_renewed_lease_holds_much_longer_than_one_lease() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    (settings.lease_ms, settings.heartbeat_ms) = (1_500, 200);
    let farm = Farm::start(settings).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = worker.take(1).await.remove(0);
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        worker.say().await;
        assert_eq!(worker.hear().await.unwrap().assignments.len(), 1);
    }
    let live = farm.get("bsc1").await.tasks.remove(0);
    assert_eq!((live.attempt, live.progress.as_str()), (1, "working"));
    let success = worker.success(&check, &[]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
}

#[tokio::test]
async fn a_coordinator_restart_re_adopts_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a", "b"]).await;
    farm.submit("bsc1").await;
    let checks = worker.take(2).await;
    let success = worker.success(&checks[0], &[]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
    let before = farm.get("bsc1").await.livepatch.unwrap();
    farm.coordinator.shutdown().await;

    let farm = Farm::start(config(folder.path())).await;
    let after = farm.get("bsc1").await;
    assert!(after.livepatch.unwrap().last_event >= before.last_event);
    worker.move_to(&farm);
    worker.forget();
    worker.state.attempts.retain(|a| a.attempt == checks[1].attempt);
    worker.open().await;
    let assignments = worker.take(2).await;
    // The running check is the same attempt, not a new one.
    assert!(assignments.iter().any(|a| a.attempt == checks[1].attempt));
    for assignment in &assignments {
        let artifacts = match assignment.kind() {
            v1::TaskKind::Extract => vec![worker.upload(b"x").await],
            _ => vec![],
        };
        let success = worker.success(assignment, &artifacts);
        assert_eq!(worker.committed(success).await, Disposition::Committed);
    }
    worker.work(&farm, "bsc1").await;
    let events = farm.events("bsc1", 0).await;
    let numbers: Vec<u64> = events.iter().map(|e| e.number).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let tasks = farm.get("bsc1").await.tasks;
    assert!(tasks.iter().all(|t| t.attempt == 1), "{tasks:?}");
}

#[tokio::test]
async fn an_attempt_outlives_a_coordinator_that_was_away_for_longer_than_its_lease() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    (settings.lease_ms, settings.heartbeat_ms) = (1_000, 300);
    let farm = Farm::start(settings.clone()).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = worker.take(1).await.remove(0);
    farm.coordinator.shutdown().await;
    // Until the expiry that was stored has passed.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;

    let farm = Farm::start(settings).await;
    worker.move_to(&farm);
    worker.forget();
    worker.open().await;
    assert_eq!(worker.take(1).await, std::slice::from_ref(&check));
    let success = worker.success(&check, &[]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
    assert_eq!(farm.get("bsc1").await.tasks[0].attempt, 1);
}

#[tokio::test]
async fn a_worker_may_take_its_grace_to_come_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    (settings.lease_ms, settings.heartbeat_ms) = (1_000, 50);
    settings.restart_grace_ms = 60_000;
    let farm = Farm::start(settings.clone()).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = worker.take(1).await.remove(0);
    farm.coordinator.shutdown().await;

    let farm = Farm::start(settings).await;
    // Three leases long.
    tokio::time::sleep(std::time::Duration::from_millis(3_000)).await;
    worker.move_to(&farm);
    worker.forget();
    worker.open().await;
    assert_eq!(worker.take(1).await, std::slice::from_ref(&check));
    assert_eq!(farm.get("bsc1").await.tasks[0].attempt, 1);
}

#[tokio::test]
async fn a_submission_after_a_restart_knows_the_fleet_before_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    drop(Worker::connected(&farm, "w1", &["a"]).await);
    farm.coordinator.shutdown().await;
    let farm = Farm::start(config(folder.path())).await;
    farm.submit("bsc1").await;
    let task = farm.get("bsc1").await.tasks.remove(0);
    assert_eq!(task.waiting_for, "w1 is offline since before the coordinator started");
    let mut worker = Worker::new(&farm, "w1", &["a"]);
    worker.open().await;
    worker.work(&farm, "bsc1").await;
}

#[tokio::test]
async fn a_new_incarnation_gives_up_what_the_old_one_held_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut old = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let lost = old.take(1).await.remove(0);
    // The lease is 30 s; the new incarnation has the task long before. The older session is told.
    let mut new = Worker::new(&farm, "w1", &["a"]);
    new.open().await;
    let again = new.take(1).await.remove(0);
    assert_eq!((number(&lost), number(&again)), (1, 2));
    let told = soon("the old session to end", async {
        loop {
            if let Err(status) = old.hear().await {
                return status;
            }
        }
    });
    assert_eq!(told.await.code(), Code::Aborted);
    let late = old.success(&lost, &[]);
    assert_eq!(old.committed(late).await, Disposition::Superseded);
    let success = new.success(&again, &[]);
    assert_eq!(new.committed(success).await, Disposition::Committed);
}

#[tokio::test]
async fn a_task_that_waited_for_a_slot_is_not_to_blame_for_its_workers_death() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut w = Worker::connected(&farm, "w1", &["a", "b"]).await;
    farm.submit("bsc1").await;
    for death in 1..=2 {
        let taken = w.take(2).await;
        for running in &mut w.state.attempts {
            running.waiting = running.attempt == taken[1].attempt;
            running.progress = format!("life {death}");
        }
        w.say().await;
        soon("the coordinator to have heard", async {
            while farm
                .get("bsc1")
                .await
                .tasks
                .iter()
                .any(|t| t.progress != format!("life {death}"))
            {}
        })
        .await;
        w = Worker::new(&farm, "w1", &["a", "b"]);
        w.open().await;
        let again = soon("both to have been dealt with", async {
            loop {
                let tasks = farm.get("bsc1").await.tasks;
                let is_done = |task: &v1::Task| task.attempt > death || task.state() == TaskState::Failed;
                if tasks.iter().all(is_done) {
                    return tasks;
                }
            }
        });
        let (began, waited) = match <[v1::Task; 2]>::try_from(again.await) {
            Ok([a, b]) => (a, b),
            Err(tasks) => panic!("{tasks:?}"),
        };
        assert_eq!(waited.state(), TaskState::Leased, "{waited:?}");
        let set_aside = began
            .failure
            .as_ref()
            .is_some_and(|f| f.message.starts_with("set aside"));
        assert_eq!(set_aside, death == 2, "{began:?}");
    }
}

#[tokio::test]
async fn a_broken_session_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = worker.take(1).await.remove(0);
    worker.hang_up();
    worker.forget();
    worker.open().await;
    let same = worker.take(1).await.remove(0);
    assert_eq!(same, check);
    // Even an assignment that the worker has never heard of comes again.
    worker.hang_up();
    worker.state.attempts.clear();
    worker.forget();
    worker.open().await;
    assert_eq!(worker.take(1).await, [check]);
}

#[tokio::test]
async fn faults_of_the_farm_are_retried_elsewhere_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    settings.fault_limit = 2;
    let farm = Farm::start(settings).await;
    let mut a = Worker::connected(&farm, "a", &["x"]).await;
    let mut b = Worker::connected(&farm, "b", &["x"]).await;
    farm.submit("bsc1").await;
    let first = a.take(1).await.remove(0);
    let fault = a.failure(&first, v1::Cause::Farm, "disk full on a");
    assert_eq!(a.committed(fault).await, Disposition::Committed);
    a.runs(&[]).await;
    // Both are idle; the one where it failed is avoided.
    let second = b.take(1).await.remove(0);
    let fault = b.failure(&second, v1::Cause::Farm, "disk full on b");
    assert_eq!(b.committed(fault).await, Disposition::Committed);
    let last = farm.events("bsc1", 0).await.pop().unwrap().ended.unwrap();
    assert_eq!(last.state(), LivepatchState::Failed);
    let failure = farm.get("bsc1").await.tasks.remove(0).failure.unwrap();
    assert!(
        failure.message.contains("2 faults") && failure.message.contains("disk full on b"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn handing_back_is_not_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    settings.fault_limit = 1;
    let farm = Farm::start(settings).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    for expected in 1..=3 {
        let check = worker.take(1).await.remove(0);
        assert_eq!(number(&check), expected);
        let mut back = worker.success(&check, &[]);
        back.ending = Some(v1::commit_request::Ending::HandedBack("stopping".into()));
        back.report = None;
        assert_eq!(worker.committed(back).await, Disposition::Committed);
    }
    worker.work(&farm, "bsc1").await;
    assert_eq!(
        farm.get("bsc1").await.livepatch.unwrap().state(),
        LivepatchState::Succeeded
    );
}

#[tokio::test]
async fn a_draining_worker_finishes_and_takes_nothing_new() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("one").await;
    let check = worker.take(1).await.remove(0);
    worker.state.draining = true;
    worker.say().await;
    worker.hear().await.unwrap();
    let success = worker.success(&check, &[]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
    let waiting = farm.get("one").await.tasks.pop().unwrap();
    assert_eq!(
        (waiting.state(), waiting.waiting_for.as_str()),
        (TaskState::Waiting, "w1 is stopping")
    );
    let workers = farm.fleet.clone().list_workers(v1::ListWorkersRequest {}).await;
    let listed = workers.unwrap().into_inner().workers.remove(0);
    assert!(listed.draining && listed.connected);
    assert_eq!((listed.slots, listed.slots_busy), (2, 0));
}

#[tokio::test]
async fn what_a_stopping_worker_did_not_start_goes_elsewhere_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut stopping = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("one").await;
    let unheard = stopping.take(1).await.remove(0);
    stopping.state.attempts.clear();
    stopping.state.draining = true;
    stopping.say().await;
    // The default lease is 30 s; nobody waits for it here.
    let mut other = Worker::new(&farm, "w2", &["a"]);
    other.open().await;
    let check = other.take(1).await.remove(0);
    assert_eq!(check.attempt.clone().unwrap().number, 2);
    let late = stopping.success(&unheard, &[]);
    assert_eq!(stopping.committed(late).await, Disposition::Superseded);
}

#[tokio::test]
async fn an_outcome_is_not_committed_before_its_artifacts() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = worker.take(1).await.remove(0);
    let success = worker.success(&check, &[]);
    worker.committed(success).await;
    worker.state.attempts.clear();
    worker.say().await;
    let extract = worker.take(1).await.remove(0);
    assert_eq!(extract.kind(), v1::TaskKind::Extract);
    let content = vec![b'x'; 5_000];
    let digest = Digest::of(&content);
    let artifact = klp_livepatch::outcome::Artifact {
        name: "a.c".into(),
        digest,
        size: 5_000,
    };
    let success = worker.success(&extract, &[artifact]);
    let answer = worker.commit(success.clone()).await.unwrap();
    assert_eq!(answer.disposition(), Disposition::ArtifactsMissing);
    assert_eq!(answer.missing, [digest.to_string()]);

    // What does not match its digest or size is refused, and nothing is stored.
    for wrong in [
        worker.upload_as(digest, 5_000, &[b'y'; 5_000]).await,
        worker.upload_as(digest, 5_000, b"x").await,
    ] {
        assert_eq!(wrong.unwrap_err().code(), Code::InvalidArgument);
    }
    let answer = worker.commit(success.clone()).await.unwrap();
    assert_eq!(answer.disposition(), Disposition::ArtifactsMissing);

    worker.upload_as(digest, 5_000, &content).await.unwrap();
    // What is there already is answered without more ado.
    worker.upload_as(digest, 5_000, &content).await.unwrap();
    assert_eq!(worker.committed(success).await, Disposition::Committed);
}

#[tokio::test]
async fn contradictions_and_unknown_attempts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = worker.take(1).await.remove(0);

    let mut unknown = check.clone();
    unknown.attempt.as_mut().unwrap().number = 7;
    let request = worker.success(&unknown, &[]);
    assert_eq!(worker.commit(request).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(worker.log(&unknown, 0, b"x").await.unwrap_err().code(), Code::NotFound);

    let mut broken = worker.success(&check, &[]);
    let Some(v1::report::Report::Check(report)) = &mut broken.report.as_mut().unwrap().report else {
        panic!("not a check");
    };
    report.targets[0].problems.push("CONFIG_X is not set".into());
    let error = worker.commit(broken).await.unwrap_err();
    assert!(error.message().contains("reports problems"), "{error}");

    let success = worker.success(&check, &[]);
    assert_eq!(worker.committed(success).await, Disposition::Committed);
}

#[tokio::test]
async fn a_session_that_makes_no_sense_is_told_all_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::new(&farm, "-w", &["a", "../b", "a"]);
    worker.state.slots = 2;
    worker.state.incarnation = "7".into();
    worker.open().await;
    let error = worker.hear().await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let fields: Vec<_> = violations_of(&error).into_iter().map(|v| v.field).collect();
    assert_eq!(fields, ["worker", "incarnation", "trees[1].codestream", "trees[2]"]);

    // A session can't become another worker's.
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    worker.state.worker = "w2".into();
    worker.say().await;
    assert_eq!(worker.hear().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_a_worker_holds_is_known_and_forgotten_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a", "b"]).await;
    let held = || async {
        let request = v1::ListCodestreamsRequest::default();
        let answer = farm.fleet.clone().list_codestreams(request).await.unwrap().into_inner();
        let name = |c: v1::CodestreamInfo| c.platform.unwrap().codestream;
        answer.codestreams.into_iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(held().await, ["a", "b"]);
    worker.state.trees = vec![platform("b"), platform("c")];
    worker.say().await;
    worker.hear().await.unwrap();
    assert_eq!(held().await, ["b", "c"]);
    // A backend nobody has is waited for, with a reason.
    let mut spec = support::spec("bsc1");
    spec.backend = "ccp".into();
    farm.submit_spec(spec).await.unwrap();
    let checks = worker.take(2).await;
    let success = worker.success(&checks[0], &[]);
    worker.committed(success).await;
    let tasks = farm.get("bsc1").await.tasks;
    let extract = tasks.iter().find(|t| t.kind() == v1::TaskKind::Extract).unwrap();
    assert_eq!(extract.waiting_for, "no worker that holds b/x86_64 has the ccp tool");
}

#[tokio::test]
async fn one_data_folder_has_one_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let Err(error) = Coordinator::start(config(folder.path())).await else {
        panic!("two coordinators on one folder");
    };
    assert!(error.to_string().contains("another coordinator"), "{error}");
    farm.coordinator.shutdown().await;
    Farm::start(config(folder.path())).await;
}
