//! The promises of both stores, by the same tests: in a folder, and in a bucket of a real server of S3.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;

use super::*;

/// Included, as the whole-system tests' crate stands on this one.
#[path = "../../../tests/src/s3.rs"]
mod server;

use server::{S3 as Server, SECRET};

const PREFIX: &str = "klp/artifacts";

/// A store under test, and how it looks from outside.
struct Kept {
    blobs: Blobs,
    config: Config,
    folder: tempfile::TempDir,
    server: Option<Server>,
}

impl Kept {
    async fn in_folder() -> Self {
        Self::open(None).await
    }

    async fn in_bucket() -> Option<Self> {
        Some(Self::open(Some(Server::start()?)).await)
    }

    async fn open(server: Option<Server>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config {
            data_dir: folder.path().to_owned(),
            ..Config::default()
        };
        if let Some(server) = &server {
            config = at(server, PREFIX, folder.path());
        }
        let blobs = Blobs::open(&config, Aside::Threads).await.unwrap();
        Self {
            blobs,
            config,
            folder,
            server,
        }
    }

    /// The file that holds a content, in whichever store.
    fn file(&self, digest: &Digest) -> PathBuf {
        match &self.server {
            None => self.folder.path().join("blobs").join(name_of(digest)),
            Some(server) => server.object(&format!("{PREFIX}/{}", name_of(digest))),
        }
    }

    /// How many files there are beside the mark of whose the bucket is: contents, and what should not be there.
    fn files(&self) -> usize {
        let spooled = files_below(&self.folder.path().join("blobs"));
        let server = self.server.as_ref();
        spooled
            + server.map_or(0, |server| {
                server.keys().iter().filter(|key| !key.ends_with("/owner")).count()
            })
    }

    async fn put(&self, digest: Digest, size: u64, parts: &[&[u8]]) -> Result<(), BlobError> {
        let mut upload = self.blobs.begin(digest, size)?;
        for part in parts {
            upload.write(part.to_vec()).await?;
        }
        upload.finish().await
    }

    async fn keep(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        self.put(digest, content.len() as u64, &[content]).await.unwrap();
        digest
    }

    /// As upkeep does it, aside.
    async fn remove(&self, digest: Digest, needed: bool) -> Result<bool, BlobError> {
        let blobs = self.blobs.clone();
        let removed =
            tokio::task::spawn_blocking(move || blobs.remove_unless([digest], |_| Ok::<_, BlobError>(needed)));
        Ok(!removed.await.unwrap()?.is_empty())
    }

    async fn listed(&self) -> Vec<(Digest, u64)> {
        let blobs = self.blobs.clone();
        let listing = tokio::task::spawn_blocking(move || {
            let mut listed = Vec::new();
            let each = blobs.each(&CancellationToken::new(), |stored| {
                assert!(stored.came.elapsed().unwrap_or_default() < Duration::from_secs(60));
                listed.push((stored.digest, stored.size));
                Ok::<_, BlobError>(())
            });
            each.map(|()| listed)
        });
        let mut listed = listing.await.unwrap().unwrap();
        listed.sort_unstable_by_key(|(digest, _)| digest.to_string());
        listed
    }
}

fn at(server: &Server, prefix: &str, data_dir: &Path) -> Config {
    let mut config: Config = toml::from_str(&server.settings(prefix)).unwrap();
    config.data_dir = data_dir.to_owned();
    config.validate().unwrap();
    config
}

fn files_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.map(|p| if p.is_dir() { files_below(&p) } else { 1 }).sum()
}

fn artifact(digest: Digest, size: u64) -> Artifact {
    Artifact {
        name: "a".into(),
        digest,
        size,
    }
}

async fn what_is_stored_is_what_was_announced(kept: Kept) {
    let digest = Digest::of(b"hello world");
    kept.put(digest, 11, &[b"hello ", b"world"]).await.unwrap();
    // Twice is once.
    kept.put(digest, 11, &[b"hello world"]).await.unwrap();
    assert_eq!(kept.blobs.size(&digest).await.unwrap(), Some(11));
    let read = kept.blobs.read(&digest).await.unwrap().unwrap().all().await.unwrap();
    assert_eq!(read, b"hello world");
    let mut content = kept.blobs.read(&digest).await.unwrap().unwrap();
    let mut parts = Vec::new();
    for _ in 0..4 {
        parts.push(content.next(4).await.unwrap());
    }
    assert_eq!(parts, [&b"hell"[..], b"o wo", b"rld", b""]);
    assert_eq!(kept.files(), 1);
    assert_eq!(fs::read(kept.file(&digest)).unwrap(), b"hello world");
    let empty = kept.keep(b"").await;
    assert_eq!(kept.blobs.size(&empty).await.unwrap(), Some(0));
    assert_eq!(
        kept.blobs.read(&empty).await.unwrap().unwrap().all().await.unwrap(),
        b""
    );
    let mut all = vec![(digest, 11), (empty, 0)];
    all.sort_unstable_by_key(|(digest, _)| digest.to_string());
    assert_eq!(kept.listed().await, all);
}

