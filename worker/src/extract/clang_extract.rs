//! SUSE's clang-extract as a backend: how it is called, and how its outputs become an extraction.
//!
//! It is called like a compiler, with what it is to do in definitions (`-DCE_…`, documented by its `--help`).

pub(super) mod outputs;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cleanup::{self, Origin};
use super::declarations::Text;
use super::external::{External, Inputs, Outputs, Prepared, object_named, pointers, read_small};
use super::invocation::Invocation;
use super::{Externalized, Extraction, Form, PatchedFunction, Request, flags};

/// An installed clang-extract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClangExtract {
    pub program: PathBuf,
}

impl ClangExtract {
    fn source_in(dir: &Path) -> PathBuf {
        dir.join("livepatch.c")
    }

    fn list_in(dir: &Path) -> PathBuf {
        dir.join("lp.dsc")
    }

    fn prototypes_in(dir: &Path) -> PathBuf {
        dir.join("proto.h")
    }
}

impl External for ClangExtract {
    fn name(&self) -> &'static str {
        "clang-extract"
    }

    fn log_name(&self) -> &'static str {
        "ce.out.txt"
    }

    /// Pointers declared late make less code, but inline functions in headers may use them before; and where its rewritten
    /// source has errors in parts that are not extracted, they don't matter.
    fn manners(&self) -> usize {
        3
    }

    /// The symbols to avoid are not in the symbol file.
    fn invocation(
        &self,
        request: &Request,
        inputs: &Inputs,
        files: &Prepared,
        _avoid: &BTreeSet<&str>,
        manner: usize,
    ) -> Invocation {
        let mut run = Invocation::new(&self.program, &request.command.directory);
        for arg in flags::meaningful(&request.command.args) {
            run.arg(arg);
        }
        run.path_arg("-DCE_DEBUGINFO_PATH", &files.symbol_file);
        run.path_arg("-DCE_SYMVERS_PATH", &inputs.symvers);
        run.path_arg("-DCE_IPACLONES_PATH", &files.ipa_clones);
        run.path_arg("-DCE_OUTPUT_FILE", &Self::source_in(&files.dir));
        run.path_arg(
            "-DCE_OUTPUT_FUNCTION_PROTOTYPE_HEADER",
            &Self::prototypes_in(&files.dir),
        );
        run.path_arg("-DCE_DSC_OUTPUT", &Self::list_in(&files.dir));
        run.arg(format!("-DCE_EXTRACT_FUNCTIONS={}", request.functions.join(",")));
        run.arg("-DCE_KEEP_INCLUDES");
        run.arg("-DCE_RENAME_SYMBOLS");
        match manner {
            0 => run.arg("-DCE_LATE_EXTERNALIZE"),
            1 => {}
            _ => run.arg("-DCE_IGNORE_CLANG_ERRORS"),
        }
        // Thousands of warnings about the kernel's headers; errors are still told.
        run.arg("-w");
        if inputs.ibt {
            run.arg("-D__USE_IBT__");
        }
        run
    }

    fn read(&self, request: &Request, files: &Prepared, _said: &str) -> Result<Outputs, String> {
        let original = Self::source_in(&files.dir);
        let raw = as_declared(&read_small(&original)?);
        let (list_path, header_path) = (Self::list_in(&files.dir), Self::prototypes_in(&files.dir));
        let list = outputs::list(&read_small(&list_path)?)?;
        let header = read_small(&header_path)?;
        let mut externalized: Vec<Externalized> = list
            .symbols
            .into_iter()
            .map(|s| Externalized {
                object: object_named(s.object.as_deref().unwrap_or("vmlinux"), request),
                symbol: s.symbol,
                variable: s.variable,
            })
            .collect();
        externalized.sort();
        externalized.dedup();
        let source = cleanup::clean(&raw, &Origin::of(request), &pointers(&externalized));
        let prototypes = Text::new(&header);
        let written = Text::new(&source);
        let mut warnings = Vec::new();
        let patched = list
            .functions
            .into_iter()
            .map(|(function, replacement)| {
                if !request.functions.contains(&function) {
                    warnings.push(format!(
                        "{function} is patched too, because a function to patch was inlined into it"
                    ));
                }
                let declared = written
                    .functions(&replacement)
                    .chain(prototypes.functions(&replacement))
                    .find_map(|item| item.prototype());
                PatchedFunction {
                    prototype: declared.unwrap_or_default(),
                    function,
                    replacement,
                }
            })
            .collect();
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
            others: vec![list_path, header_path],
        })
    }

    fn missing<'s>(&self, said: &'s str) -> Option<&'s str> {
        let (_, rest) = said.split_once("Requested symbol not found: ")?;
        rest.split_whitespace().next()
    }

    fn last_words(&self, said: &str) -> String {
        // clang counts its errors at the end; the first is the one to know.
        let error = said
            .lines()
            .find(|line| line.contains("error:") || line.contains("not found"));
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        error.or(last).unwrap_or("it said nothing").trim().to_owned()
    }
}

/// The text with types that only clang has under these names as C has them.
fn as_declared(raw: &str) -> String {
    raw.replace("struct __va_list_tag *", "va_list ")
}

#[cfg(test)]
mod tests;
