//! What people type: the options and commands of `klp-worker`, and the settings that follow from options, environment and
//! file.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use klp_identity::Fingerprint;
use klp_livepatch::CodestreamFilter;
use klp_livepatch::names::WorkerName;
use klp_settings::{Effective, File, Overrides, Problem};
use klp_telemetry::LogFormat;
use serde::Serialize;

use crate::config::{self, Address, Settings, Size};
use crate::isolation::Policy;
use crate::{extract, tree_cli, usage};

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
///
/// SIGTERM and SIGINT stop it: running attempts may finish for a while, then they are handed back. SIGHUP has it read its
/// configuration again.
#[derive(Parser)]
#[command(name = "klp-worker", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The configuration (TOML); every setting has a working default [default: /etc/klp-farm/worker.toml, if it is there]
    #[arg(long, value_name = "FILE", env = "KLP_FARM_WORKER_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// Print the settings in force, each with where it comes from, and end: with 0 if they can be used, else with 1. Starts
    /// and writes nothing
    #[arg(long)]
    pub check_config: bool,
    /// What was typed.
    #[arg(skip)]
    overrides: Overrides,
}

#[derive(Subcommand)]
pub enum Command {
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
pub struct EnrollArgs {
    /// Where the coordinator listens [default: the configured one]
    #[arg(long, value_name = "URL", env = "KLP_FARM_COORDINATOR", hide_env_values = true)]
    pub coordinator: Option<Address>,
    /// The SHA-256 fingerprint of the farm's CA
    #[arg(long, value_name = "HEX")]
    pub ca_sha256: Fingerprint,
    /// Holds the enrollment token [default: KLP_FARM_TOKEN does]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The worker's folder, as it is started with [default: the configured one, or ~/.local/share/klp-farm]
    #[arg(long, value_name = "DIR", env = "KLP_FARM_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Options that stand before settings, and are called like them.
#[derive(Args, Serialize)]
struct Given {
    /// Where the coordinator listens [default: http://127.0.0.1:7420]
    #[arg(long, value_name = "URL", env = "KLP_FARM_COORDINATOR", hide_env_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinator: Option<Address>,
    /// Holds the outbox, scratch folders and, unless --trees says otherwise, the trees [default: ~/.local/share/klp-farm]
    #[arg(long, value_name = "DIR", env = "KLP_FARM_DATA_DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    /// Holds the kernel trees; workers may share it [default: DATA_DIR/trees]
    #[arg(long, value_name = "DIR", env = "KLP_FARM_TREES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    trees: Option<PathBuf>,
    /// The catalog of codestreams, which says which of them SUSE's kernels are: klp-build's supported.csv, or TOML
    #[arg(long, value_name = "FILE", env = "KLP_FARM_CATALOG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog: Option<PathBuf>,
    /// Holds SUSE's kernels as klp-build keeps them, which are found by themselves; only read
    #[arg(long, value_name = "DIR", env = config::SUSE_DATA_DIR)]
    #[serde(skip_serializing_if = "Option::is_none")]
    suse_data_dir: Option<PathBuf>,
    /// How many attempts run at a time [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(config::MAX_SLOTS)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<u32>,
    /// Memory that it lends to attempts, such as 12G; 0: no limit [default: what the machine or its control group has,
    /// less 1 GiB]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Size>,
    /// How often trees and tools are looked at thoroughly; what can't be used is announced with the reason [default: 60]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    readiness_period: Option<u64>,
    /// This worker's name, unique on the farm [default: its certificate's, or the host's]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<WorkerName>,
    /// A clone of SUSE's kernel-source: scans look for fixes in it
    #[arg(long, value_name = "DIR", env = "KLP_KERNEL_SOURCE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_source: Option<PathBuf>,
    /// Announce only trees whose codestream matches from its start on
    #[arg(long, value_name = "REGEX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    codestreams: Option<CodestreamFilter>,
    /// On SIGTERM, how long running attempts may go on before they are handed back [default: 30]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    grace: Option<u64>,
    /// klp-ccp's program [default: the one in PATH]
    #[arg(long, value_name = "FILE", env = "KLP_FARM_CCP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    klp_ccp: Option<PathBuf>,
    /// Folders of klp-ccp's policy, where it isn't installed with the program
    #[arg(long, value_name = "DIRS", env = "KLP_CCP_PYTHONPOLICY_PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    klp_ccp_policy: Option<String>,
    /// clang-extract's program [default: the one in PATH]
    #[arg(long, value_name = "FILE", env = "KLP_FARM_CLANG_EXTRACT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    clang_extract: Option<PathBuf>,
    /// What tools must be kept from: required (all), best (what this host gives), none, or fences that are required, of user,
    /// files, processes, network, ipc, landlock, syscalls, cgroup [default: best]
    #[arg(long, value_name = "POLICY", env = "KLP_FARM_ISOLATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    isolation: Option<Policy>,
    /// Whom tools run as where the worker runs as root [default: klp-farm-tool, if there is such a user]
    #[arg(long, value_name = "USER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_user: Option<String>,
    /// What an attempt may have in its scratch folder, such as 8G [default: 8G]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    scratch_limit: Option<Size>,
    /// A file or folder that tools may read beside the system, the folders in PATH and their kernel's tree; may be repeated
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    expose: Vec<PathBuf>,
    /// How log lines look, on standard error [default: human]
    #[arg(long, value_name = "FORMAT", env = "KLP_FARM_LOG_FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<LogFormat>,
}

impl Cli {
    /// What was typed; where it is wrong, says so and ends the process.
    pub fn parse() -> Self {
        let matches = usage::matches::<Self>();
        Self::of(&matches).unwrap_or_else(|error| error.exit())
    }

    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut cli = Self::from_arg_matches(matches)?;
        let overrides = Overrides::of(&cli.given, &Self::command(), matches);
        cli.overrides =
            overrides.map_err(|problem| Self::command().error(clap::error::ErrorKind::InvalidValue, problem))?;
        Ok(cli)
    }

    /// The settings by what the file says now. They are yet to be validated.
    ///
    /// # Errors
    /// The file can't be read, or holds what is no setting.
    pub fn effective(&self) -> Result<Effective<Settings>, Problem> {
        let file = File::find(self.config.as_deref(), Some(Path::new(config::USUAL_CONFIG)))?;
        Effective::new(file.as_ref(), &self.overrides)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_and_command_is_put_together_right() {
        Cli::command().debug_assert();
    }
}
