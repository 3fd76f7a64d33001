//! The promises of the farm, as they can be seen from outside: in the database after each transaction, in what was
//! answered, and in what the mind believes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use klp_livepatch::outcome::{Digest, Ending, Outcome};
use klp_livepatch::task::{AttemptId, Incarnation, LivepatchId, TaskId};
use rusqlite::{Connection, params};

use crate::farm::mind::view::{Place, View};
use crate::farm::{Live, Report};
use crate::ledger::{Committing, Disposition, Grant, Loss};
use crate::lifecycle::{Holder, Millis};
use crate::store::{self, OpenTask};

/// What has been seen and said so far.
#[derive(Default)]
pub(super) struct Book {
    acknowledged: BTreeMap<LivepatchId, String>,
    /// How attempts ended.
    ended: BTreeMap<(String, u32), String>,
    /// The events that each livepatch had.
    events: BTreeMap<String, i64>,
    /// When an attempt's own worker was last heard to run it.
    heard: BTreeMap<(AttemptId, Incarnation), Millis>,
    /// What workers were told is recorded.
    told: BTreeMap<AttemptId, String>,
}

fn sql(error: rusqlite::Error) -> String {
    format!("the database: {error}")
}

impl Book {
    pub fn acknowledged(&mut self, id: LivepatchId, name: String) {
        self.acknowledged.insert(id, name);
    }

    pub fn heard(&mut self, report: &Report, now: Millis) {
        for (id, _) in &report.attempts {
            self.heard.insert((*id, report.registration.incarnation), now);
        }
    }

    /// After a transaction that changed something.
    pub fn check(&mut self, db: &Connection, blobs: &BTreeSet<Digest>) -> Result<(), String> {
        self.submissions(db)?;
        self.attempts(db)?;
        self.gapless(db)?;
        leases(db)?;
        verdicts(db)?;
        artifacts(db, blobs)
    }

    fn submissions(&self, db: &Connection) -> Result<(), String> {
        let mut query = db
            .prepare_cached("SELECT name FROM livepatches WHERE id = ?")
            .map_err(sql)?;
        for (id, name) in &self.acknowledged {
            let stored: Result<String, _> = query.query_row([id.to_string()], |row| row.get(0));
            if stored.as_ref() != Ok(name) {
                return Err(format!("{name} was acknowledged and is gone: {stored:?}"));
            }
        }
        Ok(())
    }

    /// An attempt ends once, and its end does not change; but what was lost may be found to have died.
    fn attempts(&mut self, db: &Connection) -> Result<(), String> {
        let mut query = db
            .prepare_cached(
                "SELECT task, number, state, coalesce(failure_message, '') FROM attempts WHERE state <> 'leased'",
            )
            .map_err(sql)?;
        let mut rows = query.query([]).map_err(sql)?;
        let mut seen = 0;
        while let Some(row) = rows.next().map_err(sql)? {
            let id: (String, u32) = (row.get(0).map_err(sql)?, row.get(1).map_err(sql)?);
            let state: String = row.get(2).map_err(sql)?;
            let end = format!("{state} {}", row.get::<_, String>(3).map_err(sql)?);
            seen += 1;
            match self.ended.get(&id) {
                Some(before) if *before == end => {}
                Some(before) if !(before.starts_with("lost") && state == "died") => {
                    return Err(format!("attempt {id:?} had ended as `{before}` and is now `{end}`"));
                }
                _ => drop(self.ended.insert(id, end)),
            }
        }
        match seen == self.ended.len() {
            true => Ok(()),
            false => Err(format!("{} attempts had ended, and {seen} have now", self.ended.len())),
        }
    }

    /// Events are numbered from 1 without gaps, and none is taken back.
    fn gapless(&mut self, db: &Connection) -> Result<(), String> {
        let mut query = db
            .prepare_cached(
                "SELECT l.id, l.last_event, count(e.number), coalesce(min(e.number), 1), coalesce(max(e.number), 0) \
                 FROM livepatches l LEFT JOIN events e ON e.livepatch = l.id GROUP BY l.id",
            )
            .map_err(sql)?;
        let mut rows = query.query([]).map_err(sql)?;
        while let Some(row) = rows.next().map_err(sql)? {
            let id: String = row.get(0).map_err(sql)?;
            let mut numbers = [0_i64; 4];
            for (n, number) in numbers.iter_mut().enumerate() {
                *number = row.get(n + 1).map_err(sql)?;
            }
            let [last, count, min, max] = numbers;
            let before = self.events.insert(id.clone(), last).unwrap_or(0);
            if min != 1 || last != max || count != max || last < before {
                return Err(format!(
                    "the events of {id} have a gap: {count} from {min} to {max}, the last is {last}, it was {before}"
                ));
            }
        }
        Ok(())
    }

