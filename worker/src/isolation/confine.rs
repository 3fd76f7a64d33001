//! The process that becomes a tool: puts up the fences around itself, in an order in which none needs what another took
//! away, and executes the tool. It is our own program, started anew, with one thread and nothing in memory that a tool
//! should not see; so nothing here has to be done between a fork and an exec of the worker itself.
//!
//! With a process namespace there are three: this one, which the worker knows and which tells how the tool ended; the
//! first of the namespace, with which all others end; and the tool.
#![expect(
    unsafe_code,
    reason = "forks in a process of one thread, and asks wait(2) for the status as it is"
)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, raise, signal};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, getppid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use super::fence::Fence;
use super::plan::{CONFINE, Means, Plan, Trouble};
use super::trial::{TRY_FENCES, try_fences};
use super::{landlock, mounts, syscalls};

/// What this process ends with when there came to be no tool; the worker is told more by the pipe.
const NO_TOOL: u8 = 125;

/// To be called first in `main`: where this process was started to become a tool, it does, or ends with what is returned.
pub fn become_tool() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let first = args.next()?;
    if first == TRY_FENCES {
        return Some(try_fences(&args.next()?.to_string_lossy()));
    }
    if first != CONFINE {
        return None;
    }
    let (Some(plan), Some(program)) = (args.next(), args.next()) else {
        eprintln!("error: `{CONFINE}` is what the worker calls itself");
        return Some(ExitCode::from(2));
    };
    let plan = plan.to_str().and_then(|text| serde_json::from_str::<Plan>(text).ok());
    let Some(plan) = plan else {
        eprintln!("error: the plan of the fences can't be read; were worker and program changed while it runs?");
        return Some(ExitCode::from(NO_TOOL));
    };
    // SAFETY: the worker hands over this descriptor, which nothing else in this process uses.
    let tell = unsafe { OwnedFd::from_raw_fd(plan.tell) };
    let trouble = match run(&plan, program, args.collect(), &tell) {
        Ok(ended) => return Some(ended.as_ours()),
        Err(trouble) => trouble,
    };
    // Whoever doesn't listen has given up on us.
    let _ = File::from(tell).write_all(&serde_json::to_vec(&trouble).unwrap_or_default());
    Some(ExitCode::from(NO_TOOL))
}

/// How the tool ended, as wait(2) tells.
struct Ended(i32);

impl Ended {
    /// Ends as the tool did.
    fn as_ours(&self) -> ExitCode {
        if libc::WIFSIGNALED(self.0) {
            let number = libc::WTERMSIG(self.0);
            if let Ok(number) = Signal::try_from(number) {
                // SAFETY: no handler is set but the default action.
                let _ = unsafe { signal(number, SigHandler::SigDfl) };
                let _ = raise(number);
            }
            return ExitCode::from((number | 0x80) as u8);
        }
        ExitCode::from(libc::WEXITSTATUS(self.0) as u8)
    }
}

/// Names the fence that could not be put up.
fn fence<E: Into<io::Error>>(fence: Fence) -> impl Fn(E) -> Trouble {
    move |e| Trouble::Fence {
        fence,
        why: e.into().to_string(),
    }
}

