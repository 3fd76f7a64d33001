//! From fixes to targets: what the patches change together, and how each file is built.

use std::collections::{BTreeMap, BTreeSet};

use crate::fix::functions::compare;
use crate::fix::kbuild::{self, Kbuild};
use crate::fix::lint::{Finding, Severity, Topic, review};
use crate::fix::patch::Patch;
use crate::fix::supported::{Support, support};
use crate::names::{ConfigName, TreePath};
use crate::report::ConfigValue;
use crate::{Arch, Codestream};

use super::{Proposal, ProposedTarget};

/// What patches, applied one after the other, make of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    pub targets: Vec<ProposedTarget>,
    pub findings: Vec<Finding>,
}

/// Applies the patches to the texts that `read` gives by their path from the kernel's root, and compares the outcome.
pub fn draft(patches: &[Patch], read: &dyn Fn(&str) -> Option<String>) -> Draft {
    let mut now: BTreeMap<TreePath, Option<String>> = BTreeMap::new();
    let mut findings = Vec::new();
    for patch in patches {
        let text = |path: &TreePath| match now.get(path) {
            Some(text) => text.clone(),
            None => read(path.as_str()),
        };
        findings.extend(review(patch, &text).findings);
        let mut after = Vec::new();
        for file in &patch.files {
            let old = file.old.as_ref().and_then(text);
            if let Some(gone) = file.old.as_ref().filter(|old| Some(*old) != file.new.as_ref()) {
                after.push((gone.clone(), None));
            }
            if let Some(path) = &file.new {
                // Without the old text there is nothing to go on with; the lint has said so.
                let new = match (&file.old, old) {
                    (None, _) => Some(file.apply("").text),
                    (Some(_), old) => old.map(|old| file.apply(&old).text),
                };
                after.push((path.clone(), new));
            }
        }
        now.extend(after);
    }
    let mut targets = Vec::new();
    for (path, new) in now {
        if !path.as_str().ends_with(".c") {
            continue;
        }
        let old = read(path.as_str());
        let changes = match (&old, &new) {
            (None, None) => Ok(Default::default()),
            (old, new) => compare(old.as_deref().unwrap_or_default(), new.as_deref().unwrap_or_default()),
        };
        // A file that can't be compared is a finding already.
        let changes = changes.unwrap_or_default();
        let known = old.is_some() || new.is_some();
        if known && changes.is_empty() {
            continue;
        }
        if changes.functions.is_empty() && known {
            findings.push(Finding {
                severity: Severity::Warning,
                topic: Topic::Data,
                file: path.to_string(),
                line: 0,
                symbol: String::new(),
                text: "changes no function's text; name by hand the functions that what it changes is used by"
                    .to_owned(),
            });
        }
        targets.push(ProposedTarget {
            built: kbuild::find(&path, read),
            file: path,
            functions: changes.functions,
            things: changes.things,
            configs: BTreeMap::new(),
            support: BTreeMap::new(),
        });
    }
    Draft { targets, findings }
}

/// The CONFIGs that a draft's files depend on.
pub fn configs(draft: &Draft) -> BTreeSet<ConfigName> {
    let of = |kbuild: &Kbuild| -> Vec<ConfigName> {
        let all = kbuild
            .built
            .iter()
            .flat_map(|built| built.config.iter().chain(&built.also));
        all.cloned().collect()
    };
    draft.targets.iter().flat_map(|target| of(&target.built)).collect()
}

/// Fills in what one codestream's configuration and `supported.conf` say.
pub fn settle(
    mut draft: Draft,
    configs: &BTreeMap<Arch, BTreeMap<ConfigName, ConfigValue>>,
    supported_conf: Option<&str>,
) -> Draft {
    for target in &mut draft.targets {
        let mine: BTreeSet<&ConfigName> = target
            .built
            .built
            .iter()
            .flat_map(|b| b.config.iter().chain(&b.also))
            .collect();
        target.configs = configs
            .iter()
            .map(|(arch, values)| {
                let values = values.iter().filter(|(name, _)| mine.contains(name));
                (*arch, values.map(|(name, value)| (name.clone(), *value)).collect())
            })
            .collect();
        for built in &target.built.built {
            let Some(module) = &built.module else { continue };
            let as_module = built.config.as_ref().is_none_or(|config| {
                target
                    .configs
                    .values()
                    .any(|values| values.get(config) == Some(&ConfigValue::Module))
            });
            if let (true, Some(text)) = (as_module, supported_conf) {
                target.support.insert(module.clone(), support(text, module));
            }
        }
        let unset = target.built.built.iter().all(|built| {
            let set = |values: &BTreeMap<ConfigName, ConfigValue>| {
                built
                    .config
                    .iter()
                    .chain(&built.also)
                    .all(|name| values.contains_key(name))
            };
            !target.configs.values().any(set)
        });
        let mut say = |topic, text: String| {
            draft.findings.push(Finding {
                severity: Severity::Warning,
                topic,
                file: target.file.to_string(),
                line: 0,
                symbol: String::new(),
                text,
            });
        };
        if unset && !target.configs.is_empty() && !target.built.built.is_empty() {
            say(
                Topic::Build,
                "is built on no architecture: its CONFIG is not set; leave it out".to_owned(),
            );
        }
        for (module, support) in &target.support {
            match support {
                Support::Unsupported { marker } => say(
                    Topic::Build,
                    format!("module {module} is not supported ({marker} in supported.conf); leave it out"),
                ),
                Support::Kmp { package } => say(
                    Topic::Build,
                    format!("module {module} is in the package {package}, which may be missing or another"),
                ),
                Support::Unclear { why } => say(Topic::Build, why.clone()),
                Support::Supported | Support::Unlisted => {}
            }
        }
    }
    draft
}

