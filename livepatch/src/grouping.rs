//! Groups: codestreams whose normalised outputs are equal, so that one source serves them all.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Arch;
use crate::codestream::{Codestream, natural_cmp};
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

/// The klp-build `groups` file for codestreams that were split into `groups`: a line for each, without a final newline.
///
/// klp-build reads `15.6u9-11` as every update from 9 to 11. A run is therefore never written across a codestream that
/// is in another group, so what the tools read back is what was meant.
pub fn groups_file(groups: &[Vec<Codestream>]) -> String {
    let all: Vec<&Codestream> = groups.iter().flatten().collect();
    let mut lines: Vec<String> = groups.iter().map(|group| compress(group, &all)).collect();
    lines.sort_by(|a, b| natural_cmp(a, b));
    lines.join("\n")
}

/// One group's line: `15.2u10-11 15.3u10-12`.
fn compress(group: &[Codestream], all: &[&Codestream]) -> String {
    let mut members: Vec<&Codestream> = group.iter().collect();
    members.sort();
    let mut line = String::new();
    let mut i = 0;
    while i < members.len() {
        let mut last = i;
        while last + 1 < members.len() && run_continues(members[last], members[last + 1], all) {
            last += 1;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(members[i].as_str());
        if let (true, Some((_, update))) = (last > i, base_and_update(members[last])) {
            // Writing to a String can't fail.
            let _ = write!(line, "-{update}");
        }
        i = last + 1;
    }
    line
}

/// Whether `a` and `b` may be the neighbours of one run: same base name, and no known codestream lies between them.
fn run_continues(a: &Codestream, b: &Codestream, all: &[&Codestream]) -> bool {
    match (base_and_update(a), base_and_update(b)) {
        (Some((base, low)), Some((other, high))) if base == other && low < high => !all.iter().any(
            |c| matches!(base_and_update(c), Some((known, update)) if known == base && low < update && update < high),
        ),
        _ => false,
    }
}

/// `15.6rtu2` as (`15.6rt`, 2); `None` for a name that is not of the form klp-build's tools expand, which are limited to
/// two digits of update and one of minor version.
fn base_and_update(codestream: &Codestream) -> Option<(&str, u32)> {
    let (base, update) = codestream.as_str().rsplit_once('u')?;
    let (major, minor) = base.strip_suffix("rt").unwrap_or(base).split_once('.')?;
    let digits = |s: &str, max: usize| !s.is_empty() && s.len() <= max && s.bytes().all(|b| b.is_ascii_digit());
    let canonical = update == "0" || !update.starts_with('0');
    if digits(major, 2) && digits(minor, 1) && digits(update, 2) && canonical {
        update.parse().ok().map(|n| (base, n))
    } else {
        None
    }
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

    #[test]
    fn a_run_never_covers_a_codestream_of_another_group() {
        assert_eq!(
            groups_file(&[cs(&["15.6u11", "15.6u9"]), cs(&["15.6u10"])]),
            "15.6u9 15.6u11\n15.6u10"
        );
        assert_eq!(
            groups_file(&[cs(&["15.3u10", "15.3u12", "15.2u10", "15.2u11"])]),
            "15.2u10-11 15.3u10-12"
        );
    }

    #[test]
    fn names_klp_build_cannot_expand_are_written_whole() {
        assert_eq!(groups_file(&[cs(&["15.3u100", "15.3u101"])]), "15.3u100 15.3u101");
        assert_eq!(groups_file(&[cs(&["16.10u1", "16.10u2"])]), "16.10u1 16.10u2");
        assert_eq!(
            groups_file(&[cs(&["debian12-6.1.0-50", "debian12-6.1.0-56"])]),
            "debian12-6.1.0-50 debian12-6.1.0-56"
        );
    }
}
