//! Who is let in over HTTP: programs by their token, browsers by a session that stands for one.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use klp_identity::Role;
use support::secure::Secure;

/// The cookie that an answer sets, as a browser sends it.
fn cookie_set(head: &str) -> String {
    let set = head.split("set-cookie: ").nth(1).unwrap();
    set.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn browsers_log_in_and_programs_come_with_a_token() {
    let farm = Secure::start_with("", Some(([127, 0, 0, 1], 0).into())).await;
    let (viewer, operator) = (
        farm.token("wall", Role::Viewer).await,
        farm.token("olga", Role::Operator).await,
    );
    let html = ("accept", "text/html");
    let bearer = format!("Bearer {viewer}");
    // Nobody in particular.
    let (status, head, _) = farm.http("GET /queue?x=1", &[html], "").await;
    assert!(
        status == 303 && head.contains("location: /login?next=%2Fqueue%3Fx%3D1"),
        "{head}"
    );
    let (status, head, body) = farm.http("GET /api/v1/workers", &[], "").await;
    assert!(
        status == 401 && head.contains("www-authenticate: Bearer") && body.contains("token create"),
        "{head}\n{body}"
    );
    assert_eq!(farm.http("GET /metrics", &[], "").await.0, 401);
    assert_eq!(farm.http("GET /nowhere", &[], "").await.0, 401);
    assert_eq!(farm.http("GET /healthz", &[], "").await.0, 200);
    let grpc = ("content-type", "application/grpc-web+proto");
    let list = "POST /klpfarm.v1.LivepatchService/List";
    assert_eq!(farm.http(list, &[grpc], "\0\0\0\0\0").await.0, 401);

    // A program.
    let authorization = ("authorization", bearer.as_str());
    assert_eq!(farm.http("GET /api/v1/workers", &[authorization], "").await.0, 200);
    assert_eq!(farm.http("GET /nowhere", &[authorization], "").await.0, 404);
    assert_eq!(farm.http(list, &[grpc, authorization], "\0\0\0\0\0").await.0, 200);
    for (path, needed) in [
        ("POST /api/v1/livepatches/lp/cancel", "submitter"),
        ("POST /api/v1/workers/a/drain", "operator"),
        ("POST /klpfarm.v1.FleetService/Drain", "operator"),
    ] {
        let (status, _, body) = farm.http(path, &[authorization], "").await;
        assert!(
            status == 403 && body.contains(needed) && body.contains("wall is viewer"),
            "{path}: {body}"
        );
    }

    // A browser.
    let form = ("content-type", "application/x-www-form-urlencoded");
    let (status, _, body) = farm
        .http("POST /login", &[form, html], "token=klpf_1&next=/queue")
        .await;
    assert!(status == 401 && body.contains("this is no token"), "{body}");
    let cross = ("sec-fetch-site", "cross-site");
    let right = format!("token={operator}&next=//evil.example");
    assert_eq!(farm.http("POST /login", &[form, cross], &right).await.0, 403);
    let (status, head, _) = farm.http("POST /login", &[form], &right).await;
    assert!(status == 303 && head.contains("location: /\r\n"), "{head}");
    let cookie = cookie_set(&head);
    assert!(
        cookie.starts_with("__Host-klp-farm=") && head.contains("HttpOnly") && head.contains("Secure"),
        "{head}"
    );
    assert!(!head.contains(&operator[22..]));
    let session = ("cookie", cookie.as_str());
    let (status, _, body) = farm.http("GET /workers", &[session, html], "").await;
    assert!(status == 200 && body.contains("Log out"), "{body}");
    // It may, but there is no such worker; and no other site may have it do so.
    let drain = "POST /api/v1/workers/nobody/drain";
    assert_eq!(farm.http(drain, &[session, form], "reason=x").await.0, 404);
    assert_eq!(farm.http(drain, &[session, form, cross], "reason=x").await.0, 403);
    let refused = farm
        .audit()
        .await
        .into_iter()
        .find(|e| e.method == "FleetService/Drain")
        .unwrap();
    assert_eq!(
        (refused.caller.as_str(), refused.object.as_str()),
        ("olga", "worker nobody")
    );
    farm.http("POST /logout", &[session], "").await;
    assert_eq!(farm.http("GET /workers", &[session], "").await.0, 401);
    // Whoever is put out is so in every browser.
    let (_, head, _) = farm.http("POST /login", &[form], &right).await;
    let cookie = cookie_set(&head);
    let session = ("cookie", cookie.as_str());
    assert_eq!(farm.http("GET /workers", &[session], "").await.0, 200);
    farm.revoke_token(&operator).await;
    let (status, _, body) = farm.http("GET /workers", &[session], "").await;
    assert!(status == 401 && body.contains("was revoked"), "{body}");
}
