//! Properties of the task state machine, driven by arbitrary histories.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const RETRY: Retry = Retry {
    fault_limit: 3,
    death_limit: 2,
    backoff_ms: 1_000,
    backoff_max_ms: 60_000,
};
const LEASE_MS: u32 = 30_000;

fn holder(n: u8) -> Holder {
    Holder {
        worker: format!("w{n}").parse().unwrap(),
        incarnation: Incarnation(Uuid::from_u128(n.into())),
    }
}

fn failed(cause: Cause) -> Ending {
    Ending::Failed(Failure {
        cause,
        message: "m".into(),
    })
}

fn leased() -> Status {
    Status::NEW.lease(holder(1), 0, LEASE_MS).unwrap()
}

fn commit(status: &Status, number: u32, state: AttemptState, by: &Holder, ending: &Ending) -> Commit {
    status.commit(number, state, &holder(1), by, ending, &RETRY, 5, 0)
}

#[test]
fn a_lease_starts_the_next_attempt_and_excludes_others() {
    let status = leased();
    assert_eq!(status.attempt, 1);
    assert_eq!(status.lease(holder(2), 10, LEASE_MS), None);
    assert!(matches!(&status.state, State::Leased(l) if l.expires == 30_000 && l.holder == holder(1)));
}

#[test]
fn causes_decide_what_comes_after_a_failure() {
    for cause in [Cause::Yours, Cause::Codestream] {
        let Commit::Accepted(step) = commit(&leased(), 1, AttemptState::Leased, &holder(1), &failed(cause)) else {
            panic!("refused");
        };
        assert_eq!(step.task.state, State::Failed);
        assert_eq!(step.failure.unwrap().cause, cause);
    }
    let Commit::Accepted(step) = commit(&leased(), 1, AttemptState::Leased, &holder(1), &failed(Cause::Farm)) else {
        panic!("refused");
    };
    assert_eq!(step.task.state, State::Waiting { not_before: 505 });
    assert_eq!((step.task.faults, step.attempt), (1, AttemptState::Failed));
    assert_eq!(step.task.lease(holder(2), 504, LEASE_MS), None);
    assert_eq!(step.task.lease(holder(2), 505, LEASE_MS).unwrap().attempt, 2);
}

#[test]
fn handing_back_is_nobodys_fault() {
    let ending = Ending::HandedBack {
        reason: "stopping".into(),
    };
    let Commit::Accepted(step) = commit(&leased(), 1, AttemptState::Leased, &holder(1), &ending) else {
        panic!("refused");
    };
    assert_eq!(step.task.faults, 0);
    assert_eq!(step.attempt, AttemptState::HandedBack);
    assert!(matches!(step.task.state, State::Waiting { not_before } if not_before > 5));
}

#[test]
fn the_last_fault_ends_the_task_with_its_reason() {
    let mut status = leased();
    status.faults = RETRY.fault_limit - 1;
    let step = status
        .take(1, Taken::Expired, "worker w1 was not heard of for 30 s", &RETRY, 5, 0)
        .unwrap();
    assert_eq!(step.task.state, State::Failed);
    assert_eq!(step.attempt, AttemptState::Lost);
    let message = step.failure.unwrap().message;
    assert!(
        message.contains("3 faults") && message.contains("not heard of"),
        "{message}"
    );
}

#[test]
fn a_task_that_takes_down_two_workers_is_set_aside() {
    let first = leased().take(1, Taken::Died, "w1 started anew", &RETRY, 5, 0).unwrap();
    assert_eq!((first.attempt, first.task.deaths), (AttemptState::Died, 1));
    assert!(first.task.is_open() && !first.sets_aside(&RETRY));
    let again = first.task.lease(holder(2), 100_000, LEASE_MS).unwrap();
    let second = again
        .take(2, Taken::Died, "w2 started anew", &RETRY, 100_005, 0)
        .unwrap();
    assert!(second.sets_aside(&RETRY));
    assert!(second.failure.unwrap().message.contains("died under it twice"));
    // Learned late, it counts the same.
    let lost = leased().take(1, Taken::Expired, "silent", &RETRY, 5, 0).unwrap();
    let blamed = lost.task.blame(&RETRY).unwrap();
    assert!(blamed.is_open());
    assert_eq!(blamed.blame(&RETRY).unwrap().state, State::Failed);
    // A new chance forgets it.
    let renewed = second.task.renew_chance().unwrap();
    assert_eq!((renewed.deaths, renewed.faults, renewed.attempt), (0, 0, 2));
}

