//! The workers, with what each runs now; and the queue: what waits, and for what.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use klp_proto::view;
use rusqlite::Connection;

use super::{Ask, Asked, part};
use crate::store::{self, Leased, StoreError};
use crate::web::Web;
use crate::web::answer::Refused;
use crate::web::views::About;
use tonic::Status;

#[derive(Template)]
#[template(path = "workers.html")]
struct Workers {
    asked: Asked,
    workers: Vec<Worker>,
}

struct Worker {
    worker: view::Worker,
    class: &'static str,
    running: Vec<Running>,
}

struct Running {
    href: String,
    what: String,
    livepatch: String,
    since: i64,
    progress: String,
}

#[derive(Template)]
#[template(path = "queue.html")]
struct Queue {
    asked: Asked,
    waiting: Vec<view::Waiting>,
}

pub async fn workers(State(web): Ask, asked: Asked) -> Result<Response, Refused> {
    let make = async || {
        let mut running = web.running().await?;
        let workers = web.workers().await?.into_iter().map(|worker| Worker {
            class: class(&worker),
            running: running.remove(&worker.name).unwrap_or_default(),
            worker,
        });
        let page = Workers {
            asked: asked.clone(),
            workers: workers.collect(),
        };
        Ok((About::Farm, true, page))
    };
    web.page(&asked, make).await
}

pub async fn queue(State(web): Ask, asked: Asked) -> Result<Response, Refused> {
    let make = async || {
        let page = Queue {
            asked: asked.clone(),
            waiting: web.queue().await?,
        };
        Ok((About::Farm, true, page))
    };
    web.page(&asked, make).await
}

fn class(worker: &view::Worker) -> &'static str {
    if !worker.connected {
        "failed"
    } else if worker.drained_ms.is_some() || worker.quarantined_until_ms.is_some() || worker.draining {
        "cancelled"
    } else {
        "succeeded"
    }
}

impl Web {
    /// What each worker runs, as far as the database knows.
    async fn running(&self) -> Result<BTreeMap<String, Vec<Running>>, Refused> {
        let query = |db: &Connection| store::leased_now(db).map_err(StoreError::from);
        let leased = self.shared.store.read(query).await;
        let leased = leased.map_err(|error| Status::internal(format!("the database failed: {error}")))?;
        let mut live = self.shared.farm.live(leased.iter().map(|l| l.task).collect()).await;
        let mut running: BTreeMap<String, Vec<Running>> = BTreeMap::new();
        for Leased {
            task,
            livepatch,
            key,
            worker,
            started,
        } in leased
        {
            let platform = &key.platform;
            let (codestream, arch) = (part(platform.codestream.as_str()), part(platform.arch.as_str()));
            running.entry(worker.to_string()).or_default().push(Running {
                href: format!("/livepatches/{}/{codestream}/{arch}", part(livepatch.as_str())),
                what: format!("{} {platform}", key.kind),
                livepatch: livepatch.to_string(),
                since: started,
                progress: live.remove(&task).unwrap_or_default().progress,
            });
        }
        Ok(running)
    }
}
