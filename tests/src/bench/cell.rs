//! What the fences around a tool cost: `true` as a worker runs it, without and with them.

use std::time::Instant;

use anyhow::{Result, ensure};
use klp_worker::config::ToolPaths;
use klp_worker::isolation::{Cell, Isolation, Room, Settings};
use klp_worker::process::{Command, Limits, capture};
use tokio_util::sync::CancellationToken;

use super::table::Table;

const SECTION: &str = "Fences";

/// # Errors
/// The machine's.
pub async fn all(table: &mut Table, samples: usize) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let settings = Settings::default();
    let isolation = Isolation::look(
        &settings,
        &ToolPaths::default(),
        dir.path(),
        &crate::program("klp-worker"),
    )
    .await;
    let isolation = isolation.map_err(anyhow::Error::msg)?;
    let room = Room::new(dir.path().join("room"))?;
    let closed = isolation.cell([]).writing(&room)?;
    let up: Vec<&str> = isolation.fences().up.iter().map(|fence| fence.name()).collect();
    // In turn, so that what else the machine does meets both.
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        without.push(once(&Cell::open()).await?);
        with.push(once(&closed).await?);
    }
    let (without, with) = (median(without), median(with));
    table.add(SECTION, "`true` without fences", without, "ms");
    table.add(SECTION, "`true` behind fences", with, "ms").beside = up.join(" ");
    table.add(SECTION, "what fences add", with - without, "ms").beside = "at most 2 ms wanted".to_owned();
    Ok(())
}

async fn once(cell: &Cell) -> Result<f64> {
    let command = Command::new("true", "/").within(cell);
    let start = Instant::now();
    let done = capture(&command, &Limits::default(), &CancellationToken::new()).await?;
    let time = start.elapsed().as_secs_f64() * 1e3;
    ensure!(
        done.finish.end.success(),
        "true {}: {}",
        done.finish.describe(),
        done.stderr
    );
    Ok(time)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
