//! `klp-farm`: what people type. Submits livepatches to a coordinator, follows them and fetches what came out. A library for
//! the sake of its manual, which is made from [`command`].
//!
//! Standard output is data, standard error is talk. Each command is a file in [`cmd`].

mod client;
mod cmd;
mod findings;
mod follow;
mod local;
mod matrix;
mod output;
mod plain;
mod provenance;
mod results;
mod settings;
mod sources;
mod spec_args;
mod top;
mod tui;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use klp_telemetry::{LogFormat, Setup};
use klp_worker::{config, extract, isolation, tree_cli, usage};
use tonic::transport::Uri;

use crate::client::Client;
use crate::local::{LocalArgs, LocalFarm};
use crate::output::{Failed, Mode};
use crate::settings::Settings;

/// How long the last spans may take to be sent: somebody waits for the command to end.
const LAST_SPANS: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  klp-farm up                                       a whole farm on this machine
  klp-farm submit --name bsc1197597 --cve 2022-1048 --mod snd-pcm --conf CONFIG_SND_PCM \\
      --file-funcs sound/core/pcm.c snd_pcm_attach_substream snd_pcm_detach_substream \\
      --codestreams 'debian12-6\\.1' --wait
  klp-farm status bsc1197597
  klp-farm get bsc1197597 -o ~/livepatches

Exit codes:
  0    done; for submit --wait, watch, status and get: nothing has failed, or is missing
  1    failed: the coordinator can't be reached, a name is unknown, a disk is full, ...
  2    wrong usage, or a livepatch that the coordinator refused as invalid
  3    some codestream did not succeed, or its sources are missing
  130  interrupted; the livepatch goes on";

/// The examples, and what counts when several settings say something.
fn epilogue() -> String {
    format!("{EXAMPLES}\n\n{}", settings::PRECEDENCE)
}

/// The command line.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Makes Linux kernel livepatches for many kernels at once.
#[derive(Parser)]
#[command(name = "klp-farm", version, after_help = epilogue(), propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// Where the coordinator listens [default: the configured one, or http://127.0.0.1:7420]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "KLP_FARM_COORDINATOR",
        hide_env_values = true,
        value_parser = config::parse_coordinator
    )]
    coordinator: Option<Uri>,
    /// The farm's CA, by which the coordinator is recognised over https [default: the configured one]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KLP_FARM_CA",
        hide_env_values = true
    )]
    ca: Option<PathBuf>,
    /// Holds the token that says who asks [default: the configured one, or what KLP_FARM_TOKEN holds]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What standard output holds: a table for people, or JSON
    #[arg(long, short = 'O', global = true, value_enum, default_value_t = Mode::Table)]
    output: Mode,
}

