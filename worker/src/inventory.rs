//! What this worker has to offer: the trees on its disk and the tools that work here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use klp_livepatch::CodestreamFilter;
use klp_livepatch::spec::Backend;
use klp_livepatch::task::Platform;
use klp_proto::v1;

use crate::extract::{Extractor, NativeBackend};
use crate::trees::TreeStore;

/// How often the tools are tried again: a package may have come or gone.
const PROBE_PERIOD: Duration = Duration::from_secs(60);

pub struct Inventory {
    trees: Arc<TreeStore>,
    filter: CodestreamFilter,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    trees: Vec<Platform>,
    tools: Vec<Arc<dyn Extractor>>,
    probed: Option<Instant>,
    problems: Vec<String>,
}

impl Inventory {
    pub fn new(trees: Arc<TreeStore>, filter: CodestreamFilter) -> Self {
        Self {
            trees,
            filter,
            seen: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks again: trees and tools come and go while a worker runs.
    pub async fn refresh(&self) {
        let mut problems = Vec::new();
        let store = self.trees.clone();
        let listing = tokio::task::spawn_blocking(move || store.list())
            .await
            .unwrap_or_default();
        problems.extend(listing.broken.iter().map(ToString::to_string));
        let platforms = listing.trees.into_iter().map(|tree| tree.platform);
        let trees = platforms.filter(|p| self.filter.matches(&p.codestream)).collect();
        self.seen().trees = trees;
        let due = self.seen().probed.is_none_or(|at| at.elapsed() > PROBE_PERIOD);
        if due {
            let native = NativeBackend::probe().await;
            let mut seen = self.seen();
            seen.probed = Some(Instant::now());
            seen.tools = match native {
                Ok(native) => vec![Arc::new(native)],
                Err(error) => {
                    problems.push(format!("the native backend does not work here: {error}"));
                    Vec::new()
                }
            };
        }
        let mut seen = self.seen();
        for problem in problems.iter().filter(|p| !seen.problems.contains(p)) {
            tracing::warn!("{problem}");
        }
        if due || !problems.is_empty() {
            seen.problems = problems;
        }
    }

    /// The tool that works as this backend here, if one does.
    pub fn extractor(&self, backend: Backend) -> Option<Arc<dyn Extractor>> {
        self.seen()
            .tools
            .iter()
            .find(|tool| tool.identity().backend == backend)
            .cloned()
    }

    pub fn to_wire(&self) -> (Vec<v1::Platform>, Vec<v1::Tool>) {
        let seen = self.seen();
        let tools = seen.tools.iter().map(|tool| tool.identity());
        (
            seen.trees.iter().map(v1::Platform::from).collect(),
            tools
                .map(|t| v1::Tool {
                    backend: t.backend.to_string(),
                    version: t.version.clone(),
                })
                .collect(),
        )
    }
}
