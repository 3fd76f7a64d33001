//! Trying a submission out before it is stored: workers that hold the selected kernels are asked whether these have what
//! the spec names. A CONFIG or function that no kernel has is a slip of the fingers, and storing it would use up the
//! livepatch's name.
//!
//! So is a fix that applies to none of them.
//!
//! A tryout is a check assignment that is nowhere recorded: it has an attempt's id, but no task, no lease and no second
//! try. What is not answered in time decides nothing; the check tasks of a stored livepatch have the last word.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::{Cause, Ending, Outcome};
use klp_livepatch::report::Report;
use klp_livepatch::spec::{Spec, Violation};
use klp_livepatch::task::{AttemptId, LivepatchId, Platform, TaskId, TaskKey, TaskKind};
use klp_telemetry::TraceParent;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::farm::{Farm, Order, WorkerView};

/// How many platforms are asked at a time. One good answer is enough, so most submissions need no more.
const WAVE: usize = 8;

/// How many sentences a refusal holds.
const MAX_PROBLEMS: usize = 20;

/// How many tryouts are remembered after they are over.
const REMEMBERED: usize = 4096;

/// What a worker answered: the problems that are the user's; `None`: the platform is fine, or nobody knows.
type Answer = Option<Vec<Violation>>;

/// The tryouts that wait for an answer; clones are handles to the same table.
#[derive(Clone, Default)]
pub struct Tryouts(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    open: HashMap<TaskId, Tryout>,
    /// The newest of those that nobody waits for any more: their workers may still be at it.
    over: VecDeque<TaskId>,
}

impl Table {
    fn remember(&mut self, over: TaskId) {
        self.over.truncate(REMEMBERED - 1);
        self.over.push_front(over);
    }
}

/// What a worker's outcome is to a tryout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Taken,
    /// Nobody waits for it any more.
    TooLate,
    /// It is no tryout's.
    Unknown,
}

struct Tryout {
    worker: WorkerName,
    order: Order,
    answers: mpsc::UnboundedSender<Answer>,
}

/// Takes its tryouts out of the table when it goes.
struct Wave<'a> {
    tryouts: &'a Tryouts,
    ids: Vec<TaskId>,
}

impl Drop for Wave<'_> {
    fn drop(&mut self) {
        let mut table = self.tryouts.table();
        for id in &self.ids {
            if table.open.remove(id).is_some() {
                table.remember(*id);
            }
        }
    }
}

impl Tryouts {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change is one map operation, so the table is whole whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a worker should try out now.
    pub fn orders(&self, worker: &WorkerName) -> Vec<Order> {
        let table = self.table();
        let open = table.open.values();
        open.filter(|t| t.worker == *worker).map(|t| t.order.clone()).collect()
    }

    pub fn contains(&self, task: TaskId) -> bool {
        let table = self.table();
        table.open.contains_key(&task) || table.over.contains(&task)
    }

    /// Takes a tryout's outcome.
    pub fn settle(&self, attempt: AttemptId, outcome: &Outcome) -> Settled {
        let mut table = self.table();
        match table.open.remove(&attempt.task) {
            Some(tryout) => {
                // Whoever asked may have had enough answers.
                let _ = tryout.answers.send(answer(outcome));
                table.remember(attempt.task);
                Settled::Taken
            }
            None if table.over.contains(&attempt.task) => Settled::TooLate,
            None => Settled::Unknown,
        }
    }

    fn open(
        &self,
        livepatch: LivepatchId,
        spec: &Arc<Spec>,
        asked: &[(Platform, WorkerName)],
    ) -> (Wave<'_>, mpsc::UnboundedReceiver<Answer>) {
        let parent = klp_telemetry::current().unwrap_or(TraceParent::of_livepatch(livepatch));
        let (answers, receiver) = mpsc::unbounded_channel();
        let mut table = self.table();
        let mut ids = Vec::with_capacity(asked.len());
        for (platform, worker) in asked {
            let id = TaskId(Uuid::now_v7());
            let order = Order {
                livepatch,
                attempt: AttemptId { task: id, number: 1 },
                key: TaskKey {
                    kind: TaskKind::Check,
                    platform: platform.clone(),
                    round: 1,
                },
                spec: spec.clone(),
                input: None,
                tryout: true,
                parent,
            };
            let (worker, answers) = (worker.clone(), answers.clone());
            table.open.insert(id, Tryout { worker, order, answers });
            ids.push(id);
        }
        (Wave { tryouts: self, ids }, receiver)
    }
}

