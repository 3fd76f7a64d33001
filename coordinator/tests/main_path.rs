//! The main path over real sockets: submit, check, extract, commit, watch, fetch.

mod support;

use klp_proto::convert::violations_of;
use klp_proto::v1::{self, Disposition, LivepatchState, TaskKind, TaskState};
use support::{Farm, Worker, by_name, config, soon, spec};
use tonic::Code;
use uuid::Uuid;

#[tokio::test]
async fn a_livepatch_goes_from_submission_to_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["15.5u1", "15.5u2"]).await;

    let livepatch = farm.submit("bsc1").await;
    assert_eq!(livepatch.state(), LivepatchState::Running);
    let watching = tokio::spawn({
        let stream = farm.watch("bsc1", 0).await.unwrap();
        async move {
            let mut stream = stream;
            let mut events = Vec::new();
            while let Some(event) = stream.message().await.unwrap() {
                events.push(event);
            }
            events
        }
    });

    // Both checks come at once; one fails by the user's fault, which ends that platform only.
    let checks = worker.take(2).await;
    assert!(
        checks
            .iter()
            .all(|c| c.kind() == TaskKind::Check && c.livepatch == "bsc1")
    );
    let no = worker.failure(&checks[1], v1::Cause::Yours, "15.5u2/x86_64: CONFIG_SND_PCM is not set");
    assert_eq!(worker.committed(no).await, Disposition::Committed);
    let yes = worker.success(&checks[0], &[]);
    assert_eq!(worker.committed(yes).await, Disposition::Committed);
    worker.runs(&[]).await;

    let extract = worker.take(1).await.remove(0);
    assert_eq!(extract.kind(), TaskKind::Extract);
    assert_eq!(extract.platform.clone().unwrap().codestream, "15.5u1");
    worker.log(&extract, 0, b"hello\n").await.unwrap();
    let source = worker.upload(b"int klpp_f(void) { return 0; }\n").await;
    let success = worker.success(&extract, std::slice::from_ref(&source));
    assert_eq!(worker.committed(success.clone()).await, Disposition::Committed);
    // Repeating it is harmless.
    assert_eq!(worker.committed(success).await, Disposition::Committed);

    let events = soon("the watch to end", watching).await.unwrap();
    let numbers: Vec<u64> = events.iter().map(|e| e.number).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let messages: Vec<&str> = events.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(messages[0], "submitted for 2 codestreams x architectures");
    assert!(messages[1].ends_with("started on w1"), "{messages:?}");
    let last = events.last().unwrap().ended.clone().unwrap();
    assert!(events[..events.len() - 1].iter().all(|e| e.ended.is_none()));
    assert_eq!(last.state(), LivepatchState::Partial);
    assert_eq!(
        last.verdict,
        "1 of 2 codestreams x architectures succeeded; failed: 15.5u2/x86_64 (check)"
    );
    let succeeded = events
        .iter()
        .find(|e| e.message == "extract 15.5u1/x86_64 succeeded")
        .unwrap();
    let task = succeeded.task.clone().unwrap();
    assert_eq!(task.state(), TaskState::Succeeded);
    assert_eq!((task.attempt, task.worker.as_str()), (1, "w1"));
    assert_eq!(task.artifacts, [v1::Artifact::from(&source)]);
    assert!(task.report.is_some());

    // A watch resumes after any event, with what follows and nothing else.
    for after in 0..=events.len() {
        assert_eq!(
            farm.events("bsc1", after as u64).await,
            events[after..],
            "after {after}"
        );
    }
    let past = farm.watch("bsc1", events.len() as u64 + 1).await.unwrap_err();
    assert_eq!(violations_of(&past)[0].field, "after_event");

    let got = farm.get("bsc1").await;
    let kinds: Vec<_> = got.tasks.iter().map(|t| (t.kind(), t.state())).collect();
    let expected = [
        (TaskKind::Check, TaskState::Succeeded),
        (TaskKind::Extract, TaskState::Succeeded),
        (TaskKind::Check, TaskState::Failed),
    ];
    assert_eq!(kinds, expected);
    let counts = got.livepatch.unwrap().counts.unwrap();
    assert_eq!(
        (counts.succeeded, counts.failed, counts.waiting + counts.leased),
        (2, 1, 0)
    );
    let failure = got.tasks[2].failure.clone().unwrap();
    assert_eq!(failure.cause(), v1::Cause::Yours);
    assert!(failure.message.contains("CONFIG_SND_PCM"));

    // What was made can be fetched, and its log read.
    let request = v1::GetArtifactRequest {
        digest: source.digest.to_string(),
    };
    let mut chunks = farm
        .livepatches
        .clone()
        .get_artifact(request)
        .await
        .unwrap()
        .into_inner();
    let chunk = chunks.message().await.unwrap().unwrap();
    assert_eq!(chunk.data, b"int klpp_f(void) { return 0; }\n");
    assert!(chunks.message().await.unwrap().is_none());
    let request = v1::LogsRequest {
        task_id: task.id,
        ..Default::default()
    };
    let mut log = farm.livepatches.clone().logs(request).await.unwrap().into_inner();
    assert_eq!(log.message().await.unwrap().unwrap().data, b"hello\n");
    assert!(log.message().await.unwrap().is_none());
}

