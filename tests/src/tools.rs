//! Programs of a test's own that a worker finds before the machine's, and the processes that come of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::proc::wait_until;

/// A folder of programs. A program finds it as the folder of its own `$0`, and tells there what it does.
pub struct Tools {
    dir: tempfile::TempDir,
}

impl Tools {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Puts a script there, which begins with `#!`.
    pub fn put(&self, name: &str, script: &str) {
        // Written aside: a program that is open for writing can't be started.
        let (aside, place) = (self.file("aside"), self.file(name));
        fs::write(&aside, script).expect("script");
        fs::set_permissions(&aside, Permissions::from_mode(0o755)).expect("script");
        fs::rename(aside, place).expect("script");
    }

    /// Puts a script there that stands in from the second call on: the machine's own program answers the first one, which is
    /// a check's.
    pub fn put_for_extraction(&self, name: &str, script: &str) {
        let later = format!("{name}.later");
        self.put(&later, script);
        let wrapper = format!(
            "#!/bin/sh\nhere=${{0%/*}}\nmkdir \"$here/checked\" 2>/dev/null || exec \"$here/{later}\" \"$@\"\n\
             PATH=${{PATH#*:}} exec {name} \"$@\"\n"
        );
        self.put(name, &wrapper);
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).expect("there was a script");
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn wait_for(&self, name: &str) {
        let file = self.file(name);
        wait_until(Duration::from_secs(60), &format!("a tool writes {name}"), || {
            file.exists().then_some(())
        });
    }

    /// The process ids in the lines of the file `pids`, once there are `count`.
    pub fn pids(&self, count: usize) -> Vec<u32> {
        wait_until(Duration::from_secs(60), "the tool's family is there", || {
            let text = fs::read_to_string(self.file("pids")).ok()?;
            let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
            (pids.len() >= count).then_some(pids)
        })
    }
}

impl Default for Tools {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a process runs; a zombie does not.
pub fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(!stat.rsplit_once(')')?.1.trim_start().starts_with('Z')))
        .unwrap_or(false)
}
