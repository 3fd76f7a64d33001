//! Errands: questions to a worker that somebody waits for and that nobody stores, such as a scan of the kernel-source
//! repository that the worker has. An errand is listed in what its worker is told until it is answered, or nobody waits
//! any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klp_livepatch::names::WorkerName;
use klp_proto::v1;
use tokio::sync::oneshot;
use uuid::Uuid;

/// How many may be open at once.
const MAX_OPEN: usize = 16;

/// The errands that wait for an answer, and the workers that can run them; clones are handles to the same table.
#[derive(Clone, Default)]
pub struct Errands(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    open: HashMap<Uuid, Open>,
    /// Connected workers with a kernel-source repository.
    able: BTreeSet<WorkerName>,
}

struct Open {
    worker: WorkerName,
    scan: v1::ScanOrder,
    answer: oneshot::Sender<Answer>,
}

/// What came of an errand: the answer, or why there is none.
pub type Answer = Result<v1::ScanAnswer, String>;

/// Why an errand was not begun.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoErrand {
    #[error(
        "no connected worker has a kernel-source repository; start one with KLP_KERNEL_SOURCE naming a clone of it, or give \
         the fix by hand with --patch"
    )]
    NobodyAble,
    #[error("{MAX_OPEN} scans are under way; try again when one is done")]
    TooMany,
}

/// An errand under way; dropping it takes it back.
#[derive(Debug)]
pub struct Errand {
    errands: Errands,
    id: Uuid,
    pub worker: WorkerName,
    answer: oneshot::Receiver<Answer>,
}

impl std::fmt::Debug for Errands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Errands")
    }
}

impl Errands {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change is one map operation, so the table is whole whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker says whether it has a kernel-source repository, or is gone.
    pub fn announce(&self, worker: &WorkerName, able: bool) {
        let mut table = self.table();
        match able {
            true if table.able.contains(worker) => {}
            true => drop(table.able.insert(worker.clone())),
            false => drop(table.able.remove(worker)),
        }
    }

    /// Begins a scan on the able worker that has the fewest.
    ///
    /// # Errors
    /// There is none, or too many scans are open.
    pub fn begin(&self, scan: v1::ScanOrder) -> Result<Errand, NoErrand> {
        let mut table = self.table();
        if table.open.len() >= MAX_OPEN {
            return Err(NoErrand::TooMany);
        }
        let busy = |worker: &&WorkerName| table.open.values().filter(|open| open.worker == **worker).count();
        let worker = table
            .able
            .iter()
            .min_by_key(busy)
            .cloned()
            .ok_or(NoErrand::NobodyAble)?;
        let (sender, answer) = oneshot::channel();
        let id = Uuid::now_v7();
        let open = Open {
            worker: worker.clone(),
            scan,
            answer: sender,
        };
        table.open.insert(id, open);
        let errands = self.clone();
        Ok(Errand {
            errands,
            id,
            worker,
            answer,
        })
    }

    /// What a worker should be finding out now.
    pub fn of(&self, worker: &WorkerName) -> Vec<v1::Errand> {
        let table = self.table();
        let open = table.open.iter().filter(|(_, open)| open.worker == *worker);
        let errand = |(id, open): (&Uuid, &Open)| v1::Errand {
            id: id.to_string(),
            scan: Some(open.scan.clone()),
        };
        open.map(errand).collect()
    }

    /// The worker that is to find something out; `None`: nobody waits for it any more.
    pub fn whose(&self, id: Uuid) -> Option<WorkerName> {
        self.table().open.get(&id).map(|open| open.worker.clone())
    }

    /// Takes an answer; says whether somebody waited for it.
    pub fn settle(&self, id: Uuid, answer: Answer) -> bool {
        let open = self.table().open.remove(&id);
        open.is_some_and(|open| open.answer.send(answer).is_ok())
    }
}

impl Errand {
    /// Waits for the answer.
    pub async fn answer(&mut self) -> Answer {
        let gone = |_| Err("the coordinator is shutting down".to_owned());
        (&mut self.answer).await.unwrap_or_else(gone)
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.errands.table().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WorkerName {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_errand_is_listed_until_it_is_answered_or_dropped() {
        let errands = Errands::default();
        assert_eq!(
            errands.begin(v1::ScanOrder::default()).unwrap_err(),
            NoErrand::NobodyAble
        );
        errands.announce(&name("a"), true);
        errands.announce(&name("b"), true);
        let mut first = errands.begin(v1::ScanOrder::default()).unwrap();
        let second = errands.begin(v1::ScanOrder::default()).unwrap();
        assert_ne!(first.worker, second.worker, "they are spread");
        let listed = errands.of(&first.worker);
        let id = listed[0].id.parse().unwrap();
        assert!(errands.settle(id, Err("no".to_owned())));
        assert_eq!(first.answer().await, Err("no".to_owned()));
        assert!(errands.of(&first.worker).is_empty());
        assert!(!errands.settle(id, Err("late".to_owned())));
        let other = second.worker.clone();
        drop(second);
        assert!(errands.of(&other).is_empty());
        errands.announce(&name("a"), false);
        errands.announce(&name("b"), false);
        assert_eq!(
            errands.begin(v1::ScanOrder::default()).unwrap_err(),
            NoErrand::NobodyAble
        );
    }

    #[test]
    fn scans_are_bounded() {
        let errands = Errands::default();
        errands.announce(&name("a"), true);
        let _open: Vec<Errand> = (0..MAX_OPEN)
            .map(|_| errands.begin(v1::ScanOrder::default()).unwrap())
            .collect();
        assert_eq!(errands.begin(v1::ScanOrder::default()).unwrap_err(), NoErrand::TooMany);
    }
}
