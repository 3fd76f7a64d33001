//! Dashboards of others: a page of another site reads the API if the farm was told of that site, and no other one does.

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use klp_tests::{Browser, Farm};
use tokio::net::TcpListener;

use super::home;

/// A site with an empty page.
async fn site() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let page = Router::new().route("/", get(|| async { Html("<!doctype html><title>elsewhere</title>") }));
    let serving = tokio::spawn(async move { axum::serve(listener, page).await.unwrap() });
    (origin, serving)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_pages_of_sites_that_the_farm_knows_can_read_it() {
    let ((known, _a), (unknown, _b)) = (site().await, site().await);
    let farm = Farm::with_settings(&format!(
        "http_listen = \"127.0.0.1:0\"\nhttp_origins = [\"{known}\"]\n"
    ));
    let browser = Browser::start().await;
    let ask = |method: &str, path: &str, tag: &str| {
        let url = format!("{}/api/v1/{path}", home(&farm));
        format!(
            "const done = arguments[arguments.length - 1]; \
             fetch('{url}', {{ method: '{method}', headers: {tag} }}) \
             .then((r) => done([r.status, r.headers.get('etag')]), (e) => done([0, e.message]))"
        )
    };
    let asked = async |script: String| browser.client.execute_async(&script, Vec::new()).await.unwrap();
    browser.open(&known).await;
    let first = asked(ask("GET", "livepatches", "{}")).await;
    let tag = first[1].as_str().expect("the tag can be read").to_owned();
    assert_eq!(first[0], 200);
    // Such a header makes the browser ask beforehand.
    let headers = format!("{{ 'if-none-match': '{tag}', traceparent: '' }}");
    assert_eq!(asked(ask("GET", "livepatches", &headers)).await[0], 304);
    let act = asked(ask("POST", "workers/a/drain", "{}")).await;
    assert_eq!(act[0], 403, "{act}");
    browser.open(&unknown).await;
    let refused = asked(ask("GET", "livepatches", "{}")).await;
    assert_eq!(refused[0], 0, "{refused}");
}
