//! The JSON API for dashboards: the same words as the gRPC one, in the form that `klp-farm --output json` prints.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use klp_livepatch::task::LivepatchId;
use klp_proto::v1;
use klp_proto::v1::fleet_service_server::FleetService;
use klp_proto::v1::livepatch_service_server::LivepatchService;
use klp_proto::view;
use klp_proto::view::findings::{self, Finding};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonic::{Request, Status};
use utoipa::{IntoParams, ToSchema};

use super::Web;
use super::answer::{Problem, Refused};
use super::views::{About, For, Made};
use crate::api::{Fleet, Livepatches};

const JSON: &str = "application/json";

/// What follows the `?`, each name known and each value of its kind.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(asked)| Self(asked))
            .map_err(|error| Refused(Status::invalid_argument(error.body_text())))
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub struct ListQuery {
    /// A part of the name, of the CVE or of who submitted it.
    pub search: String,
    /// States, separated by commas: running, succeeded, partial, failed, cancelled. Empty: all.
    pub state: String,
    /// 1 to 500; 0 means 50.
    pub page_size: u32,
    /// `next_page_token` of the page before.
    pub page_token: String,
}

impl ListQuery {
    pub fn request(&self) -> Result<v1::ListRequest, Refused> {
        let states = self.state.split(',').map(str::trim).filter(|word| !word.is_empty());
        let state = |word: &str| {
            Ok(match word {
                "running" => v1::LivepatchState::Running.into(),
                "succeeded" => v1::LivepatchState::Succeeded.into(),
                "partial" => v1::LivepatchState::Partial.into(),
                "failed" => v1::LivepatchState::Failed.into(),
                "cancelled" => v1::LivepatchState::Cancelled.into(),
                other => {
                    let message = format!("state: {other:?} is none of running, succeeded, partial, failed, cancelled");
                    return Err(Refused(Status::invalid_argument(message)));
                }
            })
        };
        Ok(v1::ListRequest {
            page_size: self.page_size,
            page_token: self.page_token.clone(),
            search: self.search.clone(),
            states: states.map(state).collect::<Result<_, _>>()?,
        })
    }
}

#[derive(Serialize, ToSchema)]
pub struct LivepatchPage {
    pub livepatches: Vec<view::Livepatch>,
    /// Absent: this was the last page.
    pub next_page_token: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct LivepatchDetail {
    pub livepatch: view::Livepatch,
    /// In natural order of codestream, then architecture, kind and round.
    pub tasks: Vec<view::Task>,
    /// What attempts reported (`checks`, `extractions`, `verified`) is left out of the tasks; ask for one task to see its own.
    pub reports_omitted: bool,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub struct DetailQuery {
    /// With what the tasks' attempts reported. Default: false.
    pub reports: bool,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub struct CodestreamsQuery {
    /// A regular expression over codestream names, anchored at the start. Empty: all.
    pub filter: String,
}

/// The livepatches, newest first.
#[utoipa::path(get, path = "/api/v1/livepatches", params(ListQuery),
    responses((status = 200, body = LivepatchPage), (status = 400, body = Problem)))]
pub async fn livepatches(
    State(web): State<Web>,
    headers: HeaderMap,
    Asked(query): Asked<ListQuery>,
) -> Result<Response, Refused> {
    let request = query.request()?;
    let key = format!("list {:?}", query);
    let make = async || {
        let page = web.service().list(Request::new(request)).await?.into_inner();
        let body = LivepatchPage {
            livepatches: page.livepatches.into_iter().map(view::Livepatch::from).collect(),
            next_page_token: Some(page.next_page_token).filter(|token| !token.is_empty()),
        };
        made(About::All, false, &body)
    };
    web.views.answer(For::Poller, key, &headers, make).await
}

/// One livepatch with its tasks.
#[utoipa::path(get, path = "/api/v1/livepatches/{name}", params(("name" = String, Path, description = "Its name"), DetailQuery),
    responses((status = 200, body = LivepatchDetail), (status = 404, body = Problem)))]