fn run(plan: &Plan, program: OsString, args: Vec<OsString>, tell: &OwnedFd) -> Result<Ended, Trouble> {
    // Before there is a tool that could inherit it.
    fcntl(tell, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(fence(Fence::User))?;
    if let Some(group) = &plan.cgroup {
        fs::write(group.join("cgroup.procs"), "0").map_err(fence(Fence::Cgroup))?;
    }
    let parent = getppid();
    leave(plan)?;
    die_with(parent).map_err(fence(Fence::Processes))?;
    if !plan.has(Fence::Processes) {
        return Err(close_in(plan, tell).map_or_else(|trouble| trouble, |()| execute(plan, program, args)));
    }
    let (ended, end) = io::pipe().map_err(fence(Fence::Processes))?;
    // SAFETY: this process has one thread, so its copy may do whatever it may.
    match unsafe { fork() }.map_err(fence(Fence::Processes))? {
        ForkResult::Child => {
            drop(ended);
            let trouble = match first(plan, program, args, tell, end) {
                Ok(never) => match never {},
                Err(trouble) => trouble,
            };
            let _ = File::from(tell.try_clone().map_err(fence(Fence::Processes))?)
                .write_all(&serde_json::to_vec(&trouble).unwrap_or_default());
            std::process::exit(i32::from(NO_TOOL));
        }
        ForkResult::Parent { child } => {
            drop(end);
            Ok(wait_for(child, ended))
        }
    }
}

/// Leaves the namespaces of the host that are to be left.
fn leave(plan: &Plan) -> Result<(), Trouble> {
    let wanted = [
        (Fence::Files, CloneFlags::CLONE_NEWNS),
        (Fence::Processes, CloneFlags::CLONE_NEWPID),
        (Fence::Network, CloneFlags::CLONE_NEWNET),
        (Fence::Ipc, CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS),
    ];
    let wanted = wanted.into_iter().filter(|(fence, _)| plan.has(*fence));
    if let Means::UserNamespace { user, group } = plan.means
        && (plan.has(Fence::User) || wanted.clone().next().is_some())
    {
        let whose = wanted.clone().next().map_or(Fence::User, |(fence, _)| fence);
        let whose = if plan.has(Fence::User) { Fence::User } else { whose };
        unshare(CloneFlags::CLONE_NEWUSER).map_err(fence(whose))?;
        // It may name no groups, or it could drop one that a file denies access to.
        let maps = [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{user} {user} 1")),
            ("gid_map", format!("{group} {group} 1")),
        ];
        for (file, text) in maps {
            fs::write(format!("/proc/self/{file}"), text).map_err(fence(whose))?;
        }
    }
    for (which, flags) in wanted {
        unshare(flags).map_err(fence(which))?;
    }
    Ok(())
}

/// Has this process die with that one.
fn die_with(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    match getppid() == parent {
        true => Ok(()),
        false => Err(io::Error::other("the worker is gone")),
    }
}

/// The first process of the namespace: becomes what the tool will be, starts that, and buries its orphans.
fn first(
    plan: &Plan,
    program: OsString,
    args: Vec<OsString>,
    tell: &OwnedFd,
    mut end: io::PipeWriter,
) -> Result<std::convert::Infallible, Trouble> {
    close_in(plan, tell)?;
    // Without a copy of this process's memory, unlike a fork.
    let tool = Command::new(program).args(args).current_dir(&plan.dir).spawn();
    let tool = tool.map_err(|e| not_started(&e))?;
    loop {
        match wait_any() {
            Ok((pid, status)) if u32::try_from(pid.as_raw()) == Ok(tool.id()) => {
                let _ = end.write_all(&status.to_ne_bytes());
                std::process::exit(0);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => std::process::exit(i32::from(NO_TOOL)),
        }
    }
}

/// As waitpid(2), with the status as it is.
fn wait_any() -> Result<(Pid, i32), Errno> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let pid = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, 0) })?;
    Ok((Pid::from_raw(pid), status))
}

fn wait_for(first: Pid, mut ended: io::PipeReader) -> Ended {
    let mut status = [0; size_of::<i32>()];
    let told = io::Read::read_exact(&mut ended, &mut status);
    let _ = nix::sys::wait::waitpid(first, None);
    match told {
        Ok(()) => Ended(i32::from_ne_bytes(status)),
        // It was killed, and all others with it.
        Err(_) => Ended(libc::SIGKILL),
    }
}

/// What is closed from within the namespaces, ending with what takes away the right to change any of it.
fn close_in(plan: &Plan, tell: &OwnedFd) -> Result<(), Trouble> {
    if plan.has(Fence::Files) {
        mounts::enter(&plan.layout, plan.has(Fence::Processes)).map_err(fence(Fence::Files))?;
    }
    if plan.has(Fence::User) {
        become_nobody(plan.means).map_err(fence(Fence::User))?;
    }
    // A change of user has it forgotten.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(fence(Fence::User))?;
    // Who died before can't be asked for, from within a namespace; but the worker holds the other end of this.
    let mut open = [PollFd::new(tell.as_fd(), PollFlags::empty())];
    let _ = poll(&mut open, PollTimeout::ZERO);
    if open[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLERR))
    {
        std::process::exit(i32::from(NO_TOOL));
    }
    prctl::set_no_new_privs().map_err(fence(Fence::User))?;
    if plan.has(Fence::Landlock) {
        landlock::restrict(&plan.layout, plan.has(Fence::Files), plan.has(Fence::Network))
            .map_err(fence(Fence::Landlock))?;
    }
    if plan.has(Fence::Syscalls) {
        syscalls::refuse().map_err(fence(Fence::Syscalls))?;
    }
    Ok(())
}

/// Processes of one user, of all tools that run as such at a time: a bound for hosts without control groups.
const PROCESSES: u64 = 4096;

/// Gives away all capabilities, those that could be had back included, and where it can, what the user's files are.
fn become_nobody(means: Means) -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // There are no more.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e.into()),
        }
    }
    if let Means::Root { user, group } = means {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        setgroups(&[])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)?;
    }
    Ok(setrlimit(Resource::RLIMIT_NPROC, PROCESSES, PROCESSES)?)
}

/// Becomes the tool; returns only what keeps it from that.
fn execute(plan: &Plan, program: OsString, args: Vec<OsString>) -> Trouble {
    not_started(&Command::new(program).args(args).current_dir(&plan.dir).exec())
}

fn not_started(e: &io::Error) -> Trouble {
    Trouble::Start {
        errno: e.raw_os_error().unwrap_or(libc::EINVAL),
    }
}
