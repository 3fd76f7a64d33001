//! How klp-build calls what it writes.

use crate::Codestream;
use crate::compression::{GroupsError, expand};
use crate::names::{LivepatchName, SourcePath};

/// A source file's extracted code, in its work folder and in the `lp` folder of a livepatch of several files:
/// `bsc1_net_core_sock.c`.
pub fn out_file(livepatch: &LivepatchName, file: &SourcePath) -> String {
    format!("{livepatch}_{}", file.flattened())
}

/// The folder of one file's extraction in its codestream's folder: `work_net_core_sock.c`. Here dashes stay.
pub fn work_dir(file: &SourcePath) -> String {
    format!("work_{}", file.as_str().replace('/', "_"))
}

/// Those of `files` whose extracted code a file of that name may be: more than one where names differ only in what is
/// turned into `_`.
pub fn files_of<'a>(livepatch: &LivepatchName, out: &str, files: &'a [SourcePath]) -> Vec<&'a SourcePath> {
    files.iter().filter(|file| out_file(livepatch, file) == out).collect()
}

/// The git branch of a group, made of its line: `bsc1_15.6u9_15.6u11`.
pub fn branch(livepatch: &LivepatchName, group: &str) -> String {
    format!("{livepatch}_{}", group.replace(' ', "_"))
}

/// The known codestreams a branch is for; `None` for a branch of another livepatch.
///
/// # Errors
/// What in the branch's name is no codestream.
pub fn codestreams_of_branch(
    livepatch: &LivepatchName,
    branch: &str,
    known: &[Codestream],
) -> Result<Option<Vec<Codestream>>, GroupsError> {
    let group = branch
        .strip_prefix(livepatch.as_str())
        .and_then(|rest| rest.strip_prefix('_'));
    group.map(|group| expand(&group.replace('_', " "), known)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_klp_builds() {
        let lp: LivepatchName = "bsc1".parse().unwrap();
        let files: [SourcePath; 3] = ["a/b-c.c", "a/b_c.c", "net/core/sock.c"].map(|f| f.parse().unwrap());
        assert_eq!(out_file(&lp, &files[0]), "bsc1_a_b_c.c");
        assert_eq!(work_dir(&files[0]), "work_a_b-c.c");
        assert_eq!(files_of(&lp, "bsc1_net_core_sock.c", &files), [&files[2]]);
        assert_eq!(files_of(&lp, "bsc1_a_b_c.c", &files), [&files[0], &files[1]]);
        assert!(files_of(&lp, "bsc2_net_core_sock.c", &files).is_empty());
    }

    #[test]
    fn branches_tell_their_codestreams() {
        let lp: LivepatchName = "bsc1".parse().unwrap();
        let known: Vec<Codestream> = ["15.6u9", "15.6u10", "15.6u11", "6.0u1"]
            .map(|c| c.parse().unwrap())
            .into();
        assert_eq!(branch(&lp, "6.0u1 15.6u9"), "bsc1_6.0u1_15.6u9");
        let of = |name: &str| codestreams_of_branch(&lp, name, &known).unwrap();
        assert_eq!(of("bsc1_6.0u1_15.6u9-11").unwrap().len(), 4);
        assert_eq!(of("bsc12_6.0u1"), None);
        assert_eq!(of("bsc1"), None);
        assert!(codestreams_of_branch(&lp, "bsc1_x y", &known).is_err());
    }
}
