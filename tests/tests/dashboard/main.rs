//! The dashboard in a real browser: it shows what happens without a reload, can be walked by keyboard, fits a phone, and breaks no
//! rule of its own content security policy.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::time::Duration;

use fantoccini::{Client, ClientBuilder, Locator};
use klp_proto::v1;
use klp_tests::bench::worker::Simulated;
use klp_tests::{Farm, Http, Proc, SUBMIT, WorkerOptions, trees};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const SETTINGS: &str = "http_listen = \"127.0.0.1:0\"\n";
/// How long something may take to be seen.
const PATIENCE: Duration = Duration::from_secs(90);

/// A browser, and the driver that it hangs on.
struct Browser {
    client: Client,
    driver: Http,
    _process: Proc,
    _profile: tempfile::TempDir,
}

impl Browser {
    async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new("/usr/bin/chromedriver");
        command.arg("--port=0");
        let mut process = Proc::start_as("chromedriver", command, profile.path());
        let port = process.wait_for_line("ChromeDriver was started successfully on port ");
        let url = format!("http://127.0.0.1:{}", port.trim_end_matches('.'));
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
        ];
        let options = json!({ "args": args, "binary": "/usr/bin/chromium" });
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let Value::Object(wanted) = wanted else { unreachable!() };
        let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
        let client = builder.capabilities(wanted).connect(&url).await.unwrap();
        Self {
            client,
            driver: Http::new(&url),
            _process: process,
            _profile: profile,
        }
    }

    async fn script(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits until the script answers true.
    async fn until(&self, what: &str, script: &str) {
        let started = std::time::Instant::now();
        while self.script(&format!("return Boolean({script})")).await != true {
            if started.elapsed() > PATIENCE {
                let page = self.script("return document.body.innerText").await;
                panic!("{what}: not within {PATIENCE:?}: {}", page.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What the page complained of: scripts that failed, and whatever its policy forbids.
    async fn complaints(&self) -> Vec<Value> {
        let session = self.client.session_id().await.unwrap().unwrap();
        let body = br#"{"type": "browser"}"#;
        let json = [("content-type", "application/json")];
        let log = self
            .driver
            .post(&format!("/session/{session}/se/log"), &json, body)
            .json();
        log["value"].as_array().unwrap().clone()
    }

    async fn width(&self, width: u32) {
        self.client.set_window_size(width, 900).await.unwrap();
    }

    /// Whether nothing sticks out to the right, on a desk and on a phone.
    async fn fits(&self) -> bool {
        let script = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        let mut fits = true;
        for width in [400, 1280] {
            self.width(width).await;
            fits &= self.script(script).await == true;
        }
        fits
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_livepatch_is_followed_from_the_list_to_its_source_without_a_reload() {
    let Some(trees) = trees() else { return };
    let mut farm = Farm::with_settings(SETTINGS);
    farm.add_worker(WorkerOptions {
        trees: &trees,
        slots: 2,
        ..WorkerOptions::default()
    });
    let home = farm.http.clone().unwrap();
    let browser = Browser::start().await;
    browser.client.goto(&home).await.unwrap();
    browser
        .until(
            "the page is live",
            "document.getElementById('connection').textContent === 'live'",
        )
        .await;
    browser.script("window.here = 1").await;
    assert_eq!(farm.cli(SUBMIT).code, Some(0));
    browser
        .until(
            "the list has it",
            "document.querySelector('tbody a')?.textContent === 'lp'",
        )
        .await;
    assert_eq!(browser.script("return window.here").await, 1, "it was not loaded again");
    browser
        .client
        .find(Locator::LinkText("lp"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();

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
    assert!(
        browser
            .script("return document.querySelectorAll('svg.timeline rect').length")
            .await
            .as_u64()
            >= Some(4)
    );

    // By keyboard: a cell tells more while it has the focus, and the arrows walk.
    let focused = "const cells = document.querySelectorAll('table.matrix a.cell'); cells[0].focus(); \
                   return getComputedStyle(cells[0].querySelector('.tip')).display";
    assert_eq!(browser.script(focused).await, "block");
    browser
        .client
        .active_element()
        .await
        .unwrap()
        .send_keys("\u{e015}")
        .await
        .unwrap();
    let second = "return document.activeElement === document.querySelectorAll('table.matrix a.cell')[1]";
    assert_eq!(browser.script(second).await, true);
    assert!(browser.fits().await, "the livepatch");

    // One cell: the source with its own names marked, a link for each piece, the log with find.
    browser.client.active_element().await.unwrap().click().await.unwrap();
    browser
        .until(
            "the source is there",
            "document.querySelector('.source .p')?.textContent.startsWith('klpp_')",
        )
        .await;
    browser
        .script("document.querySelector('details.pieces').open = true")
        .await;
    browser
        .client
        .find(Locator::Css("details.pieces a"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    browser
        .until("the piece is shown", "document.querySelector('.line:target')")
        .await;
    browser
        .script("[...document.querySelectorAll('a[data-log]')].at(-1).click()")
        .await;
    browser
        .until(
            "the log is there",
            "document.getElementById('log-text').textContent.includes('extracting')",
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
    assert!(browser.fits().await, "the cell");
    browser
        .client
        .find(Locator::XPath("//button[text()='Compare']"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    browser
        .until("the comparison is there", "location.pathname.endsWith('/compare')")
        .await;

    // Acting: a worker is drained by the form, and the page says so.
    browser.client.goto(&format!("{home}/workers")).await.unwrap();
    let reason = browser
        .client
        .find(Locator::Css("form[action$='/drain'] input"))
        .await
        .unwrap();
    reason.send_keys("new disk\n").await.unwrap();
    browser
        .until(
            "it is drained",
            "document.body.textContent.includes('drained') && document.body.textContent.includes('new disk')",
        )
        .await;
    assert!(farm.cli(["workers"]).stdout.contains("new disk"));
    for path in ["/queue", "/?search=lp&state=succeeded", "/livepatches/none"] {
        browser.client.goto(&format!("{home}{path}")).await.unwrap();
        assert!(browser.fits().await, "{path}");
    }
    let complaints = browser.complaints().await;
    let others: Vec<&Value> = complaints
        .iter()
        // The page of a livepatch that is not there is answered so.
        .filter(|c| !c["message"].as_str().unwrap_or_default().contains("404"))
        .collect();
    assert!(others.is_empty(), "{others:#?}");
    browser.client.clone().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_codestreams_on_four_architectures_are_shown_and_kept_up_to_date() {
    let farm = Farm::with_settings(&format!("{SETTINGS}tryout_ms = 0\nlease_ms = 60000\n"));
    let archs = ["x86_64", "ppc64le", "s390x", "aarch64"];
    let platforms = (0..60).flat_map(|n| {
        archs.map(|arch| v1::Platform {
            codestream: format!("15.5u{n}"),
            arch: arch.to_owned(),
        })
    });
    let worker = Simulated::with_platforms("simulated", 16, platforms);
    let channel = tonic::transport::Endpoint::new(farm.url.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let session = worker.open(channel).await.unwrap();
    let stop = CancellationToken::new();
    let holding = tokio::spawn(session.hold(stop.clone()));
    let submitted =
        tokio::task::block_in_place(|| farm.cli(SUBMIT.map(|arg| if arg == "debian12-6.1" { "15.5" } else { arg })));
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    let browser = Browser::start().await;
    browser
        .client
        .goto(&format!("{}/livepatches/lp", farm.http.as_deref().unwrap()))
        .await
        .unwrap();
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
    assert!(browser.fits().await, "the livepatch");
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
    assert_eq!(browser.complaints().await, Vec::<Value>::new());
    stop.cancel();
    let _ = holding.await;
    browser.client.clone().close().await.unwrap();
}
