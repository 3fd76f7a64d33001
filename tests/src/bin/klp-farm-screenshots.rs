//! Takes the README's pictures of the dashboard: a real farm, real kernels, a real browser.

#![allow(clippy::unwrap_used, reason = "a picture that can't be taken ends it")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use klp_tests::bench::coordinator::upload_source;
use klp_tests::bench::worker::{Simulated, Work};
use klp_tests::{Browser, Farm, SUBMIT, Theme, WIDTHS, WorkerOptions};
use tokio_util::sync::CancellationToken;

/// Takes pictures of the dashboard's pages, in both themes, on a desk and on a phone.
#[derive(Parser)]
struct Args {
    /// Trees of real kernels, as `klp-worker tree add` makes them.
    #[arg(long)]
    trees: PathBuf,
    /// The folder that the pictures come to.
    #[arg(long)]
    out: PathBuf,
}

/// Nobody looks at a picture that is higher than this, in pixels.
const MOST: u32 = 1400;

#[tokio::main]
async fn main() {
    let args = Args::parse();
    std::fs::create_dir_all(&args.out).unwrap();
    let mut farm = Farm::with_settings("http_listen = \"127.0.0.1:0\"\ntryout_ms = 0\nlease_ms = 60000\n");
    let trees = args.trees.canonicalize().unwrap();
    farm.add_worker(WorkerOptions {
        name: "build-1",
        trees: &trees,
        slots: 2,
        ..WorkerOptions::default()
    });
    let browser = Browser::start().await;
    real(&farm, &browser, &args.out).await;
    large(&farm, &browser, &args.out).await;
}

/// A livepatch on real kernels: itself, one of its cells, two of them compared.
async fn real(farm: &Farm, browser: &Browser, out: &Path) {
    let submitted = farm.cli(
        SUBMIT
            .map(|arg| if arg == "lp" { "snd-pcm-2022-1048" } else { arg })
            .into_iter()
            .chain(["--cve", "2022-1048", "--wait"]),
    );
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    let page = format!("{}/livepatches/snd-pcm-2022-1048", farm.http.as_deref().unwrap());
    browser.open(&page).await;
    take(browser, out, "livepatch").await;
    let cell = browser
        .script("return document.querySelector('table.matrix a.cell').href")
        .await;
    browser.open(cell.as_str().unwrap()).await;
    take(browser, out, "cell").await;
    let compare = browser.script("document.querySelector('form[action$=\"/compare\"]').submit()");
    compare.await;
    browser
        .until("the comparison is there", "location.pathname.endsWith('/compare')")
        .await;
    take(browser, out, "compare").await;
}

/// A large livepatch half way, on a simulated worker, and the pages of the whole farm.
async fn large(farm: &Farm, browser: &Browser, out: &Path) {
    let channel = tonic::transport::Endpoint::new(farm.url.clone())
        .unwrap()
        .connect()
        .await
        .unwrap();
    upload_source(channel.clone()).await.unwrap();
    let mut session = Simulated::large("build-2", 8).open(channel).await.unwrap();
    // From now on the farm knows its trees.
    session.hear().await.unwrap();
    let name = "snd-pcm-everywhere";
    let order = SUBMIT.map(|arg| match arg {
        "lp" => name,
        "debian12-6.1" => "15.5",
        other => other,
    });
    let submitted = tokio::task::block_in_place(|| farm.cli(order));
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    let (stop, count) = (CancellationToken::new(), std::sync::Arc::default());
    let work = Work::For(Duration::from_millis(500));
    let mut working = tokio::spawn(session.work(work, std::sync::Arc::clone(&count), stop.clone()));
    tokio::select! {
        // Its checks have passed, and some of its extractions.
        () = count.reached(300) => {}
        ended = &mut working => panic!("the worker ended: {ended:?}"),
    }
    let home = farm.http.as_deref().unwrap();
    browser.open(&format!("{home}/livepatches/{name}")).await;
    take(browser, out, "running").await;
    for (path, picture) in [("/", "list"), ("/workers", "workers"), ("/queue", "queue")] {
        browser.open(&format!("{home}{path}")).await;
        take(browser, out, picture).await;
    }
    stop.cancel();
    working.await.unwrap().unwrap();
}

async fn take(browser: &Browser, out: &Path, page: &str) {
    for theme in [Theme::Light, Theme::Dark] {
        browser.theme(theme).await;
        for (width, device) in WIDTHS.into_iter().zip(["desk", "phone"]) {
            let file = out.join(format!("{page}-{}-{device}.png", theme.name()));
            std::fs::write(&file, browser.picture(width, MOST).await).unwrap();
            println!("{}", file.display());
        }
    }
}
