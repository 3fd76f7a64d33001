//! `klp-farm up`: a coordinator and a worker in one process, for a laptop.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use klp_coordinator::{Config, Coordinator};
use klp_telemetry::{LogArgs, LogFormat};
use klp_worker::{WorkerConfig, config, worker};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::output::{self, Failed};

#[derive(Args)]
pub struct UpArgs {
    /// Where the coordinator listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7420")]
    listen: SocketAddr,
    /// Where the dashboard is [default: 127.0.0.1:7421, if that is free]
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<SocketAddr>,
    /// Holds the store, the artifacts and the trees
    #[arg(long, value_name = "DIR", env = "KLP_FARM_DATA_DIR", default_value_os_t = config::default_data_dir())]
    data_dir: PathBuf,
    /// Holds the kernel trees [default: DATA_DIR/trees]
    #[arg(long, value_name = "DIR", env = "KLP_FARM_TREES")]
    trees: Option<PathBuf>,
    /// A clone of SUSE's kernel-source: scans look for fixes in it
    #[arg(long, value_name = "DIR", env = "KLP_KERNEL_SOURCE")]
    kernel_source: Option<PathBuf>,
    /// The catalog of codestreams: klp-build's supported.csv, or TOML
    #[arg(long, value_name = "FILE", env = "KLP_FARM_CATALOG")]
    catalog: Option<PathBuf>,
    /// How many attempts run at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=i64::from(config::MAX_SLOTS)))]
    slots: u32,
    #[command(flatten)]
    pub logs: LogArgs,
}

pub async fn run(args: UpArgs) -> Result<(), Failed> {
    let mut coordinator = Coordinator::start(Config {
        listen: args.listen,
        http_listen: args.http_listen.or_else(usual_dashboard),
        insecure: true,
        data_dir: args.data_dir.join("coordinator"),
        catalog: args.catalog.clone(),
        ..Config::default()
    })
    .await
    .map_err(anyhow::Error::from)?;
    let url = format!("http://{}", coordinator.local_addr());
    output::print(&format!("listening on {url}"))?;
    if args.logs.log_format == LogFormat::Human {
        if let Some(address) = coordinator.http_addr() {
            eprintln!("its dashboard is at http://{address}/");
        }
        eprintln!("this is a whole farm; in another terminal: klp-farm --coordinator {url} submit --help");
    }

    let stop = CancellationToken::new();
    let worker = worker::run(
        WorkerConfig {
            coordinator: url.parse().context("the coordinator's own address")?,
            name: config::laptop_name(),
            trees_dir: args.trees.unwrap_or_else(|| args.data_dir.join("trees")),
            data_dir: args.data_dir.join("worker"),
            kernel_source: args.kernel_source,
            catalog: args.catalog,
            suse_data_dir: config::default_suse_data_dir(),
            slots: args.slots,
            tools: config::ToolPaths::from_env(),
            tuned: config::Tunable::new(config::Tuned::at_a_desk()),
            isolation: Default::default(),
        },
        stop.clone().cancelled_owned(),
    );
    tokio::pin!(worker);
    let mut terminate = signal(SignalKind::terminate())?;
    // The worker stops first: what it hands back is recorded before the coordinator goes.
    let ended = tokio::select! {
        ended = &mut worker => ended,
        () = coordinator.broken() => Err(anyhow::anyhow!("the coordinator broke; its log above says why")),
        _ = terminate.recv() => { stop.cancel(); worker.await }
        _ = tokio::signal::ctrl_c() => { stop.cancel(); worker.await }
    };
    coordinator.shutdown().await;
    Ok(ended?)
}

/// Where a laptop's dashboard is, unless something else is there.
fn usual_dashboard() -> Option<SocketAddr> {
    let address = SocketAddr::from(([127, 0, 0, 1], 7421));
    match std::net::TcpListener::bind(address) {
        Ok(_) => Some(address),
        Err(error) => {
            eprintln!(
                "there is no dashboard, for {address} can't be used: {error}; name another address by --http-listen"
            );
            None
        }
    }
}
