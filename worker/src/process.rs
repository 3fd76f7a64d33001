//! Child processes of an attempt, none of which outlives it: own process group, limits on time, memory and output, and
//! output handed on line by line. Arguments go to the program as they are, never through a shell.
#![expect(unsafe_code, reason = "sets limits between fork and exec")]

mod command;
mod lines;
mod reap;

use std::fmt;
use std::io::{PipeReader, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use klp_telemetry::{TraceParent, attribute, failed};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::isolation::{Cell, Fence, Group, NoTool};
pub use command::Command;
use lines::{Budget, LineSplitter};
use reap::Family;
pub use reap::{kill_left_over, leave_nothing};

/// Variables a child keeps from this process: where programs are, and how to reach the network. Everything else (a
/// surrounding `make`'s MAKEFLAGS above all) would make its work depend on who started us.
const KEPT_ENV: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "APT_CONFIG",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// What is kept of these for who runs in a closed cell.
const KEPT_IN_CELL: &[&str] = &["PATH", "LD_LIBRARY_PATH"];

/// How long the pipes of a killed family may take to close.
const DRAIN: Duration = Duration::from_secs(2);

/// Bytes that are read from a pipe at once.
const CHUNK: usize = 64 << 10;

/// What a child may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Wall time.
    pub wall: Duration,
    /// Address space of each process of the family, in bytes (RLIMIT_AS); `None`: unlimited.
    pub memory: Option<u64>,
    /// Bytes of output that are handed on; what comes after is counted and dropped.
    pub output_kept: u64,
    /// Bytes of output after which the child is killed.
    pub output: u64,
    /// Bytes after which a line is split.
    pub line: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(600),
            memory: None,
            output_kept: 8 << 20,
            output: 256 << 20,
            line: 64 << 10,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Signalled(i32),
    /// Killed at its limit of wall time.
    TimedOut(Duration),
    /// Killed at its limit of output, in bytes.
    Flooded(u64),
    /// One of its processes was killed when all together had taken this many bytes of memory.
    OutOfMemory(u64),
    /// Killed because nobody wants its result any more.
    Cancelled,
}

impl End {
    pub fn success(&self) -> bool {
        *self == End::Exited(0)
    }

    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Signalled(signal.unwrap_or(0)),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Exited(0) => f.write_str("succeeded"),
            End::Exited(code) => write!(f, "ended with exit code {code}"),
            End::Signalled(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "ended with signal {number} ({signal})"),
                Err(_) => write!(f, "ended with signal {number}"),
            },
            End::TimedOut(limit) if limit.subsec_millis() == 0 => {
                write!(f, "killed after {} s (limit)", limit.as_secs())
            }
            End::TimedOut(limit) => write!(f, "killed after {:.1} s (limit)", limit.as_secs_f64()),
            End::Flooded(limit) => write!(f, "killed after {} of output (limit)", mebibytes(*limit)),
            End::OutOfMemory(limit) => write!(
                f,
                "killed when its processes took {} of memory together (limit)",
                mebibytes(*limit)
            ),
            End::Cancelled => f.write_str("killed because it was cancelled"),
        }
    }
}

/// An ended child.
#[derive(Clone, Debug)]
pub struct Finish {
    pub end: End,
    pub wall: Duration,
    /// Bytes of output that were dropped.
    pub output_cut: u64,
    /// The limit it ran under.
    pub memory: Option<u64>,
}

impl Finish {
    /// How it ended, for people. Running out of address space looks to us like any failure, so that limit is named
    /// wherever it may be the reason.
    pub fn describe(&self) -> String {
        let mut text = self.end.to_string();
        if let (End::Exited(1..) | End::Signalled(_), Some(limit)) = (&self.end, self.memory) {
            text += &format!(" (its memory was limited to {})", mebibytes(limit));
        }
        text
    }
}

fn mebibytes(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{bytes} bytes"),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// A child that did not come to run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("there is no program `{program}` in PATH; install the package that has it")]
    NoProgram { program: String },
    #[error("can't start `{program}` in {}: {cause}", dir.display())]
    Start {
        program: String,
        dir: PathBuf,
        cause: std::io::Error,
    },
    #[error("this host's fence `{fence}` can't be put up around `{program}`: {why}")]
    Fence { program: String, fence: Fence, why: String },
    #[error("lost contact with `{program}`: {cause}")]
    Lost { program: String, cause: std::io::Error },
}

