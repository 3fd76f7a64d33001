//! Properties of the match between ready tasks and workers.

use klp_livepatch::Arch;
use klp_livepatch::spec::Backend;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn platform(n: u8) -> Platform {
    Platform {
        codestream: format!("15.6u{n}").parse().unwrap(),
        arch: Arch::X86_64,
    }
}

fn livepatch(n: u8) -> LivepatchId {
    LivepatchId(Uuid::from_u128(n.into()))
}

fn worker(name: &str, slots: u32, platforms: &[u8]) -> Worker {
    Worker {
        absence: None,
        slots,
        trees: platforms.iter().map(|&n| platform(n)).collect(),
        backends: [Backend::Native].into(),
        ..Worker::unknown(name.parse().unwrap())
    }
}

fn ready(order: i64, of: u8, on: u8, backend: Option<Backend>) -> Ready {
    Ready {
        task: TaskId(Uuid::from_u128(order as u128)),
        livepatch: livepatch(of),
        need: Need {
            platform: platform(on),
            backend,
            memory: 0,
        },
        order,
        since: order,
        avoid: BTreeSet::new(),
    }
}

fn queue(tasks: impl IntoIterator<Item = Ready>) -> Queue {
    let mut queue = Queue::default();
    tasks.into_iter().for_each(|t| queue.insert(t));
    queue
}

fn orders(assigned: &[Assigned]) -> Vec<u128> {
    assigned.iter().map(|a| a.task.0.as_u128()).collect()
}

fn standing(priority: i32, weight: u32, running: u64) -> Standing {
    Standing {
        share: Share::new(priority, weight).unwrap(),
        running,
    }
}

#[test]
fn a_small_livepatch_is_not_starved_by_a_large_one() {
    let large = (0..300).map(|n| ready(n, 1, 1, None));
    let small = (300..303).map(|n| ready(n, 2, 1, None));
    let queue = queue(large.chain(small));
    let assigned = assign(&queue, &[worker("w", 4, &[1])], &Standings::new());
    assert_eq!(orders(&assigned), [0, 300, 1, 301]);
    // What runs already counts.
    let standings = Standings::from([(livepatch(1), standing(0, 100, 3))]);
    let assigned = assign(&queue, &[worker("w", 3, &[1])], &standings);
    assert_eq!(orders(&assigned), [300, 301, 302]);
}

#[test]
fn weights_share_and_priorities_go_first() {
    let tasks = |of: u8, from: i64| (from..from + 20).map(move |n| ready(n, of, 1, None));
    let both = queue(tasks(1, 0).chain(tasks(2, 100)));
    let mut standings = Standings::from([(livepatch(1), standing(0, 300, 0)), (livepatch(2), standing(0, 100, 0))]);
    let assigned = assign(&both, &[worker("w", 8, &[1])], &standings);
    let of_the_heavy = orders(&assigned).iter().filter(|order| **order < 100).count();
    assert_eq!((assigned.len(), of_the_heavy), (8, 6));
    standings.insert(livepatch(2), standing(1, 1, 50));
    let assigned = assign(&both, &[worker("w", 8, &[1])], &standings);
    assert!(orders(&assigned).iter().all(|order| *order >= 100));
    // A priority that nobody can serve holds up nothing.
    let elsewhere = queue(tasks(1, 0).chain([ready(100, 2, 2, None)]));
    assert_eq!(assign(&elsewhere, &[worker("w", 8, &[1])], &standings).len(), 8);
}

#[test]
fn load_then_spread_then_warmth_decides_and_faulty_workers_come_last() {
    let pick =
        |workers: &[Worker], task: Ready| assign(&queue([task]), workers, &Standings::new())[0].worker.to_string();
    let (mut a, mut b) = (worker("a", 2, &[1]), worker("b", 2, &[1]));
    assert_eq!(pick(&[a.clone(), b.clone()], ready(1, 1, 1, None)), "a");
    b.warm.insert(platform(1));
    assert_eq!(pick(&[a.clone(), b.clone()], ready(1, 1, 1, None)), "b");
    b.busy = 1;
    assert_eq!(pick(&[a.clone(), b.clone()], ready(1, 1, 1, None)), "a");
    // As busy as the other, but with other trees: this one's disk is idle.
    a.busy = 1;
    b.running.insert(platform(1), 1);
    assert_eq!(pick(&[a.clone(), b.clone()], ready(1, 1, 1, None)), "a");
    let mut scarred = ready(1, 1, 1, None);
    scarred.avoid.insert(a.name.clone());
    assert_eq!(pick(&[a.clone(), b.clone()], scarred.clone()), "b");
    b.absence = Some(Absence::Stopping);
    assert_eq!(pick(&[a, b], scarred), "a");
}

