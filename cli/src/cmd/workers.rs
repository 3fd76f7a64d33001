//! `klp-farm workers`: the build hosts.

use klp_proto::v1;

use crate::client::Client;
use crate::output::{self, Failed, Mode};
use crate::view;

pub async fn run(client: &Client, mode: Mode) -> Result<(), Failed> {
    let request = v1::ListWorkersRequest {};
    let workers = client
        .fleet()
        .list_workers(request)
        .await
        .map_err(|s| client.explain(s))?
        .into_inner()
        .workers;
    if mode == Mode::Json {
        return output::json(&workers.into_iter().map(view::Worker::from).collect::<Vec<_>>());
    }
    if workers.is_empty() {
        eprintln!("no worker yet; start one with `klp-worker --coordinator URL`");
        return Ok(());
    }
    let now = output::now_ms();
    let mut table = output::table(&["WORKER", "STATE", "SLOTS", "TREES", "TOOLS"]);
    for worker in workers {
        let state = match (worker.connected, worker.draining) {
            (true, false) => "connected".to_owned(),
            (true, true) => "draining".to_owned(),
            (false, _) if worker.last_seen_ms == 0 => "not seen since the coordinator started".to_owned(),
            (false, _) => format!("lost {}", output::ago(worker.last_seen_ms, now)),
        };
        let trees = worker.trees.iter().map(|t| format!("{}/{}", t.codestream, t.arch));
        let tools = worker.tools.iter().map(|t| format!("{} {}", t.backend, t.version));
        table.add_row([
            worker.name,
            state,
            format!("{}/{} busy", worker.slots_busy, worker.slots),
            trees.collect::<Vec<_>>().join("\n"),
            tools.collect::<Vec<_>>().join("\n"),
        ]);
    }
    output::print(&table.trim_fmt())
}
