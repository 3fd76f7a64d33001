//! Errands: what the coordinator wants to know for somebody who waits. The only kind is a scan of the kernel-source
//! repository.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use klp_livepatch::Arch;
use klp_livepatch::names::{FixName, FixScope, Product};
use klp_livepatch::outcome::{Artifact, Digest};
use klp_livepatch::scan::branches::Branches;
use klp_livepatch::spec::Fix;
use klp_proto::convert::parse;
use klp_proto::v1;
use klp_proto::v1::answer_errand_request::Answer;
use tokio_util::sync::CancellationToken;

use crate::delivery::Courier;
use crate::scan::{KernelSource, ScanCodestream, ScanOutcome, ScanRequest, SourceDirs, scan};
use crate::trees::TreeStore;
use crate::upload::upload;

/// The errands under way, and those that were answered and may still be listed; clones are handles to the same table.
#[derive(Clone)]
pub struct Errands {
    source: Option<PathBuf>,
    taken: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

impl Errands {
    /// `source`: the kernel-source repository; `None`: there is none.
    pub fn new(source: Option<PathBuf>) -> Self {
        let taken = Arc::default();
        Self { source, taken }
    }

    /// Whether scans can be made here.
    pub fn can_scan(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|path| KernelSource::open(path).is_ok())
    }

    /// Starts what is new, and stops what is no longer listed.
    pub fn apply(&self, listed: Vec<v1::Errand>, courier: &Courier, trees: &Arc<TreeStore>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|id, cancel| {
            let wanted = listed.iter().any(|errand| errand.id == *id);
            if !wanted {
                cancel.cancel();
            }
            wanted
        });
        for errand in listed {
            if taken.contains_key(&errand.id) {
                continue;
            }
            let cancel = CancellationToken::new();
            taken.insert(errand.id.clone(), cancel.clone());
            let (this, courier, trees) = (self.clone(), courier.clone(), trees.clone());
            tokio::spawn(async move { this.run(errand, &courier, &trees, &cancel).await });
        }
    }

    async fn run(&self, errand: v1::Errand, courier: &Courier, trees: &Arc<TreeStore>, cancel: &CancellationToken) {
        let answer = match self.scan(errand.scan.unwrap_or_default(), courier, trees, cancel).await {
            Ok(answer) => Answer::Scan(answer),
            Err(error) => Answer::Failed(format!("{error:#}")),
        };
        let request = v1::AnswerErrandRequest {
            id: errand.id,
            answer: Some(answer),
        };
        // Whoever waits notices that no answer comes, and may ask again.
        if let Err(status) = courier.client().answer_errand(request).await
            && !cancel.is_cancelled()
        {
            tracing::warn!(%status, "can't answer a scan");
        }
    }

    async fn scan(
        &self,
        order: v1::ScanOrder,
        courier: &Courier,
        trees: &Arc<TreeStore>,
        cancel: &CancellationToken,
    ) -> anyhow::Result<v1::ScanAnswer> {
        let path = self
            .source
            .as_ref()
            .context("this worker has no kernel-source repository")?;
        let source = KernelSource::open(path)?;
        let request = request(order).map_err(|violation| anyhow::anyhow!("the scan can't be read: {violation}"))?;
        let listing = {
            let trees = trees.clone();
            tokio::task::spawn_blocking(move || trees.list()).await?
        };
        let dirs = listing
            .trees
            .into_iter()
            .map(|tree| (tree.platform.codestream, tree.src));
        let sources = Arc::new(SourceDirs::new(dirs));
        let ScanOutcome { report, fixes } = scan(&source, &request, sources, cancel).await?;
        let folder = tempfile::tempdir().context("can't make a folder for the fixes")?;
        let mut named = Vec::with_capacity(fixes.len());
        for file in fixes {
            let fix = Fix {
                scope: parse::<FixScope>("scope", &file.scope).map_err(|v| anyhow::anyhow!("{v}"))?,
                name: parse::<FixName>("name", &file.name).map_err(|v| anyhow::anyhow!("{v}"))?,
                digest: Digest::of(&file.bytes),
                size: file.bytes.len() as u64,
            };
            let path = folder.path().join(fix.digest.to_string());
            std::fs::write(&path, &file.bytes).context("can't write a fix")?;
            let artifact = Artifact {
                name: fix.name.to_string(),
                digest: fix.digest,
                size: fix.size,
            };
            upload(&mut courier.client(), &artifact, &path, None)
                .await
                .context("can't upload a fix")?;
            named.push(fix.to_draft().into());
        }
        Ok(v1::ScanAnswer {
            report_json: serde_json::to_string(&report)?,
            fixes: named,
        })
    }
}

fn request(order: v1::ScanOrder) -> Result<ScanRequest, klp_livepatch::spec::Violation> {
    let codestreams = order.codestreams.into_iter().map(|c| {
        let archs = c.archs.iter().map(|arch| parse::<Arch>("archs", arch));
        Ok(ScanCodestream {
            name: parse("codestream", &c.codestream)?,
            kernel: c.kernel,
            archs: archs.collect::<Result<BTreeSet<_>, _>>()?,
        })
    });
    let named = order.branches.iter().map(|(product, branch)| {
        let product: Product = parse("branches.product", product)?;
        Ok((product, parse("branches.branch", branch)?))
    });
    let mut branches = Branches::default();
    branches.extend(named.collect::<Result<Vec<_>, _>>()?);
    let add_patches = order.add_patches.iter().map(|path| parse("add_patches", path));
    Ok(ScanRequest {
        cve: parse("cve", &order.cve)?,
        codestreams: codestreams.collect::<Result<_, _>>()?,
        add_patches: add_patches.collect::<Result<_, _>>()?,
        branches,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_that_the_coordinator_names_are_looked_into_beside_those_that_are_known() {
        let order = |product: &str, branch: &str| v1::ScanOrder {
            cve: "2026-1234".to_owned(),
            branches: [(product.to_owned(), branch.to_owned())].into(),
            ..Default::default()
        };
        let branches = request(order("15.8", "SLE15-SP8")).unwrap().branches;
        let names: Vec<&str> = branches.iter().map(|(_, branch)| branch.as_str()).collect();
        assert!(
            names.contains(&"SLE15-SP8") && names.contains(&"SLE15-SP7"),
            "{names:?}"
        );
        for (product, branch) in [("../x", "SLE15-SP8"), ("15.8", "--output=x")] {
            let refused = request(order(product, branch)).unwrap_err();
            assert!(refused.field.starts_with("branches."), "{refused}");
        }
    }
}
