//! What fixes, taken together, make of a kernel's file, for a livepatch whose targets are known: what makes it hard, and
//! what it does not replace.

use super::functions::{Change, ChangedFunction, Changes, Made};
use super::lint::{ALWAYS_INLINE, FileFacts, Finding, INLINE, RUN_ONCE, Severity, Topic, review_files};
use super::patch::{FilePatch, Patch};
use crate::Arch;
use crate::names::TreePath;
use crate::spec::Target;

/// A file before the first fix and after the last.
#[derive(Clone, Debug)]
pub struct FixedFile {
    pub path: TreePath,
    /// `None`: the kernel has no such file.
    pub old: Option<String>,
    /// `None`: the fixes leave none.
    pub new: Option<String>,
}

/// What a person should know of a fixed file. Fixes count as one: what one adds and the next corrects was never there.
pub fn judge(file: FixedFile, targets: &[Target]) -> Vec<Finding> {
    let FixedFile { path, old, new } = file;
    if old == new {
        return Vec::new();
    }
    let change = FilePatch {
        old: old.as_ref().map(|_| path.clone()),
        new: new.as_ref().map(|_| path.clone()),
        ..FilePatch::default()
    };
    let patch = Patch {
        files: vec![change],
        ..Patch::default()
    };
    let facts = FileFacts {
        index: 0,
        old: Some(old.unwrap_or_default()),
        new: Some(new.unwrap_or_default()),
    };
    let review = review_files(&patch, &[facts]);
    let mut findings = review.findings;
    for changes in review.files.into_iter().filter_map(|file| file.changes) {
        findings.extend(untargeted(&path, &changes, targets));
    }
    findings
}

/// The functions that change and could be replaced, but are not.
fn untargeted(path: &TreePath, changes: &Changes, targets: &[Target]) -> Vec<Finding> {
    // What a header holds exists within others; that, and what has run, has findings of its own.
    if path.as_source().is_none() {
        return Vec::new();
    }
    let missed = changes.functions.iter().filter(|function| {
        let elsewhere = [&RUN_ONCE[..], &ALWAYS_INLINE, &INLINE].concat();
        function.change == Change::Changed
            && !matches!(function.made, Made::Macro { .. })
            && !elsewhere.iter().any(|word| function.has_word(word))
            && !targeted(path, function, targets)
    });
    let finding = |function: &ChangedFunction| Finding {
        severity: Severity::Warning,
        topic: Topic::Target,
        file: path.to_string(),
        line: function.line,
        symbol: function.name.clone(),
        text: format!(
            "the fix changes {}(), which is no target; name it, too, unless it exists only within functions that are",
            function.name
        ),
    };
    missed.map(finding).collect()
}

/// Whether a target names the function, on whatever architecture: one spec serves all.
fn targeted(path: &TreePath, function: &ChangedFunction, targets: &[Target]) -> bool {
    let symbols = Arch::ALL.iter().flat_map(|arch| function.symbols(*arch));
    let names: Vec<String> = symbols.map(|symbol| symbol.name).collect();
    let here = targets.iter().filter(|target| target.file.as_str() == path.as_str());
    here.flat_map(|target| &target.functions)
        .any(|named| named.as_str() == function.name || names.iter().any(|name| name == named.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "\
static int helper(int x) { return x; }
static inline int quick(int x) { return x; }
static int __init start(void) { return 1; }
int run(int x) { return helper(x); }
SYSCALL_DEFINE1(toy, int, a) { return a; }
";

    fn target(file: &str, functions: &[&str]) -> Target {
        Target {
            file: file.parse().unwrap(),
            functions: functions.iter().map(|name| name.parse().unwrap()).collect(),
            config: "CONFIG_A".parse().unwrap(),
            object: "vmlinux".parse().unwrap(),
        }
    }

    fn said(path: &str, old: Option<&str>, new: Option<&str>, targets: &[Target]) -> Vec<(Topic, String)> {
        let file = FixedFile {
            path: path.parse().unwrap(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        let findings = judge(file, targets).into_iter();
        findings.map(|finding| (finding.topic, finding.symbol)).collect()
    }

    fn untargeted(new: &str, targets: &[Target]) -> Vec<String> {
        let said = said("fs/x.c", Some(OLD), Some(new), targets).into_iter();
        said.filter(|(topic, _)| *topic == Topic::Target)
            .map(|(_, symbol)| symbol)
            .collect()
    }

    #[test]
    fn what_changes_and_is_no_target_is_named() {
        let new = OLD
            .replace("return x;", "return x + 1;")
            .replace("return helper(x)", "return 0");
        assert_eq!(
            untargeted(&new, &[]),
            ["helper", "run"],
            "inline functions are their callers' matter"
        );
        assert_eq!(untargeted(&new, &[target("fs/x.c", &["run"])]), ["helper"]);
        assert_eq!(
            untargeted(&new, &[target("fs/y.c", &["run", "helper"])]),
            ["helper", "run"]
        );
        assert_eq!(untargeted(&new, &[target("fs/x.c", &["helper", "run"])]), [""; 0]);
        let more = OLD.replace("return 1", "return 2") + "int added(void) { return 1; }\n";
        assert_eq!(untargeted(&more, &[]), [""; 0], "what has run, and what is added");
    }

    #[test]
    fn a_system_call_is_a_target_by_any_architecture_s_entry() {
        let new = OLD.replace("{ return a; }", "{ return a + 1; }");
        assert_eq!(untargeted(&new, &[]), ["toy"]);
        for entry in ["__x64_sys_toy", "__s390x_sys_toy", "__arm64_sys_toy"] {
            assert_eq!(untargeted(&new, &[target("fs/x.c", &[entry])]), [""; 0], "{entry}");
        }
    }

    #[test]
    fn a_fixed_file_is_linted_as_a_whole() {
        let run = [target("fs/x.c", &["run"])];
        let new = format!("struct s {{ int a; }};\n{OLD}").replace("return helper(x)", "return 0");
        assert_eq!(
            said("fs/x.c", Some(OLD), Some(&new), &run),
            [(Topic::Layout, "s".to_owned())]
        );
        assert_eq!(said("fs/x.c", Some(OLD), Some(OLD), &run), []);
        let files = [(Topic::Files, String::new())];
        assert_eq!(said("fs/x.c", None, Some("int f(void) { return 1; }\n"), &[]), files);
        assert_eq!(said("fs/x.c", Some(OLD), None, &[])[..1], files);
        assert_eq!(said("fs/x.c", None, None, &[]), []);
        assert_eq!(
            said("fs/Makefile", Some("a\n"), Some("b\n"), &[]),
            [(Topic::Build, String::new())]
        );
    }
}
