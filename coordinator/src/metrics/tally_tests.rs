//! Facts follow from changes, and what is open adds up.

use std::collections::BTreeMap;
use std::sync::Arc;

use klp_livepatch::Arch;
use klp_livepatch::spec::{Draft, Spec, TargetDraft};
use klp_livepatch::task::{Incarnation, Platform, TaskKey};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::lifecycle::{Holder, Lease, Status};
use crate::store::Pause;

pub fn livepatch(n: u128, paused: bool) -> OpenLivepatch {
    let draft = Draft {
        name: format!("lp{n}"),
        targets: vec![TargetDraft {
            file: "a.c".into(),
            functions: vec!["f".into()],
            config: "CONFIG_A".into(),
            object: String::new(),
        }],
        ..Draft::default()
    };
    OpenLivepatch {
        id: LivepatchId(Uuid::from_u128(n)),
        spec: Arc::new(Spec::parse(&draft).unwrap()),
        share: Default::default(),
        pause: paused.then(|| Pause {
            since: 0,
            reason: String::new(),
        }),
    }
}

pub fn task(n: u128, livepatch: u128, kind: TaskKind, attempt: u32, state: State) -> OpenTask {
    OpenTask {
        id: TaskId(Uuid::from_u128(n)),
        livepatch: LivepatchId(Uuid::from_u128(livepatch)),
        key: TaskKey {
            kind,
            platform: Platform {
                codestream: format!("15.{livepatch}u{n}").parse().unwrap(),
                arch: Arch::X86_64,
            },
            round: 0,
        },
        seq: 1,
        created: 500,
        status: Status {
            state,
            attempt,
            ..Status::NEW
        },
        input: None,
        avoid: Default::default(),
    }
}

pub fn waiting(not_before: Millis) -> State {
    State::Waiting { not_before }
}

pub fn leased() -> State {
    State::Leased(Lease {
        holder: Holder {
            worker: "w".parse().unwrap(),
            incarnation: Incarnation(Uuid::from_u128(1)),
        },
        expires: 0,
    })
}

fn ended(kind: TaskKind, state: AttemptState, cause: Option<Cause>) -> EndedAttempt {
    EndedAttempt {
        livepatch: LivepatchId(Uuid::from_u128(1)),
        kind,
        state,
        cause,
        again: false,
        lasted: 1,
    }
}

/// The facts that follow from changes, each at its time.
fn facts(tally: &mut Tally, changes: &[(Millis, Change)]) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (now, change) in changes {
        tally.take_in(change, *now, &mut |fact| facts.push(fact));
    }
    facts
}

fn dispatched(facts: &[Fact]) -> Vec<Millis> {
    let after = |fact: &Fact| match fact {
        Fact::Dispatched { after, .. } => Some(*after),
        _ => None,
    };
    facts.iter().filter_map(after).collect()
}

fn of(n: u128, attempt: u32, state: State) -> Change {
    Change::Task(task(n, 1, TaskKind::Extract, attempt, state))
}

#[test]
fn a_task_has_waited_since_it_could_run_and_not_longer() {
    let mut tally = Tally::default();
    let life = [
        (100, Change::Opened(livepatch(1, false))),
        (100, of(1, 0, waiting(0))),
        (130, of(1, 1, leased())),
        // Tried again after a pause until 1000.
        (200, of(1, 1, waiting(1_000))),
        (1_007, of(1, 2, leased())),
        // A lease that only changes is none that is given.
        (1_100, of(1, 2, leased())),
        // It fails, and long after somebody retries it.
        (1_200, of(1, 2, State::Failed)),
        (9_000, of(1, 2, waiting(0))),
        // Told anew, it has waited since before.
        (9_004, of(1, 2, waiting(0))),
        (9_005, of(1, 3, leased())),
    ];
    let facts = facts(&mut tally, &life);
    assert_eq!(dispatched(&facts), [30, 7, 5]);
    assert_eq!(facts.iter().filter(|f| **f == Fact::Again(Again::Asked)).count(), 1);
}

#[test]
fn time_in_a_pause_is_not_the_queues() {
    let mut tally = Tally::default();
    let life = [
        (0, Change::Opened(livepatch(1, false))),
        (10, of(1, 0, waiting(0))),
        (20, Change::Opened(livepatch(1, true))),
        (5_000, Change::Opened(livepatch(1, false))),
        (5_003, of(1, 1, leased())),
    ];
    assert_eq!(dispatched(&facts(&mut tally, &life)), [3]);
}

