//! `klp-coordinator`: the coordinator as a process of its own.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use klp_coordinator::admin::{self, Backup, Findings, gc, init, size};
use klp_coordinator::{Config, Coordinator};
use klp_livepatch::words::amount;
use klp_telemetry::{LogFormat, Setup, redact};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

/// How long the last spans may take to be sent.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// The coordinator of a klp-farm: takes livepatches and hands their tasks to workers.
///
/// Prints `listening on https://ADDRESS` when it is ready; its log goes to standard error (RUST_LOG sets its level).
/// SIGTERM and SIGINT stop it; nothing that was acknowledged is lost, and workers carry on until it is back.
///
/// The commands look after its data folder; without one it serves.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The configuration (TOML); every setting has a working default
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Overrides the setting `listen`, as in 127.0.0.1:7420; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Overrides the setting `http_listen`: the address of the dashboard, as in 127.0.0.1:7421
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<SocketAddr>,
    /// Overrides the setting `data_dir`
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Overrides the setting `log_format`
    #[arg(long, value_name = "FORMAT", env = "KLP_FARM_LOG_FORMAT", global = true)]
    log_format: Option<LogFormat>,
    /// Overrides the setting `insecure`: serve without TLS, and without asking who calls; on loopback alone
    #[arg(long)]
    insecure: bool,
    /// Print the settings in force as a configuration file, and end
    #[arg(long)]
    print_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Make what a farm needs to know who is who: a CA, the coordinator's certificate, and a first admin's token
    ///
    /// The token is shown once and kept nowhere. Nothing is overwritten. Exit codes: 0 done, 2 it could not be done.
    Init {
        /// A name or address by which the coordinator is asked, beside this machine's own name and loopback
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<String>,
        /// Only renew the coordinator's certificate, keeping its names; a running coordinator takes it without a restart
        #[arg(long, conflicts_with = "new_token")]
        rotate_server: bool,
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
        #[arg(long, value_enum, default_value_t, value_name = "FORM")]
        output: Output,
    },
    /// Make a consistent, checked copy of the data folder, beside a running coordinator too
    ///
    /// To restore, start the coordinator with the copy as its data_dir. Artifacts and compressed logs, which never
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
enum Output {
    #[default]
    Text,
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = Args::parse();
    let command = args.command.take();
    let failure = if command.is_some() { 2 } else { 1 };
    run(&args, command).await.unwrap_or_else(|error| {
        eprintln!("klp-coordinator: {}", redact::scrub(&format!("{error:#}")));
        ExitCode::from(failure)
    })
}

async fn run(args: &Args, command: Option<Command>) -> anyhow::Result<ExitCode> {
    let config = settings(args)?;
    let telemetry = klp_telemetry::init(&Setup {
        service: "klp-coordinator",
        logs: config.log_format,
        level: "info",
        otlp_endpoint: config.otlp_endpoint.as_deref(),
    });
    let done = match command {
        Some(Command::Init {
            names,
            rotate_server,
            new_token,
            output,
        }) => begin(&config, &names, (rotate_server, new_token), output).await,
        Some(command) => look_after(command, &config),
        None => serve(args, config).await.map(|()| ExitCode::SUCCESS),
    };
    telemetry.shutdown(LAST_SPANS).await;
    done
}

fn settings(args: &Args) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if args.http_listen.is_some() {
        config.http_listen = args.http_listen;
    }
    config.insecure |= args.insecure;
    if let Some(data_dir) = &args.data_dir {
        config.data_dir.clone_from(data_dir);
    }
    if let Some(format) = args.log_format {
        config.log_format = format;
    }
    config.validate()?;
    Ok(config)
}

