//! From the list to the source and the log that grows, with a mouse.

use fantoccini::Locator;
use klp_tests::{Browser, Farm, SUBMIT, Tools, WorkerOptions, one_codestream, trees};

use super::{LIVE, SETTINGS, home, is_fit, no_complaint};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_livepatch_is_followed_from_the_list_to_its_source_without_a_reload() {
    let Some(trees) = trees() else { return };
    let mut farm = Farm::with_settings(SETTINGS);
    farm.add_worker(WorkerOptions {
        trees: &trees,
        slots: 2,
        ..WorkerOptions::default()
    });
    let browser = Browser::start().await;
    browser.open(&home(&farm)).await;
    browser.until("the page is live", LIVE).await;
    browser.script("window.here = 1").await;
    assert_eq!(farm.cli(SUBMIT).code, Some(0));
    browser
        .until(
            "the list has it",
            "document.querySelector('tbody a')?.textContent === 'lp'",
        )
        .await;
    assert_eq!(browser.script("return window.here").await, 1, "it was not loaded again");
    is_fit(&browser, "the list").await;
    browser.click(Locator::LinkText("lp")).await;

    browser
        .until(
            "the matrix is there",
            "document.querySelectorAll('table.matrix a.cell').length >= 2",
        )
        .await;
    browser.script("window.here = 2").await;
    browser
        .until(
            "all cells succeed",
            "[...document.querySelectorAll('table.matrix a.cell')].every((c) => c.classList.contains('s-succeeded'))",
        )
        .await;
    browser
        .until(
            "the verdict is told",
            "document.querySelector('#head .chip').textContent === 'succeeded'",
        )
        .await;
    browser
        .until("groups are told", "document.getElementById('h-groups')")
        .await;
    assert_eq!(browser.script("return window.here").await, 2, "it was not loaded again");
    let bars = browser
        .script("return document.querySelectorAll('svg.timeline rect').length")
        .await;
    assert!(bars.as_u64() >= Some(4), "{bars}");
    is_fit(&browser, "the livepatch").await;

    // One cell: the source with its own names marked, a link for each piece.
    browser.click(Locator::Css("table.matrix a.cell")).await;
    browser
        .until(
            "the source is there",
            "document.querySelector('.source .p')?.textContent.startsWith('klpp_')",
        )
        .await;
    browser
        .until(
            "the pieces are told",
            "document.querySelector('details.pieces summary')",
        )
        .await;
    browser.click(Locator::Css("details.pieces summary")).await;
    browser.click(Locator::Css("details.pieces a")).await;
    browser
        .until("the piece is shown", "document.querySelector('.line:target')")
        .await;
    is_fit(&browser, "the cell").await;
    browser.click(Locator::XPath("//button[text()='Compare']")).await;
    browser
        .until("the comparison is there", "location.pathname.endsWith('/compare')")
        .await;
    is_fit(&browser, "the comparison").await;

    // Acting: a worker is drained by the form, and the page says so.
    browser.open(&format!("{}/workers", home(&farm))).await;
    let reason = browser.client.find(Locator::Css("form[action$='/drain'] input")).await;
    reason.unwrap().send_keys("new disk\n").await.unwrap();
    browser
        .until(
            "it is drained",
            "document.body.textContent.includes('drained') && document.body.textContent.includes('new disk')",
        )
        .await;
    assert!(farm.cli(["workers"]).stdout.contains("new disk"));
    for path in ["/workers", "/queue", "/?search=lp&state=succeeded", "/livepatches/none"] {
        browser.open(&format!("{}{path}", home(&farm))).await;
        is_fit(&browser, path).await;
    }
    // The page of a livepatch that is not there is answered so.
    no_complaint(&browser, "404").await;
}

/// `make` as an extraction has it, waiting for a word of the test.
const SLOW_MAKE: &str =
    "#!/bin/sh\nuntil [ -e \"${0%/*}/go\" ]; do sleep 0.1; done\nPATH=${PATH#*:} exec make \"$@\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_grows_while_it_is_read_and_what_runs_can_be_cancelled() {
    let Some(trees) = trees() else { return };
    let (tools, codestream) = (Tools::new(), one_codestream(&trees));
    tools.put_for_extraction("make", SLOW_MAKE);
    let mut farm = Farm::with_settings(&format!("{SETTINGS}tryout_ms = 0\n"));
    farm.add_worker(WorkerOptions {
        trees: &trees,
        codestreams: &codestream,
        tools: Some(tools.path()),
        ..WorkerOptions::default()
    });
    assert_eq!(farm.cli(SUBMIT).code, Some(0));
    let browser = Browser::start().await;
    browser.open(&format!("{}/livepatches/lp", home(&farm))).await;
    farm.wait_until_extracting("lp");
    browser
        .until("it runs", "document.querySelector('table.matrix .s-running')")
        .await;
    browser.click(Locator::Css("table.matrix a.cell")).await;
    browser
        .until(
            "the extraction's log is offered",
            "document.querySelectorAll('a[data-log]').length === 2",
        )
        .await;
    browser.script("window.here = 1").await;
    browser.click(Locator::XPath("(//a[@data-log])[last()]")).await;
    let log = "document.getElementById('log-text').textContent";
    browser
        .until("the log is there", &format!("{log}.includes('extracting')"))
        .await;
    let before = browser.script(&format!("return {log}.length")).await.as_u64().unwrap();
    std::fs::write(tools.file("go"), "").unwrap();
    browser
        .until("the log grows", &format!("{log}.length > {before}"))
        .await;
    browser
        .until(
            "the cell tells the end",
            "document.querySelector('h1 .cell').classList.contains('s-succeeded')",
        )
        .await;
    let find = browser.client.find(Locator::Id("log-find")).await.unwrap();
    find.send_keys("extracting").await.unwrap();
    browser
        .until(
            "find marks it",
            "document.querySelectorAll('#log-text mark').length > 0",
        )
        .await;
    is_fit(&browser, "the log").await;
    assert_eq!(browser.script("return window.here").await, 1, "it was not loaded again");

    // Another one, which is ended from its page while it runs.
    std::fs::remove_file(tools.file("go")).unwrap();
    let again = farm.cli(SUBMIT.map(|arg| if arg == "lp" { "again" } else { arg }));
    assert_eq!(again.code, Some(0), "{again:?}");
    browser.open(&format!("{}/livepatches/again", home(&farm))).await;
    browser
        .until("it runs", "document.querySelector('table.matrix .s-running')")
        .await;
    let reason = browser.client.find(Locator::Css("form[action$='/cancel'] input")).await;
    reason.unwrap().send_keys("the fix is wrong\n").await.unwrap();
    browser.client.accept_alert().await.unwrap();
    browser
        .until(
            "it is cancelled",
            "document.querySelector('#head .chip').textContent === 'cancelled' \
             && document.getElementById('head').textContent.includes('the fix is wrong')",
        )
        .await;
    let status = farm.cli(["status", "again"]).stdout;
    assert!(status.contains("the fix is wrong"), "{status}");
    no_complaint(&browser, "").await;
}
