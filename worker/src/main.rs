//! `klp-worker`: the program. What people typed, done: the worker itself, or one of its commands.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use klp_identity::trust;
use klp_settings::Reload;
use klp_telemetry::{Setup, redact, service};
use klp_worker::cli::{Cli, Command, EnrollArgs};
use klp_worker::config::{RELOADABLE, Settings, Tunable};
use klp_worker::session::SessionError;
use klp_worker::{extract, identity, isolation, tree_cli, worker};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the last spans may take to be sent.
const LAST_SPANS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if let Some(ended) = isolation::become_tool() {
        return ended;
    }
    let mut cli = Cli::parse();
    let result = match cli.command.take() {
        // Without a runtime: this process is measured and limited.
        Some(Command::NativeExtract(args)) => extract::native_main(args),
        _ if cli.check_config => check_config(&cli),
        command => run(command, &cli),
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

/// Says which settings are in force, and whether they can be.
fn check_config(cli: &Cli) -> anyhow::Result<()> {
    let effective = cli.effective()?;
    print!("{}", redact::scrub(&effective.explained()?));
    effective.settings.validate()?;
    eprintln!("klp-worker: these settings can be used");
    Ok(())
}

#[tokio::main]
async fn run(command: Option<Command>, cli: &Cli) -> anyhow::Result<()> {
    let settings = cli.effective()?.settings;
    settings.validate()?;
    match command {
        Some(Command::Tree(args)) => return tree_cli::run(args, &settings).await,
        Some(Command::Enroll(args)) => return enroll(args, settings).await,
        _ => {}
    }
    let telemetry = klp_telemetry::init(&Setup {
        service: "klp-worker",
        logs: settings.log_format,
        level: "info",
        otlp_endpoint: settings.otlp_endpoint.as_deref(),
    });
    let done = work(cli, settings).await;
    telemetry.shutdown(LAST_SPANS).await;
    done
}

async fn work(cli: &Cli, settings: Settings) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let hangup = signal(SignalKind::hangup())?;
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
    let config = settings.clone().into_config()?;
    let tuned = config.tuned.clone();
    tokio::select! {
        done = worker::run(config, shutdown) => done,
        never = keep_reloaded(cli, settings, tuned, hangup) => match never {},
    }
}

/// Reads the configuration again at each SIGHUP; what is wrong with it changes nothing.
async fn keep_reloaded(
    cli: &Cli,
    mut settings: Settings,
    tuned: Tunable,
    mut hangup: Signal,
) -> std::convert::Infallible {
    loop {
        if hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        service::reloading();
        match reload(cli, &settings) {
            Ok(reload) => {
                tuned.replace(reload.settings.tuned());
                tracing::info!("the configuration was read again; {}", reload.summary());
                settings = reload.settings;
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(
                    error,
                    "the configuration was read again and can't be used; the former one stays in force"
                );
            }
        }
        service::ready("working with the configuration that was read again");
    }
}

fn reload(cli: &Cli, settings: &Settings) -> anyhow::Result<Reload<Settings>> {
    let fresh = cli.effective()?.settings;
    fresh.validate()?;
    Ok(Reload::new(settings, &fresh, RELOADABLE)?)
}

async fn enroll(args: EnrollArgs, settings: Settings) -> anyhow::Result<()> {
    let token = trust::token(args.token_file, std::env::var("KLP_FARM_TOKEN").ok())?;
    let token =
        token.context("the enrollment token is missing: set KLP_FARM_TOKEN, or name its file with --token-file")?;
    let coordinator = args.coordinator.unwrap_or(settings.coordinator).0;
    let data_dir = args.data_dir.unwrap_or(settings.data_dir);
    let name = identity::enroll(&coordinator, &token, args.ca_sha256, &data_dir).await?;
    let (coordinator, dir) = (redact::url(&coordinator), data_dir.display());
    Ok(tree_cli::print(&format!(
        "this is worker {name} now; start it with: klp-worker --coordinator {coordinator} --data-dir {dir}"
    ))?)
}
