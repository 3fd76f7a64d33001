//! A tool of our own that tries to get out: what it can't, the fences hold.
#![expect(unsafe_code, reason = "tries whether ptrace(2) is shut")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::fence::Fence;

/// The first argument of our programs when they are this tool; the questions follow.
pub(super) const TRY_FENCES: &str = "try-fences";

/// What to try, and what there is on the other side.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Questions {
    pub fences: BTreeSet<Fence>,
    /// A file of the worker's.
    pub secret: PathBuf,
    /// The tool's own folder.
    pub room: PathBuf,
    /// A port on loopback that somebody listens to.
    pub port: u16,
    /// The worker's process.
    pub process: i32,
    /// Whom the tool is not to be.
    pub not_user: Option<u32>,
    /// The worker's IPC namespace.
    pub ipc: PathBuf,
}

/// How the tool got through fences.
pub(super) type Ways = BTreeMap<Fence, String>;

/// To be called with the program's second argument.
pub(super) fn try_fences(questions: &str) -> ExitCode {
    let Ok(questions) = serde_json::from_str::<Questions>(questions) else {
        eprintln!("error: `{TRY_FENCES}` is what the worker calls itself");
        return ExitCode::from(2);
    };
    let ways: Ways = questions
        .fences
        .iter()
        .filter_map(|fence| Some((*fence, way(*fence, &questions)?)))
        .collect();
    println!("{}", serde_json::to_string(&ways).unwrap_or_default());
    ExitCode::SUCCESS
}

/// What a fence failed to keep the tool from.
fn way(fence: Fence, asked: &Questions) -> Option<String> {
    let said = |done: bool, what: &str| done.then(|| what.to_owned());
    match fence {
        Fence::User => {
            let all = rustix::thread::capabilities(None).map(|sets| sets.effective | sets.permitted);
            let has_any = all.is_ok_and(|set| !set.is_empty());
            said(has_any, "a tool has capabilities")
                .or_else(|| {
                    said(
                        asked.not_user == Some(geteuid().as_raw()),
                        "a tool is who the worker is",
                    )
                })
                .or_else(|| said(nix::unistd::setuid(0.into()).is_ok(), "a tool can become root"))
        }
        Fence::Files => said(File::open(&asked.secret).is_ok(), "a tool reads the worker's files")
            .or_else(|| {
                let made = Path::new("/usr/.klp-farm-trial");
                let wrote = File::create_new(made).is_ok();
                let _ = fs::remove_file(made);
                said(wrote, "a tool writes to /usr")
            })
            .or_else(|| {
                let own = File::create(asked.room.join("trial")).err();
                own.map(|e| format!("a tool can't write to its own folder: {e}"))
            }),
        Fence::Processes => {
            let small = std::process::id() <= 3;
            // A small number is that of one of its own.
            let seen = asked.process > 3 && kill(Pid::from_raw(asked.process), None) != Err(Errno::ESRCH);
            said(seen || !small, "a tool sees the worker")
        }
        Fence::Network => {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, asked.port));
            let reached = TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
            said(reached, "a tool reaches this host's loopback")
        }
        Fence::Ipc => {
            let own = fs::read_link("/proc/self/ns/ipc");
            said(
                own.is_ok_and(|own| own == asked.ipc),
                "a tool shares the worker's memory segments",
            )
        }
        Fence::Landlock => {
            // Everybody may write there, and every other fence lets it be.
            let opened = OpenOptions::new().write(true).open("/dev/random");
            said(opened.is_ok(), "a tool writes where no rule lets it")
        }
        Fence::Syscalls => {
            let none = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: the request takes no address; at worst this process is traced by its parent.
            let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) };
            said(traced == 0, "a tool may have others traced")
        }
        Fence::Cgroup => {
            let own = fs::read_to_string("/proc/self/cgroup");
            said(
                own.is_ok_and(|own| !own.contains(cgroup::NAME)),
                "a tool is not in a group of its own",
            )
        }
    }
}
