//! The ledger over a real database beside the model of the farm: after each move, restarts among them, both hold the same
//! to the last event, and so does whoever only heard of the changes.

use std::collections::BTreeMap;

use klp_livepatch::task::TaskId;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::farm::{Farm, RETRY};
use super::livepatch::{About, Event, Livepatch, Task};
use super::moves::{Move, TaskName, moves};
use super::real::{Real, artifacts, incarnation, key, livepatch, platform, report, share, spec, worker};
use super::task::Stand;
use super::walks;
use crate::lifecycle::State;
use crate::store::{self, AttemptRow, EventRow, LivepatchRow, LivepatchState, TaskRow};

impl ReferenceStateMachine for Farm {
    type State = Farm;
    type Transition = Move;

    fn init_state() -> BoxedStrategy<Farm> {
        Just(Farm::default()).boxed()
    }

    fn transitions(farm: &Farm) -> BoxedStrategy<Move> {
        moves(farm)
    }

    fn apply(mut farm: Farm, step: &Move) -> Farm {
        farm.walk(step);
        farm
    }
}

struct Ledger;

impl StateMachineTest for Ledger {
    type SystemUnderTest = Real;
    type Reference = Farm;

    fn init_test(_: &Farm) -> Real {
        Real::new()
    }

    fn apply(mut real: Real, farm: &Farm, step: Move) -> Real {
        match step {
            Move::Jobs { wait, jobs } => assert_eq!(real.work(wait, jobs), farm.answers),
            Move::Forget { livepatch, ago } => assert_eq!([real.forget(livepatch, ago)], farm.answers[..]),
            Move::Reopen { died } => real.reopen(died),
        }
        real
    }

    fn check_invariants(real: &Real, farm: &Farm) {
        check(real, farm, 10);
    }

    fn teardown(mut real: Real, farm: Farm) {
        check(&real, &farm, u64::MAX);
        assert_eq!(real.read(store::audit::breaches), []);
        real.stop();
    }
}

/// Compares all there is; of each livepatch's events the newest so many.
fn check(real: &Real, farm: &Farm, newest: u64) {
    let kept = real.read(move |db| Kept::all(db, newest));
    let rows = farm.livepatches.iter().zip(&kept.livepatches);
    for (known, (row, tasks, events)) in rows {
        check_livepatch(known, row);
        check_events(known, events);
        check_tasks(known, tasks);
    }
    assert_eq!(farm.livepatches.len(), kept.livepatches.len());
    check_workers(farm, &kept.open);
    check_view(real, kept);
}

/// A task with its attempts.
type Kin = (TaskRow, Vec<AttemptRow>);

/// All that the database says.
struct Kept {
    /// In the order they were submitted.
    livepatches: Vec<(LivepatchRow, Vec<Kin>, Vec<EventRow>)>,
    open: store::Open,
}

impl Kept {
    fn all(db: &rusqlite::Connection, newest: u64) -> rusqlite::Result<Self> {
        let attempts = |task: TaskId| -> rusqlite::Result<Vec<AttemptRow>> {
            let mut attempts = Vec::new();
            while let Some(attempt) = store::attempt(db, task, attempts.len() as u32 + 1)? {
                attempts.push(attempt);
            }
            Ok(attempts)
        };
        let mut livepatches = Vec::new();
        for row in store::livepatch_page(db, &Default::default(), i64::MAX, 100)?
            .into_iter()
            .rev()
        {
            assert_eq!(store::find_livepatch(db, &row.spec.name)?.as_ref(), Some(&row));
            let tasks = store::tasks_of(db, row.id)?.into_iter().map(|task| {
                let attempts = attempts(task.id)?;
                Ok((task, attempts))
            });
            let tasks = tasks.collect::<rusqlite::Result<_>>()?;
            let events = store::events_after(db, row.id, row.last_event.saturating_sub(newest), u32::MAX)?;
            livepatches.push((row, tasks, events));
        }
        let open = store::open(db)?;
        assert_eq!(open.livepatches.len() as u32, store::count_open(db)?);
        Ok(Self { livepatches, open })
    }
}

fn check_livepatch(known: &Livepatch, row: &LivepatchRow) {
    assert_eq!(row.id, livepatch(known.id));
    assert_eq!(row.spec, spec(known.name, known.filter));
    assert_eq!((row.created, row.share), (known.created, share(known.share)));
    assert_eq!(row.pause.clone().map(|p| (p.since, p.reason)), known.pause);
    let end = match &row.state {
        LivepatchState::Running => None,
        LivepatchState::Ended { at, verdict } => Some((*at, verdict.state)),
    };
    assert_eq!(end, known.end);
    let count = |stand| known.tasks.iter().filter(|t| t.history.stand(RETRY) == stand).count() as u32;
    let counts = [
        row.counts.waiting,
        row.counts.leased,
        row.counts.succeeded,
        row.counts.failed,
        row.counts.cancelled,
    ];
    use Stand::{Cancelled, Failed, Running, Succeeded, Waiting};
    assert_eq!(counts, [Waiting, Running, Succeeded, Failed, Cancelled].map(count));
    assert_eq!(row.last_event, known.events.len() as u64);
}