fn answer(outcome: &Outcome) -> Answer {
    match &outcome.ending {
        Ending::Failed(failure) if failure.cause == Cause::Yours => {
            let of_fixes = match &outcome.report {
                Some(Report::Check(check)) => &check.fixes.problems[..],
                _ => &[],
            };
            let problem = |line: &str| match of_fixes.iter().any(|problem| problem == line) {
                true => violation("fixes", line.to_owned()),
                false => violation("targets", line.to_owned()),
            };
            Some(failure.message.lines().map(problem).collect())
        }
        Ending::Succeeded => match &outcome.report {
            // Elsewhere it may be built; if it is nowhere, the option is a slip.
            Some(Report::Check(check)) if check.leaves_out() => {
                let why = check.targets.iter().filter_map(|t| t.left_out.clone());
                Some(why.map(|why| violation("targets", why)).collect())
            }
            _ => None,
        },
        _ => None,
    }
}

/// Asks until one platform is fine, or all have said no, or the time is over.
///
/// # Errors
/// Every platform can't be patched as the spec asks: what each lacks.
pub async fn refuse_slips(
    tryouts: &Tryouts,
    farm: &Farm,
    livepatch: LivepatchId,
    spec: &Spec,
    platforms: &[Platform],
    patience: Duration,
) -> Result<(), Vec<Violation>> {
    let asked = match whom_to_ask(platforms, &farm.workers().await) {
        Some(asked) if !asked.is_empty() => asked,
        _ => return Ok(()),
    };
    let spec = Arc::new(spec.clone());
    let deadline = Instant::now() + patience;
    let mut problems = Vec::new();
    for wave in asked.chunks(WAVE) {
        let (_open, mut answers) = tryouts.open(livepatch, &spec, wave);
        let workers: HashSet<&WorkerName> = wave.iter().map(|(_, worker)| worker).collect();
        workers.into_iter().for_each(|worker| farm.nudge(worker));
        for _ in wave {
            match tokio::time::timeout_at(deadline, answers.recv()).await {
                Ok(Some(Some(said))) => problems.extend(said),
                // Fine or unknown: not for us to refuse.
                Ok(Some(None) | None) => return Ok(()),
                Err(_) => {
                    let waited = patience.as_secs_f32();
                    tracing::info!("stored untried: no answer from the workers within {waited} s");
                    return Ok(());
                }
            }
        }
    }
    Err(refusal(problems))
}

/// A connected worker for each platform, spread evenly; `None` if some platform has none: nothing can be refused then.
fn whom_to_ask(platforms: &[Platform], workers: &[WorkerView]) -> Option<Vec<(Platform, WorkerName)>> {
    let mut load: HashMap<&WorkerName, usize> = HashMap::new();
    let mut asked = Vec::with_capacity(platforms.len());
    for platform in platforms {
        let able = workers
            .iter()
            .filter(|w| w.takes_new() && w.registration.trees.contains(platform));
        let worker = able.min_by_key(|w| load.get(&w.name).copied().unwrap_or(0))?;
        *load.entry(&worker.name).or_default() += 1;
        asked.push((platform.clone(), worker.name.clone()));
    }
    Some(asked)
}

fn violation(field: &str, message: String) -> Violation {
    Violation {
        field: field.to_owned(),
        message,
    }
}

