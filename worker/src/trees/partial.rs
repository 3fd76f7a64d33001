//! A tree in the making: its folder, and which steps are done.

use std::path::{Path, PathBuf};

use klp_livepatch::task::Platform;
use serde::{Deserialize, Serialize};

use super::{TreeError, disk};

/// Holds all trees in the making.
pub(super) const FOLDER: &str = ".partial";

const STATE: &str = "state.json";

/// Where the tree of a platform is made.
pub(super) fn dir(trees_dir: &Path, platform: &Platform) -> PathBuf {
    trees_dir
        .join(FOLDER)
        .join(format!("{}-{}", platform.arch, platform.codestream))
}

/// What is being made, and how far it is.
pub(super) struct Partial {
    pub dir: PathBuf,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// What exactly is made; a state of anything else is of no use.
    plan: String,
    /// The kernel's boot id when the steps were done. After a crash of the machine files may be empty that were written
    /// before it, so steps of an earlier boot are not trusted.
    boot: String,
    done: Vec<String>,
}

impl Partial {
    /// Opens the folder, with the steps done if they were done for the same plan since the machine started; else empties
    /// it but for `kept`, a folder whose content is checked anyway.
    pub(super) fn open(dir: PathBuf, plan: String, kept: &str) -> Result<Self, TreeError> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let state = std::fs::read(dir.join(STATE))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<State>(&bytes).ok())
            .filter(|state| state.plan == plan && state.boot == boot);
        if let Some(state) = state {
            return Ok(Self { dir, state });
        }
        disk::make_dir(&dir)?;
        for entry in std::fs::read_dir(&dir).map_err(TreeError::io("read", &dir))?.flatten() {
            if entry.file_name() != kept {
                remove(&entry.path())?;
            }
        }
        let state = State {
            plan,
            boot,
            done: Vec::new(),
        };
        Ok(Self { dir, state })
    }

    pub(super) fn is_done(&self, step: &str) -> bool {
        self.state.done.iter().any(|done| done == step)
    }

    pub(super) fn anything_done(&self) -> bool {
        !self.state.done.is_empty()
    }

    pub(super) fn mark_done(&mut self, step: &str) -> Result<(), TreeError> {
        self.state.done.push(step.to_owned());
        let json = serde_json::to_vec(&self.state).map_err(|e| TreeError::Broken {
            dir: self.dir.clone(),
            problem: e.to_string(),
        })?;
        disk::write_whole(&self.dir.join(STATE), &json)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// An empty folder of that name, whatever was there.
    pub(super) fn fresh_dir(&self, name: &str) -> Result<PathBuf, TreeError> {
        let path = self.path(name);
        remove(&path)?;
        disk::make_dir(&path)?;
        Ok(path)
    }

    /// Removes what is not part of the finished tree, except the record of the steps, which stays until that is in place.
    pub(super) fn tidy_but_state(&self, names: &[&str]) -> Result<(), TreeError> {
        names.iter().try_for_each(|name| remove(&self.path(name)))
    }

    /// Removes the record of the steps from a finished tree, where it does no harm either.
    pub(super) fn forget_state(tree_dir: &Path) {
        let _ = std::fs::remove_file(tree_dir.join(STATE));
    }
}

fn remove(path: &Path) -> Result<(), TreeError> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => disk::remove_dir(path),
        Ok(_) => std::fs::remove_file(path).map_err(TreeError::io("remove", path)),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, plan: &str) -> Partial {
        Partial::open(dir.to_owned(), plan.to_owned(), "kept").unwrap()
    }

    #[test]
    fn steps_count_for_the_same_plan_only() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("tree");
        let mut first = open(&dir, "a");
        assert!(!first.anything_done());
        first.fresh_dir("src").unwrap();
        first.fresh_dir("kept").unwrap();
        first.mark_done("source").unwrap();
        assert!(open(&dir, "a").is_done("source") && !open(&dir, "a").is_done("image"));
        assert!(dir.join("src").exists());
        assert!(!open(&dir, "b").anything_done());
        assert!(!dir.join("src").exists() && dir.join("kept").exists());
    }

    #[test]
    fn steps_of_an_earlier_boot_are_not_trusted() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("tree");
        open(&dir, "a").mark_done("source").unwrap();
        let state = std::fs::read_to_string(dir.join(STATE)).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let before = state.replace(boot.trim(), "00000000-0000-4000-8000-000000000000");
        assert_ne!(state, before);
        std::fs::write(dir.join(STATE), before).unwrap();
        assert!(!open(&dir, "a").anything_done());
        std::fs::write(dir.join(STATE), "{ damaged").unwrap();
        assert!(!open(&dir, "a").anything_done());
    }
}
