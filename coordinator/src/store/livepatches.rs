//! Livepatches: reading and writing their rows.

use std::sync::Arc;

use klp_livepatch::names::LivepatchName;
use klp_livepatch::spec::Spec;
use klp_livepatch::task::LivepatchId;
use klp_livepatch::{Share, Submitter};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::rows::{json, parsed, to_json, unreadable};
use crate::lifecycle::Millis;
use crate::plan::{Aim, Ended, Verdict};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivepatchRow {
    /// Order of submission.
    pub seq: i64,
    pub id: LivepatchId,
    pub spec: Spec,
    pub state: LivepatchState,
    pub created: Millis,
    pub last_event: u64,
    pub counts: Counts,
    pub share: Share,
    pub pause: Option<Pause>,
    pub submitted_by: Submitter,
}

/// Nothing of it is started until it is resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    pub since: Millis,
    /// Empty: whoever paused it did not say.
    pub reason: String,
}

/// A livepatch that runs, as the farm keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenLivepatch {
    pub id: LivepatchId,
    pub spec: Arc<Spec>,
    pub share: Share,
    pub pause: Option<Pause>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LivepatchState {
    Running,
    Ended { at: Millis, verdict: Verdict },
}

/// How many tasks of a livepatch are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub waiting: u32,
    pub leased: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub cancelled: u32,
}

const COLUMNS: &str = "seq, id, spec, state, created_ms, ended_ms, verdict, last_event, priority, weight, paused_ms, pause_reason, \
     submitted_by";

fn ended_text(ended: Ended) -> &'static str {
    match ended {
        Ended::Succeeded => "succeeded",
        Ended::Partial => "partial",
        Ended::Failed => "failed",
        Ended::Cancelled => "cancelled",
    }
}

/// Stores a new livepatch.
pub fn insert_livepatch(
    db: &Connection,
    id: LivepatchId,
    spec: &Spec,
    share: Share,
    submitted_by: &Submitter,
    now: Millis,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO livepatches (id, name, spec, aim, state, created_ms, priority, weight, submitted_by) \
         VALUES (?, ?, ?, ?, 'running', ?, ?, ?, ?)",
    )?
    .execute(params![
        id.to_string(),
        spec.name.as_str(),
        to_json(spec)?,
        to_json(&Aim::of(spec))?,
        now,
        share.priority(),
        share.weight(),
        submitted_by.as_str()
    ])?;
    let mut insert = db.prepare_cached("INSERT OR IGNORE INTO fixes (livepatch, digest, size) VALUES (?, ?, ?)")?;
    for fix in &spec.fixes {
        // At most MAX_FIX.
        insert.execute(params![id.to_string(), fix.digest.to_string(), fix.size as i64])?;
    }
    Ok(())
}

/// Records how sources are to be extracted of what was checked.
pub fn set_extraction(db: &Connection, id: LivepatchId, spec: &Spec, aim: &Aim) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE livepatches SET spec = ?, aim = ? WHERE id = ?")?
        .execute(params![to_json(spec)?, to_json(aim)?, id.to_string()])?;
    Ok(())
}

/// What planning asks of a livepatch's spec.
pub fn aim(db: &Connection, id: LivepatchId) -> rusqlite::Result<Aim> {
    db.prepare_cached("SELECT aim FROM livepatches WHERE id = ?")?
        .query_row([id.to_string()], |row| {
            let text = row.get_ref("aim")?.as_str().map_err(|e| unreadable("aim", e))?;
            json("aim", text)
        })
}

/// An ended livepatch runs again.
pub fn reopen_livepatch(db: &Connection, id: LivepatchId) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE livepatches SET state = 'running', ended_ms = NULL, verdict = '' WHERE id = ?")?
        .execute([id.to_string()])?;
    Ok(())
}

pub fn set_share(db: &Connection, id: LivepatchId, share: Share) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE livepatches SET priority = ?, weight = ? WHERE id = ?")?
        .execute(params![share.priority(), share.weight(), id.to_string()])?;
    Ok(())
}

pub fn set_pause(db: &Connection, id: LivepatchId, pause: Option<&Pause>) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE livepatches SET paused_ms = ?, pause_reason = ? WHERE id = ?")?
        .execute(params![
            pause.map(|p| p.since),
            pause.map_or("", |p| p.reason.as_str()),
            id.to_string()
        ])?;
    Ok(())
}

/// Records how a livepatch ended.
pub fn end_livepatch(db: &Connection, id: LivepatchId, verdict: &Verdict, now: Millis) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE livepatches SET state = ?, ended_ms = ?, verdict = ? WHERE id = ?")?
        .execute(params![
            ended_text(verdict.state),
            now,
            verdict.sentence,
            id.to_string()
        ])?;
    Ok(())
}

pub fn livepatch(db: &Connection, id: LivepatchId) -> rusqlite::Result<Option<LivepatchRow>> {
    find(db, "id", &id.to_string())
}

pub fn find_livepatch(db: &Connection, name: &LivepatchName) -> rusqlite::Result<Option<LivepatchRow>> {
    find(db, "name", name.as_str())
}

