//! SUSE's klp-ccp as a backend: how it is called, and how its outputs become an extraction.
//!
//! Its policy, in Python, is what knows about kernels; the variables that steer it (`KCP_…`) are documented in the policy's
//! own source, `examples/policies/suse/klp_policy.py`.

pub(super) mod outputs;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cleanup::{self, Origin};
use super::declarations::Text;
use super::external::{External, Inputs, Outputs, Prepared, object_named, pointers, read_small};
use super::invocation::Invocation;
use super::never::NEVER_EXTERNAL;
use super::{Externalized, Extraction, Form, PatchedFunction, Request, flags};
use outputs::Method;

/// The policy's class.
const POLICY: &str = "suse.KlpPolicy";

/// The newest compiler klp-ccp claims to be.
const COMPILER: &str = "gcc-9.1.0";

/// Where Python looks for the policy.
const POLICY_PATH: &str = "KLP_CCP_PYTHONPOLICY_PATH";

/// Defined after the file's own, because klp-ccp can't do what they stand for: it knows no attribute by question and no
/// named address spaces, and its own definitions of the two sizes are expressions, which newer headers test in `#if`.
const DEFINES: [&str; 7] = [
    "-D__has_attribute(x)=0",
    "-D__seg_gs=",
    "-D__seg_fs=",
    "-U__SIZEOF_POINTER__",
    "-D__SIZEOF_POINTER__=8",
    "-U__SIZEOF_LONG_LONG__",
    "-D__SIZEOF_LONG_LONG__=8",
];

/// An installed klp-ccp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ccp {
    pub program: PathBuf,
    /// Folders of the policy, where it isn't installed with the program; separated by colons.
    pub policy: Option<String>,
}

impl Ccp {
    fn source_in(dir: &Path) -> PathBuf {
        dir.join("livepatch.c")
    }
}

impl External for Ccp {
    fn name(&self) -> &'static str {
        "klp-ccp"
    }

    fn log_name(&self) -> &'static str {
        "ccp.out.txt"
    }

    fn invocation(
        &self,
        request: &Request,
        inputs: &Inputs,
        files: &Prepared,
        avoid: &BTreeSet<&str>,
        _manner: usize,
    ) -> Invocation {
        let mut run = Invocation::new(&self.program, &request.command.directory);
        run.arg("-P");
        run.arg(POLICY);
        run.arg(format!("--compiler={}-{COMPILER}", inputs.arch));
        run.arg("-i");
        run.arg(request.functions.join(","));
        run.arg("-o");
        run.arg(Self::source_in(&files.dir));
        run.arg("--");
        for arg in flags::meaningful(&request.command.args) {
            run.arg(arg);
        }
        for define in DEFINES {
            run.arg(define);
        }
        let never: Vec<&str> = NEVER_EXTERNAL.into_iter().chain(avoid.iter().copied()).collect();
        run.env("KCP_KLP_CONVERT_EXTS", if inputs.ibt { "1" } else { "0" });
        run.env("KCP_MOD_SYMVERS", &inputs.symvers);
        run.env("KCP_KBUILD_ODIR", &request.obj_dir);
        run.env("KCP_KBUILD_SDIR", &request.src_dir);
        run.env("KCP_PATCHED_OBJ", &files.symbol_file);
        run.env("KCP_IPA_CLONES_DUMP", &files.ipa_clones);
        run.env("KCP_WORK_DIR", &files.dir);
        run.env("KCP_READELF", "readelf");
        run.env("KCP_RENAME_PREFIX", "klp");
        run.env("KCP_EXT_BLACKLIST", never.join(","));
        // The policy's folder is no place to write to.
        run.env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(policy) = &self.policy {
            run.env(POLICY_PATH, policy);
        }
        run
    }

    fn read(&self, request: &Request, files: &Prepared, said: &str) -> Result<Outputs, String> {
        let original = Self::source_in(&files.dir);
        let raw = read_small(&original)?;
        let others: Vec<PathBuf> = ["fun_exts", "obj_exts", "patched_funcs"]
            .map(|name| files.dir.join(name))
            .into();
        let mut externals = outputs::externals(&read_small(&others[0])?)?;
        externals.extend(outputs::externals(&read_small(&others[1])?)?);
        let mut externalized: Vec<Externalized> = externals
            .into_iter()
            .filter(|e| e.method != Method::Export)
            .map(|e| Externalized {
                object: object_named(&e.object, request),
                variable: e.variable,
                symbol: e.symbol,
            })
            .collect();
        externalized.sort();
        externalized.dedup();
        let source = cleanup::clean(&raw, &Origin::of(request), &pointers(&externalized));
        let named = outputs::patched(&read_small(&others[2])?)?;
        let (source, patched, mut warnings) = replacements(&source, &named, &request.functions);
        warnings.extend(outputs::warnings(said));
        Ok(Outputs {
            extraction: Extraction {
                source,
                externalized,
                patched,
                warnings,
                expanded: Vec::new(),
                dependencies: Vec::new(),
                form: Form::External,
                command: Vec::new(),
            },
            original,
            others,
        })
    }
}

/// Makes the functions named global, so that they can be registered, and says which could not be found. `asked`: those the
/// user named; klp-ccp adds the ones they were inlined into.
pub(super) fn replacements(
    source: &str,
    named: &[String],
    asked: &[String],
) -> (String, Vec<PatchedFunction>, Vec<String>) {
    let text = Text::new(source);
    let (mut patched, mut warnings, mut cut) = (Vec::new(), Vec::new(), Vec::new());
    for function in named {
        let replacement = format!("klpp_{function}");
        let mut found = None;
        for item in text.functions(&replacement) {
            cut.extend(item.binding().map(|range| (range, String::new())));
            if item.is_definition() {
                found = item.prototype();
            }
        }
        match found {
            None => warnings.push(format!(
                "klp-ccp says that it patched {function}, but its source has no {replacement}: it is left out"
            )),
            Some(prototype) => patched.push(PatchedFunction {
                function: function.clone(),
                replacement,
                prototype,
            }),
        }
        if !asked.contains(function) {
            warnings.push(format!(
                "{function} is patched too, because a function to patch was inlined into it"
            ));
        }
    }
    for function in asked.iter().filter(|f| !named.contains(f)) {
        warnings.push(format!(
            "the patched object has no symbol {function}, which seems to be inlined everywhere: only its callers are patched"
        ));
    }
    (cleanup::edited(source, cut), patched, warnings)
}

#[cfg(test)]
mod tests;
