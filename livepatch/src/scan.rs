//! A scan: which codestreams a CVE concerns, by which patches they are fixed, and what a livepatch of these would target.
//!
//! The facts come from a kernel-source repository and from kernel trees; what they mean is decided here, by functions of
//! values. A scan proposes; nothing is built on it before a person has seen it.

pub mod branches;
pub mod propose;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::fix::functions::{ChangedFunction, ChangedThing};
use crate::fix::kbuild::Kbuild;
use crate::fix::lint::Finding;
use crate::fix::patch::{CommitId, Patch};
use crate::fix::supported::Support;
use crate::names::{ConfigName, Cve, TreePath};
use crate::report::ConfigValue;
use crate::{Arch, Codestream};

/// All that a scan found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanReport {
    pub cve: Cve,
    /// By product, such as `15.6` or `15.6rt`.
    pub products: BTreeMap<String, ProductPatches>,
    pub codestreams: BTreeMap<Codestream, CodestreamScan>,
    /// One for each set of codestreams that would get the same.
    pub proposals: Vec<Proposal>,
    /// What could not be looked at, in sentences.
    pub problems: Vec<String>,
}

/// The patches that a product's branch has for the CVE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductPatches {
    pub branch: String,
    /// In the order they are applied.
    pub patches: Vec<PatchFact>,
    /// Patches that mention the CVE and do not list it under `References:`; they are not counted as fixes.
    pub mentions: Vec<TreePath>,
}

/// One patch of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchFact {
    pub path: TreePath,
    /// Its place in the branch's series, from 1.
    pub order: usize,
    pub subject: String,
    pub git_commits: Vec<CommitId>,
    /// Asked for by the user, not found by the CVE.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub added: bool,
    /// It does not list the CVE, but is made from the same commit as one that does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_commit: bool,
}

impl PatchFact {
    pub fn of(path: TreePath, order: usize, patch: &Patch, added: bool) -> Self {
        Self {
            path,
            order,
            subject: patch.subject.clone(),
            git_commits: patch.git_commits.clone(),
            added,
            by_commit: false,
        }
    }

