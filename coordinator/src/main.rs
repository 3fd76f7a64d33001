//! `klp-coordinator`: the coordinator as a process of its own.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use klp_coordinator::{Config, Coordinator};
use tokio::signal::unix::{SignalKind, signal};

/// The coordinator of a klp-farm: takes livepatches and hands their tasks to workers.
///
/// Prints `listening on http://ADDRESS` when it is ready; its log goes to standard error (RUST_LOG sets its level).
/// SIGTERM and SIGINT stop it; nothing that was acknowledged is lost, and workers carry on until it is back.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The configuration (TOML); every setting has a working default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides the setting `listen`, as in 127.0.0.1:7420; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Overrides the setting `data_dir`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print the settings in force as a configuration file, and end
    #[arg(long)]
    print_config: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("klp-coordinator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if let Some(data_dir) = args.data_dir {
        config.data_dir = data_dir;
    }
    config.validate()?;
    if args.print_config {
        print!("{}", config.to_toml());
        return Ok(());
    }
    // Before anything is started, so that an early signal is not missed.
    let mut terminate = signal(SignalKind::terminate()).context("can't handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't handle SIGINT")?;
    let mut coordinator = Coordinator::start(config).await?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{}", coordinator.local_addr())?;
    out.flush()?;
    let broken = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        () = coordinator.broken() => true,
    };
    tracing::info!("stopping");
    coordinator.shutdown().await;
    anyhow::ensure!(
        !broken,
        "a part of the coordinator has failed; its log says which. Start it again"
    );
    Ok(())
}