#[tokio::test]
async fn equal_outputs_form_a_group_once_the_livepatch_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["15.5u10", "15.5u9"]).await;
    farm.submit("bsc1").await;
    let groups = || {
        let request = v1::GroupsRequest {
            livepatch: by_name("bsc1"),
        };
        let mut client = farm.livepatches.clone();
        async move { client.groups(request).await }
    };
    assert_eq!(groups().await.unwrap_err().code(), Code::FailedPrecondition);
    worker.work(&farm, "bsc1").await;
    let groups = groups().await.unwrap().into_inner().groups;
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].codestreams, ["15.5u9", "15.5u10"]);
    let livepatch = farm.get("bsc1").await.livepatch.unwrap();
    assert_eq!(livepatch.verdict, "all 2 codestreams x architectures succeeded");
}

#[tokio::test]
async fn a_log_is_followed_until_its_attempt_ends() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("bsc1").await;
    let check = worker.take(1).await.remove(0);
    let request = v1::LogsRequest {
        task_id: check.attempt.clone().unwrap().task_id,
        attempt: 1,
        offset: 2,
        follow: true,
    };
    let mut log = farm.livepatches.clone().logs(request).await.unwrap().into_inner();
    assert_eq!(worker.log(&check, 0, b"one\n").await.unwrap(), 4);
    let chunk = soon("the first bytes", log.message()).await.unwrap().unwrap();
    assert_eq!((chunk.offset, chunk.data.as_slice()), (2, b"e\n".as_slice()));
    // A repeated append changes nothing; one with a hole is refused.
    assert_eq!(worker.log(&check, 0, b"one\n").await.unwrap(), 4);
    assert_eq!(worker.log(&check, 5, b"x").await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(worker.log(&check, 4, b"two\n").await.unwrap(), 8);
    let chunk = soon("more bytes", log.message()).await.unwrap().unwrap();
    assert_eq!((chunk.offset, chunk.data.as_slice()), (4, b"two\n".as_slice()));
    let success = worker.success(&check, &[]);
    worker.committed(success).await;
    assert!(soon("the log's end", log.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn submitting_is_idempotent_and_names_are_unique() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let _worker = Worker::connected(&farm, "w1", &["a"]).await;
    let request = v1::SubmitRequest {
        id: Uuid::now_v7().to_string(),
        spec: Some(spec("bsc1")),
        share: None,
        fix_contents: Vec::new(),
        ..Default::default()
    };
    let submit = |request: v1::SubmitRequest| {
        let mut client = farm.livepatches.clone();
        async move { client.submit(request).await.map(|r| r.into_inner().livepatch.unwrap()) }
    };
    let first = submit(request.clone()).await.unwrap();
    let again = submit(request.clone()).await.unwrap();
    assert_eq!((&first.id, first.created_ms), (&again.id, again.created_ms));
    assert_eq!(farm.get("bsc1").await.tasks.len(), 1);

    let mut other = request.clone();
    other.spec.as_mut().unwrap().cve = "2022-1048".into();
    let error = submit(other).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    let error = farm.submit_spec(spec("bsc1")).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(
        error.message().contains(&first.id) && error.message().contains(" UTC"),
        "{error}"
    );
}

#[tokio::test]
async fn bad_submissions_say_all_that_is_wrong_and_store_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let empty = farm.submit_spec(spec("bsc1")).await.unwrap_err();
    assert!(empty.message().contains("holds no tree yet"), "{empty}");
    let _worker = Worker::connected(&farm, "w1", &["15.5u1", "15.5u2"]).await;

    let request = v1::SubmitRequest {
        id: "1".into(),
        spec: Some(v1::Spec {
            name: "../x".into(),
            codestreams: "(".into(),
            archs: vec!["vax".into()],
            ..Default::default()
        }),
        share: Some(v1::Share {
            priority: 101,
            weight: 1,
        }),
        fix_contents: Vec::new(),
        ..Default::default()
    };
    let error = farm.livepatches.clone().submit(request).await.unwrap_err();
    let fields: Vec<_> = violations_of(&error).into_iter().map(|v| v.field).collect();
    assert_eq!(
        fields,
        ["id", "name", "targets", "codestreams", "archs[0]", "share.priority"]
    );

    let mut nowhere = spec("bsc1");
    nowhere.codestreams = "15.9".into();
    let violations = violations_of(&farm.submit_spec(nowhere).await.unwrap_err());
    assert_eq!(violations[0].field, "codestreams");
    assert_eq!(
        violations[0].message,
        "no codestream matches `15.9`; the farm holds: 15.5u1, 15.5u2"
    );
    let mut elsewhere = spec("bsc1");
    elsewhere.archs = vec!["s390x".into()];
    let violations = violations_of(&farm.submit_spec(elsewhere).await.unwrap_err());
    assert_eq!(violations[0].field, "archs");

    let list = farm.livepatches.clone().list(v1::ListRequest::default()).await.unwrap();
    assert_eq!(list.into_inner().livepatches, []);
    let request = v1::GetRequest {
        livepatch: by_name("bsc1"),
        ..Default::default()
    };
    let missing = farm.livepatches.clone().get(request).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let nobody = farm
        .livepatches
        .clone()
        .get(v1::GetRequest::default())
        .await
        .unwrap_err();
    assert_eq!(nobody.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn lists_come_in_pages_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let _worker = Worker::connected(&farm, "w1", &["a"]).await;
    for n in 0..5 {
        farm.submit(&format!("lp{n}")).await;
    }
    let mut names = Vec::new();
    let mut request = v1::ListRequest {
        page_size: 2,
        ..Default::default()
    };
    loop {
        let page = farm
            .livepatches
            .clone()
            .list(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(page.livepatches.len() <= 2);
        names.extend(page.livepatches.into_iter().map(|l| l.spec.unwrap().name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, ["lp4", "lp3", "lp2", "lp1", "lp0"]);
    request.page_token = "nonsense".into();
    let error = farm.livepatches.clone().list(request).await.unwrap_err();
    assert_eq!(violations_of(&error)[0].field, "page_token");
}

#[tokio::test]
async fn open_livepatches_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(folder.path());
    settings.max_open_livepatches = 1;
    let farm = Farm::start(settings).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    farm.submit("one").await;
    let error = farm.submit_spec(spec("two")).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    worker.work(&farm, "one").await;
    farm.submit("two").await;
}

#[tokio::test]
async fn long_histories_are_told_whole_to_fast_and_slow_watchers() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let codestreams: Vec<String> = (0..60).map(|n| format!("15.6u{n}")).collect();
    let names: Vec<&str> = codestreams.iter().map(String::as_str).collect();
    let mut worker = Worker::connected(&farm, "w1", &names).await;
    worker.state.slots = 8;
    farm.submit("bsc1").await;
    // This one reads nothing until all is over.
    let mut slow = farm.watch("bsc1", 0).await.unwrap();
    worker.work(&farm, "bsc1").await;
    let events = farm.events("bsc1", 0).await;
    let numbers: Vec<u64> = events.iter().map(|e| e.number).collect();
    // Submitted, two kinds of task started and ended on each platform, and the end.
    assert_eq!(numbers, (1..=242).collect::<Vec<_>>());
    for expected in &events {
        let event = soon("an event", slow.message()).await.unwrap().unwrap();
        assert_eq!(&event, expected);
    }
    assert!(slow.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_large_artifact_is_stored_once_and_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    let mut worker = Worker::connected(&farm, "w1", &["a"]).await;
    let content: Vec<u8> = (0..6_000_000u32).map(|n| (n / 7) as u8).collect();
    let artifact = worker.upload(&content).await;
    // The second time the coordinator answers before it has read it all.
    assert_eq!(worker.upload(&content).await, artifact);
    let request = v1::GetArtifactRequest {
        digest: artifact.digest.to_string(),
    };
    let mut chunks = farm
        .livepatches
        .clone()
        .get_artifact(request)
        .await
        .unwrap()
        .into_inner();
    let mut back = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        assert!(chunk.data.len() <= klp_proto::MAX_CHUNK);
        back.extend(chunk.data);
    }
    assert!(back == content);
    let absent = klp_livepatch::outcome::Digest::of(b"absent").to_string();
    let request = v1::GetArtifactRequest { digest: absent };
    let error = farm.livepatches.clone().get_artifact(request).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let too_large = worker.upload_as(artifact.digest, u64::MAX, b"").await.unwrap_err();
    assert_eq!(violations_of(&too_large)[0].field, "header.size");
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response::MessageResponse};

    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(config(folder.path())).await;
    for service in ["", "klpfarm.v1.LivepatchService", "klpfarm.v1.WorkerService"] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let health = HealthClient::new(farm.channel.clone()).check(request).await.unwrap();
        assert_eq!(health.into_inner().status(), ServingStatus::Serving);
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(farm.channel.clone());
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list: {answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    for service in ["FleetService", "LivepatchService", "WorkerService"] {
        assert!(names.contains(&format!("klpfarm.v1.{service}")), "{names:?}");
    }
}
