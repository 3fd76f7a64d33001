//! Scans a kernel-source repository for a CVE's fixes: which branches have them, which kernels lack them, and what a
//! livepatch of those would target.
//!
//! [`scan`] asks git in a few batches however many codestreams there are: names, two searches over all branches, files. What
//! the answers mean is decided in `klp_livepatch::scan`.

mod facts;
mod git;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use klp_livepatch::fix::patch::Patch;
use klp_livepatch::names::{Cve, TreePath};
use klp_livepatch::scan::branches::Branches;
use klp_livepatch::scan::propose::{self, Draft};
use klp_livepatch::scan::{CodestreamScan, ScanReport, Status, decide};
use klp_livepatch::{Arch, Codestream};
use tokio_util::sync::CancellationToken;

use crate::process::ProcessError;
use facts::Facts;
pub use git::KernelSource;
pub use sources::{NoSources, SourceDirs, Sources};

/// Codestreams of one scan.
pub const MAX_CODESTREAMS: usize = 2000;
/// Patches asked for by hand.
pub const MAX_ADDED: usize = 100;

/// What to scan for.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    pub cve: Cve,
    pub codestreams: Vec<ScanCodestream>,
    /// Patches that are taken as fixes wherever a branch has them, before those of the CVE.
    pub add_patches: Vec<TreePath>,
    pub branches: Branches,
}

#[derive(Clone, Debug)]
pub struct ScanCodestream {
    pub name: Codestream,
    /// The kernel's version, whose tag is `rpm-<kernel>`.
    pub kernel: String,
    pub archs: BTreeSet<Arch>,
}

/// A report, and the patches it speaks of.
#[derive(Clone, Debug)]
pub struct ScanOutcome {
    pub report: ScanReport,
    pub fixes: Vec<FixFile>,
}

/// One patch, to be kept as `fixes/<scope>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixFile {
    pub scope: String,
    pub name: String,
    pub bytes: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("{} holds no git repository; KLP_KERNEL_SOURCE must name a clone of kernel-source", path.display())]
    NoRepository { path: PathBuf },
    #[error("`{command}` {why}")]
    Git { command: String, why: String },
    #[error("{what}; at most {limit}")]
    TooMany { what: String, limit: usize },
    #[error("the scan was cancelled")]
    Cancelled,
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("can't keep what git says: {0}")]
    Io(#[from] std::io::Error),
}

/// Scans for a CVE. `sources` gives the kernels' sources, where they are at hand; without them nothing is proposed.
///
/// # Errors
/// If the repository can't be read. What is missing in it is told in the report.
pub async fn scan(
    source: &KernelSource,
    request: &ScanRequest,
    sources: Arc<dyn Sources>,
    cancel: &CancellationToken,
) -> Result<ScanOutcome, ScanError> {
    for (count, limit, what) in [
        (request.codestreams.len(), MAX_CODESTREAMS, "codestreams"),
        (request.add_patches.len(), MAX_ADDED, "patches to add"),
    ] {
        if count > limit {
            return Err(ScanError::TooMany {
                what: format!("{count} {what}"),
                limit,
            });
        }
    }
    let mut facts = Facts::collect(source, request, cancel).await?;
    let mut codestreams = BTreeMap::new();
    for codestream in &request.codestreams {
        let wanted = request.branches.wanted(&codestream.name);
        let (scope, status) = decide(&wanted, &facts.products, facts.kernel(&codestream.kernel));
        let scan = CodestreamScan {
            kernel: codestream.kernel.clone(),
            scope,
            status,
        };
        codestreams.insert(codestream.name.clone(), scan);
    }
    let mut affected = Vec::new();
    for codestream in &request.codestreams {
        let Some(CodestreamScan {
            scope: Some(scope),
            status: Status::Affected { required },
            ..
        }) = codestreams.get(&codestream.name)
        else {
            continue;
        };
        if !sources.has(&codestream.name) {
            facts.problems.push(format!(
                "{}: no tree of it is here, so its functions can't be found; name them by hand, or scan on a worker that holds it",
                codestream.name
            ));
            continue;
        }
        let patches: Vec<Arc<Patch>> = required.iter().filter_map(|path| facts.patch(scope, path)).collect();
        affected.push((codestream.clone(), patches));
    }
    let drafts = drafts(affected, sources).await?;
    let proposals = facts.settle(source, drafts, cancel).await?;
    let fixes = facts.fixes();
    Ok(ScanOutcome {
        report: ScanReport {
            cve: request.cve.clone(),
            products: facts.products,
            codestreams,
            proposals: propose::join(proposals),
            problems: facts.problems,
        },
        fixes,
    })
}

/// Drafts each codestream's targets. Most kernels of a line have the files in question alike, and so are looked at once.
async fn drafts(
    affected: Vec<(ScanCodestream, Vec<Arc<Patch>>)>,
    sources: Arc<dyn Sources>,
) -> Result<Vec<(ScanCodestream, Draft)>, ScanError> {
    let work = move || {
        let mut made: Vec<Made> = Vec::new();
        affected
            .into_iter()
            .map(|(codestream, patches)| {
                let read = |path: &str| sources.read(&codestream.name, path);
                let same = made.iter().find(|made| {
                    let same_patches =
                        made.patches.len() == patches.len() && made.patches.iter().zip(&patches).all(|(a, b)| a == b);
                    same_patches && made.read.iter().all(|(path, text)| read(path) == *text)
                });
                let draft = match same {
                    Some(same) => same.draft.clone(),
                    None => {
                        let fresh = Made::new(patches, &read);
                        let draft = fresh.draft.clone();
                        made.push(fresh);
                        draft
                    }
                };
                (codestream, draft)
            })
            .collect()
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|lost| ScanError::Io(std::io::Error::other(lost)))
}

/// A draft, with all it was made from.
struct Made {
    patches: Vec<Arc<Patch>>,
    read: BTreeMap<String, Option<String>>,
    draft: Draft,
}

impl Made {
    fn new(patches: Vec<Arc<Patch>>, read: &dyn Fn(&str) -> Option<String>) -> Self {
        let seen = std::cell::RefCell::new(BTreeMap::new());
        let plain: Vec<Patch> = patches.iter().map(|patch| Patch::clone(patch)).collect();
        let draft = propose::draft(&plain, &|path| {
            seen.borrow_mut()
                .entry(path.to_owned())
                .or_insert_with(|| read(path))
                .clone()
        });
        Self {
            patches,
            read: seen.into_inner(),
            draft,
        }
    }
}