#[derive(Subcommand)]
enum Command {
    /// Look which codestreams lack a CVE's fixes, and what a livepatch of them would target
    Scan(cmd::scan::ScanArgs),
    /// Check a livepatch: configs, objects, symbols and whether its functions can be patched
    Setup(cmd::setup::SetupArgs),
    /// Extract the sources of a livepatch that was set up, and write them to disk
    Extract(cmd::extract::ExtractArgs),
    /// Submit a livepatch: setup and extract at once
    Submit(cmd::submit::SubmitArgs),
    /// List all livepatches, newest first
    List(cmd::list::ListArgs),
    /// Show one livepatch: codestreams x architectures, failures with their reasons, groups
    Status(cmd::status::StatusArgs),
    /// Follow one livepatch until it ends
    Watch(cmd::watch::WatchArgs),
    /// Print the logs of a livepatch's tasks
    Logs(cmd::logs::LogsArgs),
    /// Show which codestreams one source serves, and with --why what keeps groups apart
    Groups(cmd::groups::GroupsArgs),
    /// Show the difference of two codestreams' sources
    CsDiff(cmd::diff::DiffArgs),
    /// Go on with a livepatch that SUSE klp-build began
    Import(cmd::import::ImportArgs),
    /// Write a livepatch as mails for its reviewers, one for each group
    FormatPatches(cmd::format_patches::FormatPatchesArgs),
    /// Write a livepatch's sources to disk
    #[command(visible_alias = "export")]
    Get(cmd::get::GetArgs),
    /// Check offline that sources are what the farm made, and tell from what
    VerifyProvenance(cmd::verify_provenance::VerifyProvenanceArgs),
    /// End livepatches and stop what runs of them
    Cancel(cmd::control::CancelArgs),
    /// Try again what failed or was cancelled of a livepatch, and only that
    Retry(cmd::control::RetryArgs),
    /// Start nothing more of livepatches until they are resumed
    Pause(cmd::control::PauseArgs),
    /// Go on with paused livepatches
    Resume(cmd::control::ResumeArgs),
    /// Say how a livepatch competes with others for workers
    Priority(cmd::control::PriorityArgs),
    /// List the codestreams: kernels, end of support, who holds their trees
    Codestreams(cmd::codestreams::CodestreamsArgs),
    /// List the workers: how they are, what they run, their trees and tools
    Workers,
    /// Show the farm on one screen: workers, livepatches in progress, and what waits for what
    Top(cmd::top::TopArgs),
    /// Give a worker nothing new
    Drain(cmd::fleet::DrainArgs),
    /// Give a worker tasks again
    Undrain(cmd::fleet::UndrainArgs),
    /// Forget a worker that is gone for good
    Forget(cmd::fleet::ForgetArgs),
    /// Make, list and revoke the tokens of people and scripts
    Token(cmd::token::TokenArgs),
    /// Let a worker in: print what it runs to get its certificate
    Enroll(cmd::enroll::EnrollArgs),
    /// Put a worker out at once: its certificates are refused from now on
    Revoke(cmd::enroll::RevokeArgs),
    /// List the certificates of workers
    Certificates,
    /// Print the certificates of the CAs by which the farm is recognised, as it has them now
    Ca,
    /// Show who did what
    Audit(cmd::audit::AuditArgs),
    /// Run a coordinator and a worker in this process, for a laptop
    Up(cmd::up::UpArgs),
    /// Add, list, verify and remove the kernel trees of this machine
    Tree(tree_cli::TreeArgs),
    #[command(hide = true, name = extract::NATIVE_COMMAND)]
    NativeExtract(extract::NativeArgs),
}

/// Does what was typed.
pub fn main() -> ExitCode {
    if let Some(ended) = isolation::become_tool() {
        return ended;
    }
    let cli: Cli = usage::parse();
    let result = match cli.command {
        Command::NativeExtract(args) => extract::native_main(args).map_err(Failed::from),
        command => run(command, &cli.global),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => failed.report(),
    }
}

#[tokio::main]
async fn run(command: Command, global: &Global) -> Result<(), Failed> {
    // Where a command has a farm of its own, both halves log as servers do; only what is wrong is of interest.
    let (logs, level) = match &command {
        Command::Up(args) => (args.logs.log_format, "info"),
        _ => (LogFormat::Human, "error,klp_telemetry=warn"),
    };
    let telemetry = klp_telemetry::init(&Setup {
        service: "klp-farm",
        logs,
        level,
        otlp_endpoint: None,
    });
    let done = with_farm(command, global).await;
    telemetry.shutdown(LAST_SPANS).await;
    done
}

/// Runs a command, with the livepatch's own farm if it has one.
async fn with_farm(command: Command, global: &Global) -> Result<(), Failed> {
    let settings = Settings::load(global.coordinator.clone(), global.ca.clone(), global.token_file.clone())
        .map_err(|error| Failed::Error(anyhow::anyhow!(error)))?;
    let farm = match own_name(&command) {
        Some((name, local)) => {
            LocalFarm::for_livepatch(local, name, &settings.work_dir, settings.catalog.clone()).await?
        }
        None => None,
    };
    let result = {
        let connect = || match &farm {
            Some(farm) => Ok(farm.client()),
            None => Client::configured(&settings),
        };
        dispatch(command, connect, &settings, global).await
    };
    if let Some(farm) = farm {
        farm.stop().await;
    }
    result
}

