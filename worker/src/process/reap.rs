//! Kills a child with all its descendants: those that descend from it, which is known as long as it lives, for it adopts
//! its family's orphans; its process group; and those that left the group but still carry the mark their environment was
//! given.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// The variable whose value is unique to each family.
pub(super) const MARK: &str = "KLP_FARM_PROCESS";

/// How long to go after a family that forks faster than it is killed.
const HUNT: Duration = Duration::from_secs(3);

/// How long after a process started its descendants surely have the numbers that follow its own: no system goes through
/// all its process numbers, 32,768 at least, in that time.
const NUMBERED: Duration = Duration::from_millis(100);

/// How long to wait for a process that just executes another program, and has no environment meanwhile.
const EXEC: Duration = Duration::from_millis(50);

/// Up to how many numbers are looked at one by one, rather than all processes there are.
const FEW: i32 = 64;

/// A child and its descendants; killed when dropped.
pub(super) struct Family {
    group: Option<Pid>,
    mark: String,
    started: Instant,
}

impl Family {
    /// To be called before the leader is started.
    pub(super) fn expected() -> Self {
        Self {
            group: None,
            mark: uuid::Uuid::now_v7().to_string(),
            started: Instant::now(),
        }
    }

    /// The value of [`MARK`].
    pub(super) fn mark(&self) -> &str {
        &self.mark
    }

    pub(super) fn set_leader(&mut self, leader: Option<u32>) {
        self.group = leader.and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    }

    /// Kills what is left of the family. Afterwards there is nothing to do for it any more.
    pub(super) fn kill(&mut self) {
        let Some(group) = self.group.take() else { return };
        let until = Instant::now() + HUNT;
        // Unless it was reaped, for then its number may be another's.
        if Stat::of(group).is_some_and(|leader| leader.parent == Pid::this()) {
            // Stopped, it makes no more children and stays a parent to those it has.
            let _ = kill(group, Signal::SIGSTOP);
            kill_descendants(group, until);
        }
        loop {
            // The leader may be reaped already; its group's number stays taken as long as a member lives.
            let group_left = killpg(group, Signal::SIGKILL) != Err(Errno::ESRCH);
            let strays = self.strays(group);
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
    fn strays(&self, leader: Pid) -> Vec<Pid> {
        let wanted = format!("{MARK}={}", self.mark);
        let is_ours = |entry: &[u8]| entry == wanted.as_bytes();
        self.strays_by_number(leader, is_ours)
            .unwrap_or_else(|| processes().filter(|pid| environment_has(*pid, is_ours)).collect())
    }

    /// The system numbers processes in turn, so soon after the start few can be of the family, and mostly none is. `None`
    /// if that doesn't help.
    fn strays_by_number(&self, leader: Pid, is_ours: impl Fn(&[u8]) -> bool) -> Option<Vec<Pid>> {
        let (mut looked_at, mut strays) = (leader.as_raw(), Vec::new());
        loop {
            let newest = newest_process()?.as_raw();
            if self.started.elapsed() > NUMBERED || !(leader.as_raw()..leader.as_raw() + FEW).contains(&newest) {
                return None;
            }
            // Until there is no newer one: the child of one that ended before it was looked at.
            if newest == looked_at {
                return Some(strays);
            }
            let numbers = (looked_at + 1..=newest).map(Pid::from_raw);
            strays.extend(numbers.filter(|pid| environment_has(*pid, &is_ours)));
            looked_at = newest;
        }
    }

    /// Whether a process that runs no more than a zombie does is still in the group.
    fn others_in(&self, group: Pid) -> bool {
        processes()
            .filter_map(Stat::of)
            .any(|stat| stat.lives && stat.group == group)
    }
}

/// Kills what a worker that was killed itself left running: all whose folder for temporary files is below `scratch`.
pub fn kill_left_over(scratch: &Path) {
    let below = ["TMPDIR=".as_bytes(), scratch.as_os_str().as_bytes(), b"/"].concat();
    let until = Instant::now() + HUNT;
    loop {
        let is_below = |entry: &[u8]| entry.starts_with(&below);
        let left: Vec<Pid> = processes().filter(|pid| environment_has(*pid, is_below)).collect();
        if left.is_empty() || Instant::now() > until {
            return;
        }
        for pid in left {
            // It may be gone already, which is what we want.
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn environment_has(pid: Pid, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let until = Instant::now() + EXEC;
    loop {
        let Ok(environ) = std::fs::read(format!("/proc/{pid}/environ")) else {
            return false;
        };
        let is_to_come = environ.is_empty() && Stat::of(pid).is_some_and(|stat| stat.lives && !stat.bare);
        if !is_to_come || Instant::now() > until {
            return environ.split(|b| *b == 0).any(wanted);
        }
        std::thread::yield_now();
    }
}

/// The process or thread that was started last.
fn newest_process() -> Option<Pid> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    load.split_whitespace().next_back()?.parse().ok().map(Pid::from_raw)
}

/// Kills what this process started, directly or not, and left running.
pub fn leave_nothing() {
    kill_descendants(Pid::this(), Instant::now() + HUNT);
}

/// Where the kernel does not list a process's children (CONFIG_PROC_CHILDREN), its group and its mark have to do.
fn kill_descendants(of: Pid, until: Instant) {
    // Zombies as long as `of` does not reap them, so that their numbers are nobody else's.
    let mut dead = HashSet::new();
    loop {
        let known = dead.len();
        let alive = kill_children(of, &mut dead);
        if !alive && dead.len() == known || Instant::now() > until {
            return;
        }
    }
}

/// Kills what descends from a process and is not known to be dead; answers whether something was still alive.
fn kill_children(of: Pid, dead: &mut HashSet<Pid>) -> bool {
    let (mut parents, mut alive) = (vec![of], false);
    while let Some(parent) = parents.pop() {
        // The newest first, and each at once: one that lives on in ever new children is gone again in no time.
        for child in children(parent).into_iter().rev() {
            if dead.contains(&child) {
                continue;
            }
            // It may be gone already, which is what we want.
            let _ = kill(child, Signal::SIGKILL);
            if Stat::of(child).is_some_and(|stat| stat.lives) {
                alive = true;
                parents.push(child);
            } else {
                dead.insert(child);
            }
        }
    }
    alive
}

fn children(of: Pid) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{of}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect::<Vec<_>>()
        })
        .map(Pid::from_raw)
        .collect()
}

/// What the system tells of a process.
struct Stat {
    /// It is no zombie.
    lives: bool,
    /// It was started without an environment: one that has not got it yet, between two programs, is not.
    bare: bool,
    parent: Pid,
    group: Pid,
}

impl Stat {
    /// As proc_pid_stat(5) numbers the fields.
    fn of(pid: Pid) -> Option<Self> {
        const KERNEL_THREAD: u64 = 0x0020_0000;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second is the name in parentheses, which may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let id = |number| Some(Pid::from_raw(field(number)?.parse().ok()?));
        let bits = |number| field(number)?.parse::<u64>().ok();
        let (flags, env_start, env_end) = (bits(9)?, bits(50)?, bits(51)?);
        Some(Self {
            lives: !matches!(field(3)?, "Z" | "X"),
            bare: flags & KERNEL_THREAD != 0 || env_end != 0 && env_start == env_end,
            parent: id(4)?,
            group: id(5)?,
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