#[test]
fn what_is_started_together_is_spread_over_those_who_hold_the_tree() {
    let tasks = (0..4).map(|n| ready(n, n as u8, 1, None));
    let workers = [worker("a", 8, &[1]), worker("b", 8, &[1])];
    let assigned = assign(&queue(tasks), &workers, &Standings::new());
    let on_a = assigned.iter().filter(|a| a.worker.as_str() == "a").count();
    assert_eq!(on_a, 2);
}

#[test]
fn a_match_counts_what_it_has_put_on_each_tree() {
    let workers = [worker("a", 8, &[1, 2]), worker("b", 8, &[1, 2])];
    let tasks = [ready(1, 1, 1, None), ready(2, 1, 2, None), ready(3, 1, 1, None)];
    let assigned = assign(&queue(tasks), &workers, &Standings::new());
    let to: Vec<&str> = assigned.iter().map(|a| a.worker.as_str()).collect();
    assert_eq!(to, ["a", "b", "b"]);
}

#[test]
fn a_worker_is_as_busy_as_the_part_of_its_slots() {
    let (mut small, mut large) = (worker("z", 4, &[1]), worker("a", 10, &[1]));
    (small.busy, large.busy) = (1, 4);
    let assigned = assign(&queue([ready(1, 1, 1, None)]), &[small, large], &Standings::new());
    assert_eq!(assigned[0].worker.as_str(), "z");
}

#[test]
fn memory_is_lent_like_slots() {
    let large = |order| {
        let mut task = ready(order, 1, 1, None);
        task.need.memory = 3;
        task
    };
    let mut w = worker("w", 8, &[1]);
    w.memory = Some(7);
    assert_eq!(
        assign(&queue((0..4).map(large)), &[w.clone()], &Standings::new()).len(),
        2
    );
    w.memory_busy = 5;
    assert_eq!(
        assign(
            &queue([large(1), ready(2, 1, 1, None)]),
            &[w.clone()],
            &Standings::new()
        )
        .len(),
        1
    );
    w.memory = None;
    assert_eq!(assign(&queue((0..4).map(large)), &[w], &Standings::new()).len(), 4);
}

#[test]
fn short_attempts_are_given_beyond_the_slots_of_a_worker_that_ends_them_fast() {
    let mut w = worker("w", 2, &[1]);
    (w.busy, w.prefetch) = (1, [(None, 3)].into());
    let checks = (0..10).map(|n| ready(n, 1, 1, None));
    let extractions = (10..20).map(|n| ready(n, 1, 1, Some(Backend::Native)));
    let given = |tasks: Vec<Ready>| orders(&assign(&queue(tasks), &[w.clone()], &Standings::new()));
    assert_eq!(given(checks.clone().collect()), [0, 1, 2, 3]);
    // What takes long gets the slots, and no more; nor does anything wait before or behind it.
    assert_eq!(given(extractions.clone().collect()), [10]);
    assert_eq!(given(extractions.take(1).chain(checks.clone()).collect()), [0]);
    w.with_tools.insert(Some(Backend::Native), 1);
    let assigned = assign(&queue(checks), &[w], &Standings::new());
    assert_eq!(orders(&assigned), [0]);
}

