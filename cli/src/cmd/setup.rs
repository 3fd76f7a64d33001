//! `klp-farm setup`: the checks of a livepatch, without extracting anything yet.

use clap::Args;

use crate::client::Client;
use crate::follow;
use crate::output::{self, Failed, Mode};
use crate::spec_args::SpecArgs;
use klp_proto::view;

use super::submit;

const EXAMPLES: &str = "\
Examples:
  klp-farm setup --name bsc1197597 --cve 2022-1048 --mod snd-pcm --conf CONFIG_SND_PCM \\
      --file-funcs sound/core/pcm.c snd_pcm_attach_substream snd_pcm_detach_substream \\
      --codestreams '15.5' --archs x86_64 ppc64le
  klp-farm extract --name bsc1197597 --type ccp

Exit codes: 0 all can be patched, or need no patch, 1 failed, 2 not a valid livepatch, 3 some can't be patched.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct SetupArgs {
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Return at once, while the checks go on
    #[arg(long)]
    no_wait: bool,
}

pub async fn run(args: SetupArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let share = args.spec.share.parse()?;
    let order = args.spec.scanned(None, client).await?;
    let name = order.spec.name.clone();
    let livepatch = submit::send(client, order, share).await?;
    if args.no_wait {
        return match mode {
            Mode::Json => output::json(&view::Livepatch::from(livepatch)),
            Mode::Table => output::print(&format!(
                "{name} is being checked; follow it with `klp-farm watch {name}`"
            )),
        };
    }
    follow::follow(client, &name, mode).await?;
    eprintln!("Done. Setup finished; go on with `klp-farm extract --name {name}`");
    Ok(())
}
