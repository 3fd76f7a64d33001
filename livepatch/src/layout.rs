//! Where results land on the engineer's disk: the tree that klp-build users know.
//!
//! `<name>/<ccp|ce|native>/<codestream>/lp/…` holds the preferred architecture's livepatch. Where another
//! architecture's source is not the same code, it is kept beside it in `<codestream>/<arch>/lp/…`.

use std::path::PathBuf;

use crate::Arch;
use crate::codestream::Codestream;
use crate::klp_build::naming;
use crate::names::SourcePath;
use crate::spec::Spec;

/// The folder of a livepatch's outputs with one backend, below the work folder.
pub fn backend_dir(spec: &Spec) -> PathBuf {
    [spec.name.as_str(), spec.backend.output_dir()].iter().collect()
}

/// A codestream's folder, below the work folder: all that it has on any architecture.
pub fn codestream_dir(spec: &Spec, codestream: &Codestream) -> PathBuf {
    backend_dir(spec).join(codestream.as_str())
}

/// The folder of one codestream's livepatch, below the work folder; with an arch, the one for that architecture alone.
pub fn lp_dir(spec: &Spec, codestream: &Codestream, only: Option<Arch>) -> PathBuf {
    let mut path = codestream_dir(spec, codestream);
    if let Some(arch) = only {
        path.push(arch.as_str());
    }
    path.push("lp");
    path
}

/// The folder of one file's extraction, as the backend left it: `<codestream>/work_<file>/`.
pub fn work_dir(spec: &Spec, codestream: &Codestream, only: Option<Arch>, file: &SourcePath) -> PathBuf {
    let mut path = lp_dir(spec, codestream, only);
    path.pop();
    path.push(naming::work_dir(file));
    path
}

/// A fix as it was applied: `<name>/fixes/<scope>/NN-<patch>`. The scope is a product's branch or a codestream. What in
/// either could lead elsewhere is turned into `_`.
pub fn fix(spec: &Spec, scope: &str, number: usize, patch: &str) -> PathBuf {
    let patch = component(patch);
    let file = match patch.as_bytes() {
        // Its name says already where it belongs.
        [b'0'..=b'9', b'0'..=b'9', b'-', ..] => patch,
        _ => format!("{number:02}-{patch}"),
    };
    [spec.name.as_str(), FIXES, &component(scope), &file].iter().collect()
}

/// One of the files that a livepatch has once, beside its outputs: [`COMMIT_MSG`], [`CODESTREAMS`], [`MISSING_SYMS`].
pub fn of_livepatch(spec: &Spec, name: &str) -> PathBuf {
    [spec.name.as_str(), name].iter().collect()
}

/// A name for a file or folder: of plain characters, neither hidden nor an option.
fn component(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "_-.+".contains(c) {
            c
        } else {
            '_'
        }
    };
    let mut name: String = text.chars().take(120).map(plain).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        name.insert(0, '_');
    }
    name
}

/// The name of a target's source in the `lp` folder: `livepatch_<name>.c` for a livepatch of one file, else
/// `<name>_<path with / and - turned to _>`, as klp-build names them.
pub fn source_name(spec: &Spec, file: &SourcePath) -> String {
    if spec.targets.len() == 1 {
        format!("livepatch_{}.c", spec.name)
    } else {
        naming::out_file(&spec.name, file)
    }
}

/// The name of the header that declares the replacements.
pub fn header_name(spec: &Spec) -> String {
    format!("livepatch_{}.h", spec.name)
}

/// The names of the other files in an `lp` folder, and of the list of groups beside the codestreams.
pub const PATCHED_FUNCS: &str = "patched_funcs.csv";
pub const EXTERNALIZED: &str = "externalized.json";
pub const GROUPS: &str = "groups";
pub const KBUILD_INC: &str = "Kbuild.inc";
pub const MAKEFILE: &str = "Makefile";

/// The names of what a livepatch has once.
pub const COMMIT_MSG: &str = "commit.msg";
pub const CODESTREAMS: &str = "codestreams.json";
pub const MISSING_SYMS: &str = "missing_syms";
pub const COVER_LETTER: &str = "patches/0000-cover-letter.patch";
pub const FIXES: &str = "fixes";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Draft, TargetDraft};

    fn spec(files: &[&str]) -> Spec {
        let targets = files
            .iter()
            .map(|file| TargetDraft {
                file: (*file).into(),
                functions: vec!["f".into()],
                config: "CONFIG_X".into(),
                object: String::new(),
            })
            .collect();
        Spec::parse(&Draft {
            name: "bsc1".into(),
            targets,
            ..Default::default()
        })
        .unwrap()
    }

    #[test]
    fn names_are_those_of_klp_build() {
        let cs = "15.6u1".parse().unwrap();
        let one = spec(&["net/core/sock.c"]);
        assert_eq!(lp_dir(&one, &cs, None), PathBuf::from("bsc1/native/15.6u1/lp"));
        assert_eq!(
            lp_dir(&one, &cs, Some(Arch::S390x)),
            PathBuf::from("bsc1/native/15.6u1/s390x/lp")
        );
        assert_eq!(source_name(&one, &one.targets[0].file), "livepatch_bsc1.c");
        let two = spec(&["net/core/sock.c", "a/b-c.c"]);
        assert_eq!(source_name(&two, &two.targets[0].file), "bsc1_net_core_sock.c");
        assert_eq!(source_name(&two, &two.targets[1].file), "bsc1_a_b_c.c");
        assert_eq!(
            work_dir(&two, &cs, None, &two.targets[1].file),
            PathBuf::from("bsc1/native/15.6u1/work_a_b-c.c")
        );
        assert_eq!(of_livepatch(&two, COMMIT_MSG), PathBuf::from("bsc1/commit.msg"));
    }

    #[test]
    fn fixes_stay_in_their_folder() {
        let one = spec(&["net/core/sock.c"]);
        let path = |scope, patch| fix(&one, scope, 1, patch);
        assert_eq!(
            path("15.6", "net-fix.patch"),
            PathBuf::from("bsc1/fixes/15.6/01-net-fix.patch")
        );
        for (scope, patch) in [("..", "../../x"), ("/etc", "/passwd"), ("", "-x"), (".", "a\0b")] {
            let path = path(scope, patch);
            assert_eq!(path.components().count(), 4, "{path:?}");
            assert!(
                path.components().all(|c| matches!(c, std::path::Component::Normal(_))),
                "{path:?}"
            );
        }
    }
}
