//! What is remembered of workers across restarts.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::names::WorkerName;
use klp_livepatch::task::{Incarnation, Platform};
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{json, parsed, platform, to_json, unreadable};
use crate::lifecycle::Millis;
use crate::standing::Standing;

/// What a worker is and has, as it said itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub incarnation: Incarnation,
    pub version: String,
    pub slots: u32,
    pub trees: BTreeSet<Platform>,
    /// Backend and version of each tool; backends this program does not know are kept as they came.
    pub tools: Vec<(String, String)>,
    /// Bytes that it lends to attempts; 0: not declared.
    pub memory: u64,
    /// What it has and can't use, with the reason.
    pub broken_trees: BTreeMap<Platform, String>,
    pub broken_tools: BTreeMap<String, String>,
    /// What its tools are kept from, and why not from more; fences this program does not know are kept as they came.
    pub isolation: Vec<(String, Option<String>)>,
}

/// A worker as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub registration: Registration,
    pub registered: Millis,
    pub standing: Standing,
}

/// Records what a worker is and has, in place of what it was and had.
pub fn register(db: &Connection, worker: &WorkerName, what: &Registration, now: Millis) -> rusqlite::Result<()> {
    let name = worker.as_str();
    db.prepare_cached(
        "INSERT INTO workers (name, incarnation, version, slots, tools, registered_ms, memory, broken_tools, isolation) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (name) DO UPDATE SET incarnation = excluded.incarnation, version = excluded.version, \
         slots = excluded.slots, tools = excluded.tools, registered_ms = excluded.registered_ms, \
         memory = excluded.memory, broken_tools = excluded.broken_tools, isolation = excluded.isolation",
    )?
    .execute(params![
        name,
        what.incarnation.to_string(),
        what.version,
        what.slots,
        to_json(&what.tools)?,
        now,
        // SQLite's integers are signed; no machine has as much.
        i64::try_from(what.memory).unwrap_or(i64::MAX),
        to_json(&what.broken_tools)?,
        to_json(&what.isolation)?
    ])?;
    db.prepare_cached("DELETE FROM trees WHERE worker = ?")?
        .execute([name])?;
    let mut insert = db.prepare_cached("INSERT INTO trees (worker, codestream, arch, problem) VALUES (?, ?, ?, ?)")?;
    let broken = what.broken_trees.iter().map(|(tree, problem)| (tree, problem.as_str()));
    for (tree, problem) in what.trees.iter().map(|tree| (tree, "")).chain(broken) {
        insert.execute(params![name, tree.codestream.as_str(), tree.arch.as_str(), problem])?;
    }
    Ok(())
}

/// What the farm thinks of a worker; `None` if none of that name ever registered.
pub fn standing(db: &Connection, worker: &WorkerName) -> rusqlite::Result<Option<Standing>> {
    db.prepare_cached("SELECT standing FROM workers WHERE name = ?")?
        .query_row([worker.as_str()], |row| {
            let text = row
                .get_ref("standing")?
                .as_str()
                .map_err(|e| unreadable("standing", e))?;
            json("standing", text)
        })
        .optional()
}

pub fn set_standing(db: &Connection, worker: &WorkerName, standing: &Standing) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE workers SET standing = ? WHERE name = ?")?
        .execute(params![to_json(standing)?, worker.as_str()])?;
    Ok(())
}

/// The incarnation that registered last under a name.
pub fn incarnation(db: &Connection, worker: &WorkerName) -> rusqlite::Result<Option<Incarnation>> {
    db.prepare_cached("SELECT incarnation FROM workers WHERE name = ?")?
        .query_row([worker.as_str()], |row| parsed(row, "incarnation"))
        .optional()
}

/// Whether a worker holds the lease of any task.
pub fn holds_lease(db: &Connection, worker: &WorkerName) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM attempts WHERE state = 'leased' AND worker = ? LIMIT 1")?
        .exists([worker.as_str()])
}

/// Forgets a worker and its trees.
pub fn forget_worker(db: &Connection, worker: &WorkerName) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM trees WHERE worker = ?")?
        .execute([worker.as_str()])?;
    db.prepare_cached("DELETE FROM workers WHERE name = ?")?
        .execute([worker.as_str()])?;
    Ok(())
}

/// All workers that ever registered, with when they did last and what the farm thinks of them.
pub fn registrations(db: &Connection) -> rusqlite::Result<BTreeMap<WorkerName, Known>> {
    let mut workers: BTreeMap<WorkerName, Known> = db
        .prepare(
            "SELECT name, incarnation, version, slots, tools, registered_ms, memory, broken_tools, isolation, standing \
             FROM workers",
        )?
        .query_map([], |row| {
            let text = |column| row.get_ref(column)?.as_str().map_err(|e| unreadable(column, e));
            let registration = Registration {
                incarnation: parsed(row, "incarnation")?,
                version: row.get("version")?,
                slots: row.get("slots")?,
                trees: BTreeSet::new(),
                tools: json("tools", text("tools")?)?,
                memory: row.get::<_, i64>("memory")?.unsigned_abs(),
                broken_trees: BTreeMap::new(),
                broken_tools: json("broken_tools", text("broken_tools")?)?,
                isolation: json("isolation", text("isolation")?)?,
            };
            let known = Known {
                registration,
                registered: row.get("registered_ms")?,
                standing: json("standing", text("standing")?)?,
            };
            Ok((parsed(row, "name")?, known))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut query = db.prepare("SELECT worker, codestream, arch, problem FROM trees")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let Some(worker) = workers.get_mut(&parsed::<WorkerName>(row, "worker")?) else {
            continue;
        };
        let (platform, problem): (_, String) = (platform(row)?, row.get("problem")?);
        match problem.is_empty() {
            true => drop(worker.registration.trees.insert(platform)),
            false => drop(worker.registration.broken_trees.insert(platform, problem)),
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
