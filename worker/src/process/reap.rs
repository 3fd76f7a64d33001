//! Kills a child with all its descendants: its process group, and those that left the group but still carry the mark
//! their environment was given.

use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// The variable whose value is unique to each family.
pub(super) const MARK: &str = "KLP_FARM_PROCESS";

/// How long to go after a family that forks faster than it is killed.
const HUNT: Duration = Duration::from_secs(3);

pub(super) fn new_mark() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A child and its descendants; killed when dropped.
pub(super) struct Family {
    group: Option<Pid>,
    mark: String,
}

impl Family {
    pub(super) fn new(leader: Option<u32>, mark: String) -> Self {
        let group = leader.and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self { group, mark }
    }

    /// Kills what is left of the family. Afterwards there is nothing to do for it any more.
    pub(super) fn kill(&mut self) {
        let Some(group) = self.group.take() else { return };
        let until = Instant::now() + HUNT;
        loop {
            // The leader may be reaped already; its group's number stays taken as long as a member lives.
            let group_left = killpg(group, Signal::SIGKILL) != Err(Errno::ESRCH);
            let strays = self.strays();
            for stray in &strays {
                // It may be gone already, which is what we want.
                let _ = kill(*stray, Signal::SIGKILL);
            }
            // A killed group answers until its leader is reaped, which is not done here: it alone is no reason to wait.
            if strays.is_empty() && (!group_left || !self.others_in(group)) || Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Living processes that carry the mark, wherever they moved.
    fn strays(&self) -> Vec<Pid> {
        let wanted = format!("{MARK}={}", self.mark);
        processes()
            .filter(|pid| {
                std::fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|environ| environ.split(|b| *b == 0).any(|entry| entry == wanted.as_bytes()))
            })
            .collect()
    }

    /// Whether a process that runs no more than a zombie does is still in the group.
    fn others_in(&self, group: Pid) -> bool {
        processes().any(|pid| {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
                return false;
            };
            // After the name in parentheses: state, parent, group.
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            let state = fields.next();
            let its_group = fields.nth(1).and_then(|g| g.parse().ok());
            state != Some("Z") && state != Some("X") && its_group == Some(group.as_raw())
        })
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        self.kill();
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::str::from_utf8(entry.file_name().as_bytes()).ok()?.parse().ok())
        .map(Pid::from_raw)
}