fn stand(state: &State) -> Stand {
    match state {
        State::Waiting { .. } => Stand::Waiting,
        State::Leased(_) => Stand::Running,
        State::Succeeded => Stand::Succeeded,
        State::Failed => Stand::Failed,
        State::Cancelled => Stand::Cancelled,
    }
}

fn check_events(known: &Livepatch, events: &[EventRow]) {
    let before = known.events.len() - events.len();
    let mut numbered = (before as u64 + 1..).zip(events);
    assert!(numbered.all(|(number, e)| e.number == number), "{events:?}");
    let told = events.iter().map(|event| Event {
        time: event.time,
        ended: event.ended,
        about: event.task.as_ref().map(|task| {
            let name = known.tasks.iter().find(|t| key(t.name) == task.key).unwrap().name;
            let ended = !task.status.is_open();
            assert_eq!(task.ended, ended.then_some(event.time));
            About {
                name,
                stand: stand(&task.status.state),
                attempt: task.status.attempt,
                why: task.failure.as_ref().map(|f| f.cause),
            }
        }),
    });
    assert_eq!(told.collect::<Vec<_>>(), known.events[before..]);
}

fn check_tasks(known: &Livepatch, rows: &[Kin]) {
    let by_platform: BTreeMap<TaskName, &Task> = known.tasks.iter().map(|t| (t.name, t)).collect();
    let mut tasks: Vec<&Task> = by_platform.into_values().collect();
    tasks.sort_by_key(|t| (t.name.2, t.name.1));
    assert_eq!(tasks.len(), rows.len());
    for (task, (row, attempts)) in tasks.into_iter().zip(rows) {
        let newest = task.history.attempts.last();
        let number = task.history.attempts.len() as u32;
        let (reported, made) = task.found.get(&number).copied().unwrap_or_default();
        assert_eq!(row.key, key(task.name));
        assert_eq!(row.status, task.history.status(RETRY), "{}", row.key);
        assert_eq!(row.failure.as_ref().map(|f| f.cause), task.why, "{}", row.key);
        assert_eq!((row.created, row.ended), (task.created, task.ended));
        assert_eq!(row.worker, newest.map(|a| a.holder.worker.to_string()));
        assert_eq!(row.started, newest.map(|a| a.started));
        assert_eq!(row.report, reported.then(|| report(task.name.1)));
        if !row.status.is_open() {
            assert_eq!(row.artifacts, artifacts(made));
        }
        let expected = task.history.attempts.iter().map(|a| AttemptRow {
            state: a.fate.state(),
            holder: a.holder.clone(),
            lease_expires: a.expires,
            started: a.started,
        });
        assert_eq!(*attempts, expected.collect::<Vec<_>>(), "{}", row.key);
    }
}

fn check_workers(farm: &Farm, open: &store::Open) {
    assert_eq!(farm.workers.len(), open.workers.len());
    for (name, expected) in &farm.workers {
        let known = &open.workers[&worker(*name)];
        let registration = &known.registration;
        assert_eq!(registration.incarnation, incarnation(expected.incarnation));
        assert_eq!(known.registered, expected.registered);
        assert!(
            registration
                .trees
                .iter()
                .eq(&expected.trees.iter().copied().map(platform).collect::<Vec<_>>())
        );
        let broken: Vec<_> = expected.broken.iter().copied().map(platform).collect();
        assert!(registration.broken_trees.keys().eq(&broken));
        let standing = &known.standing;
        let drain = standing.drain.clone().map(|d| (d.since, d.reason));
        let until = standing.quarantine.as_ref().map(|q| q.until);
        let told = super::farm::Standing {
            drain,
            faults: standing.faults,
            quarantined_until: until,
        };
        assert_eq!(told, expected.standing, "{name}");
    }
}

/// Whoever heard of all changes knows what one who reads it all anew does.
fn check_view(real: &Real, kept: Kept) {
    let view = &real.view;
    let newest = kept.livepatches.iter().map(|(row, ..)| (row.id, row.last_event));
    assert_eq!(view.events, newest.collect());
    assert_eq!(
        view.livepatches,
        kept.open.livepatches.into_iter().map(|l| (l.id, l)).collect()
    );
    assert_eq!(view.tasks, kept.open.tasks.into_iter().map(|t| (t.id, t)).collect());
    for (name, known) in &kept.open.workers {
        assert_eq!(view.standings.get(name).cloned().unwrap_or_default(), known.standing);
    }
    assert!(view.standings.keys().all(|name| kept.open.workers.contains_key(name)));
}

prop_state_machine! {
    #![proptest_config(walks(16))]

    #[test]
    fn the_database_holds_what_the_model_does(sequential 40..120 => Ledger);
}
