//! Which fixes a codestream takes: of the scopes that fit it, the closest that has any.

use std::collections::BTreeSet;

use super::{Fix, Spec};
use crate::Codestream;
use crate::names::FixScope;
use crate::suse::SuseName;

/// The scopes whose fixes a codestream may take, the closest first: klp-build's folders, and `all`.
pub fn scopes(codestream: &Codestream) -> Vec<String> {
    let mut scopes = match SuseName::of(codestream) {
        Some(name) => name.patch_dirs(),
        None => vec![codestream.to_string()],
    };
    scopes.push(FixScope::ALL.to_owned());
    scopes
}

/// Scopes whose fixes are applied nowhere, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// They fit none of the codestreams.
    pub strangers: Vec<FixScope>,
    /// Each codestream that they fit has closer ones.
    pub outdone: Vec<FixScope>,
}

impl Spec {
    /// The fixes that a codestream's sources need, in order: those of the closest scope that has any.
    pub fn fixes_for(&self, codestream: &Codestream) -> impl Iterator<Item = &Fix> {
        let has = |scope: &String| self.fixes.iter().any(|f| f.scope.as_str() == *scope);
        let closest = scopes(codestream).into_iter().find(has);
        self.fixes
            .iter()
            .filter(move |f| closest.as_deref() == Some(f.scope.as_str()))
    }

    /// The scopes whose fixes none of these codestreams takes.
    pub fn idle_scopes<'a>(&self, codestreams: impl IntoIterator<Item = &'a Codestream>) -> Idle {
        let (mut fitting, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for codestream in codestreams {
            fitting.extend(scopes(codestream));
            taken.extend(self.fixes_for(codestream).next().map(|fix| &fix.scope));
        }
        let given: BTreeSet<&FixScope> = self.fixes.iter().map(|fix| &fix.scope).collect();
        let idle = given.difference(&taken).copied().cloned();
        let (outdone, strangers) = idle.partition(|scope| fitting.contains(scope.as_str()));
        Idle { strangers, outdone }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{draft, fix};
    use super::*;

    fn spec(fixes: &[(&str, &str)]) -> Spec {
        let mut with = draft();
        with.fixes = fixes.iter().map(|(scope, name)| fix(scope, name)).collect();
        Spec::parse(&with).unwrap()
    }

    #[test]
    fn the_closest_scope_with_fixes_counts() {
        let spec = spec(&[
            ("", "01-a.patch"),
            ("15.6", "02-b.patch"),
            ("15.6", "01-c.patch"),
            ("15.6rtu2", "d"),
        ]);
        let names = |codestream: &str| -> Vec<String> {
            spec.fixes_for(&codestream.parse().unwrap())
                .map(|f| f.name.to_string())
                .collect()
        };
        assert_eq!(names("debian12-6.1"), ["01-a.patch"]);
        assert_eq!(names("15.6u3"), ["02-b.patch", "01-c.patch"]);
        assert_eq!(names("15.6rtu2"), ["d"]);
        assert_eq!(names("15.6rtu3"), ["02-b.patch", "01-c.patch"]);
    }

    #[test]
    fn scopes_that_nobody_takes_are_told_apart() {
        let spec = spec(&[
            ("15.6", "a"),
            ("15.6u3", "b"),
            ("cve-5.14", "c"),
            ("15.66", "d"),
            ("", "e"),
        ]);
        let idle = |names: &[&str]| {
            let codestreams: Vec<Codestream> = names.iter().map(|name| name.parse().unwrap()).collect();
            let Idle { strangers, outdone } = spec.idle_scopes(&codestreams);
            let text = |scopes: Vec<FixScope>| scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            (text(strangers), text(outdone))
        };
        assert_eq!(idle(&["15.6u3"]), ("15.66 cve-5.14".into(), "15.6 all".into()));
        assert_eq!(idle(&["15.6u3", "15.6rtu4"]), ("15.66 cve-5.14".into(), "all".into()));
        assert_eq!(
            idle(&["15.6u1", "15.5u1", "debian12"]),
            ("15.66 15.6u3".into(), String::new())
        );
    }
}
