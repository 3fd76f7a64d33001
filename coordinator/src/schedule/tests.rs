//! Properties of the match between ready tasks and workers.

use klp_livepatch::Arch;
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
        name: name.parse().unwrap(),
        connected: true,
        draining: false,
        slots,
        busy: 0,
        trees: platforms.iter().map(|&n| platform(n)).collect(),
        backends: [Backend::Native].into(),
        warm: BTreeSet::new(),
    }
}

fn ready(order: i64, of: u8, on: u8, backend: Option<Backend>) -> Ready {
    Ready {
        task: TaskId(Uuid::from_u128(order as u128)),
        livepatch: livepatch(of),
        need: Need {
            platform: platform(on),
            backend,
        },
        order,
        avoid: BTreeSet::new(),
    }
}

fn queue(tasks: impl IntoIterator<Item = Ready>) -> Queue {
    let mut queue = Queue::default();
    tasks.into_iter().for_each(|t| queue.insert(t));
    queue
}

#[test]
fn a_small_livepatch_is_not_starved_by_a_large_one() {
    let large = (0..100).map(|n| ready(n, 1, 1, None));
    let small = (100..102).map(|n| ready(n, 2, 1, None));
    let assigned = assign(&queue(large.chain(small)), &[worker("w", 4, &[1])], &BTreeMap::new());
    let orders: Vec<u128> = assigned.iter().map(|a| a.task.0.as_u128()).collect();
    assert_eq!(orders, [0, 100, 1, 101]);
    // What runs already counts.
    let running = BTreeMap::from([(livepatch(1), 3)]);
    let assigned = assign(
        &queue([ready(0, 1, 1, None), ready(1, 2, 1, None)]),
        &[worker("w", 1, &[1])],
        &running,
    );
    assert_eq!(assigned[0].task.0.as_u128(), 1);
}

#[test]
fn load_then_warmth_decides_and_faulty_workers_come_last() {
    let pick =
        |workers: &[Worker], task: Ready| assign(&queue([task]), workers, &BTreeMap::new())[0].worker.to_string();
    let (a, mut b) = (worker("a", 2, &[1]), worker("b", 2, &[1]));
    assert_eq!(pick(&[a.clone(), b.clone()], ready(1, 1, 1, None)), "a");
    b.warm.insert(platform(1));
    assert_eq!(pick(&[a.clone(), b.clone()], ready(1, 1, 1, None)), "b");
    b.busy = 1;
    assert_eq!(pick(&[a.clone(), b.clone()], ready(1, 1, 1, None)), "a");
    let mut scarred = ready(1, 1, 1, None);
    scarred.avoid.insert(a.name.clone());
    assert_eq!(pick(&[a.clone(), b.clone()], scarred.clone()), "b");
    b.connected = false;
    assert_eq!(pick(&[a, b], scarred), "a");
}

#[test]
fn a_queue_forgets_what_is_removed_and_replaces_what_is_repeated() {
    let mut q = queue([ready(1, 1, 1, None), ready(2, 1, 1, None)]);
    let mut moved = ready(1, 1, 2, None);
    moved.order = 9;
    q.insert(moved);
    assert_eq!(q.len(), 2);
    q.remove(TaskId(Uuid::from_u128(2)));
    q.remove(TaskId(Uuid::from_u128(2)));
    let assigned = assign(&q, &[worker("w", 5, &[1, 2])], &BTreeMap::new());
    assert_eq!(assigned.len(), 1);
    q.remove(TaskId(Uuid::from_u128(1)));
    assert!(q.is_empty() && q.livepatches.is_empty());
}

