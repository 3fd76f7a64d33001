//! The database over real files: what is acknowledged is there, what is refused is not, and the schema holds the
//! promises that it can hold by itself.

use std::sync::{Arc, Mutex};

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::{Ending, Outcome};
use klp_livepatch::report::{CheckReport, Report};
use klp_livepatch::spec::{Draft, Spec, TargetDraft};
use klp_livepatch::task::{AttemptId, Incarnation, LivepatchId, TaskId};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::ledger::{self, Committing, Disposition, Grant, Now, Rules, Submission};
use crate::lifecycle::{Holder, Retry, State};
use crate::standing::Policy;

const RULES: Rules = Rules {
    retry: Retry {
        fault_limit: 3,
        death_limit: 2,
        backoff_ms: 1,
        backoff_max_ms: 1,
    },
    quarantine: Policy {
        after: 3,
        pause_ms: 1_000,
        pause_max_ms: 8_000,
    },
};

fn at(ms: i64) -> Now {
    Now {
        ms,
        seed: Uuid::now_v7().as_u128(),
    }
}

type Changes = Arc<Mutex<Vec<Change>>>;

fn open(folder: &TempDir) -> (Store, Writing, Changes) {
    let changes = Changes::default();
    let sink = changes.clone();
    let path = folder.path().join("farm.db");
    let (store, writing) = Store::open(&path, 2, Aside::Threads, move |new| sink.lock().unwrap().extend(new)).unwrap();
    (store, writing, changes)
}

fn holder() -> Holder {
    Holder {
        worker: "w1".parse().unwrap(),
        incarnation: Incarnation(Uuid::from_u128(1)),
    }
}

fn spec(name: &str) -> Spec {
    Spec::parse(&Draft {
        name: name.into(),
        targets: vec![TargetDraft {
            file: "a.c".into(),
            functions: vec!["f".into()],
            config: "CONFIG_A".into(),
            object: String::new(),
        }],
        ..Draft::default()
    })
    .unwrap()
}

fn submission(name: &str) -> Submission {
    Submission {
        id: LivepatchId(Uuid::now_v7()),
        spec: spec(name),
        share: Default::default(),
        submitted_by: Default::default(),
        max_open: 100_000,
        max_platforms: 100,
        scopes: None,
    }
}

async fn with_worker(store: &Store, codestreams: &[&str]) {
    let worker: WorkerName = "w1".parse().unwrap();
    let registration = Registration {
        incarnation: holder().incarnation,
        version: "1".into(),
        slots: 1,
        trees: codestreams
            .iter()
            .map(|c| klp_livepatch::task::Platform {
                codestream: c.parse().unwrap(),
                arch: klp_livepatch::Arch::X86_64,
            })
            .collect(),
        tools: vec![("native".into(), "1".into())],
        memory: 0,
        broken_trees: Default::default(),
        broken_tools: Default::default(),
        isolation: vec![("files".into(), None), ("cgroup".into(), Some("no delegation".into()))],
    };
    let workers = [(worker, registration)];
    store
        .write(move |tx| ledger::register(tx, &workers, &RULES.retry, at(1)))
        .await
        .unwrap();
}

async fn tasks(store: &Store, id: LivepatchId) -> Vec<TaskRow> {
    store
        .read(move |db| tasks_of(db, id).map_err(StoreError::from))
        .await
        .unwrap()
}

async fn lease(store: &Store, task: TaskId, now: i64) {
    let grants = vec![Grant { task, to: holder() }];
    store
        .write(move |tx| ledger::lease(tx, grants, 1000, at(now)))
        .await
        .unwrap();
}

async fn commit(store: &Store, attempt: AttemptId) -> Disposition {
    let committing = Committing {
        attempt,
        by: holder(),
        outcome: Outcome {
            ending: Ending::Succeeded,
            report: Some(Report::Check(CheckReport::default())),
            artifacts: vec![],
        },
        missing: vec![],
    };
    let committed = store.write(move |tx| ledger::commit(tx, &committing, &RULES, at(9)));
    committed.await.unwrap()
}

