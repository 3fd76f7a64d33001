//! Where results land on the engineer's disk: the tree that klp-build users know.
//!
//! `<name>/<ccp|ce|native>/<codestream>/lp/…` holds the preferred architecture's livepatch. Where another
//! architecture's source is not the same code, it is kept beside it in `<codestream>/<arch>/lp/…`.

use std::path::PathBuf;

use crate::Arch;
use crate::codestream::Codestream;
use crate::names::SourcePath;
use crate::spec::Spec;

/// The folder of a livepatch's outputs with one backend, below the work folder.
pub fn backend_dir(spec: &Spec) -> PathBuf {
    [spec.name.as_str(), spec.backend.output_dir()].iter().collect()
}

/// The folder of one codestream's livepatch, below the work folder; with an arch, the one for that architecture alone.
pub fn lp_dir(spec: &Spec, codestream: &Codestream, only: Option<Arch>) -> PathBuf {
    let mut path = backend_dir(spec);
    path.push(codestream.as_str());
    if let Some(arch) = only {
        path.push(arch.as_str());
    }
    path.push("lp");
    path
}

/// The name of a target's source in the `lp` folder: `livepatch_<name>.c` for a livepatch of one file, else
/// `<name>_<path with / and - turned to _>`, as klp-build names them.
pub fn source_name(spec: &Spec, file: &SourcePath) -> String {
    if spec.targets.len() == 1 {
        format!("livepatch_{}.c", spec.name)
    } else {
        format!("{}_{}", spec.name, file.flattened())
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
    }
}