    /// Whether a commit's disposition is what it should be, seen without the farm's own judgement: before it, the
    /// attempt was `before` in the database.
    pub fn committed(
        &mut self,
        committing: &Committing,
        before: Option<(String, bool)>,
        disposition: &Disposition,
        changed: bool,
        missing: bool,
    ) -> Result<(), String> {
        let id = committing.attempt;
        let Some((state, own)) = before else { return Ok(()) };
        let expected = match state.as_str() {
            "leased" | "succeeded" | "failed" | "handed-back" if !own => Disposition::Superseded,
            "leased" if missing => Disposition::ArtifactsMissing(committing.missing.clone()),
            "leased" | "succeeded" | "failed" | "handed-back" => Disposition::Committed,
            _ => Disposition::Superseded,
        };
        if *disposition != expected {
            return Err(format!(
                "{id} was {state} (its own: {own}); its commit came to {disposition:?}, not {expected:?}"
            ));
        }
        if changed != (state == "leased" && expected == Disposition::Committed) {
            return Err(format!(
                "{id} was {state}; its commit came to {disposition:?} and changed something: {changed}"
            ));
        }
        Ok(())
    }

    /// A worker hears that its outcome is recorded.
    pub fn told(&mut self, id: AttemptId, outcome: &Outcome) {
        let state = match outcome.ending {
            Ending::Succeeded => "succeeded",
            Ending::Failed(_) => "failed",
            Ending::HandedBack { .. } => "handed-back",
        };
        self.told.insert(id, state.to_owned());
    }

    /// What workers were told holds; when all is over.
    pub fn kept(&self) -> Result<(), String> {
        for (id, state) in &self.told {
            let end = self.ended.get(&(id.task.to_string(), id.number));
            if end.is_none_or(|end| !end.starts_with(state)) {
                return Err(format!(
                    "the worker of {id} was told that it is recorded as {state}; it is {end:?}"
                ));
            }
        }
        Ok(())
    }

    /// A lease runs out no sooner than a whole lease after its worker was heard, or the coordinator started.
    pub fn may_expire(
        &self,
        db: &Connection,
        loss: &Loss,
        started: Millis,
        now: Millis,
        lease_ms: u32,
    ) -> Result<(), String> {
        let attempt = store::attempt(db, loss.attempt.task, loss.attempt.number).map_err(sql)?;
        let Some(attempt) = attempt else {
            return Err(format!("{} is nowhere recorded", loss.attempt));
        };
        let heard = self
            .heard
            .get(&(loss.attempt, attempt.holder.incarnation))
            .copied()
            .unwrap_or(0);
        let since = heard.max(started).max(attempt.started);
        match since + Millis::from(lease_ms) <= now {
            true => Ok(()),
            false => Err(format!(
                "{} expired at {now}; its worker was heard, or the farm started, at {since}",
                loss.attempt
            )),
        }
    }

    /// Nothing new starts of what is paused, or on whoever is drained or in quarantine.
    pub fn may_grant(&self, db: &Connection, grants: &[Grant], now: Millis) -> Result<(), String> {
        for grant in grants {
            let worker = &grant.to.worker;
            let standing = store::standing(db, worker).map_err(sql)?.unwrap_or_default();
            if standing.drain.is_some() || standing.quarantined(now).is_some() {
                return Err(format!("{worker} is given {}, though {standing:?}", grant.task));
            }
            let paused: bool = db
                .prepare_cached("SELECT l.paused_ms IS NOT NULL FROM tasks t JOIN livepatches l ON l.id = t.livepatch WHERE t.id = ?")
                .and_then(|mut query| query.query_row([grant.task.to_string()], |row| row.get(0)))
                .map_err(sql)?;
            if paused {
                return Err(format!("{} is started though its livepatch is paused", grant.task));
            }
        }
        Ok(())
    }
}

/// How an attempt stands, and whether it was given to this holder.
pub(super) fn standing_of(db: &Connection, id: AttemptId, by: &Holder) -> Result<Option<(String, bool)>, String> {
    let mut query = db
        .prepare_cached("SELECT state, worker = ?3 AND incarnation = ?4 FROM attempts WHERE task = ?1 AND number = ?2")
        .map_err(sql)?;
    let values = params![
        id.task.to_string(),
        id.number,
        by.worker.as_str(),
        by.incarnation.to_string()
    ];
    let mut rows = query.query(values).map_err(sql)?;
    match rows.next().map_err(sql)? {
        Some(row) => Ok(Some((row.get(0).map_err(sql)?, row.get(1).map_err(sql)?))),
        None => Ok(None),
    }
}

