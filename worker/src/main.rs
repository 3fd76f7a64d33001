//! `klp-worker`: the program. What people type, turned into a [`WorkerConfig`] or a `tree` command.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use klp_identity::{Fingerprint, trust};
use klp_livepatch::CodestreamFilter;
use klp_livepatch::names::WorkerName;
use klp_telemetry::{LogArgs, Setup, redact};
use klp_worker::identity::{self, Papers};
use klp_worker::session::SessionError;
use klp_worker::{WorkerConfig, config, extract, tree_cli, usage, worker};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Uri;

/// How long the last spans may take to be sent.
const LAST_SPANS: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  klp-worker tree add debian --latest 2             provision the two newest kernels of this Debian
  klp-worker tree list
  KLP_FARM_TOKEN=klpe_... klp-worker enroll --coordinator https://farm:7420 --ca-sha256 ...
                                                    let this worker in, as `klp-farm enroll NAME` says
  klp-worker --coordinator https://farm:7420 --slots 8

klp-ccp and clang-extract are used where they are in PATH, or where KLP_FARM_CCP and KLP_FARM_CLANG_EXTRACT say they are;
KLP_CCP_PYTHONPOLICY_PATH names the folder of klp-ccp's policy where it isn't installed with the program.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 another worker took over this one's name.";

/// Runs klp-farm tasks on this host, with the kernel trees it holds.
#[derive(Parser)]
#[command(name = "klp-worker", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Add, list, verify and remove kernel trees
    Tree(tree_cli::TreeArgs),
    /// Get this worker's first certificate, with what `klp-farm enroll` printed
    Enroll(EnrollArgs),
    /// One native extraction in a process of its own; the worker calls this itself
    #[command(hide = true, name = extract::NATIVE_COMMAND)]
    NativeExtract(extract::NativeArgs),
}

/// The token is in the environment's KLP_FARM_TOKEN or in a file, where no other user of this machine sees it.
#[derive(Args)]
struct EnrollArgs {
    /// Where the coordinator listens
    #[arg(long, value_name = "URL", env = "KLP_FARM_COORDINATOR", hide_env_values = true, value_parser = config::parse_coordinator)]
    coordinator: Uri,
    /// The SHA-256 fingerprint of the farm's CA
    #[arg(long, value_name = "HEX")]
    ca_sha256: Fingerprint,
    /// Holds the enrollment token [default: KLP_FARM_TOKEN does]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The worker's folder, as it is started with
    #[arg(long, value_name = "DIR", env = "KLP_FARM_DATA_DIR", default_value_os_t = config::default_data_dir())]
    data_dir: PathBuf,
}

async fn enroll(args: EnrollArgs) -> anyhow::Result<()> {
    let token = trust::token(args.token_file, std::env::var("KLP_FARM_TOKEN").ok())?;
    let token =
        token.context("the enrollment token is missing: set KLP_FARM_TOKEN, or name its file with --token-file")?;
    let name = identity::enroll(&args.coordinator, &token, args.ca_sha256, &args.data_dir).await?;
    let (coordinator, dir) = (redact::url(&args.coordinator), args.data_dir.display());
    Ok(tree_cli::print(&format!(
        "this is worker {name} now; start it with: klp-worker --coordinator {coordinator} --data-dir {dir}"
    ))?)
}

