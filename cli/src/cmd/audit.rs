//! `klp-farm audit`: who did what.

use clap::Args;
use klp_proto::v1;
use klp_proto::view::access::AuditEntry;

use crate::client::Client;
use crate::output::{self, Failed, Mode};

/// Entries of one request.
const PAGE: u32 = 1000;

#[derive(Args)]
pub struct AuditArgs {
    /// Show at most this many, the newest first
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

pub async fn run(args: AuditArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let (mut entries, mut before): (Vec<AuditEntry>, u64) = (Vec::new(), 0);
    loop {
        // Never more than was asked for.
        let left = args.limit - u32::try_from(entries.len()).unwrap_or(args.limit);
        let limit = left.min(PAGE);
        if limit == 0 {
            break;
        }
        let page = client.access().list_audit(v1::ListAuditRequest { before, limit }).await;
        let page = page.map_err(|status| client.explain(status))?.into_inner().entries;
        let Some(last) = page.last() else { break };
        before = last.number;
        entries.extend(page.into_iter().map(AuditEntry::from));
    }
    if mode == Mode::Json {
        return output::json(&entries);
    }
    let now = output::now_ms();
    let mut table = output::table(&["WHEN", "WHO", "ROLE", "FROM", "DID", "TO", "OUTCOME"]);
    for e in entries {
        let when = output::ago(e.time_ms, now);
        table.add_row([when, e.caller, e.role, e.address, e.method, e.object, e.outcome]);
    }
    output::print(&table.trim_fmt())
}