/// Joins codestreams for which the same is proposed.
pub fn join(drafts: impl IntoIterator<Item = (Codestream, Draft)>) -> Vec<Proposal> {
    let mut proposals: Vec<Proposal> = Vec::new();
    for (codestream, draft) in drafts {
        match proposals
            .iter_mut()
            .find(|p| p.targets == draft.targets && p.findings == draft.findings)
        {
            Some(same) => same.codestreams.push(codestream),
            None => proposals.push(Proposal {
                codestreams: vec![codestream],
                targets: draft.targets,
                findings: draft.findings,
            }),
        }
    }
    for proposal in &mut proposals {
        proposal.codestreams.sort();
    }
    proposals.sort_by(|a, b| a.codestreams.cmp(&b.codestreams));
    proposals
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "static int f(int a)\n{\n\treturn a;\n}\n\nint g(void)\n{\n\treturn 1;\n}\n";

    fn read(path: &str) -> Option<String> {
        match path {
            "fs/toy.c" => Some(OLD.to_owned()),
            "fs/Makefile" => Some("obj-$(CONFIG_TOY) += toy.o\n".to_owned()),
            "Makefile" => Some("obj-y += fs/\n".to_owned()),
            _ => None,
        }
    }

    fn patch(text: &str) -> Patch {
        text.parse().unwrap()
    }

    #[test]
    fn patches_add_up() {
        let first = patch("--- a/fs/toy.c\n+++ b/fs/toy.c\n@@ -2,3 +2,3 @@\n {\n-\treturn a;\n+\treturn a + 1;\n }\n");
        let second =
            patch("--- a/fs/toy.c\n+++ b/fs/toy.c\n@@ -2,3 +2,3 @@\n {\n-\treturn a + 1;\n+\treturn a + 2;\n }\n");
        let draft = draft(&[first, second], &read);
        assert_eq!(draft.findings, []);
        let names: Vec<_> = draft.targets[0].functions.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["f"]);
        assert_eq!(configs(&draft), BTreeSet::from(["CONFIG_TOY".parse().unwrap()]));
    }

    #[test]
    fn what_a_kernel_does_not_build_or_support_is_said() {
        let fix = patch("--- a/fs/toy.c\n+++ b/fs/toy.c\n@@ -7,3 +7,3 @@\n {\n-\treturn 1;\n+\treturn 2;\n }\n");
        let toy = || "CONFIG_TOY".parse().unwrap();
        let base = draft(&[fix], &read);
        let module = BTreeMap::from([(Arch::X86_64, BTreeMap::from([(toy(), ConfigValue::Module)]))]);
        let settled = settle(base.clone(), &module, Some("- fs/toy\n"));
        assert!(
            settled.findings[0].text.contains("not supported"),
            "{:?}",
            settled.findings
        );
        let unset = BTreeMap::from([(Arch::X86_64, BTreeMap::new())]);
        assert!(
            settle(base.clone(), &unset, None).findings[0]
                .text
                .contains("built on no architecture")
        );
        let joined = join([
            ("15.6u10".parse().unwrap(), base.clone()),
            ("15.6u9".parse().unwrap(), base.clone()),
            ("15.7u1".parse().unwrap(), settled),
        ]);
        let names: Vec<Vec<_>> = joined
            .iter()
            .map(|p| p.codestreams.iter().map(Codestream::as_str).collect())
            .collect();
        assert_eq!(names, [vec!["15.6u9", "15.6u10"], vec!["15.7u1"]]);
    }

    #[test]
    fn a_change_of_data_alone_is_kept_and_said() {
        let source = |path: &str| {
            (path == "fs/d.c").then(|| "static int limit = 1;\nint f(void) { return limit; }\n".to_owned())
        };
        let fix = patch(
            "--- a/fs/d.c\n+++ b/fs/d.c\n@@ -1,2 +1,2 @@\n-static int limit = 1;\n+static int limit = 2;\n int f(void) { return limit; }\n",
        );
        let draft = draft(&[fix], &source);
        assert_eq!(draft.targets[0].things[0].used_by, ["f"]);
        assert!(
            draft
                .findings
                .iter()
                .any(|f| f.text.contains("changes no function's text"))
        );
    }
}
