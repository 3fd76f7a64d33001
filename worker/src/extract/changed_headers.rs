//! What a fix changes in headers, told of sources that klp-ccp or clang-extract made: they slice by rules of their own, and
//! what they leave to an inclusion is the kernel's own header, without the fix.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Error, Request, native, preprocessor};

/// At most so many changes are told one by one.
const MOST: usize = 40;

/// Where the source includes the header.
const KERNELS: &str = "the source includes this header as the kernel has it, without the fix: compare by hand, or use \
     --type native, which copies what changed";

/// Where the tool took what it needs from the header's text.
const FIXES: &str = "the source has it as in the fix, and the running kernel as it was: compare by hand";

/// A warning for each change in a header that the request's file reads and that `source`, made of it, has not got or the
/// running kernel shares; without libclang, for each such header.
///
/// # Errors
/// Neither libclang nor the compiler can read the file.
pub(super) fn warnings(request: &Request, source: &str) -> Result<Vec<String>, Error> {
    let Some(kernel) = request.as_unpatched() else {
        return Ok(Vec::new());
    };
    let mut warnings: Vec<String> = match native::header_changes(request) {
        Ok(changes) if changes.is_empty() => Vec::new(),
        Ok(changes) => {
            let included = included(&kernel, source)?;
            let includes = |header: &String| included.as_ref().is_none_or(|all| all.contains(header));
            let told = changes.into_iter().filter_map(|change| {
                let next_step = match (includes(&change.header), change.shared) {
                    (true, _) => KERNELS,
                    (false, true) => FIXES,
                    (false, false) => return None,
                };
                Some(format!("{} with the fix: {next_step}", change.text))
            });
            told.collect()
        }
        Err(error) => {
            let headers = differing(request)?.into_iter();
            let told =
                headers.map(|h| format!("{h} is changed with the fix (what of it is not known: {error}): {KERNELS}"));
            told.collect()
        }
    };
    let more = warnings.len().saturating_sub(MOST);
    warnings.truncate(MOST);
    if more > 0 {
        warnings.push(format!(
            "the fix changes {more} more things in headers: compare by hand, or use --type native"
        ));
    }
    Ok(warnings)
}

/// The kernel's headers that a source made of the request's file includes; none if it is no source yet.
fn included(kernel: &Request, source: &str) -> Result<Option<BTreeSet<String>>, Error> {
    match preprocessor::ask_of(kernel, source, &["-M"]) {
        Ok(list) => Ok(Some(
            prerequisites(&list)
                .filter_map(|path| {
                    let full = kernel.command.directory.join(path);
                    Some(full.strip_prefix(&kernel.src_dir).ok()?.display().to_string())
                })
                .collect(),
        )),
        Err(Error::Preprocess { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The headers the file reads that are not as they are without the fix, as the compiler lists them.
pub(super) fn differing(request: &Request) -> Result<Vec<String>, Error> {
    let Some(unpatched) = &request.unpatched else {
        return Ok(Vec::new());
    };
    let list = preprocessor::ask(request, &["-M"])?;
    let (here, there) = (&request.src_dir, &unpatched.src_dir);
    let headers = prerequisites(&list).filter_map(|path| {
        let full = request.command.directory.join(path);
        let inside = full.strip_prefix(here).ok()?;
        let differs = inside != Path::new(&request.file) && !same(&full, &there.join(inside));
        differs.then(|| inside.display().to_string())
    });
    let mut headers: Vec<String> = headers.collect();
    headers.sort();
    headers.dedup();
    Ok(headers)
}

/// The files a rule of a makefile names behind its colon.
fn prerequisites(rule: &str) -> impl Iterator<Item = &str> {
    let files = rule.split_once(": ").map_or("", |(_, files)| files);
    files.split_whitespace().filter(|word| *word != "\\")
}

fn same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => true,
        _ => std::fs::read(a).ok() == std::fs::read(b).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_over_its_lines() {
        let rule = "a.o: /k/a.c /k/include/x.h \\\n /k/include/y.h\n";
        let files: Vec<&str> = prerequisites(rule).collect();
        assert_eq!(files, ["/k/a.c", "/k/include/x.h", "/k/include/y.h"]);
    }
}
