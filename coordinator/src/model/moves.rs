//! What people, workers and the farm's loop may ask of the ledger, sensibly or not, and how such walks are made up.

use std::collections::BTreeSet;

use klp_livepatch::outcome::{Cause, Ending, Failure};
use klp_livepatch::task::TaskKind;
use proptest::prelude::*;
use proptest::strategy::Union;

use super::farm::{FILTERS, Farm, RETRY};
use super::task::{Fate, Stand};
use crate::lifecycle::{Holder, Millis, Taken};

/// A task of livepatch, kind and platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskName(pub u8, pub TaskKind, pub u8);

#[derive(Clone, Debug)]
pub enum Move {
    /// These come together, after a wait.
    Jobs { wait: Millis, jobs: Vec<Job> },
    /// The program ends, or dies and leaves its files as they are; another one starts.
    Reopen { died: bool },
    /// A livepatch is cleared away that ended longer ago.
    Forget { livepatch: u8, ago: Millis },
}

#[derive(Clone, Debug)]
pub struct Job {
    pub order: Order,
    pub noise: u16,
    /// Or it fails after all was done.
    pub keep: bool,
}

#[derive(Clone, Debug)]
pub enum Order {
    Submit {
        id: u8,
        name: u8,
        filter: usize,
    },
    /// Workers with incarnation, trees, and trees that can't be used.
    Register(Vec<(u8, u8, BTreeSet<u8>, BTreeSet<u8>)>),
    /// Tasks, each for a worker's incarnation.
    Lease(Vec<(TaskName, u8, u8)>),
    Commit(Commit),
    Lose(Vec<Loss>),
    Cancel(u8),
    Retry {
        id: u8,
        filter: usize,
    },
    Pause {
        id: u8,
        reason: String,
    },
    Resume(u8),
    SetShare {
        id: u8,
        share: (i32, u32),
    },
    Drain {
        worker: u8,
        reason: String,
    },
    Undrain(u8),
    ForgetWorker(u8),
}

#[derive(Clone, Debug)]
pub struct Commit {
    pub task: TaskName,
    pub number: u32,
    pub by: (u8, u8),
    pub ending: Ending,
    pub report: Report,
    pub artifacts: u8,
    /// They are not stored.
    pub missing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    Right,
    None,
    /// Of the other kind of task.
    Wrong,
}

#[derive(Clone, Debug)]
pub struct Loss {
    pub task: TaskName,
    pub number: u32,
    pub worker: u8,
    pub taken: Taken,
}

pub fn moves(farm: &Farm) -> BoxedStrategy<Move> {
    let keep = prop::bool::weighted(0.9);
    let job = (orders(farm), any::<u16>(), keep).prop_map(|(order, noise, keep)| Job { order, noise, keep });
    let count = prop_oneof![3 => 1..2usize, 1 => 2..4usize];
    let jobs = count.prop_flat_map(move |count| prop::collection::vec(job.clone(), count));
    let wait = prop::sample::select(vec![0, 1, 60, 200]);
    prop_oneof![
        16 => (wait, jobs).prop_map(|(wait, jobs)| Move::Jobs { wait, jobs }),
        1 => any::<bool>().prop_map(|died| Move::Reopen { died }),
        1 => (0..5u8, 0..100i64).prop_map(|(livepatch, ago)| Move::Forget { livepatch, ago }),
    ]
    .boxed()
}

type Orders = Vec<(u32, BoxedStrategy<Order>)>;

fn orders(farm: &Farm) -> Union<BoxedStrategy<Order>> {
    let submit = prop_oneof![4 => (0..5u8).prop_map(|id| (id, id)), 1 => (0..5u8, 0..5u8)];
    let submit = (submit, filters()).prop_map(|((id, name), filter)| Order::Submit { id, name, filter });
    let mut orders = vec![(4, submit.boxed())];
    orders.extend(of_workers());
    if !farm.livepatches.is_empty() {
        orders.extend(of_livepatches(farm));
        orders.extend(of_tasks(farm));
    }
    Union::new_weighted(orders)
}

fn filters() -> impl Strategy<Value = usize> {
    0..FILTERS.len()
}

fn reasons() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a".to_owned(), "b".to_owned()])
}

/// Worker and incarnation.
fn holders() -> impl Strategy<Value = (u8, u8)> + Clone {
    (0..3u8, 0..3u8)
}