#[derive(Args)]
struct RunArgs {
    /// Where the coordinator listens
    #[arg(
        long,
        value_name = "URL",
        env = "KLP_FARM_COORDINATOR",
        hide_env_values = true,
        default_value = "http://127.0.0.1:7420",
        value_parser = config::parse_coordinator
    )]
    coordinator: Uri,
    /// Holds the outbox, scratch folders and, unless --trees says otherwise, the trees
    #[arg(long, value_name = "DIR", env = "KLP_FARM_DATA_DIR", default_value_os_t = config::default_data_dir())]
    data_dir: PathBuf,
    /// Holds the kernel trees; workers may share it [default: DATA_DIR/trees]
    #[arg(long, value_name = "DIR", env = "KLP_FARM_TREES")]
    trees: Option<PathBuf>,
    /// The catalog of codestreams, which says which of them SUSE's kernels are: klp-build's supported.csv, or TOML
    #[arg(long, value_name = "FILE", env = "KLP_FARM_CATALOG")]
    catalog: Option<PathBuf>,
    /// Holds SUSE's kernels as klp-build keeps them, which are found by themselves; only read
    #[arg(long, value_name = "DIR", env = config::SUSE_DATA_DIR)]
    suse_data_dir: Option<PathBuf>,
    /// How many attempts run at a time
    #[arg(long, value_name = "N", default_value_t = default_slots(), value_parser = clap::value_parser!(u32).range(1..=i64::from(config::MAX_SLOTS)))]
    slots: u32,
    /// Memory that it lends to attempts, such as 12G; 0: no limit [default: what the machine or its control group has,
    /// less 1 GiB]
    #[arg(long, value_name = "SIZE", value_parser = config::parse_size)]
    memory: Option<u64>,
    /// How often trees and tools are looked at thoroughly; what can't be used is announced with the reason
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    readiness_period: u64,
    /// This worker's name, unique on the farm [default: its certificate's, or the host's]
    #[arg(long, value_name = "NAME")]
    name: Option<WorkerName>,
    /// A clone of SUSE's kernel-source: scans look for fixes in it
    #[arg(long, value_name = "DIR", env = "KLP_KERNEL_SOURCE")]
    kernel_source: Option<PathBuf>,
    /// Announce only trees whose codestream matches from its start on
    #[arg(long, value_name = "REGEX", default_value = "", hide_default_value = true)]
    codestreams: CodestreamFilter,
    /// On SIGTERM, how long running attempts may go on before they are handed back
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
    #[command(flatten)]
    logs: LogArgs,
}

/// One slot for each core: extraction is a computation.
fn default_slots() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(64) as u32)
}

impl RunArgs {
    fn into_config(self) -> anyhow::Result<WorkerConfig> {
        let name = match self.name {
            Some(name) => name,
            None if identity::is_secure(&self.coordinator) => Papers::of(&self.data_dir).name()?,
            None => config::default_name(),
        };
        Ok(WorkerConfig {
            name,
            coordinator: self.coordinator,
            trees_dir: self.trees.unwrap_or_else(|| self.data_dir.join("trees")),
            catalog: self.catalog,
            suse_data_dir: self.suse_data_dir,
            data_dir: self.data_dir,
            kernel_source: self.kernel_source,
            codestreams: self.codestreams,
            slots: self.slots,
            memory: self.memory.unwrap_or_else(config::default_memory),
            readiness_period: Duration::from_secs(self.readiness_period),
            grace: Duration::from_secs(self.grace),
        })
    }
}

fn main() -> ExitCode {
    let cli: Cli = usage::parse();
    let result = match cli.command {
        // Without a runtime: this process is measured and limited.
        Some(Command::NativeExtract(args)) => extract::native_main(args),
        command => run(command, cli.run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", redact::scrub(&format!("{error:#}")));
            match error.downcast_ref() {
                // Told apart so that a service manager does not start it again: the two would evict each other forever.
                Some(SessionError::Replaced(_)) => ExitCode::from(3),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

#[tokio::main]
async fn run(command: Option<Command>, args: RunArgs) -> anyhow::Result<()> {
    match command {
        Some(Command::Tree(args)) => return tree_cli::run(args).await,
        Some(Command::Enroll(args)) => return enroll(args).await,
        _ => {}
    }
    let telemetry = klp_telemetry::init(&Setup {
        service: "klp-worker",
        logs: args.logs.log_format,
        level: "info",
        otlp_endpoint: None,
    });
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // A second signal does not wait.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(130);
        });
    };
    let done = match args.into_config() {
        Ok(config) => worker::run(config, shutdown).await,
        Err(error) => Err(error),
    };
    telemetry.shutdown(LAST_SPANS).await;
    done
}