pub async fn livepatch(
    State(web): State<Web>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Asked(query): Asked<DetailQuery>,
) -> Result<Response, Refused> {
    let key = format!("livepatch {name} {}", query.reports);
    let make = async || {
        let answer = web.livepatch(&name, query.reports).await?;
        let (about, live) = about(&answer);
        let body = LivepatchDetail {
            livepatch: answer.livepatch.unwrap_or_default().into(),
            tasks: answer.tasks.into_iter().map(view::Task::from).collect(),
            reports_omitted: answer.reports_omitted,
        };
        made(about, live, &body)
    };
    web.views.answer(For::Poller, key, &headers, make).await
}

/// The groups of a livepatch that has ended: codestreams that one source serves.
#[utoipa::path(get, path = "/api/v1/livepatches/{name}/groups", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = [view::Group]), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn groups(State(web): State<Web>, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Refused> {
    let make = async || {
        let about = web.about(&name).await?;
        let livepatch = Some(by_name(&name));
        let groups = web
            .service()
            .groups(Request::new(v1::GroupsRequest { livepatch }))
            .await?;
        let body: Vec<view::Group> = groups.into_inner().groups.into_iter().map(view::Group::from).collect();
        made(about, false, &body)
    };
    web.views
        .answer(For::Poller, format!("groups {name}"), &headers, make)
        .await
}

/// All attempts of a livepatch: who made them, when, and how each ended.
#[utoipa::path(get, path = "/api/v1/livepatches/{name}/attempts", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = [view::Attempt]), (status = 404, body = Problem)))]
pub async fn attempts(
    State(web): State<Web>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let make = async || {
        let about = web.about(&name).await?;
        made(about, false, &web.attempts(&name).await?)
    };
    web.views
        .answer(For::Poller, format!("attempts {name}"), &headers, make)
        .await
}

/// What checks, extractions and verifications warn of: each sentence once, with whom it concerns.
#[utoipa::path(get, path = "/api/v1/livepatches/{name}/findings", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = [Finding]), (status = 404, body = Problem)))]
pub async fn findings(
    State(web): State<Web>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let make = async || {
        let answer = web.livepatch(&name, true).await?;
        made(about(&answer).0, false, &findings::found(&answer.tasks))
    };
    web.views
        .answer(For::Poller, format!("findings {name}"), &headers, make)
        .await
}

/// One task with what its newest attempt reported.
#[utoipa::path(get, path = "/api/v1/tasks/{id}", params(("id" = String, Path, description = "Its id, a UUID")),
    responses((status = 200, body = view::Task), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub async fn task(State(web): State<Web>, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Refused> {
    let make = async || {
        let task = web.task(&id).await?;
        let live = task.ended_ms == 0;
        made(About::All, live, &view::Task::from(task))
    };
    web.views
        .answer(For::Poller, format!("task {id}"), &headers, make)
        .await
}

/// The attempts of one task.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/attempts", params(("id" = String, Path, description = "Its id, a UUID")),
    responses((status = 200, body = [view::Attempt]), (status = 404, body = Problem)))]
pub async fn attempts_of_task(
    State(web): State<Web>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let make = async || made(About::All, false, &web.attempts_of_task(&id).await?);
    web.views
        .answer(For::Poller, format!("task-attempts {id}"), &headers, make)
        .await
}

/// The workers that ever registered.
#[utoipa::path(get, path = "/api/v1/workers", responses((status = 200, body = [view::Worker])))]
pub async fn workers(State(web): State<Web>, headers: HeaderMap) -> Result<Response, Refused> {
    let make = async || made(About::Farm, true, &web.workers().await?);
    web.views
        .answer(For::Poller, "workers".to_owned(), &headers, make)
        .await
}

/// What ready tasks wait for, the most tasks first.
#[utoipa::path(get, path = "/api/v1/queue", responses((status = 200, body = [view::Waiting])))]
pub async fn queue(State(web): State<Web>, headers: HeaderMap) -> Result<Response, Refused> {
    let make = async || made(About::Farm, true, &web.queue().await?);
    web.views.answer(For::Poller, "queue".to_owned(), &headers, make).await
}

/// The codestreams: of the catalog, and those that some worker holds a tree of.
#[utoipa::path(get, path = "/api/v1/codestreams", params(CodestreamsQuery),
    responses((status = 200, body = [view::CodestreamInfo]), (status = 400, body = Problem)))]