#[test]
fn a_failure_of_the_tasks_own_is_told_whoever_died_before() {
    let blamed = Status {
        deaths: RETRY.death_limit,
        ..leased()
    };
    let Commit::Accepted(step) = commit(&blamed, 1, AttemptState::Leased, &holder(1), &failed(Cause::Yours)) else {
        panic!("refused");
    };
    assert_eq!(step.task.state, State::Failed);
    assert!(!step.sets_aside(&RETRY));
}

#[test]
fn what_was_never_started_is_nobodys_fault_and_still_fenced_off() {
    let step = leased().take(1, Taken::Unstarted, "stopping", &RETRY, 5, 0).unwrap();
    assert_eq!((step.task.faults, step.task.deaths), (0, 0));
    assert_eq!(step.attempt, AttemptState::TakenBack);
    let late = commit(&step.task, 1, step.attempt, &holder(1), &Ending::Succeeded);
    assert_eq!(late, Commit::Superseded);
}

/// Whatever was recorded of it, and even if that can't be.
#[test]
fn only_the_newest_attempt_commits() {
    let lost = leased().take(1, Taken::Expired, "silent", &RETRY, 5, 0).unwrap().task;
    let second = lost.lease(holder(1), 100_000, LEASE_MS).unwrap();
    for (status, number) in [(&second, 1), (&second, 3), (&lost, 1), (&Status::NEW, 1)] {
        let answer = commit(status, number, AttemptState::Leased, &holder(1), &Ending::Succeeded);
        assert_eq!(answer, Commit::Superseded, "{number} of {status:?}");
    }
}

#[test]
fn pauses_double_up_to_the_bound_and_jitter_stays_within() {
    for (faults, full) in [(1, 1_000), (2, 2_000), (6, 32_000), (7, 60_000), (4_000, 60_000)] {
        assert_eq!(RETRY.pause(faults, 0), full / 2, "{faults}");
        assert_eq!(RETRY.pause(faults, u16::MAX), full, "{faults}");
    }
}

#[test]
fn a_renewal_never_shortens_a_lease() {
    let State::Leased(mut lease) = leased().state else {
        panic!("not leased");
    };
    lease.renew(100, LEASE_MS);
    lease.renew(50, LEASE_MS);
    assert_eq!(lease.expires, 30_100);
    assert!(!lease.is_expired(30_099));
    assert!(lease.is_expired(30_100));
}

/// What the world can do to a task: somebody leases it, loses an attempt, or commits one, rightly or not.
#[derive(Clone, Debug)]
enum Act {
    Lease(u8),
    Take(u32, Taken),
    Blame,
    Cancel,
    RenewChance,
    Commit { number: u32, by: u8, ending: Ending },
}

fn taken() -> impl Strategy<Value = Taken> {
    prop_oneof![Just(Taken::Expired), Just(Taken::Died), Just(Taken::Unstarted)]
}

fn act() -> impl Strategy<Value = Act> {
    let ending = prop_oneof![
        Just(Ending::Succeeded),
        Just(failed(Cause::Yours)),
        Just(failed(Cause::Codestream)),
        Just(failed(Cause::Farm)),
        Just(Ending::HandedBack { reason: "r".into() }),
    ];
    prop_oneof![
        (1..4u8).prop_map(Act::Lease),
        (1..6u32, taken()).prop_map(|(number, taken)| Act::Take(number, taken)),
        Just(Act::Blame),
        Just(Act::Cancel),
        Just(Act::RenewChance),
        (1..6u32, 1..4u8, ending).prop_map(|(number, by, ending)| Act::Commit { number, by, ending }),
    ]
}

