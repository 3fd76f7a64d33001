//! What people type: the options and commands of `klp-coordinator`, and the settings that follow from options, environment
//! and file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use klp_settings::{Effective, File, Overrides, Problem};
use klp_telemetry::LogFormat;
use serde::Serialize;

use crate::auth::rotation::Step;
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  klp-coordinator init --name farm.example.org      a CA, a certificate, and the first admin's token
  klp-coordinator --listen 0.0.0.0:7420 --http-listen 0.0.0.0:7421
  klp-coordinator --check-config
  klp-coordinator backup /srv/backup/klp-farm-monday

Exit codes: 0 done, 1 failed, 2 wrong usage; those of the commands are told with them.";

/// Read where no other is named, if it is there.
pub const USUAL_CONFIG: &str = "/etc/klp-farm/coordinator.toml";

/// The coordinator of a klp-farm: takes livepatches and hands their tasks to workers.
///
/// Prints `listening on https://ADDRESS` when it is ready; its log goes to standard error (RUST_LOG sets its level).
/// SIGTERM and SIGINT stop it; nothing that was acknowledged is lost, and workers carry on until it is back. SIGHUP has it
/// read its configuration again.
///
/// The commands look after its data folder; without one it serves.
#[derive(Parser)]
#[command(name = "klp-coordinator", version, after_help = EXAMPLES)]
pub struct Args {
    /// The configuration (TOML); every setting has a working default [default: /etc/klp-farm/coordinator.toml, if it is
    /// there]
    #[arg(long, value_name = "FILE", env = "KLP_FARM_COORDINATOR_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    given: Given,
    /// Print the settings in force as a configuration file, and end
    #[arg(long)]
    pub print_config: bool,
    /// Print the settings in force, each with where it comes from, and end: with 0 if they can be used, else with 1. Starts
    /// and writes nothing
    #[arg(long)]
    pub check_config: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What was typed.
    #[arg(skip)]
    overrides: Overrides,
}

/// Options that stand before settings, and are called like them.
#[derive(clap::Args, Serialize)]
struct Given {
    /// Overrides the setting `listen`, as in 127.0.0.1:7420; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", env = "KLP_FARM_LISTEN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    /// Overrides the setting `http_listen`: the address of the dashboard, as in 127.0.0.1:7421
    #[arg(long, value_name = "ADDRESS", env = "KLP_FARM_HTTP_LISTEN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    http_listen: Option<SocketAddr>,
    /// Overrides the setting `data_dir`
    #[arg(long, value_name = "DIR", env = "KLP_FARM_COORDINATOR_DATA_DIR", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    /// Overrides the setting `catalog`
    #[arg(long, value_name = "FILE", env = "KLP_FARM_CATALOG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog: Option<PathBuf>,
    /// Overrides the setting `log_format`
    #[arg(long, value_name = "FORMAT", env = "KLP_FARM_LOG_FORMAT", global = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<LogFormat>,
    /// Overrides the setting `insecure`: serve without TLS, and without asking who calls; on loopback alone
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    insecure: bool,
}

impl Args {
    /// What was typed; where it is wrong, says so and ends the process.
    pub fn parse() -> Self {
        let matches = Self::command().get_matches();
        Self::of(&matches).unwrap_or_else(|error| error.exit())
    }

    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::from_arg_matches(matches)?;
        let overrides = Overrides::of(&args.given, &Self::command(), matches);
        args.overrides =
            overrides.map_err(|problem| Self::command().error(clap::error::ErrorKind::InvalidValue, problem))?;
        Ok(args)
    }

    /// The settings by what the file says now. They are yet to be validated.
    ///
    /// # Errors
    /// The file can't be read, or holds what is no setting.
    pub fn effective(&self) -> Result<Effective<Config>, Problem> {
        let file = File::find(self.config.as_deref(), Some(Path::new(USUAL_CONFIG)))?;
        Effective::new(file.as_ref(), &self.overrides)
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Make what a farm needs to know who is who: a CA, the coordinator's certificate, and a first admin's token
    ///
    /// The token is shown once and kept nowhere. Nothing is overwritten. Exit codes: 0 done, 2 it could not be done.
    Init {
        /// A name or address by which the coordinator is asked, beside this machine's own name and loopback
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<String>,
        /// Only renew the coordinator's certificate, keeping its names; a running coordinator takes it without a restart
        #[arg(long, conflicts_with_all = ["new_token", "rotate_signer"])]
        rotate_server: bool,
        /// Only make another key to sign statements with; what was signed before stays as it is
        #[arg(long, conflicts_with = "new_token")]
        rotate_signer: bool,
        /// Only replace the CA, one step at a time, beside a running coordinator: `trust`, then `issue`, then `retire`
        #[arg(long, value_enum, value_name = "STEP", conflicts_with_all = ["rotate_server", "new_token", "rotate_signer", "names"])]
        rotate_ca: Option<Step>,
        /// Take that step even if it puts out workers that did not follow the one before
        #[arg(long, requires = "rotate_ca")]
        force: bool,
        /// Only make another admin's token, for a stopped coordinator whose admins lost theirs
        #[arg(long)]
        new_token: bool,
        #[arg(long, value_enum, default_value_t, value_name = "FORM")]
        output: Output,
    },
    /// Verify the database, and the artifacts and logs it speaks of, against each other
    ///
    /// Reads every file and changes none. Exit codes: 0 all is well, 1 there are problems, 2 it could not be checked.
    Check {
        /// Check beside the coordinator that uses the folder; what it clears away waits meanwhile
        #[arg(long)]
        online: bool,
        /// Read artifacts that are in a bucket too, to compare their digests; without it their sizes alone are. Those in a
        /// folder are always read
        #[arg(long)]
        deep: bool,
        #[arg(long, value_enum, default_value_t, value_name = "FORM")]
        output: Output,
    },
    /// Make a consistent, checked copy of the data folder, beside a running coordinator too
    ///
    /// To restore, start the coordinator with the copy as its data_dir. Artifacts in a bucket (setting artifacts) stay
    /// there, and are not in the copy; those in a folder are, wherever that is. Artifacts and compressed logs, which never
    /// change, share their bytes with the original on the same disk: copy to another to be safe from a broken one. Exit
    /// codes: 0 it is there, 1 the data has problems and no copy was kept, 2 it could not be made.
    Backup {
        /// The folder to make; it must not exist
        destination: PathBuf,
        #[arg(long, value_enum, default_value_t, value_name = "FORM")]
        output: Output,
    },
    /// Clear away what nobody needs, in the data folder of a coordinator that is stopped
    ///
    /// Artifacts that no outcome names, an hour after they came; livepatches that ended more than retain_ended_days ago,
    /// with their events, logs and artifacts. A running coordinator does this by itself each gc_period_ms. Exit codes:
    /// 0 done, 2 it could not be done.
    Gc {
        /// Only say what would go; beside a running coordinator too
        #[arg(long)]
        dry_run: bool,
        #[arg(long, value_enum, default_value_t, value_name = "FORM")]
        output: Output,
    },
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}
