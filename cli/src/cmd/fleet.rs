//! `klp-farm drain`, `undrain` and `forget`: what operators do about workers.

use std::time::Duration;

use clap::Args;
use klp_livepatch::names::WorkerName;
use klp_livepatch::words::amount;
use klp_proto::v1;

use crate::client::Client;
use crate::output::{self, Failed, Mode};
use klp_proto::view;

/// How often a worker is looked at that is waited for.
const POLL: Duration = Duration::from_millis(500);

#[derive(Args)]
#[command(after_help = "\
Example:
  klp-farm drain build7 --reason 'new disk' --wait && ssh build7 poweroff

The worker finishes what it runs and is given nothing new, over its restarts and the coordinator's, until
`klp-farm undrain`. Tasks that only it could run say so in `klp-farm status`.")]
pub struct DrainArgs {
    worker: WorkerName,
    /// Why, for whoever wonders
    #[arg(long)]
    reason: String,
    /// Wait until it runs nothing
    #[arg(long)]
    wait: bool,
}

#[derive(Args)]
#[command(after_help = "A quarantine is taken back with it.")]
pub struct UndrainArgs {
    worker: WorkerName,
}

#[derive(Args)]
#[command(after_help = "\
For a worker that is gone for good: codestreams that only it held are no longer selected by new livepatches.
A worker that comes back is known again.")]
pub struct ForgetArgs {
    worker: WorkerName,
}

pub async fn drain(args: DrainArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let request = v1::DrainRequest {
        worker: args.worker.to_string(),
        reason: args.reason,
    };
    let answer = client.fleet().drain(request).await;
    let mut worker = answer
        .map_err(|s| client.explain(s))?
        .into_inner()
        .worker
        .unwrap_or_default();
    if args.wait && worker.slots_busy > 0 {
        output::tell(&format!("{} still runs {}", worker.name, attempts(worker.slots_busy)));
        while worker.slots_busy > 0 {
            tokio::time::sleep(POLL).await;
            let found = client
                .workers()
                .await?
                .workers
                .into_iter()
                .find(|w| w.name == args.worker.as_str());
            worker = found.unwrap_or_default();
        }
    }
    show(worker, mode, |worker| match worker.slots_busy {
        0 => "drained; it runs nothing".to_owned(),
        busy => format!("drained; it still runs {}", attempts(busy)),
    })
}

pub async fn undrain(args: UndrainArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let request = v1::UndrainRequest {
        worker: args.worker.to_string(),
    };
    let answer = client.fleet().undrain(request).await;
    let worker = answer.map_err(|s| client.explain(s))?.into_inner().worker;
    show(worker.unwrap_or_default(), mode, |worker| match worker.connected {
        true => "is given tasks again".to_owned(),
        false => "is given tasks again when it is back".to_owned(),
    })
}

pub async fn forget(args: ForgetArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let request = v1::ForgetRequest {
        worker: args.worker.to_string(),
    };
    client.fleet().forget(request).await.map_err(|s| client.explain(s))?;
    match mode {
        Mode::Json => output::json(&serde_json::json!({ "forgotten": args.worker.as_str() })),
        Mode::Table => output::print(&format!("{}: forgotten, with the trees it held", args.worker)),
    }
}

fn show(worker: v1::Worker, mode: Mode, what: impl Fn(&v1::Worker) -> String) -> Result<(), Failed> {
    match mode {
        Mode::Json => output::json(&view::Worker::at(worker, output::now_ms())),
        Mode::Table => output::print(&format!("{}: {}", worker.name, what(&worker))),
    }
}

fn attempts(n: u32) -> String {
    amount(n, "attempt", "attempts")
}