proptest! {
    /// Whatever happens in whatever order: one lease at a time, each attempt ends once, an ended task stays as it is,
    /// faults are bounded, and only the holder of the newest attempt moves the task.
    #[test]
    fn histories_keep_the_promises(acts in prop::collection::vec(act(), 0..60), noise: u16) {
        let mut status = Status::NEW;
        let mut attempts: Vec<(AttemptState, Holder)> = Vec::new();
        let mut now = 0;
        for act in acts {
            now += 100_000;
            let before = status.clone();
            match act {
                Act::Lease(by) => {
                    let leased = status.lease(holder(by), now, LEASE_MS);
                    prop_assert_eq!(leased.is_some(), matches!(before.state, State::Waiting { .. }));
                    if let Some(next) = leased {
                        status = next;
                        attempts.push((AttemptState::Leased, holder(by)));
                        prop_assert_eq!(status.attempt as usize, attempts.len());
                    }
                }
                Act::Blame => {
                    if let Some(next) = status.blame(&RETRY) {
                        prop_assert!(before.is_open());
                        prop_assert_eq!(next.deaths, before.deaths + 1);
                        status = next;
                    }
                }
                Act::Cancel => {
                    let cancelled = status.cancel();
                    prop_assert_eq!(cancelled.is_some(), before.is_open());
                    if let Some(next) = cancelled {
                        if matches!(before.state, State::Leased(_)) {
                            attempts[before.attempt as usize - 1].0 = AttemptState::Cancelled;
                        }
                        status = next;
                    }
                }
                Act::RenewChance => {
                    let in_vain = matches!(before.state, State::Failed | State::Cancelled);
                    let renewed = status.renew_chance();
                    prop_assert_eq!(renewed.is_some(), in_vain);
                    if let Some(next) = renewed {
                        prop_assert_eq!(next.attempt, before.attempt, "former attempts stay fenced off");
                        status = next;
                        continue;
                    }
                }
                Act::Take(number, taken) => {
                    let newest_runs = number == before.attempt && matches!(before.state, State::Leased(_));
                    let lost = status.take(number, taken, "gone", &RETRY, now, noise);
                    prop_assert_eq!(lost.is_some(), newest_runs);
                    if let Some(step) = lost {
                        attempts[number as usize - 1].0 = step.attempt;
                        status = step.task;
                    }
                }
                Act::Commit { number, by, ending } => {
                    let Some((state, given_to)) = attempts.get(number as usize - 1).cloned() else { continue };
                    let rightful = given_to == holder(by) && state == AttemptState::Leased;
                    match status.commit(number, state, &given_to, &holder(by), &ending, &RETRY, now, noise) {
                        Commit::Accepted(step) => {
                            prop_assert!(rightful && number == before.attempt);
                            prop_assert_ne!(step.attempt, AttemptState::Leased);
                            prop_assert_eq!(step.failure.is_none(), ending == Ending::Succeeded);
                            attempts[number as usize - 1].0 = step.attempt;
                            status = step.task;
                        }
                        Commit::Repeated => {
                            use AttemptState::{Failed, HandedBack, Succeeded};
                            prop_assert!(given_to == holder(by) && matches!(state, Succeeded | Failed | HandedBack));
                        }
                        Commit::Superseded => prop_assert!(!rightful),
                    }
                }
            }
            if !before.is_open() {
                prop_assert_eq!(&status, &before);
            }
            prop_assert!(status.faults <= RETRY.fault_limit);
            let waits = matches!(status.state, State::Waiting { .. });
            prop_assert!(!waits || status.deaths < RETRY.death_limit);
            let running = attempts.iter().filter(|(s, _)| *s == AttemptState::Leased).count();
            prop_assert_eq!(running, usize::from(matches!(status.state, State::Leased(_))));
        }
    }
}