/// The livepatch that a command is about and that may have a farm of its own, with what the command says of that.
fn own_name(command: &Command) -> Option<(&str, Option<&LocalArgs>)> {
    match command {
        Command::Setup(args) => Some((&args.spec.name, Some(&args.spec.local))),
        Command::Submit(args) => Some((&args.spec.name, Some(&args.spec.local))),
        Command::Extract(args) => Some((args.name.as_str(), None)),
        Command::Get(args) => Some((args.name.as_str(), None)),
        Command::FormatPatches(args) => Some((args.name.as_str(), None)),
        Command::Groups(args) => Some((args.name.as_str(), None)),
        Command::CsDiff(args) => Some((args.name.as_str(), None)),
        Command::Status(args) => Some((args.name.as_str(), None)),
        Command::Logs(args) => Some((args.name.as_str(), None)),
        _ => None,
    }
}

async fn dispatch(
    command: Command,
    connect: impl Fn() -> anyhow::Result<Client>,
    settings: &Settings,
    global: &Global,
) -> Result<(), Failed> {
    match command {
        Command::Scan(args) => cmd::scan::run(args, &connect()?, global.output).await,
        Command::Setup(args) => cmd::setup::run(args, &connect()?, global.output).await,
        Command::Extract(args) => cmd::extract::run(args, &connect()?, settings, global.output).await,
        Command::Groups(args) => cmd::groups::run(args, &connect()?, global.output).await,
        Command::Import(args) => cmd::import::run(args, &connect()?, global.output).await,
        Command::FormatPatches(args) => cmd::format_patches::run(args, &connect()?, settings, global.output).await,
        Command::CsDiff(args) => cmd::diff::run(args, &connect()?, global.output).await,
        Command::Codestreams(args) => cmd::codestreams::run(args, &connect()?, global.output).await,
        Command::Submit(args) => cmd::submit::run(args, &connect()?, global.output).await,
        Command::List(args) => cmd::list::run(args, &connect()?, global.output).await,
        Command::Status(args) => cmd::status::run(args, &connect()?, global.output).await,
        Command::Watch(args) => cmd::watch::run(args, &connect()?, global.output).await,
        Command::Logs(args) => cmd::logs::run(args, &connect()?, global.output).await,
        Command::Get(args) => cmd::get::run(args, &connect()?, settings, global.output).await,
        Command::VerifyProvenance(args) => cmd::verify_provenance::run(&args, settings, global.output),
        Command::Cancel(args) => cmd::control::cancel(args, &connect()?, global.output).await,
        Command::Retry(args) => cmd::control::retry(args, &connect()?, global.output).await,
        Command::Pause(args) => cmd::control::pause(args, &connect()?, global.output).await,
        Command::Resume(args) => cmd::control::resume(args, &connect()?, global.output).await,
        Command::Priority(args) => cmd::control::priority(args, &connect()?, global.output).await,
        Command::Drain(args) => cmd::fleet::drain(args, &connect()?, global.output).await,
        Command::Undrain(args) => cmd::fleet::undrain(args, &connect()?, global.output).await,
        Command::Forget(args) => cmd::fleet::forget(args, &connect()?, global.output).await,
        Command::Workers => cmd::workers::run(&connect()?, global.output).await,
        Command::Top(args) => cmd::top::run(args, &connect()?, global.output).await,
        Command::Token(args) => cmd::token::run(args, &connect()?, global.output).await,
        Command::Enroll(args) => cmd::enroll::enroll(args, &connect()?, global.output).await,
        Command::Revoke(args) => cmd::enroll::revoke(args, &connect()?, global.output).await,
        Command::Certificates => cmd::enroll::certificates(&connect()?, global.output).await,
        Command::Ca => cmd::enroll::ca(&connect()?, global.output).await,
        Command::Audit(args) => cmd::audit::run(args, &connect()?, global.output).await,
        Command::Up(args) => cmd::up::run(args).await,
        Command::Tree(args) => Ok(tree_cli::run(args, &config::Settings::default()).await?),
        Command::NativeExtract(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_put_together_right() {
        Cli::command().debug_assert();
    }
}
