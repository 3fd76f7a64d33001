//! `klp-farm watch`: follow a livepatch until it ends.

use clap::Args;
use klp_livepatch::names::LivepatchName;

use crate::client::Client;
use crate::follow;
use crate::output::{Failed, Mode};

#[derive(Args)]
pub struct WatchArgs {
    name: LivepatchName,
}

pub async fn run(args: WatchArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    follow::follow(client, &args.name, mode).await
}