async fn what_is_large_comes_back_as_it_was(kept: Kept) {
    // Two parts and a bit.
    let content: Vec<u8> = (0..17 << 20)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let digest = Digest::of(&content);
    kept.put(
        digest,
        content.len() as u64,
        &content.chunks(256 << 10).collect::<Vec<_>>(),
    )
    .await
    .unwrap();
    assert_eq!(kept.files(), 1);
    assert!(fs::read(kept.file(&digest)).unwrap() == content);
    let blobs = kept.blobs.clone();
    let measured = tokio::task::spawn_blocking(move || blobs.measure(&digest))
        .await
        .unwrap();
    assert_eq!(measured.unwrap(), Some(digest));
    let read = kept.blobs.read(&digest).await.unwrap().unwrap().all().await.unwrap();
    assert!(read == content);
    assert_eq!(kept.listed().await, [(digest, content.len() as u64)]);
}

async fn what_is_not_as_announced_leaves_nothing(kept: Kept) {
    let digest = Digest::of(b"hello");
    let wrong = kept.put(digest, 5, &[b"HELLO"]).await;
    assert!(matches!(wrong, Err(BlobError::WrongDigest { .. })));
    for bytes in [&b"hell"[..], b"hello!"] {
        let wrong = kept.put(digest, 5, &[bytes]).await;
        assert!(matches!(wrong, Err(BlobError::WrongSize { .. })));
    }
    // One that breaks off.
    let mut upload = kept.blobs.begin(digest, 5).unwrap();
    upload.write(b"hel".to_vec()).await.unwrap();
    assert_eq!(kept.files(), 1);
    drop(upload);
    assert_eq!(kept.blobs.size(&digest).await.unwrap(), None);
    assert!(kept.blobs.read(&digest).await.unwrap().is_none());
    assert_eq!(kept.files(), 0);
}

async fn missing_artifacts_are_named_once_and_sizes_must_be_true(kept: Kept) {
    let here = kept.keep(b"x").await;
    let gone = Digest::of(b"y");
    let asked = [artifact(here, 1), artifact(gone, 1), artifact(gone, 1)];
    assert_eq!(kept.blobs.missing(&asked).await.unwrap(), [gone]);
    let lying = kept.blobs.missing(&[artifact(here, 2)]).await;
    assert!(matches!(lying, Err(BlobError::WrongSize { .. })));
    // By who has not seen them come, too.
    let fresh = Blobs::open(&kept.config, Aside::Threads).await.unwrap();
    assert_eq!(fresh.missing(&asked).await.unwrap(), [gone]);
}

async fn what_is_pinned_or_needed_is_not_removed(kept: Kept) {
    let digest = kept.keep(b"x").await;
    let artifact = artifact(digest, 1);
    let one = kept.blobs.pin(std::slice::from_ref(&artifact)).await;
    let two = kept.blobs.pin(std::slice::from_ref(&artifact)).await;
    assert!(!kept.remove(digest, false).await.unwrap());
    // The waiter goes away; the pin stays until the work is done.
    let (done, work) = oneshot::channel::<()>();
    let waited = tokio::time::timeout(Duration::from_millis(1), one.until_done(work)).await;
    waited.unwrap_err();
    drop(two);
    assert!(!kept.remove(digest, false).await.unwrap());
    done.send(()).unwrap();
    while !kept.blobs.holds.none() {
        tokio::task::yield_now().await;
    }
    assert!(!kept.remove(digest, true).await.unwrap());
    assert_eq!(kept.blobs.missing(std::slice::from_ref(&artifact)).await.unwrap(), []);
    assert!(kept.remove(digest, false).await.unwrap());
    // What was known of it is forgotten.
    assert_eq!(kept.blobs.missing(&[artifact]).await.unwrap(), [digest]);
    assert_eq!(kept.blobs.size(&digest).await.unwrap(), None);
    assert_eq!(kept.listed().await, []);
}