fn refusal(mut problems: Vec<Violation>) -> Vec<Violation> {
    // Of targets first: without them the fixes don't matter.
    problems.sort_by(|a, b| (&b.field, &a.message).cmp(&(&a.field, &b.message)));
    problems.dedup();
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    if more > 0 {
        let field = problems.last().map(|last| last.field.clone()).unwrap_or_default();
        problems.push(violation(&field, format!("… and {more} more of the kind")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use klp_livepatch::Arch;
    use klp_livepatch::outcome::Failure;
    use klp_livepatch::report::{CheckReport, FixesCheck};
    use klp_livepatch::task::Incarnation;

    use super::*;
    use crate::store::Registration;

    fn platform(n: usize) -> Platform {
        Platform {
            codestream: format!("15.6u{n}").parse().unwrap(),
            arch: Arch::X86_64,
        }
    }

    fn worker(name: &str, connected: bool, trees: &[usize]) -> WorkerView {
        WorkerView {
            name: name.parse().unwrap(),
            registration: Registration {
                incarnation: Incarnation(Uuid::from_u128(1)),
                version: String::new(),
                slots: 1,
                trees: trees.iter().map(|n| platform(*n)).collect::<BTreeSet<_>>(),
                tools: Vec::new(),
                memory: 0,
                broken_trees: Default::default(),
                broken_tools: Default::default(),
                isolation: Vec::new(),
            },
            connected,
            protocol: Some(1),
            draining: false,
            busy: 0,
            prefetched: 0,
            last_seen: 0,
            registered: 0,
            memory_busy: 0,
            standing: Default::default(),
            quarantine: None,
            replaced: 0,
            unleased: Vec::new(),
        }
    }

    #[test]
    fn every_platform_is_asked_or_none() {
        let workers = [
            worker("a", true, &[1, 2]),
            worker("b", true, &[1, 2]),
            worker("c", false, &[3]),
        ];
        let asked = whom_to_ask(&[platform(1), platform(2)], &workers).unwrap();
        let names: BTreeSet<&str> = asked.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, BTreeSet::from(["a", "b"]), "the load is spread");
        assert_eq!(
            whom_to_ask(&[platform(1), platform(3)], &workers),
            None,
            "15.6u3 can't be asked"
        );
    }

    #[test]
    fn a_refusal_is_bounded() {
        let problems = (0..50).map(|i| violation("targets", format!("problem {i}")));
        let violations = refusal(problems.collect());
        assert_eq!(violations.len(), MAX_PROBLEMS + 1);
        assert!(violations[MAX_PROBLEMS].message.contains("30 more"));
    }

    #[test]
    fn what_is_wrong_with_fixes_is_told_of_fixes_and_after_the_targets() {
        let outcome = Outcome {
            ending: Ending::Failed(Failure::new(Cause::Yours, "b: no CONFIG\na: does not apply".to_owned())),
            report: Some(Report::Check(CheckReport {
                fixes: FixesCheck {
                    problems: vec!["a: does not apply".to_owned()],
                    ..FixesCheck::default()
                },
                ..CheckReport::default()
            })),
            artifacts: Vec::new(),
        };
        let mut said = answer(&outcome).unwrap();
        said.reverse();
        let told: Vec<String> = refusal(said).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["targets: b: no CONFIG", "fixes: a: does not apply"]);
    }

    #[test]
    fn an_outcome_settles_its_tryout_once_and_no_other() {
        let tryouts = Tryouts::default();
        let draft = klp_livepatch::spec::Draft {
            name: "a".into(),
            targets: vec![klp_livepatch::spec::TargetDraft {
                file: "a.c".into(),
                functions: vec!["f".into()],
                config: "CONFIG_A".into(),
                object: String::new(),
            }],
            ..Default::default()
        };
        let spec = Arc::new(Spec::parse(&draft).unwrap());
        let name: WorkerName = "a".parse().unwrap();
        let (wave, mut answers) = tryouts.open(
            LivepatchId(Uuid::from_u128(1)),
            &spec,
            &[(platform(1), name.clone()), (platform(2), name.clone())],
        );
        let orders = tryouts.orders(&name);
        assert_eq!(orders.len(), 2);
        let outcome = Outcome {
            ending: Ending::Succeeded,
            report: None,
            artifacts: Vec::new(),
        };
        assert_eq!(tryouts.settle(orders[0].attempt, &outcome), Settled::Taken);
        assert_eq!(tryouts.settle(orders[0].attempt, &outcome), Settled::TooLate);
        assert_eq!(answers.try_recv().unwrap(), None);
        drop(wave);
        assert!(
            tryouts.orders(&name).is_empty(),
            "what is no longer wanted is no longer ordered"
        );
    }
}
