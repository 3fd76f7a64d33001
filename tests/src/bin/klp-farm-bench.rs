//! Measures the farm's speed beside what the machine itself can do, and prints one table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use klp_tests::bench::table::Table;
use klp_tests::bench::{Sizes, cell, dashboard, scenario, yardstick};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Measures the farm's speed: a real coordinator as a child process, gRPC on loopback, `synchronous=FULL`, and simulated
/// workers that complete at once. The machine's own fsync, echo and spawn are measured in the same run; compare ratios,
/// not absolute numbers.
#[derive(Parser)]
struct Args {
    /// Only these sections; all without it.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Section>,
    /// Small sizes, for a first look: less than two minutes.
    #[arg(long)]
    quick: bool,
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// The folder, on the disk to be measured, for databases that are removed afterwards.
    #[arg(long, default_value = ".")]
    disk: PathBuf,
    /// HyperQueue's program; without it, `hq` from PATH, if it is there.
    #[arg(long)]
    hq: Option<PathBuf>,
    /// Numbers of workers at which attempts per second are measured.
    #[arg(long, value_delimiter = ',')]
    workers: Vec<usize>,
    /// Queued tasks at which the cost of an attempt is measured.
    #[arg(long, value_delimiter = ',')]
    queues: Vec<usize>,
    /// Queued tasks of the large farm.
    #[arg(long)]
    tasks: Option<usize>,
    /// Workers of the large farm.
    #[arg(long)]
    fleet: Option<usize>,
    /// Seconds of each measurement of throughput.
    #[arg(long)]
    seconds: Option<u64>,
    /// How often each latency is measured.
    #[arg(long)]
    samples: Option<usize>,
    /// Real processes.
    #[arg(long)]
    processes: Option<usize>,
    /// Dashboards that poll, each once a second.
    #[arg(long)]
    pollers: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// fsync and echo.
    Yardsticks,
    /// Durable attempts per second.
    Throughput,
    /// Latency, memory and restart with many tasks.
    Large,
    /// Cost of an attempt as the queue grows.
    Growth,
    /// Real processes, beside HyperQueue.
    Processes,
    /// What the fences around a tool cost.
    Fences,
    /// What dashboards cost that poll, the pages' weight, and how smooth they are in Chromium.
    Dashboard,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // Each simulated worker has a connection of its own, at both ends.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let (sizes, disk) = (sizes(&args), args.disk.canonicalize()?);
    let hq = args.hq.clone().or_else(|| in_path("hq"));
    let wanted = |section| args.only.is_empty() || args.only.contains(&section);
    let mut table = Table::default();
    // First, as long as this process is as small as a worker: the more memory it has, the longer it takes to start another.
    if wanted(Section::Processes) {
        scenario::processes(&mut table, &disk, &sizes, hq.as_deref()).await?;
    }
    if wanted(Section::Fences) {
        cell::all(&mut table, sizes.samples).await?;
    }
    if wanted(Section::Yardsticks) {
        yardstick::all(&mut table, &disk, Duration::from_secs(sizes.seconds.div_ceil(3))).await?;
    }
    if wanted(Section::Throughput) {
        scenario::throughput(&mut table, &disk, &sizes).await?;
    }
    if wanted(Section::Large) {
        scenario::large(&mut table, &disk, &sizes).await?;
    }
    if wanted(Section::Growth) {
        scenario::growth(&mut table, &disk, &sizes).await?;
    }
    if wanted(Section::Dashboard) {
        dashboard::all(&mut table, &disk, &sizes).await?;
    }
    match args.output {
        Output::Table => print!("{}", table.markdown()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&table)?),
    }
    Ok(())
}

fn sizes(args: &Args) -> Sizes {
    let pick = |full: usize, quick: usize| if args.quick { quick } else { full };
    let list = |given: &[usize], full: &[usize], quick: &[usize]| match (given, args.quick) {
        ([], false) => full.to_vec(),
        ([], true) => quick.to_vec(),
        _ => given.to_vec(),
    };
    Sizes {
        workers: list(&args.workers, &[1, 10, 100, 1000], &[1, 10, 100]),
        queues: list(&args.queues, &[1_000, 10_000, 100_000], &[1_000, 10_000]),
        tasks: args.tasks.unwrap_or_else(|| pick(100_000, 10_000)),
        fleet: args.fleet.unwrap_or_else(|| pick(1_000, 100)),
        seconds: args.seconds.unwrap_or(if args.quick { 3 } else { 10 }),
        samples: args.samples.unwrap_or_else(|| pick(1_000, 200)),
        processes: args.processes.unwrap_or_else(|| pick(10_000, 1_000)),
        pollers: args.pollers.unwrap_or(500),
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|p: &PathBuf| Path::is_file(p))
}