async fn whoever_would_name_what_is_being_removed_finds_it_gone(kept: Kept) {
    let digest = kept.keep(b"x").await;
    let (asked, may_answer) = (oneshot::channel(), std::sync::mpsc::channel());
    let blobs = kept.blobs.clone();
    let removing = tokio::task::spawn_blocking(move || {
        let mut asked = Some(asked.0);
        blobs.remove_unless([digest], |_| {
            asked.take().unwrap().send(()).unwrap();
            may_answer.1.recv().unwrap();
            Ok::<_, BlobError>(false)
        })
    });
    asked.1.await.unwrap();
    let named = [artifact(digest, 1)];
    let blobs = kept.blobs.clone();
    let mut committing = tokio::spawn(async move {
        let _pin = blobs.pin(&named).await;
        blobs.missing(&named).await
    });
    // Nobody else waits: the executor is free, and so is all other content.
    let other = kept.keep(b"other").await;
    drop(kept.blobs.pin(&[artifact(other, 5)]).await);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut committing).await;
    assert!(early.is_err(), "the commit went on beside the removal");
    may_answer.0.send(()).unwrap();
    assert_eq!(removing.await.unwrap().unwrap(), [digest]);
    assert_eq!(committing.await.unwrap().unwrap(), [digest]);
}

async fn leftovers_of_a_crash_are_cleared(kept: Kept) {
    let tmp = kept.folder.path().join("blobs/tmp");
    fs::write(tmp.join("half"), "x").unwrap();
    Blobs::open(&kept.config, Aside::Threads).await.unwrap();
    assert_eq!(kept.files(), 0);
}

macro_rules! of_both_stores {
    ($($promise:ident),* $(,)?) => {
        mod in_a_folder {
            $(
                #[tokio::test]
                async fn $promise() {
                    super::$promise(super::Kept::in_folder().await).await;
                }
            )*
        }
        mod in_a_bucket {
            $(
                #[tokio::test]
                async fn $promise() {
                    let Some(kept) = super::Kept::in_bucket().await else { return };
                    super::$promise(kept).await;
                }
            )*
        }
    };
}

of_both_stores!(
    what_is_stored_is_what_was_announced,
    what_is_large_comes_back_as_it_was,
    what_is_not_as_announced_leaves_nothing,
    missing_artifacts_are_named_once_and_sizes_must_be_true,
    what_is_pinned_or_needed_is_not_removed,
    whoever_would_name_what_is_being_removed_finds_it_gone,
    leftovers_of_a_crash_are_cleared,
);

#[tokio::test]
async fn another_folder_is_used_like_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("elsewhere");
    for data_dir in ["data", "other"] {
        fs::create_dir(folder.path().join(data_dir)).unwrap();
    }
    let config = Config {
        data_dir: folder.path().join("data"),
        artifacts: Place::Folder(elsewhere.clone()),
        ..Config::default()
    };
    let blobs = Blobs::open(&config, Aside::Threads).await.unwrap();
    let digest = Digest::of(b"x");
    let mut upload = blobs.begin(digest, 1).unwrap();
    upload.write(b"x".to_vec()).await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(fs::read(elsewhere.join(name_of(&digest))).unwrap(), b"x");
    assert!(!config.data_dir.join("blobs").exists());
    let other = Config {
        data_dir: folder.path().join("other"),
        ..config
    };
    let error = Blobs::open(&other, Aside::Threads).await.unwrap_err().to_string();
    assert!(error.contains("it is another farm's"), "{error}");
}

#[tokio::test]
async fn a_commit_after_its_uploads_asks_nothing_and_what_others_remove_is_noticed_by_reading() {
    let Some(mut kept) = Kept::in_bucket().await else {
        return;
    };
    let digest = kept.keep(b"x").await;
    let named = [artifact(digest, 1)];
    kept.server.as_mut().unwrap().kill();
    assert_eq!(kept.blobs.missing(&named).await.unwrap(), []);
    kept.server.as_mut().unwrap().restart();
    fs::remove_file(kept.file(&digest)).unwrap();
    assert!(kept.blobs.read(&digest).await.unwrap().is_none());
    assert_eq!(kept.blobs.missing(&named).await.unwrap(), [digest]);
}

