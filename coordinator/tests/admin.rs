//! check, backup and gc through the real program.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use klp_livepatch::outcome::Digest;
use klp_proto::v1::{self, Disposition, LivepatchState};
use support::data::{complete, copy, sql, submission, two_ended};
use support::process::run;
use support::{Farm, Worker, by_name, config};
use tokio::sync::mpsc;

const OLD: Duration = Duration::from_secs(2 * 3600);

fn blob(data_dir: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    data_dir.join("blobs").join(&name[..2]).join(name)
}

/// Puts content where an upload does.
fn put_blob(data_dir: &Path, content: &[u8]) -> PathBuf {
    let path = blob(data_dir, &Digest::of(content));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn make_old(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - OLD).unwrap();
}

#[tokio::test]
async fn check_finds_what_is_wrong_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let sound = folder.path().join("sound");
    let [one, _] = two_ended(&sound).await;
    put_blob(&sound, b"uploaded, and its outcome is yet to come");
    let (code, out, err) = run(&sound, &["check", "--output", "json"]).await;
    assert_eq!(code, 0, "{out}{err}");
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["sound"], true);
    assert_eq!(told["database"]["livepatches"], 2);
    assert_eq!(
        (&told["artifacts"]["count"], &told["artifacts"]["bytes"]),
        (&2.into(), &16.into())
    );
    assert_eq!(
        (&told["logs"]["count"], &told["logs"]["bytes"]),
        (&4.into(), &36.into())
    );
    assert_eq!(told["unreferenced_artifacts"]["count"], 1);

    let source = |dir: &Path| blob(dir, &one.digest);
    let log = |dir: &Path| {
        let tasks = fs::read_dir(dir.join("logs")).unwrap();
        tasks.map(|t| t.unwrap().path().join("1.log")).min().unwrap()
    };
    type Damage<'a> = Box<dyn Fn(&Path) + 'a>;
    let database = |statements: &'static str| -> Damage<'_> { Box::new(move |dir| sql(dir, statements)) };
    let damages: Vec<(&str, Damage<'_>)> = vec![
        ("is missing", Box::new(|dir| fs::remove_file(source(dir)).unwrap())),
        (
            "has 7 bytes instead of 8",
            Box::new(|dir| fs::write(source(dir), "int one").unwrap()),
        ),
        (
            "is damaged: its digest is",
            Box::new(|dir| fs::write(source(dir), "int 0ne;").unwrap()),
        ),
        (
            "can't be read",
            Box::new(|dir| fs::rename(log(dir), log(dir).with_extension("log.gz")).unwrap()),
        ),
        (
            "livepatch one has 5 events from 1 to 6, and says its newest is 6",
            database(
                "DELETE FROM events WHERE number = 3 AND livepatch = (SELECT id FROM livepatches WHERE name = 'one')",
            ),
        ),
        (
            "says its newest is 8",
            database("UPDATE livepatches SET last_event = 8 WHERE name = 'two'"),
        ),
        (
            "livepatch two has ended with an open task",
            database(
                "UPDATE tasks SET state = 'waiting', ended_ms = NULL WHERE kind = 'extract' AND livepatch = \
                 (SELECT id FROM livepatches WHERE name = 'two')",
            ),
        ),
        (
            "livepatch one is running without an open task",
            database("UPDATE livepatches SET state = 'running', ended_ms = NULL WHERE name = 'one'"),
        ),
        (
            "its leased attempts are: 1",
            database("UPDATE attempts SET state = 'leased'"),
        ),
        (
            "its leased attempts are: 1,2",
            database(
                "DROP INDEX attempts_one_lease; UPDATE attempts SET state = 'leased'; INSERT INTO attempts SELECT task, 2, \
                 worker, incarnation, state, lease_expires_ms, started_ms, ended_ms, NULL, NULL, NULL FROM attempts",
            ),
        ),
        (
            "succeeded and its attempt 1 is lost",
            database("UPDATE attempts SET state = 'lost'"),
        ),
        (
            "up to 1, and says its newest is 2",
            database("UPDATE tasks SET attempt = 2"),
        ),
        (
            "a row of artifacts refers to one of attempts that is not there",
            database("UPDATE artifacts SET attempt = 9"),
        ),
        (
            "farm.db is corrupt: ",
            Box::new(|dir| {
                let mut db = File::options().write(true).open(dir.join("farm.db")).unwrap();
                db.write_all(&[0xa5; 100]).unwrap();
            }),
        ),
        (
            "problem: ",
            Box::new(|dir| {
                // Everything but the first page.
                let mut db = File::options().write(true).open(dir.join("farm.db")).unwrap();
                let length = db.metadata().unwrap().len();
                db.seek(SeekFrom::Start(4096)).unwrap();
                db.write_all(&vec![0xa5; length as usize - 4096]).unwrap();
            }),
        ),
    ];
    for (n, (expected, damage)) in damages.iter().enumerate() {
        let dir = folder.path().join(format!("damaged{n}"));
        copy(&sound, &dir);
        damage(&dir);
        let (code, out, err) = run(&dir, &["check"]).await;
        assert_eq!(code, 1, "{expected}: {out}{err}");
        assert!(out.contains(expected), "{expected}: {out}{err}");
        assert!(out.contains("next step: "), "{out}");
        // A backup of it is not made as if all were well.
        let backup = folder.path().join("backup");
        let (code, out, err) = run(&dir, &["backup", backup.to_str().unwrap()]).await;
        assert!(code != 0 && !backup.exists(), "{expected}: {code} {out}{err}");
    }
    let (code, _, err) = run(&folder.path().join("nowhere"), &["check"]).await;
    assert!(code == 2 && err.contains("holds no database"), "{err}");
    assert!(!folder.path().join("nowhere").exists());
}

