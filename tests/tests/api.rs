//! The HTTP API over a real farm: answers as described, polling that costs nothing, cursors, streams, and who may do what.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::collections::BTreeSet;
use std::time::Duration;

use klp_proto::v1;
use klp_tests::{Farm, Http, SUBMIT, WorkerOptions, trees, wait_until};
use prost::Message;
use serde_json::{Value, json};

const SETTINGS: &str = "http_listen = \"127.0.0.1:0\"\n";

/// A farm with a dashboard, and one worker that holds all kernels.
fn farm() -> Option<(Farm, Http)> {
    let trees = trees()?;
    let mut farm = Farm::with_settings(SETTINGS);
    farm.add_worker(WorkerOptions {
        trees: &trees,
        slots: 2,
        ..WorkerOptions::default()
    });
    let http = Http::new(farm.http.as_deref().unwrap());
    Some((farm, http))
}

fn submit(farm: &Farm) {
    submit_as(farm, "lp");
}

fn submit_as(farm: &Farm, name: &str) {
    let submitted = farm.cli(SUBMIT.map(|arg| if arg == "lp" { name } else { arg }));
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
}

/// Every schema with no room for what it does not name: a field that nobody described is a mistake, too.
fn strict(mut description: Value) -> Value {
    fn close(value: &mut Value) {
        if let Some(object) = value.as_object_mut() {
            if object.contains_key("properties") {
                object.insert("additionalProperties".to_owned(), json!(false));
            }
            object.values_mut().for_each(close);
        } else if let Some(list) = value.as_array_mut() {
            list.iter_mut().for_each(close);
        }
    }
    close(&mut description["components"]["schemas"]);
    description
}

/// What is wrong with an answer, by the description's schema for its path, method and status.
fn wrong(description: &Value, path: &str, method: &str, status: u16, answer: &Value) -> Vec<String> {
    let content = &description["paths"][path][method]["responses"][status.to_string()]["content"];
    let schema = &content["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {path} has no schema for {status}");
    let mut whole = schema.clone();
    whole["components"] = description["components"].clone();
    let validator = jsonschema::validator_for(&whole).unwrap();
    validator
        .iter_errors(answer)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect()
}

#[test]
fn every_answer_is_as_the_description_says() {
    let Some((farm, http)) = farm() else { return };
    submit(&farm);
    farm.ends_in_success("lp");
    let description = strict(http.get("/api/v1/openapi.json", &[]).json());
    assert_eq!(description["openapi"].as_str().map(|v| &v[..3]), Some("3.1"));
    let task = farm.tasks("lp")[0]["id"].as_str().unwrap().to_owned();
    let digest = farm
        .tasks("lp")
        .iter()
        .find_map(|t| t["artifacts"][0]["digest"].as_str().map(str::to_owned));
    let digest = digest.unwrap();

    // Every path of the description, as one would ask for it.
    let asked = |path: &str| match path {
        "/api/v1/livepatches" => "/api/v1/livepatches?search=LP&state=succeeded,failed&page_size=1".to_owned(),
        "/api/v1/livepatches/{name}" => "/api/v1/livepatches/lp?reports=true".to_owned(),
        "/api/v1/changes" => "/api/v1/changes?since=".to_owned(),
        path => path
            .replace("{name}", "lp")
            .replace("{id}", &task)
            .replace("{digest}", &digest),
    };
    let mut seen = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        let Some(get) = item.get("get") else { continue };
        let answer = http.get(&asked(path), &[]);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let content = get["responses"]["200"]["content"].as_object().unwrap();
        let (kind, _) = content.iter().next().unwrap();
        assert!(
            answer.header("content-type").unwrap().starts_with(kind),
            "{path}: {answer:?}"
        );
        if kind == "application/json" {
            let wrong = wrong(&description, path, "get", 200, &answer.json());
            assert!(wrong.is_empty(), "{path}: {wrong:#?}");
        }
        seen.insert(path.as_str());
    }
    assert!(seen.len() >= 13, "{seen:?}");

    // The livepatch has what its tasks found, and the list finds it.
    let detail = http.get("/api/v1/livepatches/lp?reports=true", &[]).json();
    assert!(
        detail["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|t| t["extractions"][0]["compile_check"]["passed"] == true)
    );
    let bare = http.get("/api/v1/livepatches/lp", &[]).json();
    assert_eq!(
        (bare["reports_omitted"].clone(), bare["tasks"][0]["checks"].clone()),
        (json!(true), json!([]))
    );
    let none = http.get("/api/v1/livepatches?search=nothing-like-it", &[]).json();
    assert_eq!(none["livepatches"], json!([]));
    // What the command line prints is the same.
    let printed = farm.cli(["list", "--output", "json"]).json();
    let list = http.get("/api/v1/livepatches", &[]).json();
    assert_eq!(list["livepatches"], printed);
    let source = http.get(&format!("/api/v1/artifacts/{digest}?name=../pcm.c"), &[]);
    assert_eq!(
        source.header("content-disposition"),
        Some("attachment; filename=\".._pcm.c\"")
    );

    for (path, template, status) in [
        ("/api/v1/livepatches/none", "/api/v1/livepatches/{name}", 404),
        ("/api/v1/livepatches?state=odd", "/api/v1/livepatches", 400),
        ("/api/v1/livepatches?page_size=x", "/api/v1/livepatches", 400),
        ("/api/v1/livepatches?what=1", "/api/v1/livepatches", 400),
        ("/api/v1/livepatches?page_size=501", "/api/v1/livepatches", 400),
        ("/api/v1/tasks/x", "/api/v1/tasks/{id}", 400),
        ("/api/v1/codestreams?filter=(", "/api/v1/codestreams", 400),
        ("/api/v1/changes?since=x", "/api/v1/changes", 400),
        ("/api/v1/artifacts/xyz", "/api/v1/artifacts/{digest}", 400),
    ] {
        let answer = http.get(path, &[]);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{path}"
        );
        assert!(!answer.json()["detail"].as_str().unwrap().is_empty());
        let wrong = wrong(&description, template, "get", status, &answer.json());
        assert!(wrong.is_empty(), "{path}: {wrong:#?}");
    }
}

