//! `klp-farm cs-diff`: what keeps two codestreams from having the same source.

use clap::Args;
use crossterm::style::Stylize;
use klp_livepatch::difference::{Difference, difference};
use klp_livepatch::names::LivepatchName;
use klp_livepatch::{Arch, Codestream};
use serde::Serialize;

use crate::client::Client;
use crate::output::{self, Failed, Mode};
use crate::sources;

const EXAMPLES: &str = "\
Examples:
  klp-farm cs-diff --name bsc1197597 15.6u9 15.6u10
  klp-farm cs-diff --name bsc1197597 15.6u9 15.7u0 --arch s390x --context 10
  klp-farm cs-diff --name bsc1197597 15.6u9/x86_64 15.6u9/s390x

The sources are compared as groups are: comments, blanks and what only the compiler needs make no difference.

Exit codes: 0 compared, whether there is a difference or not; 1 failed.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct DiffArgs {
    /// The livepatch
    #[arg(long, short)]
    pub name: LivepatchName,
    /// A codestream, or one on an architecture: 15.6u9 or 15.6u9/s390x
    #[arg(value_parser = parse_side)]
    a: Side,
    #[arg(value_parser = parse_side)]
    b: Side,
    /// The architecture to compare on [default: the first in order of preference that has a source]
    #[arg(long)]
    arch: Option<Arch>,
    /// Lines around each difference
    #[arg(long, value_name = "LINES", default_value_t = 3)]
    context: usize,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Side {
    codestream: Codestream,
    arch: Option<Arch>,
}

fn parse_side(text: &str) -> Result<Side, String> {
    let (codestream, arch) = match text.split_once('/') {
        Some((codestream, arch)) => (codestream, Some(arch.parse::<Arch>().map_err(|e| e.to_string())?)),
        None => (text, None),
    };
    let codestream = codestream.parse::<Codestream>().map_err(|e| e.to_string())?;
    Ok(Side { codestream, arch })
}

#[derive(Serialize)]
struct Compared {
    a: String,
    b: String,
    equal: bool,
    lines: usize,
    only_guards: bool,
    diff: String,
}

pub async fn run(args: DiffArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let results = sources::results(client, &args.name).await?;
    let (arch_a, platform_a) = sources::pick(&results, &args.a.codestream, args.a.arch.or(args.arch))?;
    let (arch_b, platform_b) = sources::pick(&results, &args.b.codestream, args.b.arch.or(args.arch))?;
    let (a, b) = (
        format!("{}/{arch_a}", args.a.codestream),
        format!("{}/{arch_b}", args.b.codestream),
    );
    let left = sources::text(client, platform_a).await?.unwrap_or_default();
    let right = sources::text(client, platform_b).await?.unwrap_or_default();
    let Difference {
        diff,
        lines,
        only_guards,
    } = difference((&a, &left), (&b, &right), args.context);
    if mode == Mode::Json {
        let equal = diff.is_empty();
        return output::json(&Compared {
            a,
            b,
            equal,
            lines,
            only_guards,
            diff,
        });
    }
    if diff.is_empty() {
        eprintln!("{a} and {b} are the same code");
        return Ok(());
    }
    output::print(coloured(&diff).trim_end())
}

/// A unified diff in colours, where standard output is a terminal that wants them.
pub fn coloured(diff: &str) -> String {
    let colours = output::colours();
    let line = |line: &str| match line.as_bytes().first() {
        _ if !colours => line.to_owned(),
        Some(b'+') if !line.starts_with("+++") => line.green().to_string(),
        Some(b'-') if !line.starts_with("---") => line.red().to_string(),
        Some(b'@') => line.cyan().to_string(),
        _ => line.to_owned(),
    };
    diff.lines().map(|l| line(l) + "\n").collect()
}
