//! The lifecycle beside the model of a task: whoever leases, commits, loses, cancels and renews in whatever order, both say
//! the same.

use klp_livepatch::outcome::{Cause, Ending, Failure};
use klp_livepatch::task::Incarnation;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use uuid::Uuid;

use super::task::{Fate, Heard, Stand, Task};
use super::walks;
use crate::lifecycle::{AttemptState, Commit, Holder, Millis, Retry, State, Status, Step, Taken};

const RETRY: Retry = Retry {
    fault_limit: 4,
    death_limit: 2,
    backoff_ms: 1_000,
    backoff_max_ms: 3_000,
};
const LEASE_MS: u32 = 5_000;

fn holder((worker, incarnation): (u8, u8)) -> Holder {
    Holder {
        worker: format!("w{worker}").parse().unwrap(),
        incarnation: Incarnation(Uuid::from_u128(incarnation.into())),
    }
}

#[derive(Clone, Debug)]
struct Move {
    /// Time that passes before it.
    wait: Millis,
    noise: u16,
    act: Act,
}

#[derive(Clone, Debug)]
enum Act {
    Lease(Holder),
    /// Its worker was heard of so long ago.
    Renew(Millis),
    Commit(u32, Holder, Ending),
    Take(u32, Taken),
    Bury(u32),
    Cancel,
    RenewChance,
}

/// The model, the time, and what became of the last move.
#[derive(Clone, Debug, Default)]
struct World {
    task: Task,
    now: Millis,
    done: Done,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Done {
    #[default]
    Nothing,
    Changed,
    /// An attempt ended; whose matter that is, unless it succeeded, and whether the task is set aside.
    Ended(Fate, Option<Cause>, bool),
    Repeated,
    Superseded,
}

fn holders() -> impl Strategy<Value = Holder> {
    (1..4u8, 1..3u8).prop_map(holder)
}

fn endings() -> impl Strategy<Value = Ending> {
    let failed = |cause| Ending::Failed(Failure::new(cause, "it failed"));
    prop_oneof![
        3 => Just(failed(Cause::Farm)),
        2 => Just(Ending::HandedBack { reason: "it stops".into() }),
        1 => Just(Ending::Succeeded),
        1 => Just(failed(Cause::Yours)),
        1 => Just(failed(Cause::Codestream)),
    ]
}

impl ReferenceStateMachine for World {
    type State = World;
    type Transition = Move;

    fn init_state() -> BoxedStrategy<World> {
        Just(World::default()).boxed()
    }

    fn transitions(world: &World) -> BoxedStrategy<Move> {
        let made = world.task.attempts.len() as u32;
        // Mostly what can be; all else now and then.
        let stand = world.task.stand(&RETRY);
        let weight = |most: u32, when: Stand| if stand == when { most } else { 1 };
        let by_now = if world.task.is_open(&RETRY) { 1 } else { 8 };
        let taken = prop_oneof![3 => Just(Taken::Expired), 1 => Just(Taken::Died), 1 => Just(Taken::Unstarted)];
        let number = prop_oneof![6 => Just(made), 1 => 0..made + 2];
        let take = (number, taken).prop_map(|(number, taken)| Act::Take(number, taken));
        let mut acts = vec![
            (weight(12, Stand::Waiting), holders().prop_map(Act::Lease).boxed()),
            (weight(2, Stand::Running), (0..8_000i64).prop_map(Act::Renew).boxed()),
            (weight(6, Stand::Running), take.boxed()),
            (1, Just(Act::Cancel).boxed()),
            (by_now, Just(Act::RenewChance).boxed()),
        ];
        if let Some(newest) = world.task.attempts.last() {
            let by = prop_oneof![6 => Just(newest.holder.clone()), 1 => holders()];
            let number = prop_oneof![6 => Just(made), 1 => 1..=made];
            let commit = (number, by, endings()).prop_map(|(number, by, ending)| Act::Commit(number, by, ending));
            acts.push((weight(8, Stand::Running), commit.boxed()));
        }
        let lost = (1..=made).filter(|number| can_be_buried(&world.task, *number));
        let lost: Vec<u32> = lost.collect();
        if !lost.is_empty() {
            acts.push((5, prop::sample::select(lost).prop_map(Act::Bury).boxed()));
        }
        let acts = prop::strategy::Union::new_weighted(acts);
        // To the very moment when it may be tried again, too, and to the one before.
        let rest = match world.task.status(&RETRY).state {
            State::Waiting { not_before } => (not_before - world.now).max(1),
            _ => 1,
        };
        let wait = prop::sample::select(vec![0, 1, 500, rest - 1, rest, 10_000]);
        let noise = prop_oneof![Just(0), Just(u16::MAX), any::<u16>()];
        let all = (wait, noise, acts);
        all.prop_map(|(wait, noise, act)| Move { wait, noise, act }).boxed()
    }

    fn preconditions(world: &World, step: &Move) -> bool {
        match step.act {
            Act::Commit(number, ..) => world.task.attempt(number).is_some(),
            Act::Bury(number) => can_be_buried(&world.task, number),
            _ => true,
        }
    }

