//! What the tasks of a codestream found, as far as its other architectures are concerned.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::Codestream;
use klp_livepatch::report::Report;
use klp_livepatch::round::{Input, WantedSymbol};
use klp_livepatch::task::{LivepatchId, TaskKey};
use rusqlite::{Connection, Row, params};

use super::rows::{json, task_key};
use crate::plan::Found;

/// What each task of the codestream found that succeeded. Reports are read whole, so this is for when nothing of the
/// codestream is open.
pub fn findings(
    db: &Connection,
    livepatch: LivepatchId,
    codestream: &Codestream,
) -> rusqlite::Result<BTreeMap<TaskKey, Found>> {
    let mut query = db.prepare_cached(
        "SELECT t.kind, t.codestream, t.arch, t.round, t.input, a.report \
         FROM tasks t JOIN attempts a ON a.task = t.id AND a.number = t.attempt \
         WHERE t.livepatch = ? AND t.kind IN ('extract', 'verify') AND t.codestream = ? AND t.state = 'succeeded'",
    )?;
    let rows = query.query_map(params![livepatch.to_string(), codestream.as_str()], read)?;
    rows.filter_map(Result::transpose).collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<(TaskKey, Found)>> {
    let text = |column| -> rusqlite::Result<Option<String>> { row.get(column) };
    let input: Option<Input> = text("input")?.map(|text| json("input", &text)).transpose()?;
    let report: Option<Report> = text("report")?.map(|text| json("report", &text)).transpose()?;
    let found = match (report, input) {
        (Some(Report::Extract(report)), input) => Found::Source {
            avoided: match input {
                Some(Input::Avoid(avoided)) => avoided,
                _ => BTreeSet::new(),
            },
            wants: report.wanted(),
        },
        (Some(Report::Verify(report)), Some(Input::Verify(looked_for))) => {
            let missing = report.missing();
            let gone = |w: &&WantedSymbol| missing.contains(&(&w.object, w.symbol.as_str()));
            let missing = looked_for.iter().filter(gone).cloned().collect();
            Found::Verified { looked_for, missing }
        }
        _ => return Ok(None),
    };
    Ok(Some((task_key(row)?, found)))
}
