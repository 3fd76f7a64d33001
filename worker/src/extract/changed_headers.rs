//! What a fix changes in headers, told of sources that klp-ccp or clang-extract made: they slice by rules of their own, and
//! what they leave to an inclusion is the kernel's own header, without the fix.

use std::path::Path;

use super::{Error, Request, native, preprocessor};

/// At most so many changes are told one by one.
const MOST: usize = 40;

const NEXT_STEP: &str = "where the source includes the header it has the kernel's own, without the fix: compare by hand, or \
     use --type native, which copies what changed";

/// A warning for each change in a header that the request's file reads; without libclang, for each such header.
///
/// # Errors
/// Neither libclang nor the compiler can read the file.
pub(super) fn warnings(request: &Request) -> Result<Vec<String>, Error> {
    if request.unpatched.is_none() {
        return Ok(Vec::new());
    }
    let (changes, why) = match native::header_changes(request) {
        Ok(changes) => (changes, String::new()),
        Err(error) => {
            let changed = |header: String| format!("{header} is changed");
            let headers = differing(request)?.into_iter().map(changed).collect();
            (headers, format!(" (what of it is not known: {error})"))
        }
    };
    let more = changes.len().saturating_sub(MOST);
    let told = changes.into_iter().take(MOST);
    let mut warnings: Vec<String> = told
        .map(|change| format!("{change} with the fix{why}: {NEXT_STEP}"))
        .collect();
    if more > 0 {
        warnings.push(format!("the fix changes {more} more things in headers: {NEXT_STEP}"));
    }
    Ok(warnings)
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
