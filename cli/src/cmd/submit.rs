//! `klp-farm submit`: checks and extraction at once, sent under an id of its own.

use std::time::Duration;

use clap::Args;
use klp_livepatch::Share;
use klp_livepatch::task::LivepatchId;
use klp_livepatch::words::platforms;
use klp_proto::v1;
use klp_telemetry::{KeyValue, Root, TraceParent, grpc};
use uuid::Uuid;

use crate::client::{self, Client};
use crate::follow;
use crate::output::{self, Failed, Mode};
use crate::spec_args::{ExtractionArgs, Order, SpecArgs};
use klp_proto::view;

const EXAMPLES: &str = "\
Examples:
  klp-farm submit --name bsc1197597 --cve 2022-1048 --mod snd-pcm --conf CONFIG_SND_PCM \\
      --file-funcs sound/core/pcm.c snd_pcm_attach_substream snd_pcm_detach_substream
  klp-farm submit --name bsc1 --conf CONFIG_PROC_FS \\
      --file-funcs fs/proc/cmdline.c cmdline_proc_show --codestreams '^(?!12.5)' --archs x86_64 s390x --wait
  klp-farm submit --name bsc2 --patch 0001-the-fix.patch --type ccp \\
      --conf-mod-file-funcs CONFIG_NET vmlinux net/core/sock.c sock_init_data \\
      --conf-mod-file-funcs CONFIG_BT bluetooth net/bluetooth/hci_core.c hci_alloc_dev

Exit codes: 0 stored (with --wait: all succeeded), 1 failed, 2 not a valid livepatch,
3 with --wait: not all succeeded.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct SubmitArgs {
    #[command(flatten)]
    pub spec: SpecArgs,
    #[command(flatten)]
    extraction: ExtractionArgs,
    /// Follow it until it ends
    #[arg(long)]
    wait: bool,
}

pub async fn run(args: SubmitArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let (wait, share) = (args.wait, args.spec.share.parse()?);
    let order = args.spec.scanned(Some(args.extraction), client).await?;
    let name = order.spec.name.clone();
    let livepatch = send(client, order, share).await?;
    if wait {
        eprintln!("{name} submitted");
        return follow::follow(client, &name, mode).await;
    }
    if mode == Mode::Json {
        return output::json(&view::Livepatch::from(livepatch));
    }
    let tasks = livepatch.counts.unwrap_or_default();
    output::print(&format!(
        "{name} submitted: {}; follow it with `klp-farm watch {name}`",
        platforms((tasks.waiting + tasks.leased) as usize),
    ))
}

/// Sends an order under one id for all tries, so that an answer that was lost does no harm.
pub async fn send(client: &Client, order: Order, share: Share) -> Result<v1::Livepatch, Failed> {
    let mut spec = v1::Spec::from(&order.spec);
    if order.auto {
        spec.backend.clear();
    }
    let id = LivepatchId(Uuid::now_v7());
    let attributes = vec![
        KeyValue::new("klp.livepatch", id.to_string()),
        KeyValue::new("klp.name", order.spec.name.to_string()),
        KeyValue::new("rpc.system.name", "grpc"),
        KeyValue::new("rpc.method", "klpfarm.v1.LivepatchService/Submit"),
    ];
    let mut root = Root::start("submit", id, attributes);
    let request = v1::SubmitRequest {
        id: id.to_string(),
        spec: Some(spec),
        share: Some(share.into()),
        fix_contents: order.fixes,
        submitted_by: submitter(),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let request = grpc::request(request.clone(), Some(TraceParent::of_livepatch(id)));
        match client.livepatches().submit(request).await {
            Ok(response) => {
                client.begin(id, root);
                let v1::SubmitResponse { livepatch, warnings } = response.into_inner();
                for warning in warnings {
                    output::tell(&format!("warning: {warning}"));
                }
                return Ok(livepatch.unwrap_or_default());
            }
            Err(status) if client::is_broken(&status) && tries < 3 => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(status) => {
                root.fail(status.message());
                return Err(client.explain(status));
            }
        }
    }
}

/// Who types this, as others know them: `jane@desk`.
fn submitter() -> String {
    let known = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let user = known.filter(|user| !user.is_empty()).unwrap_or_else(by_number);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // Whatever it is called, a submission must not fail by it.
    let plain = format!("{user}@{}", host.trim());
    plain.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// Whoever has no name in the environment, as under cron.
fn by_number() -> String {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata("/proc/self").map(|process| process.uid()) {
        Ok(0) => "root".to_owned(),
        Ok(uid) => format!("uid-{uid}"),
        Err(_) => "somebody".to_owned(),
    }
}
