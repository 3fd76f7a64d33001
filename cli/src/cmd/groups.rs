//! `klp-farm groups`: which codestreams one source serves, and why those that don't are apart.

use std::collections::BTreeMap;

use clap::Args;
use klp_livepatch::compression::{Known, compress};
use klp_livepatch::difference::{Difference, difference};
use klp_livepatch::names::LivepatchName;
use klp_livepatch::words::amount;
use klp_livepatch::{Arch, Codestream};
use serde::Serialize;

use crate::client::Client;
use crate::cmd::diff::coloured;
use crate::output::{self, Failed, Mode};
use crate::sources;

const EXAMPLES: &str = "\
Examples:
  klp-farm groups bsc1197597
  klp-farm groups bsc1197597 --why

Groups are told for each architecture. The file `groups` that `klp-farm get` writes has one line for codestreams that are alike on
all their architectures, as klp-build writes it.

Exit codes: 0 shown, or there are none, 1 failed, as when the livepatch is still running.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct GroupsArgs {
    pub name: LivepatchName,
    /// Show the smallest difference that keeps each group apart from another
    #[arg(long)]
    why: bool,
}

#[derive(Serialize)]
struct Group {
    arch: String,
    /// As in klp-build's file: `15.2u10-11 15.3u10`.
    line: String,
    codestreams: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    apart: Option<Apart>,
}

/// What keeps a group apart from the one that is most like it.
#[derive(Serialize)]
struct Apart {
    from: String,
    lines: usize,
    only_guards: bool,
    diff: String,
}

pub async fn run(args: GroupsArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let mut by_arch: BTreeMap<Arch, Vec<Vec<Codestream>>> = BTreeMap::new();
    for group in client.groups(&args.name).await? {
        let codestreams: Result<Vec<Codestream>, _> = group.codestreams.iter().map(|c| c.parse()).collect();
        let (Ok(codestreams), Ok(arch)) = (codestreams, group.arch.parse()) else {
            return Err(Failed::Error(anyhow::anyhow!(
                "the coordinator sent a group that can't be read"
            )));
        };
        by_arch.entry(arch).or_default().push(codestreams);
    }
    let mut shown = Vec::new();
    for (arch, groups) in by_arch {
        let known = Known::new(groups.iter().flatten());
        let mut apart = match args.why && groups.len() > 1 {
            true => why(client, &args.name, arch, &groups).await?,
            false => Vec::new(),
        };
        for (i, group) in groups.iter().enumerate() {
            shown.push(Group {
                arch: arch.to_string(),
                line: compress(group, &known),
                codestreams: group.iter().map(ToString::to_string).collect(),
                apart: apart.get_mut(i).and_then(Option::take),
            });
        }
    }
    if shown.is_empty() {
        eprintln!("{}", why_none(client, &args.name).await?);
    }
    match mode {
        Mode::Json => output::json(&shown),
        Mode::Table => shown.iter().try_for_each(print),
    }
}

/// Why a livepatch that has ended has no groups.
async fn why_none(client: &Client, name: &LivepatchName) -> Result<String, Failed> {
    let livepatch = client.get(name).await?.livepatch.unwrap_or_default();
    let set_up = livepatch.spec.is_some_and(|spec| spec.checks_only);
    Ok(match set_up {
        true => format!(
            "{name} was only set up: groups are of sources, which `klp-farm extract --name {name}` extracts where its checks \
             succeeded"
        ),
        false => format!(
            "no source of {name} was extracted with success, so there are no groups; see `klp-farm status {name}`"
        ),
    })
}

fn print(group: &Group) -> Result<(), Failed> {
    output::print(&format!("{:8}  {}", group.arch, group.line))?;
    let Some(apart) = &group.apart else { return Ok(()) };
    let remark = match apart.only_guards {
        true => ", by guards for a CONFIG alone: one source with the guard would serve both",
        false => "",
    };
    output::print(&format!(
        "  apart from {} by {}{remark}:",
        apart.from,
        amount(apart.lines, "line", "lines")
    ))?;
    let indented: String = coloured(&apart.diff)
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    output::print(indented.trim_end())
}

/// For each group the other one that is most like it. One source stands for its group.
async fn why(
    client: &Client,
    name: &LivepatchName,
    arch: Arch,
    groups: &[Vec<Codestream>],
) -> Result<Vec<Option<Apart>>, Failed> {
    let results = sources::results(client, name).await?;
    let mut texts = Vec::with_capacity(groups.len());
    for group in groups {
        let first = group
            .first()
            .and_then(|c| results.get(c))
            .and_then(|platforms| platforms.get(&arch));
        texts.push(match first {
            Some(platform) => sources::text(client, platform).await?.unwrap_or_default(),
            None => String::new(),
        });
    }
    let title = |i: usize| groups[i].first().map(ToString::to_string).unwrap_or_default();
    let nearest = |i: usize| {
        let others = (0..groups.len()).filter(|j| *j != i);
        let differences = others.map(|j| {
            let (a, b) = (title(i), title(j));
            (difference((&a, &texts[i]), (&b, &texts[j]), 1), b)
        });
        let least = differences.min_by_key(|(difference, _)| difference.lines);
        least.map(
            |(
                Difference {
                    diff,
                    lines,
                    only_guards,
                },
                from,
            )| Apart {
                from,
                lines,
                only_guards,
                diff,
            },
        )
    };
    Ok((0..groups.len()).map(nearest).collect())
}