pub async fn codestreams(
    State(web): State<Web>,
    headers: HeaderMap,
    Asked(query): Asked<CodestreamsQuery>,
) -> Result<Response, Refused> {
    let make = async || {
        let filter = query.filter.clone();
        let request = Request::new(v1::ListCodestreamsRequest { filter });
        let listed = Fleet(web.shared.clone()).list_codestreams(request).await?.into_inner();
        let body: Vec<view::CodestreamInfo> = listed.codestreams.into_iter().map(Into::into).collect();
        made(About::Farm, true, &body)
    };
    let key = format!("codestreams {}", query.filter);
    web.views.answer(For::Poller, key, &headers, make).await
}

impl Web {
    pub fn service(&self) -> Livepatches {
        Livepatches(self.shared.clone())
    }

    /// A livepatch and its tasks, with or without what these reported.
    pub async fn livepatch(&self, name: &str, reports: bool) -> Result<v1::GetResponse, Refused> {
        let request = v1::GetRequest {
            livepatch: Some(by_name(name)),
            without_reports: !reports,
        };
        Ok(self.service().get(Request::new(request)).await?.into_inner())
    }

    /// What a view of a livepatch is about.
    async fn about(&self, name: &str) -> Result<About, Refused> {
        let id = crate::api::find(&self.shared, Some(by_name(name))).await?;
        Ok(About::Livepatch(id))
    }

    /// A task with what it reported.
    pub async fn task(&self, id: &str) -> Result<v1::Task, Refused> {
        let task_id = id.to_owned();
        let request = Request::new(v1::GetTaskRequest { task_id });
        Ok(self.service().get_task(request).await?.into_inner())
    }

    /// All attempts of a livepatch.
    pub async fn attempts(&self, name: &str) -> Result<Vec<view::Attempt>, Refused> {
        self.find_attempts(v1::AttemptsRequest {
            livepatch: Some(by_name(name)),
            ..Default::default()
        })
        .await
    }

    pub async fn attempts_of_task(&self, id: &str) -> Result<Vec<view::Attempt>, Refused> {
        self.find_attempts(v1::AttemptsRequest {
            task_id: id.to_owned(),
            ..Default::default()
        })
        .await
    }

    async fn find_attempts(&self, request: v1::AttemptsRequest) -> Result<Vec<view::Attempt>, Refused> {
        let answer = self.service().attempts(Request::new(request)).await?.into_inner();
        Ok(answer.attempts.into_iter().map(view::Attempt::from).collect())
    }

    pub async fn workers(&self) -> Result<Vec<view::Worker>, Refused> {
        let request = Request::new(v1::ListWorkersRequest {});
        let workers = Fleet(self.shared.clone()).list_workers(request).await?.into_inner();
        let now = self.shared.clock.now();
        Ok(workers.workers.into_iter().map(|w| view::Worker::at(w, now)).collect())
    }

    pub async fn queue(&self) -> Result<Vec<view::Waiting>, Refused> {
        let request = Request::new(v1::QueueRequest {});
        let queue = Fleet(self.shared.clone()).queue(request).await?.into_inner();
        Ok(queue.waiting.into_iter().map(view::Waiting::from).collect())
    }
}

pub fn by_name(name: &str) -> v1::LivepatchRef {
    v1::LivepatchRef {
        r#ref: Some(v1::livepatch_ref::Ref::Name(name.to_owned())),
    }
}

/// What a view of a livepatch is about, and whether that runs.
pub fn about(answer: &v1::GetResponse) -> (About, bool) {
    let Some(livepatch) = &answer.livepatch else {
        return (About::All, true);
    };
    let id: Option<LivepatchId> = livepatch.id.parse().ok();
    (id.map_or(About::All, About::Livepatch), livepatch.ended_ms == 0)
}

fn made(about: About, live: bool, body: &impl Serialize) -> Result<Made, Refused> {
    let body = serde_json::to_vec(body);
    let failed = |error: serde_json::Error| Status::internal(format!("the answer can't be written as JSON: {error}"));
    Ok(Made {
        about,
        live,
        content_type: JSON,
        body: body.map_err(failed)?,
    })
}
