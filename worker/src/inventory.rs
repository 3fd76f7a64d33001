//! What this worker has to offer: the trees on its disk and the tools that work here, each after a look whether it does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use klp_livepatch::spec::Backend;
use klp_livepatch::task::Platform;
use klp_proto::v1;

use crate::config::{ToolPaths, Tunable};
use crate::extract::{ChildBackend, Extractor};
use crate::isolation::{self, Isolation};
use crate::trees::{Listing, TreeKind, TreeStore, verify};

/// The longest reason that is announced, in bytes.
const MAX_REASON: usize = 200;

pub struct Inventory {
    trees: Arc<TreeStore>,
    tools: ToolPaths,
    /// Which trees to announce, and how often tools and files are tried: a package may have come or gone.
    tuned: Tunable,
    /// How tools are confined, which they have to work with.
    isolation: Arc<Isolation>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    trees: Vec<Platform>,
    tools: Vec<Arc<dyn Extractor>>,
    broken_trees: BTreeMap<Platform, String>,
    broken_tools: BTreeMap<Backend, String>,
    /// When everything was looked at thoroughly; `None`: it is time to.
    examined: Option<Instant>,
}

/// What of a listing can be used, and why the rest can't.
fn sort_out(
    listing: Listing,
    selects: impl Fn(&Platform) -> bool,
    problems: impl Fn(&crate::trees::Tree) -> Vec<String>,
) -> (Vec<Platform>, BTreeMap<Platform, String>) {
    let broken = listing.broken.into_iter();
    let mut broken: BTreeMap<Platform, String> = broken.map(|(platform, e)| (platform, e.to_string())).collect();
    let mut trees = Vec::new();
    for tree in listing.trees {
        match problems(&tree).into_iter().next() {
            None => trees.push(tree.platform),
            Some(problem) => drop(broken.insert(tree.platform, problem)),
        }
    }
    trees.retain(&selects);
    broken.retain(|platform, _| selects(platform));
    (trees, broken)
}

impl Inventory {
    pub fn new(trees: Arc<TreeStore>, tools: ToolPaths, tuned: Tunable, isolation: Arc<Isolation>) -> Self {
        Self {
            trees,
            tools,
            tuned,
            isolation,
            seen: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something went wrong that may be this worker's fault: the next look is a thorough one.
    pub fn doubt(&self) {
        self.seen().examined = None;
    }

    /// Looks again: trees and tools come and go while a worker runs. Most looks are quick; once in a period files are
    /// compared with what they were and tools are tried.
    pub async fn refresh(&self) {
        let tuned = self.tuned.now();
        let period = tuned.readiness_period;
        let thorough = self.seen().examined.is_none_or(|at| at.elapsed() > period);
        let (store, isolation) = (self.trees.clone(), self.isolation.clone());
        let found_broken = self.seen().broken_trees.clone();
        let look = move || {
            sort_out(
                store.list(),
                |platform| tuned.codestreams.matches(&platform.codestream),
                |tree| {
                    let places = tree.places();
                    if let Some(shut) = isolation.unreadable(places.iter().map(PathBuf::as_path)) {
                        return vec![shut];
                    }
                    match tree.kind {
                        // Whoever builds a kernel of their own may build it anew; its files are read as they are.
                        TreeKind::Debian if thorough => verify::files(tree),
                        // What a thorough look found stays until the next one.
                        TreeKind::Debian => match found_broken.get(&tree.platform) {
                            Some(problem) => vec![problem.clone()],
                            None => verify::missing(tree),
                        },
                        TreeKind::Kdir | TreeKind::Suse => verify::missing(tree),
                    }
                },
            )
        };
        let (trees, broken_trees) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        let tools = match thorough {
            true => Some(try_tools(&self.tools, &self.isolation).await),
            false => None,
        };
        let mut seen = self.seen();
        for (platform, problem) in &broken_trees {
            if seen.broken_trees.get(platform) != Some(problem) {
                tracing::warn!("the tree of {platform} can't be used: {problem}");
            }
        }
        seen.trees = trees;
        seen.broken_trees = broken_trees;
        let Some((tools, broken_tools)) = tools else { return };
        for (backend, problem) in &broken_tools {
            if seen.broken_tools.get(backend) != Some(problem) {
                tracing::warn!("the {backend} backend does not work here: {problem}");
            }
        }
        seen.tools = tools;
        seen.broken_tools = broken_tools;
        seen.examined = Some(Instant::now());
    }

    /// The tool that works as this backend here, if one does.
    pub fn extractor(&self, backend: Backend) -> Option<Arc<dyn Extractor>> {
        self.seen()
            .tools
            .iter()
            .find(|tool| tool.identity().backend == backend)
            .cloned()
    }

    /// Puts what is here, and what is here and can't be used, into a state for the coordinator.
    pub fn describe(&self, state: &mut v1::WorkerState) {
        use v1::unready::What;
        let seen = self.seen();
        state.trees = seen.trees.iter().map(v1::Platform::from).collect();
        let tools = seen.tools.iter().map(|tool| tool.identity());
        let tools = tools.map(|t| v1::Tool {
            backend: t.backend.to_string(),
            version: t.version.clone(),
        });
        state.tools = tools.collect();
        let trees = seen.broken_trees.iter();
        let trees = trees.map(|(platform, why)| (What::Tree(platform.into()), why));
        let tools = seen.broken_tools.iter();
        let tools = tools.map(|(backend, why)| (What::Backend(backend.to_string()), why));
        let unready = trees.chain(tools).map(|(what, why)| v1::Unready {
            what: Some(what),
            reason: shortened(why),
        });
        state.unready = unready.collect();
        let fences = isolation::announced(&self.isolation).into_iter();
        let fences = fences.map(|(fence, missing)| v1::Fence {
            name: fence.to_string(),
            missing: missing.as_deref().map(shortened).unwrap_or_default(),
        });
        state.isolation = fences.collect();
    }
}

/// Each backend that works here, and why those that are installed and don't work do not.
async fn try_tools(
    paths: &ToolPaths,
    isolation: &Arc<Isolation>,
) -> (Vec<Arc<dyn Extractor>>, BTreeMap<Backend, String>) {
    let [native, ccp, clang_extract] = [Backend::Native, Backend::Ccp, Backend::ClangExtract];
    let probed = tokio::join!(
        ChildBackend::probe(native, paths, isolation),
        ChildBackend::probe(ccp, paths, isolation),
        ChildBackend::probe(clang_extract, paths, isolation),
    );
    let (mut tools, mut broken) = (Vec::<Arc<dyn Extractor>>::new(), BTreeMap::new());
    for (backend, probed) in [(native, probed.0), (ccp, probed.1), (clang_extract, probed.2)] {
        match probed {
            Ok(Some(tool)) => tools.push(Arc::new(tool)),
            Ok(None) => {}
            Err(problem) => drop(broken.insert(backend, problem)),
        }
    }
    (tools, broken)
}

/// One line, at most as long as an announcement may be.
fn shortened(reason: &str) -> String {
    let reason = reason.replace(char::is_control, " ");
    if reason.len() <= MAX_REASON {
        return reason;
    }
    const MORE: &str = " …";
    let mut end = MAX_REASON - MORE.len();
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MORE}", &reason[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(shortened("short\nand plain"), "short and plain");
        let long = shortened(&"é".repeat(150));
        assert!(long.len() <= MAX_REASON && long.ends_with("é …"), "{long}");
    }
}