/// Makes what a farm needs to know who is who.
async fn begin(
    config: &Config,
    names: &[String],
    (rotate_server, new_token): (bool, bool),
    output: Output,
) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    if new_token {
        let token = init::new_token(config).await?;
        let value = serde_json::json!({ "token": token });
        tell(&mut out, output, &value, |out| writeln!(out, "{token}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let made = match rotate_server {
        true => init::rotate_server(config, names)?,
        false => init::init(config, names).await?,
    };
    let (ca, port) = (made.ca.display(), config.listen.port());
    tell(&mut out, output, &made, |out| {
        writeln!(out, "certificate for {}", made.names.join(", "))?;
        writeln!(out, "CA in {ca}, SHA-256 {}", made.ca_sha256)?;
        let Some(token) = &made.token else {
            return Ok(());
        };
        writeln!(out, "the first admin's token, shown this once:\n\n{token}\n")?;
        writeln!(
            out,
            "in ~/.config/klp-farm/config.toml, with a copy of ca.pem and the token in a file:\n"
        )?;
        writeln!(out, "coordinator = \"https://{}:{port}\"", made.names[0])?;
        writeln!(out, "ca = \"{ca}\"\ntoken_file = \"~/.config/klp-farm/token\"")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command on the data folder.
fn look_after(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    let dir = &config.data_dir;
    let mut out = std::io::stdout();
    match command {
        // Done before.
        Command::Init { .. } => Ok(ExitCode::SUCCESS),
        Command::Check { online, output } => {
            let findings = admin::check(dir, online)?;
            tell(&mut out, output, &findings, |out| tell_findings(out, &findings))?;
            Ok(ExitCode::from(u8::from(!findings.sound)))
        }
        Command::Backup { destination, output } => match admin::backup(dir, &destination)? {
            Backup::Done(findings) => {
                tell(&mut out, output, &findings, |out| tell_findings(out, &findings))?;
                Ok(ExitCode::SUCCESS)
            }
            Backup::Unsound(findings) => {
                tell(&mut out, output, &findings, |out| tell_findings(out, &findings))?;
                eprintln!("klp-coordinator: the copy has these problems, so it was not kept; check the original");
                Ok(ExitCode::FAILURE)
            }
        },
        Command::Gc { dry_run, output } => {
            let cleared = gc::offline(dir, config.retain_ended_days, dry_run)?;
            tell(&mut out, output, &cleared, |out| {
                let verb = if dry_run {
                    "would be cleared away"
                } else {
                    "cleared away"
                };
                for name in &cleared.livepatches {
                    writeln!(out, "livepatch {name}")?;
                }
                let (artifacts, logs) = (cleared.artifacts, cleared.logs);
                let (count, bytes) = (artifacts.count, size(artifacts.bytes));
                let livepatches = cleared.livepatches.len();
                writeln!(
                    out,
                    "{verb}: {livepatches} livepatches, {count} artifacts ({bytes}), logs of {logs} tasks"
                )
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn tell<T: Serialize>(
    out: &mut std::io::Stdout,
    output: Output,
    value: &T,
    text: impl FnOnce(&mut std::io::Stdout) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    match output {
        Output::Text => text(out)?,
        Output::Json => writeln!(out, "{}", serde_json::to_string(value)?)?,
    }
    Ok(())
}

fn tell_findings(out: &mut impl Write, findings: &Findings) -> std::io::Result<()> {
    for problem in &findings.problems {
        writeln!(out, "problem: {}\n  next step: {}", problem.what, problem.next_step)?;
    }
    if findings.unlisted > 0 {
        writeln!(out, "and {} more", amount(findings.unlisted, "problem", "problems"))?;
    }
    let (db, artifacts, logs) = (findings.database, findings.artifacts, findings.logs);
    let verdict = match findings.problems.len() + findings.unlisted {
        0 => "all is well".to_owned(),
        n => amount(n, "problem", "problems"),
    };
    writeln!(out, "{}: {verdict}", findings.data_dir.display())?;
    writeln!(
        out,
        "  {}, {}, {}, {}; {} ({}), {} ({})",
        amount(db.livepatches, "livepatch", "livepatches"),
        amount(db.tasks, "task", "tasks"),
        amount(db.attempts, "attempt", "attempts"),
        amount(db.events, "event", "events"),
        amount(artifacts.count, "artifact", "artifacts"),
        size(artifacts.bytes),
        amount(logs.count, "log", "logs"),
        size(logs.bytes)
    )?;
    let (spare, stray) = (findings.unreferenced_artifacts, findings.unreferenced_logs);
    if spare.count + stray.count > 0 {
        writeln!(
            out,
            "  not needed, to be cleared away in time: {} ({}), {} ({})",
            amount(spare.count, "artifact", "artifacts"),
            size(spare.bytes),
            amount(stray.count, "log", "logs"),
            size(stray.bytes)
        )?;
    }
    Ok(())
}

async fn serve(args: &Args, config: Config) -> anyhow::Result<()> {
    if args.print_config {
        print!("{}", config.to_toml());
        return Ok(());
    }
    // Before anything is started, so that an early signal is not missed.
    let mut terminate = signal(SignalKind::terminate()).context("can't handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't handle SIGINT")?;
    let mut coordinator = Coordinator::start(config).await?;
    let mut out = std::io::stdout();
    let scheme = coordinator.scheme();
    writeln!(out, "listening on {scheme}://{}", coordinator.local_addr())?;
    if let Some(address) = coordinator.http_addr() {
        writeln!(out, "dashboard at {scheme}://{address}/")?;
    }
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
