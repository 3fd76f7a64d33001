//! Sixty codestreams on four architectures, which is what a large livepatch looks like.

use klp_tests::bench::worker::Simulated;
use klp_tests::{Browser, Farm, SUBMIT, keys};
use tokio_util::sync::CancellationToken;

use super::{SETTINGS, home, is_fit, no_complaint};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_codestreams_on_four_architectures_are_shown_and_kept_up_to_date() {
    let farm = Farm::with_settings(&format!("{SETTINGS}tryout_ms = 0\nlease_ms = 60000\n"));
    let worker = Simulated::large("simulated", 16);
    let channel = tonic::transport::Endpoint::new(farm.url.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut session = worker.open(channel).await.unwrap();
    // From now on the farm knows its trees.
    session.hear().await.unwrap();
    let stop = CancellationToken::new();
    let holding = tokio::spawn(session.hold(stop.clone()));
    let submitted =
        tokio::task::block_in_place(|| farm.cli(SUBMIT.map(|arg| if arg == "debian12-6.1" { "15.5" } else { arg })));
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    let browser = Browser::start().await;
    browser.open(&format!("{}/livepatches/lp", home(&farm))).await;
    browser
        .until(
            "all cells are there",
            "document.querySelectorAll('table.matrix a.cell').length === 240",
        )
        .await;
    browser
        .until(
            "some run",
            "document.querySelectorAll('table.matrix .s-running').length === 16",
        )
        .await;
    is_fit(&browser, "the livepatch").await;
    // The arrows walk, by column and by row.
    browser
        .script("document.getElementById('c-15.5u0-x86_64').focus()")
        .await;
    browser.press(keys::DOWN).await;
    assert_eq!(
        browser.script("return document.activeElement.id").await,
        "c-15.5u1-x86_64"
    );
    // A cell that has the focus keeps it while the others change.
    browser
        .script("window.here = 1; document.getElementById('c-15.5u59-aarch64').focus()")
        .await;
    let cancelled = tokio::task::block_in_place(|| farm.cli(["cancel", "lp"]));
    assert_eq!(cancelled.code, Some(0), "{cancelled:?}");
    browser
        .until(
            "all are cancelled",
            "document.querySelectorAll('table.matrix .s-cancelled').length === 240",
        )
        .await;
    assert_eq!(
        browser.script("return window.here + document.activeElement.id").await,
        "1c-15.5u59-aarch64"
    );
    no_complaint(&browser, "").await;
    stop.cancel();
    let _ = holding.await;
}