/// Runs a child to its end, handing its output to `sink` line by line. When this returns, or is dropped, no process of
/// the child's family is left, however it ended.
///
/// The child is also killed if this process dies; the kernel ties that to the *thread* that started it, so call this on
/// a runtime's own threads, not inside `spawn_blocking`.
///
/// # Errors
/// If the child could not be started. A child that fails is no error but an [`End`].
pub async fn run(
    command: &Command,
    limits: &Limits,
    cancel: &CancellationToken,
    sink: &mut (dyn FnMut(Stream, &str) + Send),
) -> Result<Finish, ProcessError> {
    // What is run for no livepatch, such as a scan's git, would be a trace of its own.
    let span = match klp_telemetry::current() {
        Some(_) => tracing::info_span!("child process", process.executable.name = command.name()),
        None => Span::none(),
    };
    run_traced(command, limits, cancel, sink).instrument(span).await
}

async fn run_traced(
    command: &Command,
    limits: &Limits,
    cancel: &CancellationToken,
    sink: &mut (dyn FnMut(Stream, &str) + Send),
) -> Result<Finish, ProcessError> {
    let program = command.program.to_string_lossy().into_owned();
    let lost = |cause| ProcessError::Lost {
        program: program.clone(),
        cause,
    };
    let start = Instant::now();
    let group = command.cell.as_ref().map_or(Ok(None), |cell| cell.group(limits.memory));
    let group = group.map_err(|e| ProcessError::Fence {
        program: program.clone(),
        fence: Fence::Cgroup,
        why: e.to_string(),
    })?;
    let (mut child, mut family, told) = spawn(command, limits, group.as_ref())?;
    let stdout: Box<dyn AsyncRead + Send + Unpin> = match child.stdout.take() {
        Some(pipe) => Box::new(pipe),
        None => Box::new(tokio::io::empty()),
    };
    let Some(stderr) = child.stderr.take() else {
        return Err(lost(std::io::Error::other("its output is not connected")));
    };
    let mut out = Reader::new(Stream::Stdout, stdout, limits);
    let mut err = Reader::new(Stream::Stderr, stderr, limits);
    let mut budget = Budget::new(limits.output_kept);

    let deadline = tokio::time::sleep(limits.wall);
    tokio::pin!(deadline);
    let end = loop {
        tokio::select! {
            // In this order, so that a flood can't hold off the limits.
            biased;
            () = cancel.cancelled() => break End::Cancelled,
            () = &mut deadline => break End::TimedOut(limits.wall),
            status = child.wait() => break End::of(status.map_err(lost)?),
            open = out.read(), if out.open => if open { out.hand_on(&mut budget, sink) },
            open = err.read(), if err.open => if open { err.hand_on(&mut budget, sink) },
        }
        if budget.seen() > limits.output {
            break End::Flooded(limits.output);
        }
    };
    let wall = start.elapsed();
    family.kill();
    // What was written before the end is still in the pipes.
    let drain = async {
        while out.open || err.open {
            tokio::select! {
                open = out.read(), if out.open => if open { out.hand_on(&mut budget, sink) },
                open = err.read(), if err.open => if open { err.hand_on(&mut budget, sink) },
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN, drain).await;
    out.lines
        .finish(&mut |line| budget.pass(line, |line| sink(Stream::Stdout, line)));
    err.lines
        .finish(&mut |line| budget.pass(line, |line| sink(Stream::Stderr, line)));
    let _ = tokio::time::timeout(DRAIN, child.wait()).await;
    if let Some(no_tool) = told.and_then(trouble) {
        return Err(match no_tool {
            NoTool::Fence(fence, why) => ProcessError::Fence { program, fence, why },
            NoTool::Start(cause) => not_started(command, cause),
        });
    }
    let end = match (end, limits.memory) {
        (End::Exited(1..) | End::Signalled(_), Some(limit)) if group.as_ref().is_some_and(Group::ran_out_of_memory) => {
            End::OutOfMemory(limit)
        }
        (end, _) => end,
    };
    trace(&end);
    Ok(Finish {
        end,
        wall,
        output_cut: budget.cut(),
        memory: limits.memory,
    })
}

/// Tells the child's span how it ended.
fn trace(end: &End) {
    let span = Span::current();
    if let End::Exited(code) = end {
        attribute(&span, "process.exit.code", i64::from(*code));
    }
    if !end.success() {
        failed(&span, end.to_string());
    }
}

/// What a child wrote, as far as it was kept.
#[derive(Clone, Debug)]
pub struct Captured {
    pub finish: Finish,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a child to its end and returns what it wrote.
///
/// # Errors
/// As for [`run`].
pub async fn capture(command: &Command, limits: &Limits, cancel: &CancellationToken) -> Result<Captured, ProcessError> {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let mut sink = |stream: Stream, line: &str| {
        let text = match stream {
            Stream::Stdout => &mut stdout,
            Stream::Stderr => &mut stderr,
        };
        text.push_str(line);
        text.push('\n');
    };
    let finish = run(command, limits, cancel, &mut sink).await?;
    Ok(Captured { finish, stdout, stderr })
}

/// The child, all it will start, and where it tells why there came to be no tool.
type Started = (tokio::process::Child, Family, Option<PipeReader>);

fn spawn(command: &Command, limits: &Limits, group: Option<&Group>) -> Result<Started, ProcessError> {
    let start = |cause| not_started(command, cause);
    let input = match &command.input {
        Some(path) => std::fs::File::open(path).map_err(start)?.into(),
        None => Stdio::null(),
    };
    let output = match &command.output {
        Some(path) => std::fs::File::create_new(path).map_err(start)?.into(),
        None => Stdio::piped(),
    };
    let mut family = Family::expected();
    let (mut to_run, pipe) = match &command.cell {
        None => (tokio::process::Command::new(&command.program), None),
        Some(cell) => {
            let (told, tell) = std::io::pipe().map_err(start)?;
            let (confine, first) = cell.command(&command.dir, group, tell.as_raw_fd()).map_err(start)?;
            let mut to_run = tokio::process::Command::new(confine);
            to_run.args(first).arg(&command.program);
            (to_run, Some((told, tell)))
        }
    };
    let kept = match &command.cell {
        None => KEPT_ENV,
        Some(_) => KEPT_IN_CELL,
    };
    let scratch = command.cell.as_ref().and_then(Cell::scratch);
    to_run
        .args(&command.args)
        .current_dir(&command.dir)
        .env_clear()
        .envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("LC_ALL", "C.UTF-8")
        .envs(scratch.into_iter().flat_map(|dir| [("TMPDIR", dir), ("HOME", dir)]))
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .envs(klp_telemetry::current().map(|span| (TraceParent::VARIABLE, span.to_string())))
        .env(reap::MARK, family.mark())
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let memory = limits.memory;
    let of_output = command.output.is_some().then_some(limits.output);
    let of_files = command.cell.as_ref().and_then(Cell::file_size);
    let file_size = of_output.into_iter().chain(of_files).min();
    let tell = pipe.as_ref().map(|(_, tell)| tell.as_raw_fd());
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only system calls that are safe there are made; nothing is allocated or locked. The pipe
    // `tell` is open in this process until the child was started.
    unsafe {
        to_run.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() != parent {
                // The parent died before it was asked to take us along.
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            if let Some(bytes) = memory {
                setrlimit(Resource::RLIMIT_AS, bytes, bytes)?;
            }
            if let Some(bytes) = file_size {
                setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes)?;
            }
            setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
            // So that what its family daemonizes is still known as its own.
            nix::sys::prctl::set_child_subreaper(true)?;
            if let Some(tell) = tell {
                // Of all that is started meanwhile, it is handed on to this child alone.
                fcntl(BorrowedFd::borrow_raw(tell), FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        });
    }
    let child = to_run.spawn().map_err(start)?;
    family.set_leader(child.id());
    if let Some(pid) = child.id() {
        attribute(&Span::current(), "process.pid", i64::from(pid));
    }
    Ok((child, family, pipe.map(|(told, _)| told)))
}

fn not_started(command: &Command, cause: std::io::Error) -> ProcessError {
    let program = command.program.to_string_lossy().into_owned();
    let dir = command.dir.clone();
    match cause.kind() == std::io::ErrorKind::NotFound && dir.is_dir() {
        true => ProcessError::NoProgram { program },
        false => ProcessError::Start { program, dir, cause },
    }
}

/// What an ended child told of why there came to be no tool.
fn trouble(mut told: PipeReader) -> Option<NoTool> {
    // All that could still write there are dead; should one not be, nobody waits for it.
    fcntl(&told, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    let mut text = Vec::new();
    let _ = told.read_to_end(&mut text);
    Cell::trouble(&text)
}

/// One of the child's pipes.
struct Reader<R> {
    stream: Stream,
    pipe: R,
    chunk: Vec<u8>,
    lines: LineSplitter,
    open: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    fn new(stream: Stream, pipe: R, limits: &Limits) -> Self {
        Self {
            stream,
            pipe,
            chunk: Vec::with_capacity(CHUNK),
            lines: LineSplitter::new(limits.line),
            open: true,
        }
    }

    /// Waits for data; false at the end of the pipe.
    async fn read(&mut self) -> bool {
        self.chunk.clear();
        self.open = self.pipe.read_buf(&mut self.chunk).await.is_ok_and(|read| read > 0);
        self.open
    }

    fn hand_on(&mut self, budget: &mut Budget, sink: &mut (dyn FnMut(Stream, &str) + Send)) {
        let stream = self.stream;
        self.lines.push(&self.chunk, &mut |line| {
            budget.pass(line, |line| sink(stream, line));
        });
    }
}
