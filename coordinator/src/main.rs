//! `klp-coordinator`: the coordinator as a process of its own.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use klp_coordinator::admin::{self, Backup, Depth, Findings, gc, init, rotate_ca, size};
use klp_coordinator::cli::{Args, Command, Output};
use klp_coordinator::{Config, ConfigError, Coordinator, Heart, Pulse, Step};
use klp_livepatch::words::amount;
use klp_telemetry::{Setup, redact, service};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

/// How long the last spans may take to be sent.
const LAST_SPANS: Duration = Duration::from_secs(2);

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
    if args.check_config {
        return check_config(args);
    }
    let config = settings(args)?;
    if args.print_config {
        print!("{}", config.to_toml());
        return Ok(ExitCode::SUCCESS);
    }
    admin::owner::check(&config.data_dir)?;
    let telemetry = klp_telemetry::init(&Setup {
        service: "klp-coordinator",
        logs: config.log_format,
        // Each request's tries would be told one by one while a bucket is away; what came of them is.
        level: "info,object_store=warn",
        otlp_endpoint: config.otlp_endpoint.as_deref(),
    });
    let done = match command {
        Some(Command::Init {
            names,
            rotate_server,
            rotate_signer,
            new_token,
            rotate_ca,
            force,
            output,
        }) => match (rotate_ca, rotate_signer) {
            (Some(step), _) => another_ca(&config, step, force, output),
            (None, true) => new_signer(&config, output),
            (None, false) => begin(&config, &names, (rotate_server, new_token), output).await,
        },
        // Where it may block.
        Some(command) => tokio::task::spawn_blocking(move || look_after(command, &config)).await?,
        None => serve(args, config).await.map(|()| ExitCode::SUCCESS),
    };
    telemetry.shutdown(LAST_SPANS).await;
    done
}

/// The settings in force, of which all are right.
fn settings(args: &Args) -> anyhow::Result<Config> {
    let config = args.effective()?.settings;
    config.validate()?;
    Ok(config)
}

/// Says which settings are in force, and whether they can be.
fn check_config(args: &Args) -> anyhow::Result<ExitCode> {
    let effective = args.effective()?;
    print!("{}", redact::scrub(&effective.explained()?));
    effective.settings.validate()?;
    eprintln!("klp-coordinator: these settings can be used");
    Ok(ExitCode::SUCCESS)
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

fn new_signer(config: &Config, output: Output) -> anyhow::Result<ExitCode> {
    let key = init::rotate_signer(config)?;
    let value = serde_json::json!({ "key": key });
    tell(&mut std::io::stdout(), output, &value, |out| {
        writeln!(out, "statements are signed with the key {key} from now on")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn another_ca(config: &Config, step: Step, force: bool, output: Output) -> anyhow::Result<ExitCode> {
    let taken = rotate_ca::rotate_ca(config, step, force)?;
    tell(&mut std::io::stdout(), output, &taken, |out| {
        writeln!(
            out,
            "{} makes certificates: SHA-256 {}",
            taken.ca.display(),
            taken.issuer_sha256
        )?;
        for other in &taken.trusted_sha256[1..] {
            writeln!(out, "trusted as well: SHA-256 {other}")?;
        }
        writeln!(out, "{}", taken.next)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command on the data folder.
fn look_after(command: Command, config: &Config) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    match command {
        // Done before.
        Command::Init { .. } => Ok(ExitCode::SUCCESS),
        Command::Check { online, deep, output } => {
            let depth = if deep { Depth::Deep } else { Depth::Usual };
            let findings = admin::check(config, online, depth)?;
            tell(&mut out, output, &findings, |out| tell_findings(out, &findings))?;
            Ok(ExitCode::from(u8::from(!findings.sound)))
        }
        Command::Backup { destination, output } => match admin::backup(config, &destination)? {
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
            let cleared = gc::offline(config, dry_run)?;
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
    if let Some(place) = &findings.artifacts_in {
        let unread = match findings.unread_artifacts.count {
            0 => "",
            _ => "; their sizes were compared, with --deep their digests are too",
        };
        writeln!(out, "  the artifacts are in {place}, and no backup holds them{unread}")?;
    }
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
    // Before anything is started, so that an early signal is not missed.
    let mut terminate = signal(SignalKind::terminate()).context("can't handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't handle SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("can't handle SIGHUP")?;
    // Requests, pages, upkeep and the database each have this long.
    let stopping = 4 * Duration::from_millis(config.shutdown_ms.into()) + LAST_SPANS;
    let mut coordinator = Coordinator::start(config).await?;
    let mut out = std::io::stdout();
    let serving = format!("{}://{}", coordinator.scheme(), coordinator.local_addr());
    writeln!(out, "listening on {serving}")?;
    if let Some(address) = coordinator.http_addr() {
        writeln!(out, "dashboard at {}://{address}/", coordinator.scheme())?;
    }
    out.flush()?;
    service::ready(&format!("serving at {serving}"));
    let telling = tokio::spawn(keep_told(coordinator.heart(), serving.clone()));
    let broken = loop {
        tokio::select! {
            _ = terminate.recv() => break false,
            _ = interrupt.recv() => break false,
            _ = hangup.recv() => {
                service::reloading();
                reload(args, &coordinator);
                service::ready(&format!("serving at {serving}"));
            }
            () = coordinator.broken() => break true,
        }
    };
    telling.abort();
    service::stopping(stopping);
    tracing::info!("stopping");
    coordinator.shutdown().await;
    anyhow::ensure!(
        !broken,
        "a part of the coordinator has failed; its log says which. Start it again"
    );
    Ok(())
}

/// Tells the service manager that the coordinator lives, as long as the loop that decides everything answers.
async fn keep_told(heart: Heart, serving: String) {
    while let Some(pulse) = heart.pulse().await {
        let Pulse {
            workers,
            livepatches,
            tasks,
            leased,
        } = pulse;
        service::alive(&format!(
            "serving at {serving}: {}, {} in progress, {leased} of {} running",
            amount(workers, "worker", "workers"),
            amount(livepatches, "livepatch", "livepatches"),
            amount(tasks, "task", "tasks"),
        ));
        tokio::time::sleep(service::period()).await;
    }
}

/// Reads the configuration again; what is wrong with it changes nothing.
fn reload(args: &Args, coordinator: &Coordinator) {
    let fresh = args.effective().map_err(ConfigError::from);
    match fresh.and_then(|fresh| coordinator.reload(&fresh.settings)) {
        Ok(reload) => tracing::info!("the configuration was read again; {}", reload.summary()),
        Err(error) => {
            let error = error.to_string();
            tracing::error!(
                error,
                "the configuration was read again and can't be used; the former one stays in force"
            );
        }
    }
}
