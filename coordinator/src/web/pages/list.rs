//! All livepatches, newest first; what is looked for is in the address, so that a view can be shared.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use klp_proto::v1::livepatch_service_server::LivepatchService;
use klp_proto::view;
use tonic::Request;

use super::{Ask, Asked, part};
use crate::web::answer::Refused;
use crate::web::api::{self, ListQuery};
use crate::web::views::About;

#[derive(Template)]
#[template(path = "list.html")]
struct List {
    asked: Asked,
    search: String,
    states: Vec<(&'static str, bool)>,
    livepatches: Vec<view::Livepatch>,
    /// The address of the next page.
    next: Option<String>,
    cursor: String,
}

const STATES: [&str; 5] = ["running", "succeeded", "partial", "failed", "cancelled"];

pub async fn page(
    State(web): Ask,
    asked: Asked,
    api::Asked(query): api::Asked<ListQuery>,
) -> Result<Response, Refused> {
    // Before it is looked up: what changes meanwhile is told again.
    let make = async || {
        let cursor = web.shared.versions.now().to_string();
        let page = web.service().list(Request::new(query.request()?)).await?.into_inner();
        let chosen: Vec<&str> = query.state.split(',').map(str::trim).collect();
        let next = (!page.next_page_token.is_empty()).then(|| {
            let (search, state, token) = (part(&query.search), part(&query.state), part(&page.next_page_token));
            format!("/?search={search}&state={state}&page_token={token}")
        });
        let page = List {
            asked: asked.clone(),
            search: query.search.clone(),
            states: STATES.iter().map(|state| (*state, chosen.contains(state))).collect(),
            livepatches: page.livepatches.into_iter().map(view::Livepatch::from).collect(),
            next,
            cursor,
        };
        Ok((About::All, false, page))
    };
    web.page(&asked, make).await
}

impl List {
    fn done(livepatch: &view::Livepatch) -> (u32, u32) {
        let tasks = &livepatch.tasks;
        let done = tasks.succeeded + tasks.failed + tasks.cancelled;
        (done, done + tasks.waiting + tasks.leased)
    }
}
