//! What workers and people say is shown as text, whatever it is: a worker here answers, logs and uploads nothing but mark-up and
//! scripts.

use klp_livepatch::outcome::{Artifact, Digest};
use klp_proto::v1;
use klp_proto::v1::commit_request::Ending;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use klp_proto::v1::report::Report;
use klp_proto::v1::unready::What;
use klp_tests::bench::coordinator::{order, upload};
use klp_tests::bench::worker::{Session, Simulated, platform, success};
use klp_tests::{Browser, Farm};
use tonic::transport::{Channel, Endpoint};

use super::{SETTINGS, home, no_complaint};

/// As long as a name may be, and no longer.
const HOSTILE: &str = "\"'><img data-hostile src=x onerror=pwned=1></pre><script data-hostile>pwned=1</script>&lt;";
/// Its mark-up, if it became any; and its scripts, if they ran.
const HARM: &str = "document.querySelectorAll('[data-hostile]').length > 0 || typeof pwned !== 'undefined'";

fn hostile() -> String {
    HOSTILE.to_owned()
}

/// As a worker would that means harm: whatever it may say is hostile.
async fn answer(session: &mut Session, channel: &Channel, of: &v1::Assignment, source: &[u8]) {
    session.log(of, format!("{HOSTILE}\n").as_bytes()).await.unwrap();
    let mut request = success(of).unwrap();
    match request.report.as_mut().and_then(|r| r.report.as_mut()) {
        Some(Report::Check(check)) => {
            check.targets[0].warnings = vec![hostile()];
        }
        Some(Report::Extract(extract)) if of.platform.as_ref().unwrap().codestream.ends_with('1') => {
            upload(channel.clone(), source).await.unwrap();
            extract.tool = hostile();
            let target = &mut extract.targets[0];
            target.warnings = vec![hostile()];
            request.artifacts = vec![v1::Artifact::from(&Artifact {
                name: target.file.clone(),
                digest: Digest::of(source),
                size: source.len() as u64,
            })];
        }
        _ => {
            request.ending = Some(Ending::Failed(v1::Failure {
                cause: v1::Cause::Yours.into(),
                message: hostile(),
            }));
            request.report = None;
            request.artifacts.clear();
        }
    }
    session.end(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_words_are_shown_and_do_nothing() {
    let farm = Farm::with_settings(&format!("{SETTINGS}tryout_ms = 0\nlease_ms = 60000\n"));
    let channel = Endpoint::new(farm.url.clone()).unwrap().connect().await.unwrap();
    let mut worker = Simulated::with_trees("hostile", 4, ["15.5u1", "15.5u2"].map(str::to_owned).into_iter());
    worker.state.tools[0].version = hostile();
    worker.state.unready = vec![v1::Unready {
        what: Some(What::Tree(platform("15.5u3".to_owned()))),
        reason: hostile(),
    }];
    let mut session = worker.open(channel.clone()).await.unwrap();
    session.hear().await.unwrap();
    let mut request = order("15\\..*");
    request.submitted_by = hostile();
    request.spec.as_mut().unwrap().name = "lp".to_owned();
    LivepatchServiceClient::new(channel.clone())
        .submit(request)
        .await
        .unwrap();
    let source = format!("/* {HOSTILE} */\nint klpp_f(void)\n{{\n\treturn sizeof(\"{HOSTILE}\");\n}}\n");
    // Two checks, then two extractions, one of which fails.
    let mut answered = 0;
    while answered < 4 {
        for of in session.take().await.unwrap() {
            answer(&mut session, &channel, &of, source.as_bytes()).await;
            answered += 1;
        }
    }
    let drained = tokio::task::block_in_place(|| farm.cli(["drain", "hostile", "--reason", HOSTILE]));
    assert_eq!(drained.code, Some(0), "{drained:?}");

    let browser = Browser::start().await;
    let searched: String = percent_encoded(HOSTILE);
    for (path, shows) in [
        ("/".to_owned(), true),
        (format!("/?search={searched}"), true),
        ("/livepatches/lp".to_owned(), true),
        ("/livepatches/lp/15.5u1/x86_64".to_owned(), true),
        ("/livepatches/lp/15.5u2/x86_64".to_owned(), true),
        (
            "/livepatches/lp/compare?a=15.5u1&b=15.5u2&arch=x86_64".to_owned(),
            false,
        ),
        ("/workers".to_owned(), true),
        ("/queue".to_owned(), false),
        (format!("/livepatches/{searched}"), false),
        (format!("/{searched}"), false),
    ] {
        browser.open(&format!("{}{path}", home(&farm))).await;
        let shown = "return document.body.textContent.includes('onerror=pwned=1') \
                     || [...document.querySelectorAll('input')].some((i) => i.value.includes('onerror=pwned=1'))";
        assert_eq!(browser.script(&format!("return {HARM}")).await, false, "{path}");
        if shows {
            assert_eq!(browser.script(shown).await, true, "{path}");
        }
    }
    browser
        .open(&format!("{}/livepatches/lp/15.5u1/x86_64", home(&farm)))
        .await;
    browser
        .script("[...document.querySelectorAll('a[data-log]')].at(-1).click()")
        .await;
    browser
        .until(
            "the log is there",
            "document.getElementById('log-text').textContent.includes('onerror=pwned=1')",
        )
        .await;
    browser
        .script("const find = document.getElementById('log-find'); find.value = '<script'; find.dispatchEvent(new Event('input', { bubbles: true }))")
        .await;
    browser
        .until("find marks it", "document.querySelector('#log-text mark')")
        .await;
    assert_eq!(browser.script(&format!("return {HARM}")).await, false, "the log");
    // Pages that are not there are answered so.
    no_complaint(&browser, "40").await;
}

/// A text as a part of an address.
fn percent_encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}
