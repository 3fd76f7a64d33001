//! A worker: the real session, outbox and delivery, around attempts that only take their time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klp_livepatch::names::WorkerName;
use klp_livepatch::outcome::{Cause, Ending, Failure};
use klp_livepatch::report::{CheckReport, CompileCheck, ExtractReport, Report, TargetCheck, TargetExtraction};
use klp_livepatch::task::{AttemptId, Incarnation};
use klp_proto::v1;
use klp_worker::attempt_log::AttemptLog;
use klp_worker::attempts::Attempts;
use klp_worker::delivery::{self, Courier};
use klp_worker::line::Line;
use klp_worker::outbox::{Outbox, Parcel, Product};
use klp_worker::session::{self, Party};
use tokio_util::sync::CancellationToken;
use tonic::transport::Uri;
use uuid::Uuid;

use crate::book::Book;
use crate::net;

/// As the real worker's, see `klp_worker::worker`.
const LEFT_OVER_PATIENCE: Duration = Duration::from_secs(5);

/// What a worker is over all its starts.
#[derive(Clone)]
pub struct Kind {
    pub name: &'static str,
    pub trees: Vec<&'static str>,
    pub slots: u32,
    pub data_dir: PathBuf,
}

/// One start of a worker.
#[derive(Clone)]
struct Worker {
    kind: Kind,
    uri: Uri,
    incarnation: Incarnation,
    attempts: Attempts,
    courier: Courier,
    book: Book,
}

/// Runs until its host crashes.
pub async fn work(kind: Kind, book: Book) -> turmoil::Result {
    let outbox = Outbox::open(&kind.data_dir)?;
    let mut left_over = outbox.list()?;
    left_over.sort_by_key(|parcel| parcel.attempt);
    let name: WorkerName = kind.name.parse()?;
    let worker = Worker {
        uri: net::uri(),
        incarnation: Incarnation(Uuid::from_u128(fastrand::u128(..))),
        attempts: Attempts::default(),
        courier: Courier {
            worker: name,
            outbox: Arc::new(outbox),
            line: Line::new(net::channel(&delivery::endpoint(net::uri()))),
        },
        kind,
        book,
    };
    for parcel in left_over {
        let worker = worker.clone();
        let delivering = tokio::spawn(async move { worker.deliver(&parcel).await });
        // What takes longer goes on beside the session.
        let _ = tokio::time::timeout(LEFT_OVER_PATIENCE, delivering).await;
    }
    session::keep(&worker, &CancellationToken::new()).await?;
    Ok(())
}

impl Worker {
    async fn run(&self, id: AttemptId, assignment: v1::Assignment, cancel: CancellationToken) {
        let log = AttemptLog::default();
        let sender = tokio::spawn({
            let (log, client) = (log.clone(), self.courier.client());
            async move { log.send(id, client, None).await }
        });
        log.note(&format!("{id} on {}", self.kind.name));
        self.book.took(id, self.kind.name);
        let takes = Duration::from_millis(fastrand::u64(50..5_000));
        let product = tokio::select! {
            biased;
            () = cancel.cancelled() => Product {
                ending: Ending::HandedBack { reason: "no longer wanted".to_owned() },
                report: None,
                files: Vec::new(),
            },
            () = tokio::time::sleep(takes) => make(id, &assignment),
        };
        let parcel = self.courier.outbox.put(id, self.incarnation, "", product);
        let parcel = parcel.expect("the disk takes it");
        log.close();
        self.attempts.ended(id);
        let _ = tokio::time::timeout(Duration::from_secs(10), sender).await;
        self.deliver(&parcel).await;
        self.attempts.remove(id);
    }

    async fn deliver(&self, parcel: &Parcel) {
        self.book.finished(parcel.attempt, self.kind.name);
        let answer = self.courier.deliver(parcel).await;
        self.book.answered(parcel.attempt, self.kind.name, answer);
    }
}

impl Party for Worker {
    fn coordinator(&self) -> &Uri {
        &self.uri
    }

    fn courier(&self) -> &Courier {
        &self.courier
    }

    fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    fn describe(&self) -> v1::WorkerState {
        let platform = |codestream: &&str| v1::Platform {
            codestream: (*codestream).to_owned(),
            arch: "x86_64".to_owned(),
        };
        v1::WorkerState {
            worker: self.kind.name.to_owned(),
            incarnation: self.incarnation.to_string(),
            trees: self.kind.trees.iter().map(platform).collect(),
            tools: vec![v1::Tool {
                backend: "native".to_owned(),
                version: "1".to_owned(),
            }],
            slots: self.kind.slots,
            version: "1".to_owned(),
            ..v1::WorkerState::default()
        }
    }

    fn start(&self, id: AttemptId, assignment: v1::Assignment) {
        let Some(cancel) = self.attempts.begin(id) else { return };
        let worker = self.clone();
        tokio::spawn(async move { worker.run(id, assignment, cancel).await });
    }

    fn run_errands(&self, _: Vec<v1::Errand>) {}

    fn bid_farewell(&self) {}

    fn noise(&self) -> u16 {
        fastrand::u16(..)
    }
}

/// Mostly a success; sometimes this codestream's failure, or the farm's.
fn make(id: AttemptId, assignment: &v1::Assignment) -> Product {
    let failed = |cause| Product::failed(Failure::new(cause, "as it happens"));
    match fastrand::u32(0..100) {
        0..4 => failed(Cause::Codestream),
        4..8 => failed(Cause::Farm),
        _ => success(id, assignment),
    }
}

fn success(id: AttemptId, assignment: &v1::Assignment) -> Product {
    let target = &assignment.targets[0];
    let (report, files) = match assignment.kind() {
        v1::TaskKind::Extract => {
            let extraction = TargetExtraction {
                file: target.file.parse().expect("a path"),
                object: "vmlinux".parse().expect("an object"),
                source_artifact: target.file.clone(),
                patched: Vec::new(),
                externalized: Vec::new(),
                warnings: Vec::new(),
                compile: CompileCheck {
                    passed: true,
                    ..CompileCheck::default()
                },
                tool_ms: 1,
            };
            let report = ExtractReport {
                tool: "native 1".to_owned(),
                ibt: false,
                targets: vec![extraction],
                origin: None,
            };
            // Of two attempts, seldom the same.
            let source = format!("int klpp_f(void) {{ return {}; }}\n", id.number % 3);
            let source = source.repeat(fastrand::usize(1..20_000));
            let files = vec![(target.file.clone(), source.into_bytes())];
            (Report::Extract(report), files)
        }
        _ => {
            let check = TargetCheck {
                file: target.file.parse().expect("a path"),
                config: None,
                object: None,
                module_path: None,
                left_out: None,
                functions: Vec::new(),
                problems: Vec::new(),
                warnings: Vec::new(),
            };
            (
                Report::Check(CheckReport {
                    targets: vec![check],
                    ..Default::default()
                }),
                Vec::new(),
            )
        }
    };
    Product {
        ending: Ending::Succeeded,
        report: Some(report),
        files,
    }
}
