//! The workers, with what each runs now; and the queue: what waits, and for what.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use klp_proto::protocol::SOFTWARE;
use klp_proto::view;

use super::{Ask, Asked};
use crate::web::answer::Refused;
use crate::web::views::About;

#[derive(Template)]
#[template(path = "workers.html")]
struct Workers {
    asked: Asked,
    workers: Vec<Worker>,
}

struct Worker {
    worker: view::Worker,
    class: &'static str,
    /// Where its version is another than the coordinator's.
    mark: Option<String>,
    mark_class: &'static str,
}

#[derive(Template)]
#[template(path = "queue.html")]
struct Queue {
    asked: Asked,
    waiting: Vec<view::Waiting>,
}

pub async fn workers(State(web): Ask, asked: Asked) -> Result<Response, Refused> {
    let make = async || {
        let workers = web.workers().await?.into_iter().map(|worker| Worker {
            class: class(&worker),
            mark: view::skew_mark(worker.skew).map(|mark| format!("{mark} ({SOFTWARE})")),
            mark_class: match worker.skew {
                "too_old" | "too_new" => "failed",
                _ => "cancelled",
            },
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