#[tokio::test]
async fn a_reopened_database_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (store, writing, _) = open(&folder);
    with_worker(&store, &["a", "b"]).await;
    let one = submission("one");
    let id = one.id;
    store.write(move |tx| ledger::submit(tx, one, at(5))).await.unwrap();
    let first = tasks(&store, id).await.remove(0);
    lease(&store, first.id, 6).await;
    let attempt = AttemptId {
        task: first.id,
        number: 1,
    };
    assert_eq!(commit(&store, attempt).await, Disposition::Committed);
    let before = tasks(&store, id).await;
    let events = |store: Store| async move {
        let read = store.read(move |db| events_after(db, id, 0, 100).map_err(StoreError::from));
        read.await.unwrap()
    };
    let told = events(store.clone()).await;
    drop(store);
    // The writer has nothing to say but that it has ended.
    writing.await.unwrap_err();

    let (store, _, _) = open(&folder);
    assert_eq!(tasks(&store, id).await, before);
    assert_eq!(events(store.clone()).await, told);
    // The outcome is committed once, whoever asks again.
    assert_eq!(commit(&store, attempt).await, Disposition::Committed);
    assert_eq!(events(store.clone()).await, told);
    // Two checks and the extraction that followed the first.
    assert_eq!(before.len(), 3);
    let open = store.read(|db| open_tasks(db).map_err(StoreError::from)).await.unwrap();
    assert_eq!(open.len(), 2);
    let known = store
        .read(|db| registrations(db).map_err(StoreError::from))
        .await
        .unwrap();
    assert_eq!(known[&"w1".parse::<WorkerName>().unwrap()].registration.trees.len(), 2);
}

#[tokio::test]
async fn what_is_written_is_synced_before_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _thread, _) = open(&folder);
    let level = |tx: &mut Tx<'_>| Ok::<i64, StoreError>(tx.pragma_query_value(None, "synchronous", |row| row.get(0))?);
    // 2 is FULL: with less, a machine that loses power loses what was committed last.
    assert_eq!(store.write(level).await.unwrap(), 2);
}

#[tokio::test]
async fn a_refused_job_leaves_nothing_and_its_group_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _, changes) = open(&folder);
    with_worker(&store, &["a"]).await;
    // Queued together, so that they share transactions; every second one fails after having written.
    let jobs: Vec<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let one = submission(&format!("lp{n}"));
                let work = move |tx: &mut Tx<'_>| {
                    ledger::submit(tx, one, at(5)).map_err(|e| e.to_string())?;
                    if n % 2 == 0 { Ok(n) } else { Err(format!("no {n}")) }
                };
                store.write(move |tx| work(tx).map_err(Text)).await
            })
        })
        .collect();
    for (n, job) in (0..).zip(jobs) {
        match job.await.unwrap() {
            Ok(done) => assert_eq!((done, n % 2), (n, 0)),
            Err(Text(error)) => assert_eq!(error, format!("no {n}")),
        }
    }
    let page = store.read(|db| livepatch_page(db, &Default::default(), i64::MAX, 500).map_err(StoreError::from));
    assert_eq!(page.await.unwrap().len(), 50);
    let opened = changes
        .lock()
        .unwrap()
        .iter()
        .filter(|c| matches!(c, Change::Opened { .. }))
        .count();
    assert_eq!(opened, 50);
}

#[derive(Debug)]
struct Text(String);

impl From<StoreError> for Text {
    fn from(error: StoreError) -> Self {
        Text(error.to_string())
    }
}

#[tokio::test]
async fn planning_and_leasing_twice_does_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _, _) = open(&folder);
    with_worker(&store, &["a"]).await;
    let one = submission("one");
    let id = one.id;
    store.write(move |tx| ledger::submit(tx, one, at(5))).await.unwrap();
    let check = tasks(&store, id).await.remove(0);
    let key = check.key.clone();
    let again = store.write(move |tx| {
        insert_task(
            tx,
            NewTask {
                id: TaskId(Uuid::now_v7()),
                livepatch: id,
                key: &key,
                input: None,
            },
            6,
        )
        .map_err(StoreError::from)
    });
    assert!(!again.await.unwrap());

    lease(&store, check.id, 6).await;
    lease(&store, check.id, 7).await;
    let leased = tasks(&store, id).await.remove(0);
    assert_eq!(leased.status.attempt, 1);
    assert!(matches!(&leased.status.state, State::Leased(l) if l.expires == 1006));
    // Even if the program were wrong, the schema knows one lease for a task.
    let second = store.write(move |tx| {
        let State::Leased(lease) = leased.status.state else {
            panic!("not leased");
        };
        let id = AttemptId {
            task: check.id,
            number: 2,
        };
        insert_attempt(tx, id, &lease, 7).map_err(StoreError::from)
    });
    assert!(matches!(second.await, Err(StoreError::Sql(_))));
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _, _) = open(&folder);
    with_worker(&store, &["a"]).await;
    let limit = |pages: u32| {
        store.write(move |tx| {
            let set = |row: &rusqlite::Row<'_>| row.get::<_, u32>(0);
            tx.pragma_update_and_check(None, "max_page_count", pages, set)
                .map_err(StoreError::from)
        })
    };
    // No more pages than there are.
    let now = limit(1).await.unwrap();
    let mut stored = 0;
    let refused = loop {
        let one = submission(&format!("lp{stored}"));
        match store.write(move |tx| ledger::submit(tx, one, at(5))).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 10_000, "the limit of {now} pages does not hold");
    };
    assert!(
        matches!(refused, ledger::SubmitError::Store(StoreError::Full)),
        "{refused:?}"
    );
    limit(1_000_000).await.unwrap();
    let one = submission("again");
    store.write(move |tx| ledger::submit(tx, one, at(5))).await.unwrap();
    let page = store.read(|db| livepatch_page(db, &Default::default(), i64::MAX, 10_000).map_err(StoreError::from));
    assert_eq!(page.await.unwrap().len(), stored + 1);
}