fn of_workers() -> Orders {
    let platforms = |least| prop::collection::btree_set(0..3u8, least..3);
    let registration = (0..3u8, 0..3u8, platforms(1), platforms(0));
    let registrations = prop::collection::vec(registration, 1..3);
    let drain = (0..3u8, reasons()).prop_map(|(worker, reason)| Order::Drain { worker, reason });
    vec![
        (3, registrations.prop_map(Order::Register).boxed()),
        (1, drain.boxed()),
        (1, (0..3u8).prop_map(Order::Undrain).boxed()),
        (1, (0..3u8).prop_map(Order::ForgetWorker).boxed()),
    ]
}

fn of_livepatches(farm: &Farm) -> Orders {
    let stored: Vec<u8> = farm.livepatches.iter().map(|l| l.id).collect();
    let id = || prop_oneof![8 => prop::sample::select(stored.clone()), 1 => 0..5u8];
    let retry = (id(), filters()).prop_map(|(id, filter)| Order::Retry { id, filter });
    let pause = (id(), reasons()).prop_map(|(id, reason)| Order::Pause { id, reason });
    let share = (id(), (-1..2i32, 1..3u32)).prop_map(|(id, share)| Order::SetShare { id, share });
    vec![
        (1, id().prop_map(Order::Cancel).boxed()),
        (3, retry.boxed()),
        (1, pause.boxed()),
        (1, id().prop_map(Order::Resume).boxed()),
        (1, share.boxed()),
    ]
}

fn of_tasks(farm: &Farm) -> Orders {
    let tasks = || farm.livepatches.iter().flat_map(|l| &l.tasks);
    // Mostly of what waits and to who is there; mostly of attempts that run.
    let names = tasks().map(|t| match t.history.stand(RETRY) {
        Stand::Waiting => (5, Just(t.name)),
        _ => (1, Just(t.name)),
    });
    let present = farm
        .workers
        .iter()
        .map(|(name, w)| (9, Just((*name, w.incarnation)).boxed()));
    let to = Union::new_weighted(present.chain([(2, holders().boxed())]).collect());
    let grant = (Union::new_weighted(names.collect()), to).prop_map(|(task, (worker, start))| (task, worker, start));
    let mut orders = vec![(10, prop::collection::vec(grant, 1..4).prop_map(Order::Lease).boxed())];
    let attempts = tasks().flat_map(|t| {
        let attempts = (1..).zip(&t.history.attempts).map(|(number, a)| match a.fate {
            Fate::Running => (30, Just((t.name, number, names_of(&a.holder)))),
            _ => (3, Just((t.name, number, names_of(&a.holder)))),
        });
        // One that there is not.
        let newest = t.history.attempts.last().map(|a| names_of(&a.holder));
        let beyond = newest.map(|holder| (1, Just((t.name, t.history.attempts.len() as u32 + 1, holder))));
        attempts.chain(beyond)
    });
    let attempts: Vec<_> = attempts.collect();
    if !attempts.is_empty() {
        let attempt = Union::new_weighted(attempts);
        orders.push((10, commits(attempt.clone()).prop_map(Order::Commit).boxed()));
        let taken = prop::sample::select(vec![Taken::Expired, Taken::Died, Taken::Unstarted]);
        let loss = (attempt, taken).prop_map(|((task, number, (worker, _)), taken)| Loss {
            task,
            number,
            worker,
            taken,
        });
        orders.push((5, prop::collection::vec(loss, 1..4).prop_map(Order::Lose).boxed()));
    }
    orders
}

fn names_of(holder: &Holder) -> (u8, u8) {
    // Both were made from numbers of one byte.
    let worker = holder.worker.as_str()[1..].parse().unwrap();
    (worker, holder.incarnation.0.as_u128() as u8)
}

fn commits(attempt: impl Strategy<Value = (TaskName, u32, (u8, u8))>) -> impl Strategy<Value = Commit> {
    let by = prop_oneof![9 => Just(None), 1 => holders().prop_map(Some)];
    let report = prop_oneof![12 => Just(Report::Right), 1 => Just(Report::None), 1 => Just(Report::Wrong)];
    let all = (attempt, by, endings(), report, 0..3u8, prop::bool::weighted(0.1));
    all.prop_map(
        |((task, number, holder), by, ending, report, artifacts, missing)| Commit {
            task,
            number,
            by: by.unwrap_or(holder),
            ending,
            report,
            artifacts,
            missing: missing && artifacts > 0,
        },
    )
}

fn endings() -> impl Strategy<Value = Ending> {
    let failed = |cause| Ending::Failed(Failure::new(cause, "it failed"));
    prop_oneof![
        4 => Just(Ending::Succeeded),
        2 => Just(failed(Cause::Farm)),
        1 => Just(failed(Cause::Yours)),
        1 => Just(failed(Cause::Codestream)),
        1 => Just(Ending::HandedBack { reason: "it stops".into() }),
    ]
}
