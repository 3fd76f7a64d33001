//! `klp-farm cancel`, `retry`, `pause`, `resume` and `priority`: what may be changed about livepatches that are stored.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use klp_livepatch::names::LivepatchName;
use klp_livepatch::words::amount;
use klp_livepatch::{Arch, CodestreamFilter, Share};
use klp_proto::v1;
use tonic::{Response, Status};

use crate::client::{Client, by_name};
use crate::follow;
use crate::output::{self, Failed, Mode};
use klp_proto::view;

/// How often a livepatch is looked at that is waited for.
const POLL: Duration = Duration::from_millis(200);

#[derive(Args)]
#[command(after_help = "\
Example:
  klp-farm cancel bsc1197597 --reason 'the fix was withdrawn'

What has succeeded by then is kept; `klp-farm retry` takes up the rest again.")]
pub struct CancelArgs {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<LivepatchName>,
    /// Why, for whoever looks at it later
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Wait until no worker runs anything for it
    #[arg(long)]
    wait: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  klp-farm retry bsc1197597 --wait
  klp-farm retry bsc1197597 --codestreams '15\\.6' --archs s390x

Exit codes: 0 retried (with --wait: all succeeded), 1 nothing to retry, 3 with --wait: not all succeeded.")]
pub struct RetryArgs {
    name: LivepatchName,
    /// Only codestreams that match, as in submit
    #[arg(long, value_name = "REGEX", default_value = "", hide_default_value = true)]
    codestreams: CodestreamFilter,
    /// Only these architectures
    #[arg(long, value_name = "ARCH", num_args = 1..)]
    archs: Vec<Arch>,
    /// Follow it until it ends
    #[arg(long)]
    wait: bool,
}

#[derive(Args)]
#[command(after_help = "\
Example:
  klp-farm pause bsc1197597 --reason 'wait for the second fix'

What runs goes on; nothing more is started, over restarts too, until `klp-farm resume`.")]
pub struct PauseArgs {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<LivepatchName>,
    /// Why, for whoever looks at it later
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Args)]
pub struct ResumeArgs {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<LivepatchName>,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  klp-farm priority bsc1197597 --priority 50     before all of lower priority
  klp-farm priority bsc1197597 --weight 300      three times the workers of one with 100

It counts from the next assignment on; what runs is not interrupted.")]
pub struct PriorityArgs {
    name: LivepatchName,
    /// From -100 to 100: a higher one goes first [default: as it is]
    #[arg(long, short, allow_negative_numbers = true, required_unless_present = "weight")]
    priority: Option<i32>,
    /// From 1 to 1000: the share of workers among livepatches of one priority [default: as it is]
    #[arg(long)]
    weight: Option<u32>,
}

pub async fn cancel(args: CancelArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let mut cancelled = Vec::new();
    for name in &args.names {
        let request = v1::CancelRequest {
            livepatch: Some(by_name(name)),
            reason: args.reason.clone(),
        };
        cancelled.push(changed(client, client.livepatches().cancel(request).await)?);
    }
    if args.wait {
        for name in &args.names {
            until_nothing_runs(client, name).await?;
        }
    }
    show(cancelled, mode, |livepatch| match livepatch.state() {
        v1::LivepatchState::Cancelled => livepatch.verdict.clone(),
        _ => format!("had ended already: {}", livepatch.verdict),
    })
}

/// Waits until no connected worker runs an attempt of a livepatch that is cancelled. The farm takes leases back at once;
/// it is the workers' own word that counts here.
async fn until_nothing_runs(client: &Client, name: &LivepatchName) -> Result<(), Failed> {
    let tasks = client.get(name).await?.tasks;
    let of_it: BTreeSet<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
    let mut said = String::new();
    loop {
        let workers = client.workers().await?.workers;
        let at_it = |w: &&v1::Worker| w.unleased_tasks.iter().any(|id| of_it.contains(id.as_str()));
        let busy: Vec<&str> = workers.iter().filter(at_it).map(|w| w.name.as_str()).collect();
        if busy.is_empty() {
            return Ok(());
        }
        let now = format!("{name}: waiting until it is stopped on {}", busy.join(", "));
        if said != now {
            output::tell(&now);
            said = now;
        }
        tokio::time::sleep(POLL).await;
    }
}

pub async fn retry(args: RetryArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let request = v1::RetryRequest {
        livepatch: Some(by_name(&args.name)),
        codestreams: args.codestreams.as_str().to_owned(),
        archs: args.archs.iter().map(ToString::to_string).collect(),
    };
    let answer = client.livepatches().retry(request).await;
    let answer = answer.map_err(|s| client.explain(s))?.into_inner();
    let tasks = amount(answer.retried, "task is", "tasks are");
    if args.wait {
        eprintln!("{}: {tasks} tried again", args.name);
        return follow::follow(client, &args.name, mode).await;
    }
    show(Vec::from_iter(answer.livepatch), mode, |_| {
        format!("{tasks} tried again")
    })
}

pub async fn pause(args: PauseArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let mut paused = Vec::new();
    for name in &args.names {
        let request = v1::PauseRequest {
            livepatch: Some(by_name(name)),
            reason: args.reason.clone(),
        };
        paused.push(changed(client, client.livepatches().pause(request).await)?);
    }
    show(paused, mode, |livepatch| {
        let running = livepatch.counts.unwrap_or_default().leased;
        let running = amount(running, "running task goes on", "running tasks go on");
        format!("paused; {running}, `klp-farm resume` starts the others")
    })
}

pub async fn resume(args: ResumeArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let mut resumed = Vec::new();
    for name in &args.names {
        let request = v1::ResumeRequest {
            livepatch: Some(by_name(name)),
        };
        resumed.push(changed(client, client.livepatches().resume(request).await)?);
    }
    show(resumed, mode, |_| "goes on".to_owned())
}

pub async fn priority(args: PriorityArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let now = client
        .get(&args.name)
        .await?
        .livepatch
        .unwrap_or_default()
        .share
        .unwrap_or_default();
    let share = Share::new(args.priority.unwrap_or(now.priority), args.weight.unwrap_or(now.weight));
    let request = v1::SetShareRequest {
        livepatch: Some(by_name(&args.name)),
        share: Some(share.map_err(Failed::Invalid)?.into()),
    };
    let livepatch = changed(client, client.livepatches().set_share(request).await)?;
    show(vec![livepatch], mode, |livepatch| {
        let share = livepatch.share.unwrap_or_default();
        format!("priority {}, weight {}", share.priority, share.weight)
    })
}

fn changed(client: &Client, answer: Result<Response<v1::ChangeResponse>, Status>) -> Result<v1::Livepatch, Failed> {
    let answer = answer.map_err(|s| client.explain(s))?.into_inner();
    Ok(answer.livepatch.unwrap_or_default())
}

/// Says what became of each livepatch.
fn show(livepatches: Vec<v1::Livepatch>, mode: Mode, what: impl Fn(&v1::Livepatch) -> String) -> Result<(), Failed> {
    if mode == Mode::Json {
        return output::json(&livepatches.into_iter().map(view::Livepatch::from).collect::<Vec<_>>());
    }
    let name = |l: &v1::Livepatch| l.spec.as_ref().map(|s| s.name.clone()).unwrap_or_default();
    let lines: Vec<String> = livepatches
        .iter()
        .map(|l| format!("{}: {}", name(l), what(l)))
        .collect();
    output::print(&lines.join("\n"))
}