    /// The name klp-build gives it in `fixes/<scope>/`: two digits, and the name without its folder.
    pub fn file_name(&self, number: usize) -> String {
        let name = self.path.as_str().rsplit('/').next().unwrap_or_default();
        format!("{number:02}-{}.patch", name.replace(".patch", ""))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodestreamScan {
    pub kernel: String,
    /// Whose patches are meant, and the folder below `fixes/` that holds them; `None` if no branch has any.
    pub scope: Option<String>,
    #[serde(flatten)]
    pub status: Status,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Status {
    /// It has all the patches.
    Patched,
    /// It lacks these, in order.
    Affected {
        required: Vec<TreePath>,
    },
    /// No branch it is made from has a patch for the CVE.
    NotAffected,
    Unknown {
        why: String,
    },
}

/// What is known of a kernel: the patches that are applied in it, or why they are not known.
pub type KernelFacts = Result<BTreeSet<TreePath>, String>;

/// Decides about one codestream. `products` has what was found, for each product whose branch is there; `wanted` are the
/// products it takes patches from, the nearest first.
pub fn decide(
    wanted: &[String],
    products: &BTreeMap<String, ProductPatches>,
    kernel: &KernelFacts,
) -> (Option<String>, Status) {
    let there: Vec<&String> = wanted
        .iter()
        .filter(|product| products.contains_key(*product))
        .collect();
    if there.is_empty() {
        let why = match wanted.first() {
            Some(product) => format!(
                "the repository has no branch that is known for product {product}; name it in the coordinator's configuration, under [branches]"
            ),
            None => "its name tells no product; name its branch in the coordinator's configuration, under [branches]"
                .to_owned(),
        };
        return (None, Status::Unknown { why });
    }
    let has_fix = |product: &&&String| products[**product].patches.iter().any(|patch| !patch.added);
    let Some(scope) = there.iter().find(has_fix) else {
        return (None, Status::NotAffected);
    };
    let status = match kernel {
        Err(why) => Status::Unknown { why: why.clone() },
        Ok(applied) => {
            let patches = products[*scope].patches.iter();
            let required: Vec<TreePath> = patches
                .map(|p| &p.path)
                .filter(|path| !applied.contains(*path))
                .cloned()
                .collect();
            if required.is_empty() {
                Status::Patched
            } else {
                Status::Affected { required }
            }
        }
    };
    (Some((*scope).clone()), status)
}

/// What a livepatch would target, for codestreams that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// In natural order.
    pub codestreams: Vec<Codestream>,
    pub targets: Vec<ProposedTarget>,
    pub findings: Vec<Finding>,
}

/// One file that the fix changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposedTarget {
    pub file: TreePath,
    /// Empty: the file changes in other ways, or could not be read; see `things` and the findings.
    pub functions: Vec<ChangedFunction>,
    /// What else changes.
    pub things: Vec<ChangedThing>,
    pub built: Kbuild,
    /// The values of all CONFIGs in `built`, where they are set.
    pub configs: BTreeMap<Arch, BTreeMap<ConfigName, ConfigValue>>,
    /// Of each module in `built`.
    pub support: BTreeMap<String, Support>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(patches: &[(&str, bool)]) -> ProductPatches {
        let patches = patches.iter().enumerate().map(|(order, (path, added))| PatchFact {
            path: path.parse().unwrap(),
            order,
            subject: String::new(),
            git_commits: Vec::new(),
            added: *added,
            by_commit: false,
        });
        ProductPatches {
            branch: "b".into(),
            patches: patches.collect(),
            mentions: Vec::new(),
        }
    }

    fn kernel(paths: &[&str]) -> KernelFacts {
        Ok(paths.iter().map(|path| path.parse().unwrap()).collect())
    }

    #[test]
    fn a_codestream_is_judged_by_the_nearest_branch_with_a_fix() {
        let wanted = ["15.6rt".to_owned(), "15.6".to_owned()];
        let mut products = BTreeMap::from([("15.6".to_owned(), product(&[("p/b", false), ("p/a", false)]))]);
        let of = |products: &_, kernel: &_| decide(&wanted, products, kernel);
        let scope = Some("15.6".to_owned());
        assert_eq!(
            of(&products, &kernel(&["p/a", "p/b", "p/c"])),
            (scope.clone(), Status::Patched)
        );
        let required = vec!["p/b".parse().unwrap(), "p/a".parse().unwrap()];
        assert_eq!(
            of(&products, &kernel(&[])),
            (scope.clone(), Status::Affected { required })
        );
        // The real-time branch is there, and has nothing of its own.
        products.insert("15.6rt".into(), product(&[("p/extra", true)]));
        assert_eq!(of(&products, &kernel(&["p/a", "p/b"])).0, scope);
        products.insert("15.6rt".into(), product(&[("p/rt", false)]));
        assert_eq!(
            of(&products, &kernel(&["p/rt"])),
            (Some("15.6rt".into()), Status::Patched)
        );
    }

    #[test]
    fn what_is_not_known_is_not_called_unaffected() {
        let none = BTreeMap::new();
        assert!(matches!(decide(&[], &none, &kernel(&[])).1, Status::Unknown { .. }));
        assert!(matches!(
            decide(&["9.9".into()], &none, &kernel(&[])).1,
            Status::Unknown { .. }
        ));
        let empty = BTreeMap::from([("9.9".to_owned(), product(&[]))]);
        assert_eq!(
            decide(&["9.9".into()], &empty, &kernel(&[])),
            (None, Status::NotAffected)
        );
        let fixed = BTreeMap::from([("9.9".to_owned(), product(&[("p/a", false)]))]);
        let lost = Err("no tag".to_owned());
        assert!(matches!(
            decide(&["9.9".into()], &fixed, &lost).1,
            Status::Unknown { .. }
        ));
    }

    #[test]
    fn patches_are_filed_as_klp_build_does() {
        let fact = &product(&[("patches.suse/net-fix-x.patch", false)]).patches[0];
        assert_eq!(fact.file_name(3), "03-net-fix-x.patch");
    }
}