#[tokio::test]
async fn a_folder_in_use_is_checked_only_when_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    complete(&farm, &mut worker, "one", b"int one;").await;
    for (args, hint) in [(["check"], "--online"), (["gc"], "--dry-run")] {
        let (code, _, err) = run(folder.path(), &args).await;
        assert!(code == 2 && err.contains(hint), "{err}");
    }
    // Under load, each state that is seen is sound.
    let client = farm.livepatches.clone();
    let submitting = tokio::spawn(async move {
        for n in 0.. {
            let request = submission(&format!("lp{n}"));
            if client.clone().submit(request).await.is_err() {
                return;
            }
        }
    });
    for _ in 0..5 {
        let (code, out, err) = run(folder.path(), &["check", "--online"]).await;
        assert_eq!(code, 0, "{out}{err}");
    }
    let (code, out, _) = run(folder.path(), &["gc", "--dry-run"]).await;
    assert!(
        code == 0 && out.contains("would be cleared away: 0 livepatches, 0 artifacts"),
        "{out}"
    );
    submitting.abort();
    farm.coordinator.shutdown().await;
}

#[tokio::test]
async fn a_backup_made_under_load_is_a_farm_that_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
    let mut settings = config(&data);
    (settings.log_compact_ms, settings.gc_period_ms) = (10, 10);
    settings.max_open_livepatches = 100_000;
    let farm = Farm::start(settings).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    complete(&farm, &mut worker, "first", b"int first;").await;
    // One client submits, one worker completes all it gets, as fast as they can.
    let (acknowledged, mut heard) = mpsc::unbounded_channel();
    let submitting = tokio::spawn({
        let client = farm.livepatches.clone();
        async move {
            for n in 0.. {
                let request = submission(&format!("lp{n}"));
                if client.clone().submit(request.clone()).await.is_err() || acknowledged.send(request).is_err() {
                    return;
                }
            }
        }
    });
    let working = tokio::spawn({
        let (mut busy, farm) = (worker, farm.livepatches.clone());
        async move {
            let mut n = 0u64;
            loop {
                let _ = &farm;
                let Ok(state) = busy.hear().await else { return };
                for assignment in state.assignments {
                    n += 1;
                    let _ = busy
                        .log(&assignment, 0, format!("line {n}\n").repeat(2_000).as_bytes())
                        .await;
                    let artifacts = match assignment.kind() {
                        v1::TaskKind::Extract => vec![busy.upload(format!("int x{n};").as_bytes()).await],
                        _ => Vec::new(),
                    };
                    let success = busy.success(&assignment, &artifacts);
                    if busy.commit(success).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    let mut before = BTreeMap::new();
    let mut held = Vec::new();
    for round in 0..3 {
        while before.len() < 50 * (round + 1) {
            let request = heard.recv().await.unwrap();
            before.insert(request.id.clone(), request);
        }
        let place = folder.path().join(format!("backup{round}"));
        let (code, out, err) = run(&data, &["backup", place.to_str().unwrap()]).await;
        assert_eq!(code, 0, "{out}{err}");
        held.push((place, before.clone()));
    }
    submitting.abort();
    working.abort();
    farm.coordinator.shutdown().await;
    for (place, before) in held {
        let mut names: Vec<_> = fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["blobs", "farm.db", "logs", "signer.pem"]);
        // What was acknowledged before it was begun is in it.
        let farm = Farm::start(config(&place)).await;
        for id in before.keys() {
            let livepatch = Some(v1::LivepatchRef {
                r#ref: Some(v1::livepatch_ref::Ref::Id(id.clone())),
            });
            farm.livepatches
                .clone()
                .get(v1::GetRequest {
                    livepatch,
                    ..Default::default()
                })
                .await
                .unwrap();
        }
        farm.submit("afterwards").await;
        let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
        worker.work(&farm, "afterwards").await;
        let ended = farm.get("afterwards").await.livepatch.unwrap();
        assert_eq!(ended.state(), LivepatchState::Succeeded);
        farm.coordinator.shutdown().await;
        let (code, out, err) = run(&place, &["check"]).await;
        assert_eq!(code, 0, "{out}{err}");
    }

    // Nothing is overwritten, not even what is empty; and nothing is left behind.
    fs::create_dir(&backup).unwrap();
    let (code, _, err) = run(&data, &["backup", backup.to_str().unwrap()]).await;
    assert!(code == 2 && err.contains("exists already"), "{err}");
    let (code, _, err) = run(&data, &["backup", folder.path().join("no/where").to_str().unwrap()]).await;
    assert_eq!(code, 2, "{err}");
    let hidden = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name());
    assert_eq!(hidden.filter(|n| n.to_str().unwrap().starts_with('.')).count(), 0);
}

#[tokio::test]
async fn gc_forgets_whole_livepatches_and_only_what_nobody_needs() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let farm = Farm::start(config(&dir)).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    let shared = complete(&farm, &mut worker, "old", b"int shared;").await;
    complete(&farm, &mut worker, "new", b"int shared;").await;
    let own = complete(&farm, &mut worker, "old2", b"int own;").await;
    farm.submit("open").await;
    farm.coordinator.shutdown().await;
    let (fresh, spare) = (put_blob(&dir, b"fresh"), put_blob(&dir, b"spare"));
    for path in [&blob(&dir, &shared.digest), &blob(&dir, &own.digest), &spare] {
        make_old(path);
    }
    sql(
        &dir,
        "UPDATE livepatches SET ended_ms = ended_ms - 3 * 86400000 WHERE name LIKE 'old%'; \
         UPDATE livepatches SET created_ms = created_ms - 9 * 86400000",
    );
    let file = folder.path().join("c.toml");
    fs::write(&file, "retain_ended_days = 2\n").unwrap();
    let with = ["--config", file.to_str().unwrap()];
    let gc = |dry: bool| {
        let mut args = vec!["gc", "--output", "json"];
        args.extend(with);
        args.extend(dry.then_some("--dry-run"));
        let dir = dir.clone();
        async move {
            let (code, out, err) = run(&dir, &args).await;
            assert_eq!(code, 0, "{out}{err}");
            serde_json::from_str::<serde_json::Value>(&out).unwrap()
        }
    };
    let would = gc(true).await;
    assert_eq!(would["livepatches"], serde_json::json!(["old", "old2"]));
    // Of the old ones' sources one is needed by another livepatch.
    assert_eq!(would["artifacts"]["count"], 2);
    assert_eq!(would["logs"], 4);
    assert!(spare.exists());
    // Without the setting, livepatches stay for ever.
    let (_, out, _) = run(&dir, &["gc", "--dry-run"]).await;
    assert!(
        out.contains("would be cleared away: 0 livepatches, 1 artifacts (5 bytes), logs of 0 tasks"),
        "{out}"
    );

    assert_eq!(gc(false).await, would);
    assert!(fresh.exists() && !spare.exists());
    assert!(blob(&dir, &shared.digest).exists() && !blob(&dir, &own.digest).exists());
    assert_eq!(fs::read_dir(dir.join("logs")).unwrap().count(), 2);
    let (code, out, err) = run(&dir, &["check"]).await;
    assert!(code == 0 && out.contains("2 livepatches, 3 tasks"), "{out}{err}");
    let again = gc(false).await;
    assert_eq!(
        (&again["livepatches"], &again["artifacts"]["count"]),
        (&serde_json::json!([]), &0.into())
    );

    let farm = Farm::start(config(&dir)).await;
    let request = v1::GetRequest {
        livepatch: by_name("old"),
        ..Default::default()
    };
    let status = farm.livepatches.clone().get(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    // Its name is free again.
    farm.submit("old").await;
    farm.coordinator.shutdown().await;
}

#[tokio::test]
async fn clearing_beside_commits_never_takes_what_a_commit_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    settings.gc_period_ms = 10;
    let farm = Farm::start(settings).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    let spare = put_blob(folder.path(), b"spare");
    make_old(&spare);
    let mut again = 0;
    for n in 0..60 {
        let name = format!("lp{n}");
        farm.submit(&name).await;
        let check = worker.take(1).await.remove(0);
        let success = worker.success(&check, &[]);
        assert_eq!(worker.committed(success).await, Disposition::Committed);
        worker.state.attempts.clear();
        worker.say().await;
        let extract = worker.take(1).await.remove(0);
        // Content that came long ago, of an attempt whose outcome never came.
        let source = format!("int x{n};");
        make_old(&put_blob(folder.path(), source.as_bytes()));
        let artifact = worker.upload(source.as_bytes()).await;
        let success = worker.success(&extract, std::slice::from_ref(&artifact));
        while worker.committed(success.clone()).await == Disposition::ArtifactsMissing {
            again += 1;
            let artifact = worker.upload(source.as_bytes()).await;
            let path = blob(folder.path(), &artifact.digest);
            if path.exists() && again % 2 == 0 {
                make_old(&path);
            }
        }
        assert!(blob(folder.path(), &artifact.digest).exists());
        worker.state.attempts.clear();
        worker.say().await;
    }
    let cleared = async {
        while spare.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    support::soon("the spare content to go", cleared).await;
    farm.coordinator.shutdown().await;
    let (code, out, err) = run(folder.path(), &["check"]).await;
    assert_eq!(code, 0, "{out}{err}");
}
