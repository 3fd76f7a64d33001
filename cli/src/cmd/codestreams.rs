//! `klp-farm codestreams`: what the catalog supports and what the farm holds.

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Args;
use comfy_table::{Cell, Color};
use klp_livepatch::Codestream;
use klp_livepatch::catalog::Support;
use klp_livepatch::date::Date;
use klp_proto::v1;
use serde::Serialize;

use crate::client::Client;
use crate::output::{self, Failed, Mode};

const EXAMPLES: &str = "\
Examples:
  klp-farm codestreams
  klp-farm codestreams --filter '15.6|15.7'
  klp-farm codestreams -O json | jq -r '.[] | select(.held | length == 0) | .codestream'

Exit codes: 0 shown, 1 failed.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct CodestreamsArgs {
    /// A regular expression, anchored at the start [default: all]
    #[arg(
        long,
        alias = "codestreams",
        value_name = "REGEX",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,
}

#[derive(Default, Serialize)]
struct Row {
    codestream: String,
    kernel: Option<String>,
    archs: Vec<String>,
    /// The last day of support, as in `2026-11-15`.
    end_of_support: Option<String>,
    /// Days from today; negative: it is over.
    days_left: Option<i64>,
    project: Option<String>,
    /// By architecture, the workers that hold a tree.
    held: BTreeMap<String, Vec<String>>,
    #[serde(skip)]
    support: Option<Support>,
}

pub async fn run(args: CodestreamsArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let request = v1::ListCodestreamsRequest { filter: args.filter };
    let answer = client
        .fleet()
        .list_codestreams(request)
        .await
        .map_err(|s| client.explain(s))?;
    let rows = rows(answer.into_inner().codestreams, Date::of(SystemTime::now()));
    if mode == Mode::Json {
        return output::json(&rows);
    }
    if rows.is_empty() {
        eprintln!("no codestream: no worker holds a tree that is selected, and the coordinator's catalog has none");
        return Ok(());
    }
    let mut table = output::table(&["CODESTREAM", "KERNEL", "ARCHS", "SUPPORT", "HELD BY"]);
    for row in &rows {
        let support = row.support.unwrap_or(Support::Unknown);
        let mut cell = Cell::new(match (&row.end_of_support, support) {
            (Some(day), support) => format!("{day} ({support})"),
            (None, _) => "-".to_owned(),
        });
        if support.warns() {
            cell = cell.fg(Color::Yellow);
        }
        let held = row
            .held
            .iter()
            .map(|(arch, workers)| format!("{arch}: {}", workers.join(" ")));
        let held = held.collect::<Vec<_>>().join("; ");
        table.add_row([
            Cell::new(&row.codestream),
            Cell::new(row.kernel.as_deref().unwrap_or("-")),
            Cell::new(row.archs.join(" ")),
            cell,
            Cell::new(if held.is_empty() { "nobody".to_owned() } else { held }),
        ]);
    }
    output::print(&table.trim_fmt())?;
    let ending = rows.iter().filter(|row| row.support.is_some_and(Support::warns));
    let ending: Vec<String> = ending
        .map(|row| format!("{} ({})", row.codestream, row.support.unwrap_or(Support::Unknown)))
        .collect();
    if !ending.is_empty() {
        eprintln!(
            "warning: support of these ends within 30 days or has ended: {}",
            ending.join(", ")
        );
    }
    Ok(())
}

/// A row for each codestream, in natural order.
fn rows(infos: Vec<v1::CodestreamInfo>, today: Date) -> Vec<Row> {
    let mut rows: BTreeMap<Codestream, Row> = BTreeMap::new();
    for info in infos {
        let platform = info.platform.unwrap_or_default();
        let Ok(codestream) = platform.codestream.parse::<Codestream>() else {
            continue;
        };
        let row = rows.entry(codestream).or_insert_with(|| Row {
            codestream: platform.codestream.clone(),
            ..Row::default()
        });
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        let eol: Option<Date> = info.end_of_support.parse().ok();
        row.kernel = said(info.kernel);
        row.days_left = eol.map(|eol| eol.days_since(today));
        row.support = Some(Support::on(today, eol));
        row.end_of_support = said(info.end_of_support);
        row.project = said(info.project);
        if !info.workers.is_empty() {
            row.held.insert(platform.arch.clone(), info.workers);
        }
        row.archs.push(platform.arch);
    }
    rows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_who_holds_what_and_until_when() {
        let info = |codestream: &str, arch: &str, workers: &[&str]| v1::CodestreamInfo {
            platform: Some(v1::Platform {
                codestream: codestream.into(),
                arch: arch.into(),
            }),
            workers: workers.iter().map(|w| (*w).into()).collect(),
            end_of_support: "2026-11-15".into(),
            ..Default::default()
        };
        let today = Date::new(2026, 11, 5).unwrap();
        let rows = rows(
            vec![
                info("15.6u10", "x86_64", &["a"]),
                info("15.6u9", "s390x", &[]),
                info("15.6u9", "x86_64", &["a", "b"]),
            ],
            today,
        );
        assert_eq!(
            rows.iter().map(|r| r.codestream.as_str()).collect::<Vec<_>>(),
            ["15.6u9", "15.6u10"]
        );
        assert_eq!(rows[0].archs, ["s390x", "x86_64"]);
        assert_eq!(rows[0].held["x86_64"], ["a", "b"]);
        assert_eq!((rows[0].days_left, rows[0].support.unwrap().warns()), (Some(10), true));
    }
}
