//! `klp-farm list`: all livepatches, newest first.

use clap::{Args, ValueEnum, value_parser};
use klp_proto::v1;

use crate::client::Client;
use crate::output::{self, Failed, Mode};
use klp_proto::view;

#[derive(Args)]
pub struct ListArgs {
    /// Show at most this many, from 1
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..))]
    limit: u32,
    /// Only those with this in their name, their CVE or who submitted them
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    search: String,
    /// Only those in this state; may be given several times
    #[arg(long, value_enum)]
    state: Vec<State>,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    Running,
    Succeeded,
    Partial,
    Failed,
    Cancelled,
}

impl From<State> for v1::LivepatchState {
    fn from(state: State) -> Self {
        match state {
            State::Running => v1::LivepatchState::Running,
            State::Succeeded => v1::LivepatchState::Succeeded,
            State::Partial => v1::LivepatchState::Partial,
            State::Failed => v1::LivepatchState::Failed,
            State::Cancelled => v1::LivepatchState::Cancelled,
        }
    }
}

const PAGE: usize = 500;

pub async fn run(args: ListArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let mut livepatches: Vec<v1::Livepatch> = Vec::new();
    let mut page_token = String::new();
    let limit = args.limit as usize;
    while livepatches.len() < limit {
        let page_size = (limit - livepatches.len()).min(PAGE) as u32;
        let states = args.state.iter().map(|state| v1::LivepatchState::from(*state).into());
        let request = v1::ListRequest {
            page_size,
            page_token,
            search: args.search.clone(),
            states: states.collect(),
        };
        let page = client
            .livepatches()
            .list(request)
            .await
            .map_err(|s| client.explain(s))?
            .into_inner();
        livepatches.extend(page.livepatches);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if mode == Mode::Json {
        return output::json(&livepatches.into_iter().map(view::Livepatch::from).collect::<Vec<_>>());
    }
    if livepatches.is_empty() && (!args.search.is_empty() || !args.state.is_empty()) {
        eprintln!("no livepatch is like that");
        return Ok(());
    }
    if livepatches.is_empty() {
        eprintln!("no livepatch yet; `klp-farm submit --help` shows how to make one");
        return Ok(());
    }
    let now = output::now_ms();
    let mut table = output::table(&["NAME", "CVE", "STATE", "TASKS DONE", "SUBMITTED", "BY", "VERDICT"]);
    for livepatch in &livepatches {
        let counts = livepatch.counts.unwrap_or_default();
        let done = counts.succeeded + counts.failed + counts.cancelled;
        let spec = livepatch.spec.clone().unwrap_or_default();
        table.add_row([
            spec.name,
            spec.cve,
            match livepatch.paused_ms {
                0 => view::livepatch_state(livepatch).to_owned(),
                _ => format!("{}, paused", view::livepatch_state(livepatch)),
            },
            format!("{done}/{}", done + counts.waiting + counts.leased),
            output::ago(livepatch.created_ms, now),
            livepatch.submitted_by.clone(),
            livepatch.verdict.clone(),
        ]);
    }
    output::print(&table.trim_fmt())
}
