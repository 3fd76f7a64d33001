//! Submissions are tried out by workers before they are stored.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use klp_coordinator::Config;
use klp_proto::convert::violations_of;
use klp_proto::v1::{self, Disposition, TaskKind};
use support::{Farm, Worker, config, soon, spec};
use tonic::Code;

async fn farm(folder: &std::path::Path, tryout_ms: u32) -> Farm {
    Farm::start(Config {
        tryout_ms,
        ..config(folder)
    })
    .await
}

async fn stored(farm: &Farm) -> usize {
    let request = v1::ListRequest::default();
    let page = farm.livepatches.clone().list(request).await.unwrap().into_inner();
    page.livepatches.len()
}

#[tokio::test]
async fn what_no_kernel_has_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let farm = farm(folder.path(), 20_000).await;
    let mut worker = Worker::connected(&farm, "w1", &["15.5u1", "15.5u2"]).await;

    let client = farm.livepatches.clone();
    let request = v1::SubmitRequest {
        id: uuid::Uuid::now_v7().to_string(),
        spec: Some(spec("bsc1")),
        share: None,
        fix_contents: Vec::new(),
        ..Default::default()
    };
    let submitting = tokio::spawn(async move { client.clone().submit(request).await });
    for check in worker.take(2).await {
        assert_eq!((check.kind(), check.tryout), (TaskKind::Check, true));
        assert_eq!(worker.log(&check, 0, b"looking\n").await.unwrap(), 8);
        let text = format!("{}: no such CONFIG", check.platform.clone().unwrap().codestream);
        let no = worker.failure(&check, v1::Cause::Yours, &text);
        assert_eq!(worker.committed(no).await, Disposition::Committed);
    }
    let status = soon("the refusal", submitting).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let messages: Vec<String> = violations_of(&status).into_iter().map(|v| v.message).collect();
    assert_eq!(messages, ["15.5u1: no such CONFIG", "15.5u2: no such CONFIG"]);
    assert_eq!(stored(&farm).await, 0);
    worker.runs(&[]).await;
}

#[tokio::test]
async fn one_kernel_that_has_it_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let farm = farm(folder.path(), 20_000).await;
    let mut worker = Worker::connected(&farm, "w1", &["15.5u1", "15.5u2"]).await;

    let submitting = farm.submit_spec(spec("bsc1"));
    let answering = async {
        let checks = worker.take(2).await;
        let no = worker.failure(&checks[0], v1::Cause::Yours, "no such CONFIG");
        worker.committed(no).await;
        let yes = worker.success(&checks[1], &[]);
        worker.committed(yes).await;
    };
    let (submitted, ()) = soon(
        "the submission",
        Box::pin(async { tokio::join!(submitting, answering) }),
    )
    .await;
    submitted.unwrap();
    assert_eq!(stored(&farm).await, 1);
    assert!(worker.take(2).await.iter().all(|check| !check.tryout));
}

#[tokio::test]
async fn silence_refuses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let farm = farm(folder.path(), 200).await;
    let mut worker = Worker::connected(&farm, "w1", &["15.5u1"]).await;
    let both = Box::pin(async { tokio::join!(farm.submit_spec(spec("bsc1")), worker.take(1)) });
    let (submitted, asked) = soon("the submission", both).await;
    submitted.unwrap();
    assert_eq!(stored(&farm).await, 1);
    // The answer that comes after all is no error.
    let late = worker.success(&asked[0], &[]);
    assert_eq!(worker.committed(late).await, v1::Disposition::Superseded);
}
