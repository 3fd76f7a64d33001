//! Conditions of the C preprocessor: where a line holds for some architectures only.

use std::collections::{BTreeMap, BTreeSet};

use crate::Arch;
use crate::names::ConfigName;

/// What the kernel sets for an architecture.
fn config(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "CONFIG_X86_64",
        Arch::S390x => "CONFIG_S390",
        Arch::Ppc64le => "CONFIG_PPC64",
        Arch::Aarch64 => "CONFIG_ARM64",
    }
}

/// `defined(CONFIG_X86_64) || defined(CONFIG_S390)`.
pub fn any_of(archs: &BTreeSet<Arch>) -> String {
    let each: Vec<String> = archs.iter().map(|arch| format!("defined({})", config(*arch))).collect();
    each.join(" || ")
}

pub fn enabled(config: &ConfigName) -> String {
    format!("IS_ENABLED({config})")
}

/// Each value once, in the order of its first architecture, and the condition that it holds under; none if all agree.
pub fn split<T: PartialEq>(facts: BTreeMap<Arch, T>) -> Vec<(T, Option<String>)> {
    let mut values: Vec<(T, BTreeSet<Arch>)> = Vec::new();
    for (arch, value) in facts {
        match values.iter_mut().find(|(known, _)| *known == value) {
            Some((_, archs)) => drop(archs.insert(arch)),
            None => values.push((value, BTreeSet::from([arch]))),
        }
    }
    let alone = values.len() == 1;
    let condition = |archs: &BTreeSet<Arch>| (!alone).then(|| any_of(archs));
    values
        .into_iter()
        .map(|(value, archs)| {
            let condition = condition(&archs);
            (value, condition)
        })
        .collect()
}

/// Both conditions at once.
pub fn both(a: Option<String>, b: Option<String>) -> Option<String> {
    match (a, b) {
        (Some(a), Some(b)) if a.contains("||") => Some(format!("({a}) && {b}")),
        (Some(a), Some(b)) => Some(format!("{a} && {b}")),
        (a, b) => a.or(b),
    }
}

/// The text, under an `#if` if there is a condition. The text ends with a newline.
pub fn under(condition: Option<&str>, text: &str) -> String {
    match condition {
        Some(condition) => format!("#if {condition}\n{text}#endif\n"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_that_agree_need_no_condition() {
        let same = BTreeMap::from([(Arch::X86_64, 1), (Arch::S390x, 1)]);
        assert_eq!(split(same), [(1, None)]);
        let drm = BTreeMap::from([
            (Arch::X86_64, "vmlinux"),
            (Arch::Ppc64le, "vmlinux"),
            (Arch::S390x, "drm"),
        ]);
        assert_eq!(
            split(drm),
            [
                (
                    "vmlinux",
                    Some("defined(CONFIG_X86_64) || defined(CONFIG_PPC64)".into())
                ),
                ("drm", Some("defined(CONFIG_S390)".into()))
            ]
        );
    }

    #[test]
    fn conditions_join_without_changing_meaning() {
        let s = |t: &str| Some(t.to_owned());
        assert_eq!(both(None, None), None);
        assert_eq!(both(s("a"), s("b")), s("a && b"));
        assert_eq!(both(s("a || c"), s("b")), s("(a || c) && b"));
        assert_eq!(both(None, s("b")), s("b"));
    }

    proptest! {
        #[test]
        fn each_architecture_is_under_its_value_alone(
            facts in proptest::collection::btree_map(proptest::sample::select(Arch::ALL.to_vec()), 0..3u32, 1..5),
        ) {
            let values = split(facts.clone());
            for (arch, value) in facts {
                let word = format!("defined({})", config(arch));
                for (other, condition) in &values {
                    match condition {
                        None => prop_assert_eq!(*other, value),
                        Some(condition) => prop_assert_eq!(condition.contains(&word), *other == value),
                    }
                }
            }
        }
    }
}
