//! `klp-farm logs`: the logs of a livepatch's tasks.

use std::io::Write;

use clap::Args;
use klp_livepatch::names::LivepatchName;
use klp_livepatch::task::TaskKind;
use klp_livepatch::{Arch, CodestreamFilter};
use klp_proto::v1;

use crate::client::Client;
use crate::output::Failed;
use crate::view;

#[derive(Args)]
pub struct LogsArgs {
    name: LivepatchName,
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
    /// Go on until the attempt ends
    #[arg(long, short)]
    follow: bool,
}

impl LogsArgs {
    fn selects(&self, task: &v1::Task) -> bool {
        let platform = task.platform.clone().unwrap_or_default();
        task.attempt >= self.attempt.max(1)
            && platform.codestream.parse().is_ok_and(|c| self.codestreams.matches(&c))
            && self.arch.is_none_or(|a| a.as_str() == platform.arch)
            && self.kind.is_none_or(|k| k.as_str() == view::task_kind(task))
    }
}

pub async fn run(args: LogsArgs, client: &Client) -> Result<(), Failed> {
    let tasks = client.get(&args.name).await?.tasks;
    let selected: Vec<v1::Task> = tasks.into_iter().filter(|task| args.selects(task)).collect();
    if selected.is_empty() {
        return Err(Failed::Error(anyhow::anyhow!(
            "no task of {} that matches has run yet; `klp-farm status {}` shows what they wait for",
            args.name,
            args.name
        )));
    }
    let several = selected.len() > 1;
    for task in &selected {
        if several {
            let platform = task.platform.clone().unwrap_or_default();
            eprintln!(
                "--- {} {}/{}",
                view::task_kind(task),
                platform.codestream,
                platform.arch
            );
        }
        print(&args, client, task).await?;
    }
    Ok(())
}

async fn print(args: &LogsArgs, client: &Client, task: &v1::Task) -> Result<(), Failed> {
    let request = v1::LogsRequest {
        task_id: task.id.clone(),
        attempt: args.attempt,
        offset: 0,
        follow: args.follow,
    };
    let mut stream = client
        .livepatches()
        .logs(request)
        .await
        .map_err(|s| client.explain(s))?
        .into_inner();
    let mut out = std::io::stdout();
    while let Some(chunk) = stream.message().await.map_err(|s| client.explain(s))? {
        match out.write_all(&chunk.data).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}
