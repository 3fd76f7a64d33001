//! The dashboard in a real browser: it shows what happens without a reload, can be walked by keyboard, is fit for people who can't
//! see well, fits a phone, and breaks no rule of its own content security policy.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod elsewhere;
mod hostile;
mod journey;
mod keyboard;
mod wide;

use klp_tests::{Browser, Farm, Theme};
use serde_json::Value;

const SETTINGS: &str = "http_listen = \"127.0.0.1:0\"\n";
const LIVE: &str = "document.getElementById('connection').textContent === 'live'";

fn home(farm: &Farm) -> String {
    farm.http.clone().unwrap()
}

/// That the page has no place for scripts of others, sticks out nowhere, and bars nobody, in the light and in the dark.
async fn is_fit(browser: &Browser, what: &str) {
    assert!(browser.fits().await, "{what} sticks out");
    for theme in [Theme::Light, Theme::Dark] {
        browser.theme(theme).await;
        let barriers = browser.barriers().await;
        assert!(barriers.is_empty(), "{what}, {theme:?}:\n{}", barriers.join("\n"));
    }
}

/// That no page complained of anything, but for these answers that were asked for.
async fn no_complaint(browser: &Browser, but: &str) {
    let complaints = browser.complaints().await;
    let text = |c: &Value| c["message"].as_str().unwrap_or_default().to_owned();
    let others: Vec<&Value> = complaints
        .iter()
        .filter(|c| but.is_empty() || !text(c).contains(but))
        .collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_bars_people_would_be_noticed() {
    let browser = Browser::start().await;
    browser
        .open(
            "data:text/html,<html lang=en><title>t</title><main><h1>h</h1><input><p style=color:%23eee>pale</p></main>",
        )
        .await;
    let barriers = browser.barriers().await.join("\n");
    assert!(
        barriers.contains("label") && barriers.contains("color-contrast"),
        "{barriers}"
    );
}