    fn apply(mut world: World, step: &Move) -> World {
        world.now += step.wait;
        let (now, noise) = (world.now, step.noise);
        let task = &mut world.task;
        let changed = |changed: bool| if changed { Done::Changed } else { Done::Nothing };
        world.done = match &step.act {
            Act::Lease(by) => changed(task.lease(by.clone(), now, LEASE_MS, &RETRY)),
            Act::Renew(ago) => {
                task.renew(now - ago, LEASE_MS);
                Done::Changed
            }
            Act::Commit(number, by, ending) => match task.commit(*number, by, ending, &RETRY, now, noise) {
                Heard::Accepted => ended(task, *number),
                Heard::Repeated => Done::Repeated,
                Heard::Superseded => Done::Superseded,
            },
            Act::Take(number, taken) => match task.take(*number, *taken, &RETRY, now, noise) {
                true => ended(task, *number),
                false => Done::Nothing,
            },
            Act::Bury(number) => changed(task.bury(*number, &RETRY)),
            Act::Cancel => changed(task.cancel(&RETRY)),
            Act::RenewChance => changed(task.renew_chance(&RETRY)),
        };
        world
    }
}

/// It was lost, and still counts.
fn can_be_buried(task: &Task, number: u32) -> bool {
    task.attempt(number).is_some_and(|a| a.fate == Fate::Lost) && !task.is_forgiven(number)
}

fn ended(task: &Task, number: u32) -> Done {
    let fate = task.attempt(number).unwrap().fate;
    let whose = match fate {
        Fate::Succeeded => None,
        Fate::Failed(cause) => Some(cause),
        _ => Some(Cause::Farm),
    };
    Done::Ended(fate, whose, task.is_set_aside(&RETRY))
}

/// A status with its attempts, as the store keeps them.
#[derive(Debug)]
struct Kept {
    status: Status,
    attempts: Vec<(AttemptState, Holder)>,
}

impl Kept {
    fn take_on(&mut self, status: Option<Status>) -> Done {
        match status {
            None => Done::Nothing,
            Some(status) => {
                self.status = status;
                Done::Changed
            }
        }
    }

    fn end(&mut self, number: u32, step: Step) -> Done {
        let failure = step.failure.as_ref();
        if let Some(failure) = failure {
            assert!(
                failure.message.contains("it failed") || failure.message.contains("it stops"),
                "{failure:?}"
            );
        }
        let whose = failure.map(|f| f.cause);
        let set_aside = step.sets_aside(&RETRY);
        self.attempts[number as usize - 1].0 = step.attempt;
        self.status = step.task;
        let fate = match step.attempt {
            AttemptState::Leased => Fate::Running,
            AttemptState::Succeeded => Fate::Succeeded,
            AttemptState::Failed => Fate::Failed(whose.unwrap()),
            AttemptState::HandedBack => Fate::HandedBack,
            AttemptState::TakenBack => Fate::TakenBack,
            AttemptState::Lost => Fate::Lost,
            AttemptState::Died => Fate::Died,
            AttemptState::Cancelled => Fate::Cancelled,
        };
        Done::Ended(fate, whose, set_aside)
    }
}

struct Lifecycle;

impl StateMachineTest for Lifecycle {
    type SystemUnderTest = Kept;
    type Reference = World;

    fn init_test(_: &World) -> Kept {
        Kept {
            status: Status::NEW,
            attempts: Vec::new(),
        }
    }

    fn apply(mut kept: Kept, world: &World, step: Move) -> Kept {
        let (now, noise) = (world.now, step.noise);
        let status = kept.status.clone();
        let done = match step.act {
            Act::Lease(by) => {
                let done = kept.take_on(status.lease(by.clone(), now, LEASE_MS));
                if done == Done::Changed {
                    kept.attempts.push((AttemptState::Leased, by));
                }
                done
            }
            Act::Renew(ago) => {
                if let State::Leased(lease) = &mut kept.status.state {
                    lease.renew(now - ago, LEASE_MS);
                }
                Done::Changed
            }
            Act::Commit(number, by, ending) => {
                let (recorded, given_to) = kept.attempts[number as usize - 1].clone();
                match status.commit(number, recorded, &given_to, &by, &ending, &RETRY, now, noise) {
                    Commit::Accepted(step) => kept.end(number, step),
                    Commit::Repeated => Done::Repeated,
                    Commit::Superseded => Done::Superseded,
                }
            }
            Act::Take(number, taken) => match status.take(number, taken, "it failed", &RETRY, now, noise) {
                Some(step) => kept.end(number, step),
                None => Done::Nothing,
            },
            Act::Bury(number) => {
                kept.attempts[number as usize - 1].0 = AttemptState::Died;
                kept.take_on(status.blame(&RETRY))
            }
            Act::Cancel => {
                let done = kept.take_on(status.cancel());
                if let (Done::Changed, State::Leased(_)) = (&done, &status.state) {
                    kept.attempts[status.attempt as usize - 1].0 = AttemptState::Cancelled;
                }
                done
            }
            Act::RenewChance => kept.take_on(status.renew_chance()),
        };
        assert_eq!(done, world.done);
        kept
    }

    fn check_invariants(kept: &Kept, world: &World) {
        let task = &world.task;
        assert_eq!(kept.status, task.status(&RETRY));
        assert_eq!(kept.status.is_open(), task.is_open(&RETRY));
        let attempts = task.attempts.iter().map(|a| (a.fate.state(), a.holder.clone()));
        assert_eq!(kept.attempts, attempts.collect::<Vec<_>>());
        if let State::Leased(lease) = &kept.status.state {
            let expires = task.attempts.last().unwrap().expires;
            assert_eq!(lease.is_expired(world.now), world.now >= expires);
        }
    }
}

prop_state_machine! {
    #![proptest_config(walks(600))]

    #[test]
    fn a_task_is_where_its_history_puts_it(sequential 1..60 => Lifecycle);
}