fn find(db: &Connection, column: &str, value: &str) -> rusqlite::Result<Option<LivepatchRow>> {
    let mut query = db.prepare_cached(&format!("SELECT {COLUMNS} FROM livepatches WHERE {column} = ?"))?;
    let mut found = query.query_row([value], read).optional()?;
    if let Some(row) = &mut found {
        row.counts = counts(db, row.id)?;
    }
    Ok(found)
}

/// Which livepatches are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// A part of the name, of the CVE or of who submitted it, in any case.
    pub text: String,
    /// `running`, or how it ended; none: all.
    pub states: Vec<&'static str>,
}

impl Search {
    /// The word for a livepatch's state.
    pub fn state(ended: Option<Ended>) -> &'static str {
        ended.map_or("running", ended_text)
    }
}

/// Up to `limit` of the livepatches that are looked for, newest first, that were submitted before the one with this `seq`.
pub fn livepatch_page(
    db: &Connection,
    search: &Search,
    before: i64,
    limit: u32,
) -> rusqlite::Result<Vec<LivepatchRow>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM livepatches WHERE seq < ?1 \
         AND (?2 = '' OR instr(lower(name), ?2) OR instr(json_extract(spec, '$.cve'), ?2) OR instr(lower(submitted_by), ?2)) \
         AND (?3 = '' OR instr(?3, ' ' || state || ' ')) ORDER BY seq DESC LIMIT ?4"
    );
    let states = match search.states.is_empty() {
        true => String::new(),
        false => format!(" {} ", search.states.join(" ")),
    };
    let text = search.text.to_lowercase();
    let mut rows = db
        .prepare_cached(&sql)?
        .query_map(params![before, text.trim_start_matches("cve-"), states, limit], read)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for row in &mut rows {
        row.counts = counts(db, row.id)?;
    }
    Ok(rows)
}

pub fn count_open(db: &Connection) -> rusqlite::Result<u32> {
    db.prepare_cached("SELECT count(*) FROM livepatches WHERE state = 'running'")?
        .query_row([], |row| row.get(0))
}

/// All livepatches that run.
pub fn open_livepatches(db: &Connection) -> rusqlite::Result<Vec<OpenLivepatch>> {
    let sql = format!("SELECT {COLUMNS} FROM livepatches WHERE state = 'running' ORDER BY seq");
    db.prepare(&sql)?
        .query_map([], |row| read(row).map(|row| row.open()))?
        .collect()
}

impl LivepatchRow {
    /// As the farm keeps it.
    pub fn open(&self) -> OpenLivepatch {
        OpenLivepatch {
            id: self.id,
            spec: Arc::new(self.spec.clone()),
            share: self.share,
            pause: self.pause.clone(),
        }
    }
}

fn spec(row: &Row<'_>) -> rusqlite::Result<Spec> {
    let text = row.get_ref("spec")?.as_str().map_err(|e| unreadable("spec", e))?;
    json("spec", text)
}

fn read(row: &Row<'_>) -> rusqlite::Result<LivepatchRow> {
    let state: String = row.get("state")?;
    let state = match state.as_str() {
        "running" => LivepatchState::Running,
        text => LivepatchState::Ended {
            at: row.get("ended_ms")?,
            verdict: Verdict {
                state: [Ended::Succeeded, Ended::Partial, Ended::Failed, Ended::Cancelled]
                    .into_iter()
                    .find(|e| ended_text(*e) == text)
                    .ok_or_else(|| unreadable("state", text))?,
                sentence: row.get("verdict")?,
            },
        },
    };
    Ok(LivepatchRow {
        seq: row.get("seq")?,
        id: parsed(row, "id")?,
        spec: spec(row)?,
        state,
        created: row.get("created_ms")?,
        last_event: row.get::<_, i64>("last_event")?.unsigned_abs(),
        counts: Counts::default(),
        share: share(row)?,
        pause: pause(row)?,
        submitted_by: parsed(row, "submitted_by")?,
    })
}

fn pause(row: &Row<'_>) -> rusqlite::Result<Option<Pause>> {
    let since: Option<Millis> = row.get("paused_ms")?;
    let reason = row.get("pause_reason")?;
    Ok(since.map(|since| Pause { since, reason }))
}

fn share(row: &Row<'_>) -> rusqlite::Result<Share> {
    let (priority, weight) = (row.get("priority")?, row.get("weight")?);
    Share::new(priority, weight).map_err(|_| unreadable("priority", format!("{priority} with weight {weight}")))
}

fn counts(db: &Connection, id: LivepatchId) -> rusqlite::Result<Counts> {
    let mut counts = Counts::default();
    let mut query = db.prepare_cached("SELECT state, count(*) FROM tasks WHERE livepatch = :id GROUP BY state")?;
    let mut rows = query.query(named_params! { ":id": id.to_string() })?;
    while let Some(row) = rows.next()? {
        let (state, count): (String, u32) = (row.get(0)?, row.get(1)?);
        match state.as_str() {
            "waiting" => counts.waiting = count,
            "leased" => counts.leased = count,
            "succeeded" => counts.succeeded = count,
            "failed" => counts.failed = count,
            "cancelled" => counts.cancelled = count,
            other => return Err(unreadable("state", other)),
        }
    }
    Ok(counts)
}
