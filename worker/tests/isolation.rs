//! Tools that try to get out of their cell, for real. Each way is also tried without fences, where it must succeed: so the
//! test would notice.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use klp_tests::program;
use klp_worker::config::ToolPaths;
use klp_worker::isolation::{Cell, Fence, Isolation, Room, Settings};
use klp_worker::process::{Captured, Command, End, Limits, ProcessError, capture};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A worker's folder, a kernel's tree beside it, and a room for a tool.
struct Ground {
    dir: TempDir,
    cell: Cell,
    room: Room,
    /// Runs as whoever the worker is.
    process: Child,
    listener: TcpListener,
    socket: UnixListener,
}

impl Ground {
    async fn new(policy: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["data/outbox", "data/scratch/other", "tree", "home"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for (file, text) in [
            ("data/outbox/1.json", "outcome"),
            ("data/identity.pem", "key"),
            ("data/scratch/other/job.json", "job"),
            ("tree/file.c", "int x;\n"),
            ("home/secret", "key"),
        ] {
            std::fs::write(at(file), text).unwrap();
        }
        let isolation = look(policy, &at("data")).await.unwrap();
        let room = Room::new(at("data/scratch/mine")).unwrap();
        let cell = isolation.cell([at("tree").as_path()]).writing(&room).unwrap();
        let process = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket = UnixListener::bind(at("socket")).unwrap();
        Self {
            dir,
            cell,
            room,
            process,
            listener,
            socket,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A script with what it is to find: `D` is the folder of all, `PID` a process, `PORT` a port.
    fn script(&self, text: &str) -> String {
        let port = self.listener.local_addr().unwrap().port().to_string();
        text.replace("D/", &format!("{}/", self.dir.path().display()))
            .replace("PID", &self.process.id().to_string())
            .replace("PORT", &port)
    }

    async fn run(&self, script: &str) -> Captured {
        self.run_within(&limits(), script).await
    }

    async fn run_within(&self, limits: &Limits, script: &str) -> Captured {
        let script = self.script(script);
        let command = Command::new("bash", self.room.path()).args(["-c", &script]);
        let command = command.within(&self.cell);
        capture(&command, limits, &CancellationToken::new()).await.unwrap()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn limits() -> Limits {
    Limits {
        wall: Duration::from_secs(20),
        ..Limits::default()
    }
}

async fn look(policy: &str, data: &Path) -> Result<Arc<Isolation>, String> {
    let settings = Settings {
        policy: policy.parse().unwrap(),
        tool_user: nix::unistd::geteuid().is_root().then(|| "4712".to_owned()),
        ..Settings::default()
    };
    Isolation::look(&settings, &ToolPaths::default(), data, &program("klp-worker")).await
}

#[tokio::test]
async fn a_tool_does_its_work_in_its_cell() {
    let ground = Ground::new("required").await;
    let done = ground
        .run("cat D/tree/file.c && gcc -c D/tree/file.c -o file.o && test -s file.o && echo $TMPDIR $HOME && mktemp; exit 3")
        .await;
    assert_eq!(done.finish.end, End::Exited(3), "{done:?}");
    let room = ground.room.path().display();
    assert!(
        done.stdout.starts_with(&format!("int x;\n{room} {room}\n{room}/tmp.")),
        "{done:?}"
    );
    assert!(ground.room.read(Path::new("file.o"), 4).unwrap() == b"\x7fELF");
    let done = ground.run("kill -SEGV $$").await;
    assert_eq!(done.finish.describe(), "ended with signal 11 (SIGSEGV)");
    let done = ground.run("cat >out; env; exec 2>&1; echo err").await;
    let names: Vec<&str> = done.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    let known = [
        "PATH",
        "LD_LIBRARY_PATH",
        "LC_ALL",
        "TMPDIR",
        "HOME",
        "KLP_FARM_PROCESS",
        "PWD",
        "SHLVL",
        "_",
        "err",
    ];
    assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
    let none = Command::new("no-such-program", ground.room.path()).within(&ground.cell);
    let none = capture(&none, &limits(), &CancellationToken::new()).await;
    assert!(matches!(none, Err(ProcessError::NoProgram { .. })), "{none:?}");
}

/// Ways out, each a script that ends well if it gets through.
const WAYS: [(&str, &str); 17] = [
    ("writes into the tree", "echo y >>D/tree/file.c"),
    ("makes a file in the tree", "echo y >D/tree/new.c"),
    ("changes the tree's mode", "chmod 777 D/tree"),
    (
        "mounts the tree anew",
        "mount -o remount,rw D/tree || mount --bind D/data/scratch/mine D/tree",
    ),
    ("reads the outbox", "cat D/data/outbox/1.json"),
    ("reads the worker's key", "cat D/data/identity.pem"),
    ("reads another attempt's scratch", "cat D/data/scratch/other/job.json"),
    ("reads another's by a link", "ln -sf ../other/job.json link && cat link"),
    ("lists the worker's folder", "ls D/data/outbox"),
    (
        "reads by a process's root",
        "for p in /proc/[0-9]*; do cat $p/root/D/data/identity.pem && exit 0; done; exit 1",
    ),
    (
        "reads by a process's folder",
        "for p in /proc/[0-9]*; do cat $p/cwd/../../identity.pem && exit 0; done; exit 1",
    ),
    ("reaches loopback", "exec 3<>/dev/tcp/127.0.0.1/PORT"),
    (
        "reaches a socket of the host",
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(\"D/socket\") or exit 1'",
    ),
    ("sees another process", "test -d /proc/PID"),
    ("signals another process", "kill -0 PID"),
    ("reads somebody's home", "cat D/home/secret"),
    (
        "writes to the system's folder",
        "echo >/var/tmp/klp-farm-test-$$ && rm /var/tmp/klp-farm-test-$$",
    ),
];

#[tokio::test]
async fn no_way_leads_out_of_a_cell_though_each_is_one_without_it() {
    let (closed, open) = (Ground::new("required").await, Ground::new("none").await);
    for (what, script) in WAYS {
        let through = open.run(script).await;
        // Without fences that takes root, and the test may run as somebody else.
        let counts = !what.contains("mounts");
        assert!(
            !counts || through.finish.end.success(),
            "without fences a tool {what}: {through:?}"
        );
        let held = closed.run(script).await;
        assert!(!held.finish.end.success(), "a tool {what}: {held:?}");
        assert!(
            !held.stdout.contains("key") && !held.stdout.contains("outcome"),
            "{what}: {held:?}"
        );
    }
    assert_eq!(std::fs::read_to_string(closed.path("tree/file.c")).unwrap(), "int x;\n");
    assert!(!closed.path("tree/new.c").exists());
    // Nobody came in by the sockets, other than from without fences.
    closed.listener.set_nonblocking(true).unwrap();
    closed.socket.set_nonblocking(true).unwrap();
    assert!(closed.listener.accept().is_err() && closed.socket.accept().is_err());
}

#[tokio::test]
async fn rights_are_neither_there_nor_to_be_had() {
    let ground = Ground::new("required").await;
    for script in [
        // Who else it may be.
        "test $(id -u) != 0",
        "! su root -c true </dev/null",
        "! perl -e 'use POSIX; POSIX::setuid(0); exit($< == 0 ? 0 : 1)'",
        "grep -q '^CapEff:\t0*$' /proc/self/status && grep -q '^CapBnd:\t0*$' /proc/self/status",
        "grep -q '^NoNewPrivs:\t1$' /proc/self/status && grep -q '^Seccomp:\t2$' /proc/self/status",
        // A program that would run as its owner does not.
        "cp /bin/id mine && chmod u+s mine && ./mine -u && test $(./mine -u) = $(id -u)",
        "test $(ulimit -u) -le 4096 && ! ulimit -u 5000",
        "! mount -t tmpfs none /tmp",
        "! unshare -U true && ! unshare -r mount -t tmpfs none /tmp",
        "! chroot . /bin/true",
        "! perl -e 'exit(syscall(101, 0, 0, 0, 0) == 0 ? 0 : 1)'",
        "! mknod device c 1 3",
        // The kernel's settings, and the processes that it has for others.
        "! echo 1 >/proc/sys/kernel/randomize_va_space",
        "! echo x >/proc/sysrq-trigger",
        "! echo 1000 >/proc/1/oom_score_adj",
        "! cat /proc/1/environ && ! cat /proc/1/mem",
        "test $(ls -d /proc/[0-9]* | wc -l) -lt 8",
        "test -z \"$(cat /proc/net/dev | tail -n +3 | grep -v lo:)\"",
    ] {
        let done = ground.run(script).await;
        assert!(done.finish.end.success(), "{script}: {done:?}");
    }
}

#[tokio::test]
async fn what_a_tool_leaves_behind_ends_with_it() {
    let ground = Ground::new("required").await;
    let sign = format!("klp-farm-test-{}", std::process::id());
    // A daemon that has shed its parents and its environment.
    let script = format!("(env -i setsid bash -c 'exec -a {sign} sleep 100' >/dev/null 2>&1 &) ; sleep 0.2; echo done");
    let start = Instant::now();
    let done = ground.run(&script).await;
    assert!(
        done.stdout == "done\n" && start.elapsed() < Duration::from_secs(5),
        "{done:?}"
    );
    assert_eq!(processes_named(&sign), 0);
    // The same within a tool that has to be killed.
    let hanging = script.replace("echo done", "sleep 100");
    let short = Limits {
        wall: Duration::from_secs(1),
        ..Limits::default()
    };
    let done = ground.run_within(&short, &hanging).await;
    assert_eq!(done.finish.end, End::TimedOut(short.wall));
    assert_eq!(processes_named(&sign), 0);
}

fn processes_named(name: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let named = |path: PathBuf| {
        let mut line = Vec::new();
        let file = std::fs::File::open(path.join("cmdline"));
        let read = file.and_then(|mut file| file.read_to_end(&mut line));
        read.is_ok() && line.starts_with(name.as_bytes())
    };
    processes.filter(|entry| named(entry.path())).count()
}

#[tokio::test]
async fn a_fence_that_is_missing_is_named_and_stops_who_requires_it() {
    let dir = tempfile::tempdir().unwrap();
    let isolation = look("best", dir.path()).await.unwrap();
    let fences = isolation.fences();
    for essential in Fence::ESSENTIAL {
        assert!(fences.up.contains(&essential), "{essential}: {:?}", fences.down);
    }
    let program = program("klp-worker");
    let settings = Settings {
        policy: "required".parse().unwrap(),
        tool_user: Some("no-such-user".to_owned()),
        ..Settings::default()
    };
    if nix::unistd::geteuid().is_root() {
        let refused = Isolation::look(&settings, &ToolPaths::default(), dir.path(), &program)
            .await
            .unwrap_err();
        assert!(refused.contains("no-such-user"), "{refused}");
    }
    // A program that never becomes a tool puts up no fence.
    let broken = Isolation::look(&settings, &ToolPaths::default(), dir.path(), Path::new("/bin/false")).await;
    assert!(broken.is_err());
}

#[tokio::test]
async fn a_tree_that_tools_cannot_read_is_told() {
    let ground = Ground::new("required").await;
    let tree = ground.path("tree");
    let isolation = ground.cell.isolation();
    assert_eq!(isolation.unreadable([tree.as_path()]), None);
    std::fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let told = isolation.unreadable([tree.as_path()]);
    // Who runs tools as who it is has no such trouble.
    assert_eq!(told.is_some(), nix::unistd::geteuid().is_root(), "{told:?}");
    assert!(told.is_none_or(|why| why.contains("chmod -R o+rX")));
}

/// As root, all of this once more as somebody who is not: then user namespaces take root's place.
#[test]
fn whoever_is_not_root_has_the_same_fences() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(4711), Some(4711)).unwrap();
    let done = std::process::Command::new("setpriv")
        .args(["--reuid=4711", "--regid=4711", "--clear-groups", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--test-threads=1"])
        .env("TMPDIR", dir.path())
        .env("HOME", dir.path())
        .env("PATH", "/usr/bin:/bin")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