#[test]
fn a_newer_schema_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("farm.db");
    Store::open(&path, 1, Aside::Threads, |_| {}).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Store::open(&path, 1, Aside::Threads, |_| {}).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("newer coordinator"));
}

#[test]
fn migrations_are_valid() {
    Migrations::from_slice(MIGRATIONS).validate().unwrap();
}

/// Tables are made anew by the second migration: nothing in them may be lost, and nobody's reference to them.
#[test]
fn a_database_of_the_first_schema_is_brought_up_to_date_with_all_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("farm.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("0001_first.sql")).unwrap();
    let json = serde_json::to_string(&spec("one")).unwrap();
    let (livepatch, task, incarnation) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    old.execute_batch(&format!(
        "INSERT INTO livepatches VALUES (7, '{livepatch}', 'one', '{json}', 'running', 1, NULL, '', 2); \
         INSERT INTO tasks VALUES \
         (9, '{task}', '{livepatch}', 'check', 'a', 'x86_64', 1, 'leased', 1, 0, 0, NULL, NULL, 1, NULL); \
         INSERT INTO attempts VALUES ('{task}', 1, 'w1', '{incarnation}', 'leased', 5, 2, NULL, NULL, NULL, NULL); \
         INSERT INTO artifacts VALUES ('{task}', 1, 'x.c', '00', 1); \
         INSERT INTO events (livepatch, number, time_ms, message, task) VALUES ('{livepatch}', 1, 1, 'm', '{task}'); \
         INSERT INTO workers VALUES ('w1', '{incarnation}', '1', 2, '[]', 1); \
         INSERT INTO trees VALUES ('w1', 'a', 'x86_64'); \
         PRAGMA user_version = 1;"
    ))
    .unwrap();
    drop(old);

    let mut db = Connection::open(&path).unwrap();
    configure(&db).unwrap();
    migrate(&path, &mut db).unwrap();
    let row = super::livepatch(&db, LivepatchId(livepatch)).unwrap().unwrap();
    assert_eq!((row.seq, row.share, row.pause), (7, Default::default(), None));
    let open = open_tasks(&db).unwrap();
    assert_eq!((open.len(), open[0].seq, open[0].status.deaths), (1, 9, 0));
    assert!(matches!(&open[0].status.state, State::Leased(lease) if lease.expires == 5));
    let known = registrations(&db).unwrap();
    assert_eq!(known[&"w1".parse::<WorkerName>().unwrap()].registration.trees.len(), 1);
    for orphan in [
        format!(
            "INSERT INTO attempts SELECT '{incarnation}', 2, worker, incarnation, 'lost', 1, 1, 1, '', '', '' FROM attempts"
        ),
        format!("DELETE FROM tasks WHERE id = '{task}'"),
        format!("DELETE FROM livepatches WHERE id = '{livepatch}'"),
    ] {
        let error = db.execute_batch(&orphan).unwrap_err().to_string();
        assert!(error.contains("FOREIGN KEY"), "{orphan}: {error}");
    }
    db.execute("UPDATE livepatches SET state = 'cancelled', ended_ms = 3", [])
        .unwrap();
}

#[tokio::test]
async fn who_was_forgotten_or_started_anew_is_leased_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _thread, _) = open(&folder);
    with_worker(&store, &["a"]).await;
    let row = store
        .write(|tx| ledger::submit(tx, submission("one"), at(1)))
        .await
        .unwrap();
    let task = tasks(&store, row.id).await[0].id;

    let mut former = holder();
    former.incarnation = Incarnation(Uuid::from_u128(2));
    let grants = vec![Grant { task, to: former }];
    let leased = store.write(move |tx| ledger::lease(tx, grants, 1000, at(2)));
    leased.await.unwrap();
    assert_eq!(tasks(&store, row.id).await[0].status.attempt, 0);

    store.write(|tx| ledger::forget(tx, &holder().worker)).await.unwrap();
    lease(&store, task, 3).await;
    assert_eq!(tasks(&store, row.id).await[0].status.attempt, 0);
}
