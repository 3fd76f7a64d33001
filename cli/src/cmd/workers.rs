//! `klp-farm workers`: the build hosts.

use klp_proto::v1;
use klp_proto::v1::unready::What;

use crate::client::Client;
use crate::output::{self, Failed, Mode};
use klp_proto::view;

pub async fn run(client: &Client, mode: Mode) -> Result<(), Failed> {
    let v1::ListWorkersResponse {
        workers,
        version: coordinator,
    } = client.workers().await?;
    if mode == Mode::Json {
        return output::json(
            &workers
                .into_iter()
                .map(|w| view::Worker::at(w, output::now_ms()))
                .collect::<Vec<_>>(),
        );
    }
    if workers.is_empty() {
        eprintln!("no worker yet; start one with `klp-worker --coordinator URL`");
        return Ok(());
    }
    let now = output::now_ms();
    let mut table = output::table(&["WORKER", "STATE", "VERSION", "BUSY", "TREES", "TOOLS", "ISOLATION"]);
    for worker in workers {
        let state = view::worker_state(&worker, now);
        let version = version(&worker, &coordinator);
        let fences = worker.isolation.into_iter().map(view::Fence::from);
        let isolation = view::isolation(&fences.collect::<Vec<_>>()).replace(' ', "\n");
        let (broken_trees, broken_tools): (Vec<_>, Vec<_>) = worker
            .unready
            .into_iter()
            .partition(|u| matches!(u.what, Some(What::Tree(_))));
        let broken = |unready: v1::Unready| {
            let view::Unready { what, reason } = unready.into();
            format!("{what} can't be used: {reason}")
        };
        let trees = worker.trees.iter().map(|t| format!("{}/{}", t.codestream, t.arch));
        let trees = trees.chain(broken_trees.into_iter().map(broken));
        let tools = worker.tools.iter().map(|t| format!("{} {}", t.backend, t.version));
        let tools = tools.chain(broken_tools.into_iter().map(broken));
        let mut busy = format!("{} of {}", worker.slots_busy, worker.slots);
        if worker.prefetched > 0 {
            busy += &format!(" and {} prefetched", worker.prefetched);
        }
        if worker.memory > 0 {
            busy += &format!(", {} of {} GiB", gib(worker.memory_busy), gib(worker.memory));
        }
        for running in worker.running {
            busy += &format!("\n{}", view::Running::from(running).words(now));
        }
        table.add_row([
            worker.name,
            state,
            version,
            busy,
            trees.collect::<Vec<_>>().join("\n"),
            tools.collect::<Vec<_>>().join("\n"),
            isolation,
        ]);
    }
    output::print(&table.trim_fmt())
}

/// The worker's version and the protocol of its session, with a mark where the version is another than the coordinator's.
fn version(worker: &v1::Worker, coordinator: &str) -> String {
    let mut lines = vec![worker.version.clone()];
    lines.extend((worker.protocol > 0).then(|| format!("protocol {}", worker.protocol)));
    let mark = view::skew_mark(view::skew_word(worker.skew()));
    lines.extend(mark.map(|mark| format!("{mark} ({coordinator})")));
    lines.join("\n")
}

fn gib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 30))
}
