//! The same by keyboard alone.

use klp_tests::{Browser, Farm, SUBMIT, WorkerOptions, keys, one_codestream, trees};

use super::{SETTINGS, home, no_complaint};

/// Goes on with Tab until something that this selector names has the focus, which must be seen.
async fn tab_to(browser: &Browser, selector: &str) {
    for _ in 0..60 {
        browser.press(keys::TAB).await;
        let reached = format!("return document.activeElement.matches({selector:?})");
        if browser.script(&reached).await == true {
            let style =
                "const s = getComputedStyle(document.activeElement); return s.outlineStyle + ' ' + s.outlineWidth";
            let outline = browser.script(style).await;
            let outline = outline.as_str().unwrap();
            assert!(
                !outline.starts_with("none") && !outline.ends_with(" 0px"),
                "{selector}: {outline}"
            );
            return;
        }
    }
    let body = browser.script("return document.body.innerText").await;
    panic!("no Tab leads to {selector}: {body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_can_be_reached_and_done_by_keyboard() {
    let Some(trees) = trees() else { return };
    let mut farm = Farm::with_settings(SETTINGS);
    farm.add_worker(WorkerOptions {
        trees: &trees,
        codestreams: &one_codestream(&trees),
        ..WorkerOptions::default()
    });
    assert_eq!(farm.cli(SUBMIT).code, Some(0));
    farm.ends_in_success("lp");
    let browser = Browser::start().await;
    browser.open(&home(&farm)).await;

    // The first Tab offers to skip what is on top of each page.
    tab_to(&browser, "a.skip").await;
    browser.press(keys::ENTER).await;
    tab_to(&browser, "input[type=search]").await;
    browser.press("lp").await;
    browser.press(keys::ENTER).await;
    browser
        .until("it was searched", "location.search.includes('search=lp')")
        .await;
    tab_to(&browser, "tbody a").await;
    browser.press(keys::ENTER).await;
    browser
        .until("the livepatch is there", "location.pathname === '/livepatches/lp'")
        .await;

    // A cell tells more while it has the focus, and the arrows walk.
    tab_to(&browser, "table.matrix a.cell").await;
    let tip = "return getComputedStyle(document.activeElement.querySelector('.tip')).display";
    assert_eq!(browser.script(tip).await, "block");
    browser.press(keys::ENTER).await;
    browser
        .until("the cell is there", "document.querySelector('a[data-log]')")
        .await;
    tab_to(&browser, "a[data-log]").await;
    browser.press(keys::ENTER).await;
    browser
        .until(
            "the log is there, and has the focus",
            "document.activeElement.id === 'log-text' || document.activeElement.id === 'log-find'",
        )
        .await;
    tab_to(&browser, "#log-close").await;
    browser.press(keys::ENTER).await;
    browser
        .until("the log is closed", "document.getElementById('logs').hidden")
        .await;
    browser
        .until(
            "the focus is where it was",
            "document.activeElement.matches('a[data-log]')",
        )
        .await;
    tab_to(&browser, "details.pieces summary").await;
    browser.press(keys::ENTER).await;
    tab_to(&browser, "details.pieces a").await;
    browser.press(keys::ENTER).await;
    browser
        .until("the piece is shown", "document.querySelector('.line:target')")
        .await;

    browser.open(&format!("{}/workers", home(&farm))).await;
    tab_to(&browser, "form[action$='/drain'] input").await;
    browser.press("new disk").await;
    browser.press(keys::ENTER).await;
    browser
        .until("it is drained", "document.body.textContent.includes('new disk')")
        .await;
    no_complaint(&browser, "").await;
}