#[test]
fn waiting_has_a_reason() {
    let extract = Need {
        platform: platform(1),
        backend: Some(Backend::Ccp),
    };
    let check = Need {
        platform: platform(1),
        backend: None,
    };
    let why = |need: &Need, workers: &[Worker]| why_waiting(need, workers).to_string();
    assert_eq!(why(&check, &[worker("a", 1, &[2])]), "no worker holds 15.6u1/x86_64");
    assert_eq!(
        why(&extract, &[worker("a", 1, &[1])]),
        "no worker that holds 15.6u1/x86_64 has the ccp tool"
    );
    let mut a = worker("a", 2, &[1]);
    assert_eq!(why_waiting(&check, std::slice::from_ref(&a)), Waits::Turn);
    a.busy = 2;
    assert_eq!(why(&check, &[a.clone()]), "all 2 slots of a are busy");
    a.draining = true;
    assert_eq!(why(&check, &[a.clone()]), "draining: a");
    a.connected = false;
    assert_eq!(why(&check, &[a.clone()]), "not connected: a");
    let many: Vec<Worker> = (0..5)
        .map(|n| Worker {
            name: format!("w{n}").parse().unwrap(),
            ..a.clone()
        })
        .collect();
    assert_eq!(why(&check, &many), "not connected: w0, w1, w2 and 2 more");
}

fn any_backend() -> impl Strategy<Value = Option<Backend>> {
    prop::sample::select(vec![None, Some(Backend::Native), Some(Backend::Ccp)])
}

fn any_worker() -> impl Strategy<Value = Worker> {
    let trees = prop::collection::btree_set(0..5u8, 0..5);
    let backends = prop::collection::btree_set(prop::sample::select(Backend::ALL.to_vec()), 0..3);
    (trees, backends, 0..4u32, 0..4u32, any::<(bool, bool)>()).prop_map(
        |(trees, backends, slots, busy, (connected, draining))| Worker {
            connected,
            draining: draining && connected,
            busy,
            backends,
            ..worker("x", slots, &trees.into_iter().collect::<Vec<_>>())
        },
    )
}

proptest! {
    #[test]
    fn a_match_is_sound_complete_and_fair(
        mut workers in prop::collection::vec(any_worker(), 0..6),
        tasks in prop::collection::vec((0..4u8, 0..5u8, any_backend()), 0..40),
        counts in prop::collection::vec(0..5usize, 4),
    ) {
        for (i, w) in workers.iter_mut().enumerate() {
            w.name = format!("w{i}").parse().unwrap();
        }
        let tasks: Vec<Ready> =
            tasks.into_iter().enumerate().map(|(i, (of, on, backend))| ready(i as i64, of, on, backend)).collect();
        let running: BTreeMap<_, _> = counts.iter().enumerate().map(|(i, n)| (livepatch(i as u8), *n)).collect();
        let queue = queue(tasks.clone());
        let assigned = assign(&queue, &workers, &running);
        prop_assert_eq!(&assigned, &assign(&queue, &workers, &running));

        let task = |id: TaskId| tasks.iter().find(|t| t.task == id).unwrap();
        let mut after = workers.clone();
        let mut once = BTreeSet::new();
        let mut load = running.clone();
        for a in &assigned {
            // No task twice, only to a worker that has what it needs and a slot for it.
            prop_assert!(once.insert(a.task));
            let w = after.iter_mut().find(|w| w.name == a.worker).unwrap();
            prop_assert!(w.connected && !w.draining && w.has(&task(a.task).need));
            w.busy += 1;
            prop_assert!(w.busy <= w.slots);
            *load.entry(task(a.task).livepatch).or_default() += 1;
        }
        // Work-conserving: what is left can't run on what is left.
        for t in tasks.iter().filter(|t| !once.contains(&t.task)) {
            prop_assert!(!after.iter().any(|w| w.is_free() && w.has(&t.need)), "{t:?} could run");
            prop_assert_ne!(why_waiting(&t.need, &after), Waits::Turn);
        }
        // Fair: of two livepatches that need the same, one is never served at another's cost.
        for t in tasks.iter().filter(|t| !once.contains(&t.task)) {
            for a in &assigned {
                let served = task(a.task);
                if served.need == t.need && served.livepatch != t.livepatch {
                    let got = assigned.iter().filter(|a| task(a.task).livepatch == served.livepatch).count();
                    let had = load[&served.livepatch] - got;
                    // It got its last task of this need no later than it reached the other's load.
                    let last = assigned.iter().rposition(|x| task(x.task).livepatch == served.livepatch
                        && task(x.task).need == t.need).unwrap();
                    let before = assigned[..last].iter().filter(|x| task(x.task).livepatch == served.livepatch).count();
                    prop_assert!(had + before <= load[&t.livepatch]);
                }
            }
        }
    }
}