fn none(db: &Connection, query: &str, promise: &str) -> Result<(), String> {
    let mut query = db.prepare_cached(query).map_err(sql)?;
    let mut rows = query.query([]).map_err(sql)?;
    match rows.next().map_err(sql)? {
        Some(row) => Err(format!("{promise}: {}", row.get::<_, String>(0).map_err(sql)?)),
        None => Ok(()),
    }
}

fn leases(db: &Connection) -> Result<(), String> {
    none(
        db,
        "SELECT t.id FROM tasks t WHERE (t.state = 'leased') <> (SELECT count(*) FROM attempts a WHERE a.task = t.id \
         AND a.state = 'leased' AND a.number = t.attempt AND a.lease_expires_ms > 0)",
        "a leased task has exactly one leased attempt, its newest",
    )?;
    none(
        db,
        "SELECT a.task FROM attempts a WHERE a.state = 'leased' GROUP BY a.task HAVING count(*) > 1",
        "at most one attempt of a task is leased",
    )?;
    none(
        db,
        "SELECT t.id FROM tasks t WHERE t.state = 'succeeded' AND NOT EXISTS (SELECT 1 FROM attempts a \
         WHERE a.task = t.id AND a.number = t.attempt AND a.state = 'succeeded')",
        "a task succeeds by its newest attempt",
    )?;
    none(
        db,
        "SELECT task FROM attempts WHERE state = 'succeeded' GROUP BY task HAVING count(*) > 1",
        "a task succeeds once",
    )
}

fn verdicts(db: &Connection) -> Result<(), String> {
    none(
        db,
        "SELECT l.id FROM livepatches l WHERE (l.state = 'running') <> EXISTS (SELECT 1 FROM tasks t \
         WHERE t.livepatch = l.id AND t.state IN ('waiting', 'leased'))",
        "a livepatch runs as long as it has an open task",
    )?;
    none(
        db,
        "SELECT l.id FROM livepatches l WHERE (l.state = 'succeeded') <> (l.state <> 'running' AND NOT EXISTS \
         (SELECT 1 FROM tasks t WHERE t.livepatch = l.id AND t.state <> 'succeeded'))",
        "a livepatch succeeds if and only if all its tasks did",
    )?;
    none(
        db,
        "SELECT c.id FROM tasks c WHERE c.kind = 'check' AND (c.state = 'succeeded') <> EXISTS (SELECT 1 FROM tasks e \
         WHERE e.livepatch = c.livepatch AND e.kind = 'extract' AND e.codestream = c.codestream AND e.arch = c.arch)",
        "an extraction follows a check that succeeded, and no other",
    )
}

fn artifacts(db: &Connection, blobs: &BTreeSet<Digest>) -> Result<(), String> {
    let mut query = db.prepare_cached("SELECT task, digest FROM artifacts").map_err(sql)?;
    let mut rows = query.query([]).map_err(sql)?;
    while let Some(row) = rows.next().map_err(sql)? {
        let digest: String = row.get(1).map_err(sql)?;
        if !digest.parse().is_ok_and(|digest| blobs.contains(&digest)) {
            return Err(format!(
                "{} has an outcome without its artifact {digest}",
                row.get::<_, String>(0).map_err(sql)?
            ));
        }
    }
    Ok(())
}

/// What the mind believes is what anyone would who reads the database now.
pub(super) fn same_view(fresh: &View, mind: &View) -> Result<(), String> {
    if let Some((task, _)) = mind.tasks.values().find(|(_, place)| *place == Place::Lost) {
        return Err(format!("the mind has lost {task:?}"));
    }
    match fresh == mind {
        true => Ok(()),
        false => Err(format!("the mind believes {mind:#?}\nand the database says {fresh:#?}")),
    }
}

/// Each open task runs, or says why it waits.
pub(super) fn named_causes(open: &[&OpenTask], live: &HashMap<TaskId, Live>) -> Result<(), String> {
    for task in open {
        let leased = matches!(task.status.state, crate::lifecycle::State::Leased(_));
        if !leased && live.get(&task.id).is_none_or(|live| live.waiting_for.is_empty()) {
            return Err(format!("nobody knows why {} waits", task.id));
        }
    }
    Ok(())
}