#[test]
fn what_needs_a_slot_is_not_kept_waiting_by_what_is_short() {
    let scarred = |mut task: Ready| {
        task.avoid.insert("elsewhere".parse().unwrap());
        task
    };
    for waits in [
        ready(1000, 2, 1, Some(Backend::Native)),
        scarred(ready(1000, 2, 1, None)),
    ] {
        let mut w = worker("w", 2, &[1]);
        (w.busy, w.prefetch) = (11, [(None, 18)].into());
        w.with_tools.insert(None, 11);
        let checks = (0..1000).map(|n| ready(n, 1, 1, None));
        let mut q = queue(checks.chain([waits.clone()]));
        let standings = Standings::from([(livepatch(2), standing(10, 1, 0))]);
        // Three checks end between one match and the next.
        let rounds = (0..10).take_while(|_| {
            w.busy -= 3.min(w.busy);
            let assigned = assign(&q, &[w.clone()], &standings);
            w.busy += u32::try_from(assigned.len()).unwrap();
            assigned.iter().for_each(|a| q.remove(a.task));
            !assigned.iter().any(|a| a.task == waits.task)
        });
        assert_eq!(rounds.count(), 3, "{waits:?}");
        // And when it has its slot, what is short goes on.
        w.busy = 2;
        assert_eq!(assign(&q, &[w], &standings).len(), 18, "{waits:?}");
    }
    // What it could not run anyway is no reason.
    let mut w = worker("w", 2, &[1]);
    (w.prefetch, w.memory) = ([(None, 18)].into(), Some(1));
    let mut large = ready(1000, 2, 1, Some(Backend::Native));
    large.need.memory = 2;
    let others = [ready(1001, 2, 2, Some(Backend::Native)), large];
    let checks = (0..50).map(|n| ready(n, 1, 1, None));
    assert_eq!(assign(&queue(checks.chain(others)), &[w], &Standings::new()).len(), 20);
}

#[test]
fn what_is_short_is_given_in_runs_and_paid_for() {
    let mut w = worker("w", 2, &[1]);
    w.prefetch = [(None, 40)].into();
    let tasks = |of: u8, from: i64| (from..from + 100).map(move |n| ready(n, of, 1, None));
    let assigned = assign(&queue(tasks(1, 0).chain(tasks(2, 100))), &[w], &Standings::new());
    let first: Vec<bool> = orders(&assigned).iter().map(|order| *order < 100).collect();
    let runs: Vec<(bool, usize)> = first.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
    let expected = [(true, 8), (false, 8), (true, 8), (false, 8), (true, 8), (false, 2)];
    assert_eq!(runs, expected);
}

#[test]
fn what_has_failed_on_some_worker_waits_for_a_slot() {
    let (mut a, mut b) = (worker("a", 1, &[1]), worker("b", 1, &[1]));
    for w in [&mut a, &mut b] {
        (w.busy, w.prefetch) = (1, [(None, 4)].into());
    }
    let mut scarred = ready(1, 1, 1, None);
    scarred.avoid.insert(a.name.clone());
    let fresh = ready(2, 2, 1, None);
    let given = |workers: &[Worker]| {
        let assigned = assign(&queue([scarred.clone(), fresh.clone()]), workers, &Standings::new());
        assigned
            .iter()
            .map(|x| (x.task.0.as_u128(), x.worker.to_string()))
            .collect::<Vec<_>>()
    };
    assert!(given(&[a.clone(), b.clone()]).is_empty());
    b.busy = 0;
    assert!(given(&[a, b]).contains(&(1, "b".to_owned())));
}

#[test]
fn a_queue_forgets_what_is_removed_and_replaces_what_is_repeated() {
    let mut q = queue([ready(1, 1, 1, None), ready(2, 1, 1, None)]);
    let mut moved = ready(1, 1, 2, None);
    moved.order = 9;
    q.insert(moved);
    let second = TaskId(Uuid::from_u128(2));
    assert!(q.len() == 2 && !q.is_empty() && q.contains(second));
    q.remove(second);
    q.remove(second);
    assert!(q.len() == 1 && !q.is_empty() && !q.contains(second));
    let assigned = assign(&q, &[worker("w", 5, &[1, 2])], &Standings::new());
    assert_eq!(assigned.len(), 1);
    q.remove(TaskId(Uuid::from_u128(1)));
    assert!(q.is_empty() && q.needs().next().is_none() && q.livepatches().next().is_none());
}

fn why(need: &Need, workers: &[Worker]) -> String {
    why_waiting(need, livepatch(1), 0, &Queue::default(), workers, &Standings::new()).to_string()
}

