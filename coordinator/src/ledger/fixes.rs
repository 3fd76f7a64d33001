//! Whether the fixes that a livepatch brings are for the codestreams it selects. A fix of a wrong scope is applied nowhere,
//! and another in its place.

use std::collections::BTreeSet;

use klp_livepatch::Codestream;
use klp_livepatch::names::FixScope;
use klp_livepatch::spec::{Idle, Spec, Violation, scopes};
use klp_livepatch::task::{LivepatchId, Platform};

use super::submit::list;
use crate::store::{self, StoreError, Tx};

fn violation(message: String) -> Violation {
    Violation {
        field: "fixes".to_owned(),
        message,
    }
}

/// Whether each scope means something: a codestream or product of the catalog, of what workers hold, or `all`. Another is a
/// slip, as `15.66` is for `15.6`.
pub fn known(
    spec: &Spec,
    selected: &[Platform],
    catalog: &BTreeSet<String>,
    held: &BTreeSet<Platform>,
) -> Result<(), Violation> {
    if spec.unpatched {
        return Ok(());
    }
    let of_held: BTreeSet<String> = held.iter().flat_map(|p| scopes(&p.codestream)).collect();
    let means = |scope: &FixScope| catalog.contains(scope.as_str()) || of_held.contains(scope.as_str());
    let strange: BTreeSet<&FixScope> = spec.fixes.iter().map(|fix| &fix.scope).filter(|s| !means(s)).collect();
    if strange.is_empty() {
        return Ok(());
    }
    let wanted: BTreeSet<String> = selected.iter().flat_map(|p| scopes(&p.codestream)).collect();
    Err(violation(format!(
        "no codestream of the catalog, or that a worker holds, takes fixes for {}; the selected ones take those for {}: \
         correct the scope (of --fixes, a folder's name), or leave these fixes out",
        list(strange.into_iter().map(ToString::to_string)),
        list(wanted.into_iter())
    )))
}

/// Whether each selected codestream has its fix, if the livepatch has any: a source without one would pass for a fixed one.
pub fn complete(spec: &Spec, platforms: &[Platform]) -> Result<(), Violation> {
    if spec.fixes.is_empty() || spec.unpatched {
        return Ok(());
    }
    let unfixed = |p: &&Platform| spec.fixes_for(&p.codestream).next().is_none();
    let names: Vec<String> = platforms
        .iter()
        .filter(unfixed)
        .map(|p| p.codestream.to_string())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(violation(format!(
        "none is for {}; add theirs, or one for all codestreams, or select codestreams without them",
        list(names.into_iter())
    )))
}

/// What is to be said of fixes that none of the codestreams takes: a folder of fixes may serve more than are selected, or
/// somebody forgot to select them.
pub fn idle<'a>(spec: &Spec, codestreams: impl IntoIterator<Item = &'a Codestream>) -> Vec<String> {
    if spec.unpatched {
        return Vec::new();
    }
    let Idle { strangers, outdone } = spec.idle_scopes(codestreams);
    let named = |scopes: Vec<FixScope>| list(scopes.into_iter().map(|scope| scope.to_string()));
    let mut said = Vec::new();
    if !strangers.is_empty() {
        said.push(format!(
            "no selected codestream takes the fixes for {}; they are kept, and applied nowhere",
            named(strangers)
        ));
    }
    if !outdone.is_empty() {
        said.push(format!(
            "the fixes for {} are kept, and applied nowhere: each selected codestream that could take them has closer ones",
            named(outdone)
        ));
    }
    said
}

/// What is to be said of a stored livepatch's fixes, by the codestreams it has tasks of.
///
/// # Errors
/// The database's.
pub fn idle_fixes(tx: &Tx<'_>, id: LivepatchId, spec: &Spec) -> Result<Vec<String>, StoreError> {
    if spec.fixes.is_empty() {
        return Ok(Vec::new());
    }
    let tasks = store::planned(tx, id, None)?;
    let codestreams: BTreeSet<&Codestream> = tasks.iter().map(|task| &task.key.platform.codestream).collect();
    Ok(idle(spec, codestreams))
}

#[cfg(test)]
mod tests {
    use klp_livepatch::outcome::Digest;
    use klp_livepatch::spec::{Draft, FixDraft, TargetDraft};

    use super::*;

    fn spec(scopes: &[&str]) -> Spec {
        let fix = |scope: &&str| FixDraft {
            scope: (*scope).to_owned(),
            name: "a.patch".to_owned(),
            digest: Digest::of(b"").to_string(),
            size: 0,
        };
        let target = TargetDraft {
            file: "a.c".into(),
            functions: vec!["f".into()],
            config: "CONFIG_A".into(),
            object: String::new(),
        };
        let draft = Draft {
            name: "a".into(),
            targets: vec![target],
            fixes: scopes.iter().map(fix).collect(),
            ..Draft::default()
        };
        Spec::parse(&draft).unwrap()
    }

    fn platforms(names: &[&str]) -> Vec<Platform> {
        let platform = |name: &&str| Platform {
            codestream: name.parse().unwrap(),
            arch: klp_livepatch::Arch::X86_64,
        };
        names.iter().map(platform).collect()
    }

    #[test]
    fn a_scope_that_means_nothing_is_refused_and_one_of_others_is_not() {
        let selected = platforms(&["15.6u1"]);
        let held = BTreeSet::from_iter(platforms(&["15.6u1", "debian12"]));
        let catalog = BTreeSet::from(["15.7".to_owned()]);
        let judge = |scopes: &[&str]| known(&spec(scopes), &selected, &catalog, &held);
        assert_eq!(judge(&["15.6u1", "15.6", "15.7", "debian12", "all"]), Ok(()));
        let refused = judge(&["15.66", "15.6", "15.6u2"]).unwrap_err();
        assert_eq!(refused.field, "fixes");
        let wanted = "takes fixes for 15.66, 15.6u2; the selected ones take those for 15.6, 15.6u1, all:";
        assert!(refused.message.contains(wanted), "{refused}");
        let unpatched = Spec {
            unpatched: true,
            ..spec(&["15.66"])
        };
        assert_eq!(known(&unpatched, &selected, &catalog, &held), Ok(()));
        assert_eq!(idle(&unpatched, [&selected[0].codestream]), Vec::<String>::new());
    }

    #[test]
    fn fixes_that_nobody_takes_are_told_with_why() {
        let said = |scopes: &[&str], names: &[&str]| {
            let selected = platforms(names);
            idle(&spec(scopes), selected.iter().map(|p| &p.codestream))
        };
        assert_eq!(said(&["15.6", "15.7"], &["15.6u1", "15.7u1"]), Vec::<String>::new());
        assert_eq!(
            said(&["15.5", "15.6", "15.7", "all"], &["15.6u1"]),
            [
                "no selected codestream takes the fixes for 15.5, 15.7; they are kept, and applied nowhere",
                "the fixes for all are kept, and applied nowhere: each selected codestream that could take them has closer ones",
            ]
        );
    }
}
