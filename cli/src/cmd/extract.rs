//! `klp-farm extract`: the sources of a livepatch that `setup` checked, fetched when they are there.

use std::path::PathBuf;

use clap::Args;
use klp_livepatch::names::LivepatchName;
use klp_proto::v1;

use crate::client::{Client, by_name};
use crate::follow;
use crate::output::{self, Failed, Mode};
use crate::settings::Settings;
use crate::spec_args::ExtractionArgs;
use klp_proto::view;

use super::get;

const EXAMPLES: &str = "\
Examples:
  klp-farm extract --name bsc1197597
  klp-farm extract --name bsc1197597 --type ce --avoid-ext snd_pcm_group_init --filter '15.6'

Exit codes: 0 all succeeded and are on disk, 1 failed, 2 not a valid request, 3 some did not succeed; what did is on disk.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ExtractArgs {
    /// The livepatch that was set up
    #[arg(long, short)]
    pub name: LivepatchName,
    #[command(flatten)]
    extraction: ExtractionArgs,
    /// Of its codestreams: a regular expression, anchored at the start [default: all]
    #[arg(
        long,
        alias = "codestreams",
        value_name = "REGEX",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,
    /// Return at once, while the extraction goes on
    #[arg(long)]
    no_wait: bool,
    /// The work folder; the livepatch gets a folder of its name in it [default: KLP_WORK_DIR, the configured one, or .]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

pub async fn run(args: ExtractArgs, client: &Client, settings: &Settings, mode: Mode) -> Result<(), Failed> {
    let request = v1::ExtractRequest {
        livepatch: Some(by_name(&args.name)),
        backend: args.extraction.tool,
        avoid: args.extraction.avoid_ext,
        unpatched: args.extraction.no_patches,
        codestreams: args.filter,
    };
    let answer = client
        .livepatches()
        .extract(request)
        .await
        .map_err(|s| client.explain(s))?;
    let livepatch = answer.into_inner().livepatch.unwrap_or_default();
    client.about(&livepatch);
    let name = args.name;
    if args.no_wait {
        return match mode {
            Mode::Json => output::json(&view::Livepatch::from(livepatch)),
            Mode::Table => output::print(&format!(
                "{name} is being extracted; follow it with `klp-farm watch {name}`"
            )),
        };
    }
    let followed = follow::follow(client, &name, mode).await;
    if let Err(Failed::Error(_) | Failed::Invalid(_) | Failed::Interrupted) = &followed {
        return followed;
    }
    let get = get::GetArgs {
        name,
        output_dir: args.work_dir,
        include_failed: false,
    };
    get::run(get, client, settings, mode).await
}