#[test]
fn an_unchanged_view_is_answered_without_a_body_and_a_changed_one_with() {
    let Some((farm, http)) = farm() else { return };
    submit_as(&farm, "ended");
    farm.ends_in_success("ended");
    // With its worker drained, the other one waits and stays as it is.
    assert_eq!(farm.cli(["drain", "a", "--reason", "a test"]).code, Some(0));
    submit(&farm);
    for path in [
        "/api/v1/livepatches",
        "/api/v1/livepatches/lp",
        "/livepatches/ended",
        "/",
    ] {
        let first = http.get(path, &[]);
        let tag = first
            .header("etag")
            .unwrap_or_else(|| panic!("{path}: {first:?}"))
            .to_owned();
        std::thread::sleep(Duration::from_millis(1200));
        let second = http.get(path, &[("if-none-match", &tag)]);
        assert_eq!((second.status, second.body.len()), (304, 0), "{path}");
    }
    let tag = http
        .get("/api/v1/livepatches/lp", &[])
        .header("etag")
        .unwrap()
        .to_owned();
    let (status, weight) = (farm.cli(["priority", "lp", "--weight", "7"]).code, json!(7));
    assert_eq!(status, Some(0));
    let changed = wait_until(Duration::from_secs(5), "the change is seen", || {
        let answer = http.get("/api/v1/livepatches/lp", &[("if-none-match", &tag)]);
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(changed.json()["livepatch"]["weight"], weight);
}

#[test]
fn looking_writes_nothing() {
    let Some((farm, http)) = farm() else { return };
    submit(&farm);
    farm.ends_in_success("lp");
    let files = ["farm.db", "farm.db-wal"].map(|name| farm.dir.path().join("coordinator").join(name));
    let state = || {
        files
            .clone()
            .map(|file| std::fs::metadata(&file).and_then(|m| Ok((m.len(), m.modified()?))).ok())
    };
    // What its worker has to tell is told.
    std::thread::sleep(Duration::from_secs(2));
    let before = state();
    for _ in 0..20 {
        for path in [
            "/",
            "/livepatches/lp",
            "/workers",
            "/queue",
            "/api/v1/livepatches/lp?reports=true",
            "/api/v1/changes",
        ] {
            assert_eq!(http.get(path, &[]).status, 200, "{path}");
        }
    }
    assert_eq!(state(), before);
}

#[test]
fn changes_are_told_from_a_cursor_on_and_a_restart_is_told_apart() {
    let Some((mut farm, http)) = farm() else { return };
    let start = http.get("/api/v1/changes", &[]).json();
    assert_eq!(start["reset"], true);
    let cursor = start["cursor"].as_str().unwrap().to_owned();
    let none = http.get(&format!("/api/v1/changes?since={cursor}"), &[]).json();
    assert_eq!((&none["reset"], &none["livepatches"]), (&json!(false), &json!([])));
    submit(&farm);
    farm.ends_in_success("lp");
    let some = http.get(&format!("/api/v1/changes?since={cursor}"), &[]).json();
    assert_eq!(
        some["livepatches"].as_array().unwrap().len(),
        1,
        "once, however often it changed"
    );
    assert_eq!(some["livepatches"][0]["state"], "succeeded");
    let mut stream = http.events(&format!("/api/v1/changes?since={cursor}"), &[]);
    let (kind, _, told) = stream.next().unwrap();
    assert_eq!(
        (kind.as_str(), &told["livepatches"][0]["name"]),
        ("changes", &json!("lp"))
    );
    submit_as(&farm, "second");
    let (_, id, told) = stream.next().unwrap();
    assert_eq!(told["livepatches"][0]["name"], "second");
    drop(stream);
    farm.restart_with(&format!(
        "http_listen = \"{}\"\n",
        farm.http.clone().unwrap().trim_start_matches("http://")
    ));
    let later = http.get(&format!("/api/v1/changes?since={id}"), &[]).json();
    assert_eq!(later["reset"], true);
}

#[test]
fn events_stream_to_the_end_and_are_resumed_where_they_were_left() {
    let Some((farm, http)) = farm() else { return };
    submit(&farm);
    let path = "/api/v1/livepatches/lp/events";
    let mut first = http.events(path, &[]);
    let (_, third, _) = first.nth(2).unwrap();
    assert_eq!(third, "3");
    drop(first);
    let rest: Vec<(String, String, Value)> = http.events(path, &[("last-event-id", &third)]).collect();
    let ids: Vec<u64> = rest.iter().map(|(_, id, _)| id.parse().unwrap()).collect();
    assert_eq!(
        ids,
        (4..4 + ids.len() as u64).collect::<Vec<_>>(),
        "none missed, none twice"
    );
    let (kind, _, last) = rest.last().unwrap();
    assert_eq!((kind.as_str(), &last["ended"]["state"]), ("ended", &json!("succeeded")));
    let told = http.get(&format!("{path}?after=2"), &[]).json();
    assert_eq!(told.as_array().unwrap().len(), rest.len() + 1);
    // A log, as text and as it grows.
    let extract = farm.tasks("lp").into_iter().find(|t| t["kind"] == "extract").unwrap();
    let log = format!("/api/v1/tasks/{}/log", extract["id"].as_str().unwrap());
    let text = http.get(&log, &[]).text();
    assert!(text.contains("extracting sound/core/pcm.c"), "{text}");
    let pieces: Vec<(String, String, Value)> = http.events(&format!("{log}?follow=true"), &[]).collect();
    let followed: String = pieces
        .iter()
        .filter_map(|(_, _, piece)| piece["text"].as_str())
        .collect();
    assert_eq!(followed, text);
    assert_eq!(pieces.last().unwrap().0, "ended");
}

#[test]
fn grpc_web_is_served_and_acting_is_for_this_machine_alone() {
    let Some((farm, http)) = farm() else { return };
    submit(&farm);
    farm.ends_in_success("lp");
    let grpc = [("content-type", "application/grpc-web+proto")];
    // One frame: no compression, no bytes.
    let answer = http.post("/klpfarm.v1.LivepatchService/List", &grpc, &[0; 5]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let length = u32::from_be_bytes(answer.body[1..5].try_into().unwrap()) as usize;
    let list = v1::ListResponse::decode(&answer.body[5..5 + length]).unwrap();
    assert_eq!(list.livepatches[0].spec.as_ref().unwrap().name, "lp");
    assert!(answer.body[5 + length] & 0x80 != 0, "the trailers come last");

    let pause = "/api/v1/livepatches/lp/retry";
    for (headers, status) in [
        (vec![("origin", "http://evil.example")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![("host", "evil.example")], 403),
        (vec![("x-forwarded-for", "10.0.0.1")], 403),
        // Nothing of it failed.
        (vec![], 409),
    ] {
        let answer = http.post(pause, &headers, b"");
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
    }
    assert_eq!(http.get("/api/v1/workers", &[("host", "evil.example")]).status, 403);
    let drained = http.post(
        "/api/v1/workers/a/drain",
        &[("content-type", "application/json")],
        br#"{"reason": "a test"}"#,
    );
    assert_eq!(
        (drained.status, &drained.json()["drain_reason"]),
        (200, &json!("a test"))
    );
    let form = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("accept", "text/html"),
    ];
    let undrained = http.post("/api/v1/workers/a/undrain", &form, b"");
    assert_eq!(
        (undrained.status, undrained.header("location")),
        (303, Some("/workers"))
    );
    for (path, body) in [("drain", &b"{}"[..]), ("drain", b"{\"why\": 1}"), ("explode", b"")] {
        let answer = http.post(
            &format!("/api/v1/workers/a/{path}"),
            &[("content-type", "application/json")],
            body,
        );
        assert!((400..500).contains(&answer.status), "{path} {body:?}: {answer:?}");
    }
    // Never by GET.
    assert_eq!(http.get("/api/v1/livepatches/lp/cancel", &[]).status, 405);
}
