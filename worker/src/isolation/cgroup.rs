//! Control groups (cgroup v2): the memory and the processes of a tool's whole family are limited together, where limits of
//! processes would count each alone. Only below a group that was delegated to this worker, as by a unit's Delegate=yes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Processes of one family. A build of one file has a dozen.
const PROCESSES: u32 = 512;

/// What the groups of tools are called; a number follows.
pub(super) const NAME: &str = "klp-tool-";

/// This worker's own process is in there, since a group with groups in it has no processes.
const OWN: &str = "klp-worker";

/// A group that is ours to divide.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    root: PathBuf,
}

/// The group of one tool; killed and removed when dropped.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
}

impl Groups {
    /// Finds the worker's own group, and divides it.
    ///
    /// # Errors
    /// Why it can't be had.
    pub fn find() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|e| format!("can't read {path}: {e}"));
        let none = || "this host has no cgroup v2".to_owned();
        let mount = mount_point(&read("/proc/self/mountinfo")?).ok_or_else(none)?;
        let own = read("/proc/self/cgroup")?;
        let own = own_group(&own).ok_or_else(none)?;
        let root = mount.join(own.trim_start_matches('/'));
        // A worker that starts anew within the same unit finds itself where it went.
        let root = match root.file_name() {
            Some(name) if name == OWN => root.parent().unwrap_or(&root).to_owned(),
            _ => root,
        };
        let shown = root.display();
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).map_err(|e| format!("{shown}: {e}"))?;
        if !["memory", "pids"]
            .iter()
            .all(|one| controllers.split_whitespace().any(|has| has == *one))
        {
            let there = controllers.trim();
            return Err(format!(
                "the control group {shown} has not got the controllers memory and pids (but: {there})"
            ));
        }
        if nix::unistd::geteuid().is_root() && !is_delegated(&root) {
            return Err(format!("the control group {shown} is not delegated to this worker"));
        }
        let groups = Self { root };
        groups
            .divide()
            .map_err(|e| format!("the control group {} can't be divided: {e}", groups.root.display()))?;
        Ok(groups)
    }

    fn divide(&self) -> io::Result<()> {
        let own = self.root.join(OWN);
        if !own.is_dir() {
            fs::create_dir(&own)?;
        }
        // All threads of this process.
        fs::write(own.join("cgroup.procs"), "0")?;
        fs::write(self.root.join("cgroup.subtree_control"), "+memory +pids")
    }

    /// A group for one tool, with this much memory for all its processes.
    pub fn make(&self, memory: Option<u64>) -> io::Result<Group> {
        let path = self.root.join(format!("{NAME}{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&path)?;
        let group = Group { path };
        fs::write(group.path.join("pids.max"), PROCESSES.to_string())?;
        if let Some(bytes) = memory {
            fs::write(group.path.join("memory.max"), bytes.to_string())?;
            // A host without swap has no such limit.
            let _ = fs::write(group.path.join("memory.swap.max"), "0");
        }
        Ok(group)
    }
}

impl Group {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a process had to be killed for the group's limit of memory.
    pub fn ran_out_of_memory(&self) -> bool {
        fs::read_to_string(self.path.join("memory.events")).is_ok_and(|events| kills(&events) > 0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        for _ in 0..100 {
            match fs::remove_dir(&self.path) {
                // What was killed takes a moment to be gone.
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
    }
}

/// `0::/path`, beside the lines of version 1.
fn own_group(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// As proc_pid_mountinfo(5) has it: the fifth word is the place, and the kind follows a dash.
fn mount_point(text: &str) -> Option<PathBuf> {
    let is_it = |line: &&str| {
        line.split(" - ")
            .nth(1)
            .is_some_and(|rest| rest.starts_with("cgroup2 "))
    };
    text.lines().find(is_it)?.split(' ').nth(4).map(PathBuf::from)
}

/// As systemd marks what it gave away.
fn is_delegated(group: &Path) -> bool {
    let mut value = [0; 1];
    let mut has = |name: &str| rustix::fs::getxattr(group, name, &mut value).is_ok_and(|_| value == *b"1");
    has("trusted.delegate") || has("user.delegate")
}

fn kills(events: &str) -> u64 {
    let line = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_understood() {
        assert_eq!(
            own_group("12:pids:/x\n0::/system.slice/a.service\n"),
            Some("/system.slice/a.service")
        );
        assert_eq!(own_group("12:pids:/x\n"), None);
        let mounts = "30 23 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      42 32 0:39 / /sys/fs/cgroup/unified rw,relatime shared:7 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(kills("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(kills(""), 0);
    }
}
