//! What is remembered of workers across restarts.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::names::WorkerName;
use klp_livepatch::task::{Incarnation, Platform};
use rusqlite::{Connection, params};

use super::rows::{json, parsed, platform, to_json, unreadable};
use crate::lifecycle::Millis;

/// What a worker is and has, as it said itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub incarnation: Incarnation,
    pub version: String,
    pub slots: u32,
    pub trees: BTreeSet<Platform>,
    /// Backend and version of each tool; backends this program does not know are kept as they came.
    pub tools: Vec<(String, String)>,
}

/// Records what a worker is and has, in place of what it was and had.
pub fn register(db: &Connection, worker: &WorkerName, what: &Registration, now: Millis) -> rusqlite::Result<()> {
    let name = worker.as_str();
    db.prepare_cached(
        "INSERT INTO workers (name, incarnation, version, slots, tools, registered_ms) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT (name) DO UPDATE SET incarnation = excluded.incarnation, version = excluded.version, \
         slots = excluded.slots, tools = excluded.tools, registered_ms = excluded.registered_ms",
    )?
    .execute(params![
        name,
        what.incarnation.to_string(),
        what.version,
        what.slots,
        to_json(&what.tools)?,
        now
    ])?;
    db.prepare_cached("DELETE FROM trees WHERE worker = ?")?
        .execute([name])?;
    let mut insert = db.prepare_cached("INSERT INTO trees (worker, codestream, arch) VALUES (?, ?, ?)")?;
    for tree in &what.trees {
        insert.execute(params![name, tree.codestream.as_str(), tree.arch.as_str()])?;
    }
    Ok(())
}

/// All workers that ever registered.
pub fn registrations(db: &Connection) -> rusqlite::Result<BTreeMap<WorkerName, Registration>> {
    let mut workers: BTreeMap<WorkerName, Registration> = db
        .prepare("SELECT name, incarnation, version, slots, tools FROM workers")?
        .query_map([], |row| {
            let tools = row.get_ref("tools")?.as_str().map_err(|e| unreadable("tools", e))?;
            let registration = Registration {
                incarnation: parsed(row, "incarnation")?,
                version: row.get("version")?,
                slots: row.get("slots")?,
                trees: BTreeSet::new(),
                tools: json("tools", tools)?,
            };
            Ok((parsed(row, "name")?, registration))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (platform, names) in holders(db)? {
        for name in names {
            if let Some(worker) = workers.get_mut(&name) {
                worker.trees.insert(platform.clone());
            }
        }
    }
    Ok(workers)
}

/// Each platform that some worker holds a tree for, with its workers.
pub fn holders(db: &Connection) -> rusqlite::Result<BTreeMap<Platform, Vec<WorkerName>>> {
    let mut holders: BTreeMap<Platform, Vec<WorkerName>> = BTreeMap::new();
    let mut query = db.prepare_cached("SELECT worker, codestream, arch FROM trees ORDER BY worker")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        holders.entry(platform(row)?).or_default().push(parsed(row, "worker")?);
    }
    Ok(holders)
}

/// The platforms that some worker holds a tree for.
pub fn known_platforms(db: &Connection) -> rusqlite::Result<BTreeSet<Platform>> {
    db.prepare_cached("SELECT DISTINCT codestream, arch FROM trees")?
        .query_map([], platform)?
        .collect()
}
