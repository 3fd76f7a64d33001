//! A real Chromium without a window, driven over WebDriver (W3C) by Debian's ChromeDriver.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fantoccini::error::{CmdError, ErrorStatus};
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};

use crate::{Http, Proc};

/// How long something may take to be seen.
const PATIENCE: Duration = Duration::from_secs(90);
/// A desk's width and a phone's, in CSS pixels.
pub const WIDTHS: [u32; 2] = [1280, 400];

/// Keys as WebDriver writes them (W3C WebDriver, 17.4.2).
pub mod keys {
    pub const TAB: &str = "\u{e004}";
    pub const ENTER: &str = "\u{e007}";
    pub const DOWN: &str = "\u{e015}";
}

/// The colours that the page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    Light,
    Dark,
}

impl Theme {
    pub fn name(self) -> &'static str {
        match self {
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }
}

/// A browser, and the driver that it hangs on.
pub struct Browser {
    pub client: Client,
    driver: Http,
    /// The path of the session's commands at the driver.
    session: String,
    _process: Proc,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub async fn start() -> Self {
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
            "--hide-scrollbars",
            "--window-size=1280,900",
        ];
        let options = json!({ "args": args, "binary": "/usr/bin/chromium" });
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let Value::Object(wanted) = wanted else { unreachable!() };
        let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
        let client = builder.capabilities(wanted).connect(&url).await.unwrap();
        let session = client.session_id().await.unwrap().unwrap();
        Self {
            client,
            driver: Http::new(&url),
            session: format!("/session/{session}"),
            _process: process,
            _profile: profile,
        }
    }

    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// Clicks as a person does: once more when the page moved under the pointer.
    pub async fn click(&self, what: Locator<'_>) {
        let started = Instant::now();
        while let Err(error) = self.client.find(what).await.unwrap().click().await {
            let moved = matches!(&error, CmdError::Standard(error) if error.error == ErrorStatus::ElementClickIntercepted)
                || error.is_stale_element_reference();
            assert!(moved && started.elapsed() < PATIENCE, "{what:?}: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Types to whatever has the focus.
    pub async fn press(&self, keys: &str) {
        let focused = self.client.active_element().await.unwrap();
        focused.send_keys(keys).await.unwrap();
    }

    pub async fn script(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits until the script answers true.
    pub async fn until(&self, what: &str, script: &str) {
        let started = Instant::now();
        while self.script(&format!("return Boolean({script})")).await != true {
            if started.elapsed() > PATIENCE {
                let page = self.script("return document.body.innerText").await;
                panic!("{what}: not within {PATIENCE:?}: {}", page.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What the page complained of: scripts that failed, and whatever its policy forbids.
    pub async fn complaints(&self) -> Vec<Value> {
        let log = self.drive("se/log", &json!({ "type": "browser" })).await;
        log.as_array().unwrap().clone()
    }

    /// How large the page's own area is, in CSS pixels: a window can't be as narrow as a phone.
    pub async fn size(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Whether nothing sticks out to the right, on a desk and on a phone.
    pub async fn fits(&self) -> bool {
        let script = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        let mut fits = true;
        for width in WIDTHS {
            self.size(width, 900).await;
            fits &= self.script(script).await == true;
        }
        self.size(WIDTHS[0], 900).await;
        fits
    }

    pub async fn theme(&self, theme: Theme) {
        let features = [json!({ "name": "prefers-color-scheme", "value": theme.name() })];
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }))
            .await;
    }

    /// The page as a PNG, so wide, and as high as the page, but no higher than `most`.
    pub async fn picture(&self, width: u32, most: u32) -> Vec<u8> {
        self.size(width, 600).await;
        let height = self.script("return document.documentElement.scrollHeight").await;
        let height = u32::try_from(height.as_u64().unwrap()).unwrap();
        self.size(width, height.min(most)).await;
        self.client.screenshot().await.unwrap()
    }

    /// What axe-core says is wrong with the page for people who can't see, point or hear well: its serious and critical faults,
    /// each with the elements concerned.
    pub async fn barriers(&self) -> Vec<String> {
        let axe = std::fs::read_to_string(axe()).unwrap();
        self.script(&axe).await;
        let run = "const done = arguments[arguments.length - 1]; \
                   axe.run(document, { resultTypes: ['violations'] }).then((r) => done(r.violations), (e) => done([String(e)]))";
        let found = self.client.execute_async(run, Vec::new()).await.unwrap();
        let serious = found.as_array().unwrap().iter().filter(|fault| {
            // What is no fault is an error of axe itself.
            !matches!(fault["impact"].as_str(), Some("minor" | "moderate"))
        });
        let tell = |fault: &Value| {
            let nodes = fault["nodes"].as_array().into_iter().flatten();
            let nodes: Vec<String> = nodes
                .take(5)
                .map(|n| format!("{}: {}", n["html"], n["failureSummary"]))
                .collect();
            format!("{}: {}\n  {}", fault["id"], fault["help"], nodes.join("\n  "))
        };
        serious.map(tell).collect()
    }

    /// A command of the DevTools protocol.
    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.drive("goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
            .await
    }

    /// A command that fantoccini has no word for.
    async fn drive(&self, command: &str, body: &Value) -> Value {
        let (path, body) = (format!("{}/{command}", self.session), body.to_string());
        let json = [("content-type", "application/json")];
        let answer = self.driver.post(&path, &json, body.as_bytes()).json();
        answer["value"].clone()
    }
}

impl Drop for Browser {
    /// Ends the browser: it would outlive a driver that is killed.
    fn drop(&mut self) {
        self.driver.delete(&self.session);
    }
}

/// Where axe-core is, which `deploy/deps.sh --tests` unpacks.
fn axe() -> PathBuf {
    let folder = std::env::var_os("KLP_FARM_AXE").expect(
        "KLP_FARM_AXE is not set: `make test` sets it to the folder into which it unpacked axe-core, as `deploy/deps.sh --tests` does",
    );
    PathBuf::from(folder).join("axe.min.js")
}
