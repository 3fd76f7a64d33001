//! `klp-farm logs`: the logs of a livepatch's tasks.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use klp_livepatch::names::LivepatchName;
use klp_livepatch::task::TaskKind;
use klp_livepatch::{Arch, CodestreamFilter};
use klp_proto::v1;
use serde::Serialize;
use tonic::Code;

use crate::client::Client;
use crate::output::{self, Failed, Mode};
use crate::plain;
use klp_proto::view;

/// How often it is looked whether another attempt has begun.
const POLL: Duration = Duration::from_millis(500);
const RECONNECT: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct LogsArgs {
    pub name: LivepatchName,
    /// Only codestreams that match, as in submit
    #[arg(long, value_name = "REGEX", default_value = "", hide_default_value = true)]
    codestreams: CodestreamFilter,
    /// Only this architecture
    #[arg(long)]
    arch: Option<Arch>,
    /// Only this kind of task: check or extract
    #[arg(long)]
    kind: Option<TaskKind>,
    /// This attempt [default: the newest]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    attempt: u32,
    /// Wait for what has not started, and go on until the livepatch has ended
    #[arg(long, short)]
    follow: bool,
}

impl LogsArgs {
    fn selects(&self, task: &v1::Task) -> bool {
        let platform = task.platform.clone().unwrap_or_default();
        platform.codestream.parse().is_ok_and(|c| self.codestreams.matches(&c))
            && self.arch.is_none_or(|a| a.as_str() == platform.arch)
            && self.kind.is_none_or(|k| k.as_str() == view::task_kind(task))
    }

    /// The attempt whose log is wanted, if there was such a one.
    fn attempt_of(&self, task: &v1::Task) -> Option<u32> {
        match self.attempt {
            0 => Some(task.attempt).filter(|newest| *newest > 0),
            wanted => Some(wanted).filter(|wanted| *wanted <= task.attempt),
        }
    }
}

pub async fn run(args: LogsArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let mut printer = Printer {
        client,
        mode,
        follow: args.follow,
        several: true,
    };
    let mut printed: BTreeSet<(String, u32)> = BTreeSet::new();
    let mut waiting = String::new();
    loop {
        let response = client.get(&args.name).await?;
        let ended = response.livepatch.is_some_and(|l| l.ended_ms != 0);
        let selected: Vec<v1::Task> = response.tasks.into_iter().filter(|task| args.selects(task)).collect();
        printer.several = args.follow || selected.len() > 1;
        let mut news = false;
        for task in &selected {
            let Some(attempt) = args.attempt_of(task) else { continue };
            if printed.insert((task.id.clone(), attempt)) {
                news = true;
                if printer.print(task, attempt).await? == Reader::Gone {
                    return Ok(());
                }
            }
        }
        if !args.follow || ended {
            if printed.is_empty() {
                return Err(Failed::Error(anyhow::anyhow!(
                    "no task of {} that matches has run yet; `klp-farm status {}` shows what they wait for, and --follow \
                     waits with them",
                    args.name,
                    args.name
                )));
            }
            return Ok(());
        }
        if !news {
            let why = selected.iter().find(|t| !t.waiting_for.is_empty());
            let why = why.map(|t| format!("waiting: {}", t.waiting_for)).unwrap_or_default();
            if waiting != why && !why.is_empty() {
                output::tell(&why);
            }
            waiting = why;
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Whether whoever reads our output still does.
#[derive(PartialEq, Eq)]
enum Reader {
    There,
    Gone,
}

struct Printer<'a> {
    client: &'a Client,
    mode: Mode,
    follow: bool,
    /// Whose log it is must be said.
    several: bool,
}

/// A piece of a log, as `--output json` prints it.
#[derive(Serialize)]
struct Piece<'a> {
    kind: &'static str,
    codestream: &'a str,
    arch: &'a str,
    attempt: u32,
    offset: u64,
    text: String,
}

impl Printer<'_> {
    /// Prints an attempt's log; if it is followed, from where it was when the coordinator went away.
    async fn print(&self, task: &v1::Task, attempt: u32) -> Result<Reader, Failed> {
        let platform = task.platform.clone().unwrap_or_default();
        let kind = view::task_kind(task);
        if self.several && self.mode == Mode::Table {
            let again = if attempt > 1 {
                format!(", attempt {attempt}")
            } else {
                String::new()
            };
            let of = format!("{}/{}", platform.codestream, platform.arch);
            output::tell(&format!("--- {kind} {of}{again}"));
        }
        let mut offset = 0;
        loop {
            let request = v1::LogsRequest {
                task_id: task.id.clone(),
                attempt,
                offset,
                follow: self.follow,
            };
            let broken = match self.client.livepatches().logs(request).await {
                Err(status) => status,
                Ok(response) => {
                    let mut stream = response.into_inner();
                    loop {
                        match stream.message().await {
                            Ok(None) => return Ok(Reader::There),
                            Err(status) => break status,
                            Ok(Some(chunk)) => {
                                offset = chunk.offset + chunk.data.len() as u64;
                                let piece = Piece {
                                    kind,
                                    codestream: &platform.codestream,
                                    arch: &platform.arch,
                                    attempt,
                                    offset: chunk.offset,
                                    text: String::new(),
                                };
                                if self.write(piece, &chunk.data)? == Reader::Gone {
                                    return Ok(Reader::Gone);
                                }
                            }
                        }
                    }
                }
            };
            let passing = matches!(broken.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
            if !self.follow || !passing {
                return Err(self.client.explain(broken));
            }
            eprintln!("connection to the coordinator lost; trying again");
            tokio::time::sleep(RECONNECT).await;
        }
    }

    fn write(&self, piece: Piece<'_>, data: &[u8]) -> Result<Reader, Failed> {
        let mut out = std::io::stdout();
        let written = match self.mode {
            // A sequence that was cut in two is replaced like any other.
            Mode::Table if out.is_terminal() => out.write_all(plain::lines(&String::from_utf8_lossy(data)).as_bytes()),
            Mode::Table => out.write_all(data),
            Mode::Json => {
                let text = String::from_utf8_lossy(data).into_owned();
                let line = serde_json::to_string(&Piece { text, ..piece }).map_err(anyhow::Error::from)?;
                writeln!(out, "{line}")
            }
        };
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
            result => Ok(result.map(|()| Reader::There)?),
        }
    }
}
