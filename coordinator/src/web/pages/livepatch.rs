//! One livepatch: its matrix, what is to be looked at, groups, symbols, and where the time went.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use klp_livepatch::Codestream;
use klp_livepatch::compression::{Known, compress};
use klp_proto::v1;
use klp_proto::v1::livepatch_service_server::LivepatchService;
use klp_proto::view;
use klp_proto::view::cell::{Grid, Standing};
use klp_proto::view::findings::{Finding, found};
use klp_proto::view::words::duration;
use serde::Deserialize;
use tonic::Request;

use super::symbols::{Symbol, symbols};
use super::timeline::Timeline;
use super::{Ask, Asked, part};
use crate::web::answer::Refused;
use crate::web::api::{self, about, by_name};

/// Newest events that are shown.
const EVENTS: u64 = 50;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Query {
    /// Which part is asked for: all, or what changes often.
    pub part: String,
}

#[derive(Template)]
#[template(path = "livepatch.html")]
struct Page {
    asked: Asked,
    livepatch: view::Livepatch,
    matrix: Matrix,
    events: Vec<view::Event>,
    /// What takes reading all reports; `None` where only the rest is asked for.
    details: Option<Details>,
}

pub struct Matrix {
    pub archs: Vec<String>,
    pub rows: Vec<Row>,
}

pub struct Row {
    pub codestream: String,
    pub cells: Vec<Option<Cell>>,
}

pub struct Cell {
    pub id: String,
    pub href: String,
    pub class: &'static str,
    pub mark: char,
    pub word: &'static str,
    pub text: String,
    /// Why it waits, or what failed.
    pub tip: String,
}

struct Details {
    findings: Vec<Finding>,
    groups: Vec<Group>,
    symbols: Vec<Symbol>,
    timeline: Timeline,
}

pub struct Group {
    pub arch: String,
    pub line: String,
    pub count: usize,
    /// Two of its codestreams, or one of it and one of another group, to compare.
    pub compare: Option<String>,
}

pub async fn page(
    State(web): Ask,
    Path(name): Path<String>,
    asked: Asked,
    api::Asked(query): api::Asked<Query>,
) -> Result<Response, Refused> {
    let make = async || {
        let whole = query.part != "often";
        let answer = web.livepatch(&name, whole).await?;
        let (about, live) = about(&answer);
        let livepatch = answer.livepatch.clone().unwrap_or_default();
        let last = livepatch.last_event;
        let request = v1::WatchRequest {
            livepatch: Some(by_name(&name)),
            after_event: last.saturating_sub(EVENTS),
        };
        let mut events = web.events(request, EVENTS as usize).await?;
        events.reverse();
        let details = match whole {
            true => {
                let groups = match livepatch.ended_ms {
                    0 => Vec::new(),
                    _ => {
                        let livepatch = Some(by_name(&name));
                        let groups = web
                            .service()
                            .groups(Request::new(v1::GroupsRequest { livepatch }))
                            .await?;
                        groups.into_inner().groups
                    }
                };
                let attempts = web.attempts(&name).await?;
                Some(Details {
                    findings: found(&answer.tasks),
                    groups: grouped(&name, groups),
                    symbols: symbols(&answer.tasks),
                    timeline: Timeline::new(&livepatch, &answer.tasks, &attempts, web.shared.clock.now()),
                })
            }
            false => None,
        };
        let page = Page {
            asked: asked.clone(),
            matrix: matrix(&name, &answer.tasks, livepatch.ended_ms != 0),
            livepatch: livepatch.into(),
            events,
            details,
        };
        Ok((about, live, page))
    };
    web.page(&asked, make).await
}

fn matrix(name: &str, tasks: &[v1::Task], ended: bool) -> Matrix {
    let grid = Grid::new(tasks, ended);
    let archs: Vec<String> = grid.archs.iter().cloned().collect();
    let rows = grid.rows.iter().map(|(codestream, row)| {
        let cell = |arch: &String| {
            let (state, task) = row.get(arch)?;
            let (class, mark, word) = standing(state.standing);
            let failure = task.failure.as_ref().map(|f| f.message.clone()).unwrap_or_default();
            let tip = match state.standing {
                Standing::Failed => failure,
                Standing::Waiting if !failure.is_empty() => format!("{}\n{failure}", state.text),
                _ => state.text.clone(),
            };
            // Hundreds may wait for the same, which the tip tells.
            let text = match task.state() {
                v1::TaskState::Waiting => format!("{} waits", view::task_kind(task)),
                _ => state.text.clone(),
            };
            Some(Cell {
                id: format!("c-{}-{arch}", part(codestream.as_str())),
                href: format!(
                    "/livepatches/{}/{}/{}",
                    part(name),
                    part(codestream.as_str()),
                    part(arch)
                ),
                class,
                mark,
                word,
                text,
                tip: tip.chars().take(1500).collect(),
            })
        };
        Row {
            codestream: codestream.to_string(),
            cells: archs.iter().map(cell).collect(),
        }
    });
    Matrix {
        rows: rows.collect(),
        archs: archs.clone(),
    }
}

/// A standing's class, its letter and its word: it must be readable without colour.
pub fn standing(standing: Standing) -> (&'static str, char, &'static str) {
    match standing {
        Standing::Failed => ("failed", '✗', "failed"),
        Standing::Cancelled => ("cancelled", '⊘', "cancelled"),
        Standing::Running => ("running", '▶', "running"),
        Standing::Waiting => ("waiting", '·', "waiting"),
        Standing::Succeeded => ("succeeded", '✓', "succeeded"),
    }
}

fn grouped(name: &str, groups: Vec<v1::Group>) -> Vec<Group> {
    let mut by_arch: BTreeMap<String, Vec<Vec<Codestream>>> = BTreeMap::new();
    for group in groups {
        let codestreams = group.codestreams.iter().filter_map(|c| c.parse().ok()).collect();
        by_arch.entry(group.arch).or_default().push(codestreams);
    }
    let mut shown = Vec::new();
    for (arch, groups) in by_arch {
        let known = Known::new(groups.iter().flatten());
        let first = |i: usize| groups.get(i).and_then(|g| g.first());
        for (i, group) in groups.iter().enumerate() {
            // The first group is the measure of the others.
            let other = if i == 0 { 1 } else { 0 };
            let compare = first(i).zip(first(other)).map(|(a, b)| {
                let (a, b) = (part(a.as_str()), part(b.as_str()));
                format!("/livepatches/{}/compare?a={a}&b={b}&arch={}", part(name), part(&arch))
            });
            shown.push(Group {
                arch: arch.clone(),
                line: compress(group, &known),
                count: group.len(),
                compare,
            });
        }
    }
    shown
}

impl Page {
    fn percent(&self) -> u32 {
        let tasks = &self.livepatch.tasks;
        let done = tasks.succeeded + tasks.failed + tasks.cancelled;
        100 * done / (done + tasks.waiting + tasks.leased).max(1)
    }

    fn took(&self) -> String {
        duration(self.livepatch.ended_ms.unwrap_or_default() - self.livepatch.created_ms)
    }
}
