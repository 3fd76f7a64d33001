//! `klp-farm enroll`, `revoke`, `certificates` and `ca`: which workers are let in, and by whom.

use clap::Args;
use klp_livepatch::names::WorkerName;
use klp_livepatch::words::amount;
use klp_proto::v1;
use klp_proto::view::access;
use klp_telemetry::redact;

use crate::client::Client;
use crate::output::{self, Failed, Mode};

#[derive(Args)]
#[command(after_help = "\
What it prints is run on the worker, once, with the --data-dir that the worker is started with. The worker makes its own key,
which never leaves it, and renews its certificate by itself. Enrolling a name again puts out who had it before.")]
pub struct EnrollArgs {
    worker: WorkerName,
    /// How long what is printed may be used
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
}

#[derive(Args)]
#[command(after_help = "\
Its session is closed, its leases run out, and its tasks go to other workers. `klp-farm enroll` lets it in again.")]
pub struct RevokeArgs {
    worker: WorkerName,
}

pub async fn enroll(args: EnrollArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let request = v1::CreateEnrollmentRequest {
        worker: args.worker.to_string(),
        valid_ms: args.minutes * 60_000,
    };
    let made = client.access().create_enrollment(request).await;
    let made = made.map_err(|status| client.explain(status))?.into_inner();
    let coordinator = redact::url(client.uri());
    let coordinator = coordinator.trim_end_matches('/');
    match mode {
        Mode::Json => output::json(&serde_json::json!({
            "worker": args.worker.as_str(),
            "coordinator": coordinator,
            "token": made.secret,
            "ca_sha256": made.ca_sha256,
            "expires_ms": made.expires_ms,
        })),
        Mode::Table => {
            eprintln!(
                "on the worker, once, within {}:",
                amount(args.minutes, "minute", "minutes")
            );
            // In the environment, where no other user of that machine sees it.
            output::print(&format!(
                "KLP_FARM_TOKEN={} klp-worker enroll --coordinator {coordinator} --ca-sha256 {}",
                made.secret, made.ca_sha256
            ))
        }
    }
}

pub async fn revoke(args: RevokeArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let worker = args.worker.to_string();
    let revoked = client.access().revoke_worker(v1::RevokeWorkerRequest { worker }).await;
    let revoked = revoked.map_err(|status| client.explain(status))?.into_inner().revoked;
    match mode {
        Mode::Json => output::json(&serde_json::json!({ "worker": args.worker.as_str(), "revoked": revoked })),
        Mode::Table => {
            let what = amount(revoked, "certificate", "certificates");
            output::print(&format!("{}: put out; {what} revoked", args.worker))
        }
    }
}

/// The CAs by which the farm is recognised, as it tells over a connection that is trusted.
pub async fn ca(client: &Client, mode: Mode) -> Result<(), Failed> {
    let told = client.access().authorities(v1::AuthoritiesRequest {}).await;
    let ca_pem = told.map_err(|status| client.explain(status))?.into_inner().ca_pem;
    match mode {
        Mode::Json => output::json(&serde_json::json!({ "ca_pem": ca_pem })),
        Mode::Table => output::print(ca_pem.trim_end()),
    }
}

pub async fn certificates(client: &Client, mode: Mode) -> Result<(), Failed> {
    let listed = client.access().list_certificates(v1::ListCertificatesRequest {}).await;
    let listed = listed
        .map_err(|status| client.explain(status))?
        .into_inner()
        .certificates;
    let certificates: Vec<access::Certificate> = listed.into_iter().map(Into::into).collect();
    if mode == Mode::Json {
        return output::json(&certificates);
    }
    let now = output::now_ms();
    let mut table = output::table(&["WORKER", "ISSUED", "STATE", "SERIAL", "CA"]);
    for certificate in certificates {
        let state = access::standing(Some(certificate.expires_ms), certificate.revoked_ms, now);
        let issued = output::ago(certificate.issued_ms, now);
        // As much of it as tells it from another.
        let ca = certificate
            .ca_sha256
            .map_or(String::new(), |ca| ca.chars().take(16).collect());
        table.add_row([certificate.worker, issued, state, certificate.serial, ca]);
    }
    output::print(&table.trim_fmt())
}
