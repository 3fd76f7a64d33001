//! Watches how much an attempt has in its scratch folder: a file system of its own would need the memory, or a right that a
//! worker seldom has. Single files have a limit that the kernel keeps; this is for many of them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often it is looked, at most; a look at a large folder is followed by a rest of twenty times its length.
const PERIOD: Duration = Duration::from_millis(200);
const REST: u32 = 20;

/// Waits until a folder holds more than this many bytes of disk; for ever, if it never does.
pub async fn exceeded(dir: PathBuf, limit: u64) {
    let mut pause = PERIOD;
    loop {
        tokio::time::sleep(pause).await;
        let (dir, started) = (dir.clone(), Instant::now());
        let look = tokio::task::spawn_blocking(move || has_more_than(&dir, limit));
        if look.await.unwrap_or(false) {
            return;
        }
        pause = PERIOD.max(started.elapsed() * REST);
    }
}

/// Stops counting as soon as it knows. Links are followed nowhere, and what vanishes meanwhile counts for nothing.
fn has_more_than(dir: &Path, limit: u64) -> bool {
    let mut bytes = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    bytes += entry.metadata().map_or(0, |file| file.blocks() * 512);
                    if bytes > limit {
                        return true;
                    }
                }
                _ => {}
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_files_are_noticed_and_holes_and_links_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let hole = fs::File::create(dir.path().join("hole")).unwrap();
        hole.set_len(1 << 40).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("usr")).unwrap();
        assert!(!has_more_than(dir.path(), 1 << 20));
        fs::create_dir(dir.path().join("in")).unwrap();
        for name in 0..20 {
            fs::write(dir.path().join(format!("in/{name}")), vec![1; 100_000]).unwrap();
        }
        assert!(has_more_than(dir.path(), 1 << 20) && !has_more_than(dir.path(), 4 << 20));
        exceeded(dir.path().to_owned(), 1 << 20).await;
    }
}