#[test]
fn waiting_has_a_reason() {
    let mut need = ready(0, 1, 1, Some(Backend::Ccp)).need;
    assert_eq!(why(&need, &[worker("a", 1, &[2])]), "no worker holds 15.6u1/x86_64");
    let mut a = worker("a", 2, &[2]);
    a.broken_trees.insert(platform(1), "its .config is gone".into());
    assert_eq!(
        why(&need, &[a.clone()]),
        "no tree of 15.6u1/x86_64 can be used: on a: its .config is gone"
    );
    a = worker("a", 2, &[1]);
    assert_eq!(
        why(&need, &[a.clone()]),
        "no worker that holds 15.6u1/x86_64 has the ccp tool"
    );
    a.broken_backends.insert(Backend::Ccp, "klp-ccp exits with 127".into());
    assert_eq!(
        why(&need, &[a.clone()]),
        "no worker that holds 15.6u1/x86_64 has the ccp tool in working order: on a: klp-ccp exits with 127"
    );
    need.backend = None;
    need.memory = 3 << 30;
    assert_eq!(why(&need, &[a.clone()]), "about to be assigned");
    a.memory = Some(2 << 30);
    assert_eq!(
        why(&need, &[a.clone()]),
        "it needs 3072 MiB of memory and no worker that could run it lends more than 2048 MiB"
    );
    a.memory = Some(3 << 30);
    assert_eq!(why(&need, &[a.clone()]), "about to be assigned");
    (a.memory, a.memory_busy) = (Some(4 << 30), 2 << 30);
    assert_eq!(
        why(&need, &[a.clone()]),
        "it needs 3072 MiB of memory, more than is free on a"
    );
    a.busy = 2;
    assert_eq!(why(&need, &[a.clone()]), "all 2 slots of a are busy, this is next");
    a.absence = Some(Absence::Drained {
        since: 0,
        reason: "new disk".into(),
    });
    assert_eq!(
        why(&need, &[a.clone()]),
        "a is drained since 1970-01-01 00:00:00 UTC (new disk)"
    );
    a.absence = Some(Absence::Offline { since: 0 });
    let many: Vec<Worker> = (0..5)
        .map(|n| Worker {
            name: format!("w{n}").parse().unwrap(),
            ..a.clone()
        })
        .collect();
    assert!(why(&need, &many).ends_with("w2 is offline since before the coordinator started and 2 more"));
}

#[test]
fn whoever_waits_hears_how_many_are_ahead() {
    let mine = (0..10).map(|n| ready(n, 1, 1, None));
    let theirs = (10..13).map(|n| ready(n, 2, 1, None));
    let others = (20..23).map(|n| ready(n, 2, 2, None));
    let q = queue(mine.chain(theirs).chain(others));
    let mut w = worker("w", 1, &[1, 2]);
    w.busy = 1;
    let ahead = |order: i64, standings: &Standings| {
        let need = ready(0, 1, 1, None).need;
        match why_waiting(&need, livepatch(1), order, &q, std::slice::from_ref(&w), standings) {
            Waits::Busy { ahead, .. } => ahead,
            other => panic!("{other}"),
        }
    };
    // In turns with the other livepatch, as long as that has any.
    assert_eq!(ahead(0, &Standings::new()), 0);
    assert_eq!(ahead(1, &Standings::new()), 2);
    assert_eq!(ahead(9, &Standings::new()), 12);
    let urgent = Standings::from([(livepatch(2), standing(9, 1, 7))]);
    assert_eq!(ahead(0, &urgent), 3);
}

#[test]
fn what_nobody_could_run_is_counted_by_reason_and_what_only_waits_for_a_slot_is_not() {
    let mut w = worker("w", 1, &[1]);
    w.busy = 1;
    let tasks = [ready(1, 1, 1, None), ready(2, 1, 9, None), ready(3, 2, 9, None)];
    let found = obstacles(&queue(tasks), &[w]);
    let expected = ("no worker holds 15.6u9/x86_64".to_owned(), 2);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [expected]);
}

fn any_backend() -> impl Strategy<Value = Option<Backend>> {
    prop::sample::select(vec![None, Some(Backend::Native), Some(Backend::Ccp)])
}

fn any_worker() -> impl Strategy<Value = Worker> {
    let trees = prop::collection::btree_set(0..5u8, 0..5);
    let backends = prop::collection::btree_set(prop::sample::select(Backend::ALL.to_vec()), 0..3);
    let absence = prop::option::weighted(0.2, Just(Absence::Stopping));
    let memory = prop::option::of(0..6u64);
    let prefetch = prop::collection::btree_map(any_backend(), 1..4u32, 0..3);
    let held = (0..4u32, 0..4u32, any_backend(), prefetch);
    (trees, backends, held, absence, memory).prop_map(
        |(trees, backends, (slots, busy, tool, prefetch), absence, memory)| Worker {
            absence,
            busy,
            with_tools: (busy > 0).then_some((tool, busy)).into_iter().collect(),
            prefetch,
            backends,
            memory,
            memory_busy: u64::from(busy),
            ..worker("x", slots, &trees.into_iter().collect::<Vec<_>>())
        },
    )
}