#[test]
fn what_was_open_before_a_start_goes_on() {
    let mut tally = Tally::default();
    let open = Open {
        livepatches: vec![livepatch(1, false)],
        tasks: vec![
            task(1, 1, TaskKind::Check, 0, waiting(0)),
            task(2, 1, TaskKind::Extract, 1, leased()),
        ],
        workers: BTreeMap::new(),
    };
    let mut begun = Vec::new();
    tally.begin(&open, &mut |fact| begun.push(fact));
    let more = begun.iter().filter(|f| matches!(f, Fact::Open { more: true, .. }));
    assert_eq!(more.count(), 2);
    // Created at 500.
    let leased = Change::Task(task(1, 1, TaskKind::Check, 1, leased()));
    assert_eq!(dispatched(&facts(&mut tally, &[(800, leased)])), [300]);
    let end = ended(TaskKind::Extract, AttemptState::Succeeded, None);
    let facts = facts(&mut tally, &[(900, Change::Attempt(end))]);
    let backend = Some(Backend::Native);
    assert_eq!(facts, [Fact::Attempt { ended: end, backend }]);
}

#[test]
fn a_retry_is_told_with_its_attempts_end_and_only_a_failure_has_a_cause() {
    let mut tally = Tally::default();
    let lost = EndedAttempt {
        again: true,
        ..ended(TaskKind::Check, AttemptState::Lost, Some(Cause::Farm))
    };
    let facts = facts(&mut tally, &[(1, Change::Attempt(lost))]);
    assert_eq!(facts[1], Fact::Again(Again::After(AttemptState::Lost)));
    assert_eq!(blamed(&lost), Some(Cause::Farm));
    let back = ended(TaskKind::Check, AttemptState::HandedBack, Some(Cause::Farm));
    assert_eq!(blamed(&back), None, "nobody's fault");
}

#[test]
fn a_livepatch_is_counted_once() {
    let mut tally = Tally::default();
    let id = livepatch(1, false).id;
    let life = [
        (1, Change::Opened(livepatch(1, false))),
        (2, Change::Opened(livepatch(1, true))),
        (3, Change::Ended { livepatch: id }),
        (4, Change::Opened(livepatch(1, false))),
    ];
    let mut open = BTreeMap::new();
    for fact in facts(&mut tally, &life) {
        if let Fact::Livepatch { paused, more } = fact {
            *open.entry(paused).or_insert(0) += if more { 1 } else { -1 };
        }
    }
    assert_eq!(open, BTreeMap::from([(false, 1), (true, 0)]));
}

proptest! {
    /// However tasks move, the open ones that were told add up to those that are open, and each end is told once.
    #[test]
    fn what_is_open_adds_up(moves in proptest::collection::vec((0u128..6, 0u8..5, 1u32..3), 0..200)) {
        let mut tally = Tally::default();
        let (mut told, mut truth) = (BTreeMap::new(), BTreeMap::new());
        let (mut ends, mut ended) = (0, 0);
        for (now, (n, state, attempt)) in (0..).zip(moves) {
            let (state, phase) = match state {
                0 => (waiting(now + 5), Some("waiting")),
                1 => (leased(), Some("running")),
                2 => (State::Succeeded, None),
                3 => (State::Failed, None),
                _ => (State::Cancelled, None),
            };
            match phase {
                Some(phase) => drop(truth.insert(n, phase)),
                None => {
                    truth.remove(&n);
                    ended += 1;
                }
            }
            tally.take_in(&of(n, attempt, state), now, &mut |fact| match fact {
                Fact::Open { phase, more, .. } => *told.entry(phase.as_str()).or_insert(0) += if more { 1 } else { -1 },
                Fact::Ended { .. } => ends += 1,
                Fact::Dispatched { after, .. } => assert!(after >= 0),
                _ => {}
            });
            for phase in ["waiting", "running"] {
                let open = truth.values().filter(|p| **p == phase).count();
                prop_assert_eq!(told.get(phase).copied().unwrap_or(0), open as i64);
            }
        }
        prop_assert_eq!(ends, ended);
    }
}
