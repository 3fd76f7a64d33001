//! Groups: codestreams whose normalised outputs are equal, so that one source serves them all.

use std::collections::BTreeMap;

use crate::Arch;
use crate::codestream::Codestream;
pub use crate::compression::groups_file;
use crate::normalize::normalize;
use crate::outcome::Digest;
use crate::task::Platform;

/// Codestreams that one source serves on one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub arch: Arch,
    /// In natural order; at least one.
    pub codestreams: Vec<Codestream>,
    /// Of the normalised outputs with their names.
    pub digest: Digest,
}

/// One output of a platform: the artifact's name, and its text.
pub type Output = (String, String);

/// The digest of a platform's outputs: equal for equal normalised texts under equal names, in whatever order they come.
pub fn digest(mut outputs: Vec<Output>) -> Digest {
    outputs.sort();
    let mut hasher = blake3::Hasher::new();
    for (name, text) in &outputs {
        let text = normalize(text);
        // Lengths keep the border between name and text unambiguous.
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    Digest::from_hasher(&hasher)
}

/// Groups platforms by their outputs. Ordered by architecture, then by each group's first codestream.
pub fn group(outputs: Vec<(Platform, Vec<Output>)>) -> Vec<Group> {
    let digests = outputs
        .into_iter()
        .map(|(platform, outputs)| (platform, digest(outputs)));
    group_digests(digests.collect())
}

/// As [`group`], for outputs whose digests are known.
pub fn group_digests(outputs: Vec<(Platform, Digest)>) -> Vec<Group> {
    let mut by_digest: BTreeMap<(Arch, Digest), Vec<Codestream>> = BTreeMap::new();
    for (platform, digest) in outputs {
        by_digest
            .entry((platform.arch, digest))
            .or_default()
            .push(platform.codestream);
    }
    let mut groups: Vec<Group> = by_digest
        .into_iter()
        .map(|((arch, digest), mut codestreams)| {
            codestreams.sort();
            Group {
                arch,
                codestreams,
                digest,
            }
        })
        .collect();
    groups.sort_by(|a, b| (a.arch, &a.codestreams).cmp(&(b.arch, &b.codestreams)));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cs(names: &[&str]) -> Vec<Codestream> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn equal_outputs_are_one_group_whatever_their_order() {
        let platform = |name: &str| Platform {
            codestream: name.parse().unwrap(),
            arch: Arch::X86_64,
        };
        let out = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let groups = group(vec![
            (platform("b"), vec![out("1.c", "x"), out("2.c", "y /* b */")]),
            (platform("a"), vec![out("2.c", "y"), out("1.c", "x")]),
            (platform("c"), vec![out("1.c", "x"), out("2.c", "z")]),
        ]);
        let lists: Vec<_> = groups.iter().map(|g| g.codestreams.clone()).collect();
        assert_eq!(lists, [cs(&["a", "b"]), cs(&["c"])]);
    }
}