fn any_standing() -> impl Strategy<Value = Standing> {
    (-1..=1i32, prop::sample::select(vec![1u32, 50, 100, 1000]), 0..5u64).prop_map(|(p, w, r)| standing(p, w, r))
}

proptest! {
    #[test]
    fn a_match_is_sound_complete_and_fair(
        mut workers in prop::collection::vec(any_worker(), 0..6),
        tasks in prop::collection::vec((0..4u8, 0..5u8, any_backend(), 0..3u64), 0..40),
        standings in prop::collection::vec(any_standing(), 4),
    ) {
        for (i, w) in workers.iter_mut().enumerate() {
            w.name = format!("w{i}").parse().unwrap();
        }
        let tasks: Vec<Ready> = tasks
            .into_iter()
            .enumerate()
            .map(|(i, (of, on, backend, memory))| {
                let mut task = ready(i as i64, of, on, backend);
                task.need.memory = memory;
                task
            })
            .collect();
        let standings: Standings = (0u8..).zip(standings).map(|(i, s)| (livepatch(i), s)).collect();
        let queue = queue(tasks.clone());
        let assigned = assign(&queue, &workers, &standings);
        prop_assert_eq!(&assigned, &assign(&queue, &workers, &standings));

        let task = |id: TaskId| tasks.iter().find(|t| t.task == id).unwrap();
        let mut after = workers.clone();
        let mut once = BTreeSet::new();
        for a in &assigned {
            // No task twice, only to a worker that has what it needs, and a slot, soon at least, and memory for it.
            prop_assert!(once.insert(a.task));
            let need = &task(a.task).need;
            let w = after.iter_mut().find(|w| w.name == a.worker).unwrap();
            prop_assert!(w.absence.is_none() && w.has(need));
            prop_assert!(w.busy < limit(w, beyond_slots(w, &queue), need));
            w.busy += 1;
            *w.with_tools.entry(need.backend).or_default() += 1;
            w.memory_busy += need.memory;
            prop_assert!(w.memory.is_none_or(|memory| w.memory_busy <= memory));
        }
        // Work-conserving: what is left can't run on what is left, and says so.
        for t in tasks.iter().filter(|t| !once.contains(&t.task)) {
            let fits = |w: &Worker| w.memory.is_none_or(|memory| w.memory_busy + t.need.memory <= memory);
            let slot = |w: &Worker| w.absence.is_none() && w.busy < limit(w, beyond_slots(w, &queue), &t.need);
            prop_assert!(!after.iter().any(|w| slot(w) && w.has(&t.need) && fits(w)), "{t:?} could run");
            let waits = why_waiting(&t.need, t.livepatch, t.order, &queue, &after, &standings);
            prop_assert_ne!(waits, Waits::Turn);
        }
        // Fair: of two livepatches that need the same, none is served while it is the other's turn; but a turn goes on for
        // what is short.
        let is_short = |a: &Assigned| {
            let w = workers.iter().find(|w| w.name == a.worker).unwrap();
            w.prefetch.contains_key(&task(a.task).need.backend)
        };
        for t in tasks.iter().filter(|t| !once.contains(&t.task)) {
            let taken = |id: LivepatchId, n: usize| assigned[..n].iter().filter(|a| task(a.task).livepatch == id).count();
            let due = |id: LivepatchId, n: usize| {
                let s = standings[&id];
                turn(id, s.share, s.running + taken(id, n) as u64)
            };
            for (n, a) in assigned.iter().enumerate() {
                let served = task(a.task);
                if served.need == t.need && served.livepatch != t.livepatch {
                    let same = |m: &usize| {
                        is_short(&assigned[*m]) && task(assigned[*m].task).livepatch == served.livepatch
                    };
                    let run = (0..n).rev().take(RUN as usize - 1).take_while(same).count();
                    let mut began = n - run..=n;
                    prop_assert!(began.any(|from| due(served.livepatch, from) < due(t.livepatch, from)));
                }
            }
        }
    }
}