#[tokio::test]
async fn while_the_server_is_away_nothing_is_said_to_be_done_and_nothing_is_lost() {
    let Some(mut kept) = Kept::in_bucket().await else {
        return;
    };
    let old = kept.keep(b"old").await;
    kept.server.as_mut().unwrap().kill();
    let unreachable = |error: BlobError| {
        let text = error.to_string();
        assert!(matches!(error, BlobError::Remote { .. }), "{text}");
        assert!(
            text.contains("s3://farm-artifacts/klp/artifacts: ") && text.contains("refused"),
            "{text}"
        );
        assert!(!text.contains(SECRET), "{text}");
    };
    let new = Digest::of(b"new");
    unreachable(kept.put(new, 3, &[b"new"]).await.unwrap_err());
    unreachable(kept.blobs.missing(&[artifact(new, 3)]).await.unwrap_err());
    unreachable(kept.blobs.read(&old).await.err().unwrap());
    unreachable(kept.remove(old, false).await.unwrap_err());
    // Whether it was removed nobody knows; so nobody may name it until that is over, however long.
    let named = [artifact(old, 3)];
    let pinned = tokio::time::timeout(Duration::from_millis(50), kept.blobs.pin(&named)).await;
    assert!(pinned.is_err());

    kept.server.as_mut().unwrap().restart();
    assert_eq!(kept.blobs.missing(&[artifact(new, 3)]).await.unwrap(), [new]);
    kept.put(new, 3, &[b"new"]).await.unwrap();
    let both = Blobs::open(&kept.config, Aside::Threads).await.unwrap();
    assert_eq!(both.missing(&[artifact(new, 3), artifact(old, 3)]).await.unwrap(), []);
}

#[tokio::test]
async fn a_server_that_stands_still_is_not_waited_for_without_end() {
    let Some(mut kept) = Kept::in_bucket().await else {
        return;
    };
    let server = kept.server.take().unwrap();
    server.stand_still();
    let new = Digest::of(b"new");
    let put = tokio::time::timeout(Duration::from_secs(90), kept.put(new, 3, &[b"new"])).await;
    let error = put.expect("an end").unwrap_err().to_string();
    assert!(error.contains("can't store the artifacts at s3://"), "{error}");
    server.go_on();
    kept.put(new, 3, &[b"new"]).await.unwrap();
    assert_eq!(kept.blobs.missing(&[artifact(new, 3)]).await.unwrap(), []);
}

#[tokio::test]
async fn a_bucket_that_cant_be_used_is_told_with_what_is_wrong_and_the_next_step() {
    let Some(mut server) = Server::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let good = at(&server, PREFIX, folder.path());
    let told = async |config: &Config| {
        let error = Blobs::open(config, Aside::Threads).await.unwrap_err().to_string();
        assert!(
            error.starts_with("the artifacts can't be kept at s3://") && !error.contains(SECRET),
            "{error}"
        );
        error
    };
    let absent = Config {
        artifacts: "s3://no-such-bucket/x".parse().unwrap(),
        ..good.clone()
    };
    let error = told(&absent).await;
    assert!(
        error.contains("NoSuchBucket") && error.contains("make the bucket no-such-bucket"),
        "{error}"
    );

    let wrong = folder.path().join("wrong");
    fs::write(
        &wrong,
        format!("aws_access_key_id = klp-farm-test-key\naws_secret_access_key = not{SECRET}\n"),
    )
    .unwrap();
    let denied = Config {
        artifacts_credentials: Some(wrong.clone()),
        ..good.clone()
    };
    let error = told(&denied).await;
    assert!(
        error.contains("access is denied: ") && error.contains("SignatureDoesNotMatch"),
        "{error}"
    );

    fs::write(&wrong, "aws_access_key_id = x\n").unwrap();
    assert!(
        told(&denied)
            .await
            .contains("has no aws_access_key_id and aws_secret_access_key")
    );
    let none = Config {
        artifacts_credentials: None,
        ..good.clone()
    };
    // Unless whoever runs the tests has some.
    if std::env::vars_os().all(|(name, _)| !name.to_string_lossy().starts_with("AWS_")) {
        assert!(told(&none).await.contains("set AWS_ACCESS_KEY_ID"));
    }

    Blobs::open(&good, Aside::Threads).await.unwrap();
    assert_eq!(server.keys(), [format!("{PREFIX}/owner")]);
    let other = tempfile::tempdir().unwrap();
    let error = told(&at(&server, PREFIX, other.path())).await;
    assert!(
        error.contains("it is another farm's") && error.contains("klp/artifacts/owner"),
        "{error}"
    );
    // Elsewhere in the bucket is room for it.
    Blobs::open(&at(&server, "another", other.path()), Aside::Threads)
        .await
        .unwrap();
    Blobs::open(&at(&server, "", folder.path()), Aside::Threads)
        .await
        .unwrap();

    server.kill();
    let error = told(&good).await;
    assert!(
        error.contains("refused") && error.contains("see that artifacts_endpoint"),
        "{error}"
    );
}
