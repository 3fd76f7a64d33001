//! The built-in extraction backend: libclang parses the file, and what the functions need is cut out of its own text.
//!
//! [`extract_and_check`] is the main path: [`unit::Unit`] reads the parse, [`closure::Planner`] finds the closure of the functions and
//! decides what becomes of each symbol, [`emit::Draft`] writes the source, [`expand`] asks the preprocessor for what hides in
//! macros, and the compile check judges; a form that does not compile is followed by a plainer one.

mod changes;
mod closure;
mod copies;
mod declare;
mod emit;
mod expand;
mod fate;
mod files;
mod generate;
mod items;
pub(crate) mod lexer;
pub mod libclang;
mod macros;
mod patched;
mod plan;
mod refs;
mod rename;
mod survey;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_headers;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_moves;
mod tokens;
mod unit;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use changes::{Changes, Told};
use closure::Planner;
use files::Files;
use libclang::{Library, Tu};
use plan::Context;
use unit::{Private, Unit};

use super::compile_check::{self, CompileCheck};
use super::{Error, Extraction, Form, Request, Symbols, flags};

/// Lets modules call static calls through the trampoline alone.
const STATIC_CALL_TYPES: &str = "include/linux/static_call_types.h";

/// libclang's version, or why it can't be loaded.
///
/// # Errors
/// [`Error::LibclangMissing`].
pub fn identity() -> Result<String, Error> {
    Library::load().map(|l| l.version())
}

/// Extracts, compiles, and retries in plainer forms while the compile check fails; the best outcome is returned.
///
/// # Errors
/// When the file can't be parsed, a function isn't in it, or a tool is missing. A source that doesn't compile is no error: the check says so.
pub fn extract_and_check(request: &Request, symbols: &dyn Symbols) -> Result<(Extraction, CompileCheck), Error> {
    let library = Library::load()?;
    let tu = parse(&library, request)?;
    let changes = survey::changes(&library, request, &tu)?;
    let mut best: Option<(Extraction, CompileCheck)> = None;
    let mut tried = Vec::new();
    for private in [Private::Slice, Private::Include] {
        let mut expand = BTreeSet::new();
        for round in 0..2 {
            let (mut extraction, lines) = slice(&tu, &changes, request, symbols, private, &expand, round > 0)?;
            let check = compile_check::check(request, symbols, &extraction)?;
            extraction.warnings.extend(tried.iter().cloned());
            if check.ok {
                return Ok((extraction, check));
            }
            tried.push(format!(
                "the form {:?} was tried first: {}",
                extraction.form,
                check.summary()
            ));
            let better = best.as_ref().is_none_or(|(_, b)| check.score() < b.score());
            let failing = failing(&check, &lines);
            if better {
                best = Some((extraction, check));
            }
            if failing.is_empty() {
                break;
            }
            expand = failing;
        }
    }
    // The loop above ran at least once, and each turn that does not return leaves a best outcome.
    best.ok_or_else(|| Error::Parse {
        file: request.file.clone(),
        why: "no form was tried".into(),
    })
}

/// What the fix changes in the headers that the file reads.
///
/// # Errors
/// As [`extract_and_check`].
pub fn header_changes(request: &Request) -> Result<Vec<Told>, Error> {
    let library = Library::load()?;
    let tu = parse(&library, request)?;
    Ok(survey::changes(&library, request, &tu)?.told())
}

/// Extracts in the most readable form, without the compile check.
///
/// # Errors
/// As [`extract_and_check`].
pub fn extract(request: &Request, symbols: &dyn Symbols) -> Result<Extraction, Error> {
    let library = Library::load()?;
    let tu = parse(&library, request)?;
    let changes = survey::changes(&library, request, &tu)?;
    slice(&tu, &changes, request, symbols, Private::Slice, &BTreeSet::new(), false).map(|(extraction, _)| extraction)
}

/// What libclang is given.
fn arguments(request: &Request) -> Vec<String> {
    let directory = request.command.directory.to_string_lossy();
    let mut args = flags::for_clang(&request.command.args, &directory, request.arch);
    if let Some(preamble) = preamble(request) {
        args.extend(["-include".to_owned(), preamble.to_string_lossy().into_owned()]);
    }
    args
}

/// What built-in code is read after, where its kernel has static calls.
fn preamble(request: &Request) -> Option<PathBuf> {
    let wanted = !request.command.is_module() && request.src_dir.join(STATIC_CALL_TYPES).is_file();
    wanted.then(|| request.scratch.join("klp-builtin.h"))
}

fn parse<'l>(library: &'l Library, request: &Request) -> Result<Tu<'l>, Error> {
    parse_text(library, request, None)
}

/// `text`: what to read in place of the request's file.
fn parse_text<'l>(library: &'l Library, request: &Request, text: Option<&str>) -> Result<Tu<'l>, Error> {
    if let Some(preamble) = preamble(request) {
        write(
            &preamble,
            "#define MODULE\n#include <linux/static_call_types.h>\n#undef MODULE\n",
        )?;
    }
    let args = arguments(request);
    let file = request.src_dir.join(&request.file);
    let file = file.to_string_lossy();
    let tu = Tu::parse(library, &args, text.map(|text| (&*file, text))).map_err(|why| Error::Parse {
        file: request.file.clone(),
        why,
    })?;
    Ok(tu)
}

fn not_parsed(tu: &Tu<'_>, request: &Request) -> Error {
    let errors: Vec<String> = tu.errors(3).into_iter().map(|d| d.text).collect();
    Error::Parse {
        file: request.file.clone(),
        why: if errors.is_empty() {
            "the compile command names another file".into()
        } else {
            errors.join("; ")
        },
    }
}

/// Where each piece starts, and what it is from: the functions whose expansion may help when a line of theirs does not compile.
type Lines = Vec<(usize, Option<String>)>;

fn slice(
    tu: &Tu<'_>,
    changes: &Changes,
    request: &Request,
    symbols: &dyn Symbols,
    private: Private,
    expand: &BTreeSet<String>,
    again: bool,
) -> Result<(Extraction, Lines), Error> {
    let files = Files::new(&request.src_dir, &request.obj_dir, &request.command.directory);
    let mut unit = Unit::new(tu, files, &request.file, private, changes).ok_or_else(|| not_parsed(tu, request))?;
    let plan = Planner::new(&mut unit, request, symbols, expand).run()?;
    let draft = emit::Draft::new(&unit, &plan, request, !request.command.is_module());
    let preprocessed = if draft.needs_expansion() {
        expand::preprocess(request, &draft.probe())?
    } else {
        String::new()
    };
    let output = draft.finish(&preprocessed);
    let mut warnings = plan.warnings.clone();
    warnings.extend(draft.warnings.iter().cloned());
    warnings.extend(
        tu.errors(5)
            .into_iter()
            .map(|d| parse_warning(&request.relative(&d.text))),
    );
    let lines = output
        .lines
        .into_iter()
        .map(|(line, context)| {
            let name = match context {
                Some(Context::Header(name)) => Some(name),
                Some(Context::Item(i)) => unit.function_of(i),
                None => None,
            };
            (line, name)
        })
        .collect();
    let form = match (private, again) {
        (Private::Slice, false) => Form::Sliced,
        (Private::Slice, true) => Form::SlicedExpanded,
        (Private::Include, false) => Form::Included,
        (Private::Include, true) => Form::IncludedExpanded,
    };
    let extraction = Extraction {
        source: output.source,
        externalized: plan.externals,
        patched: plan.patched,
        warnings,
        expanded: output.expanded,
        dependencies: plan.dependencies.into_iter().collect(),
        form,
        command: arguments(request),
    };
    Ok((extraction, lines))
}

/// The functions whose text holds a line the compiler complains about.
fn failing(check: &CompileCheck, lines: &Lines) -> BTreeSet<String> {
    check
        .error_lines
        .iter()
        .filter_map(|line| {
            let at = lines.partition_point(|(start, _)| start <= line);
            lines.get(at.checked_sub(1)?)?.1.clone()
        })
        .collect()
}

fn parse_warning(text: &str) -> String {
    let hint = if text.contains("file not found") {
        " (if the build generates it: run make for its directory once in the object directory)"
    } else {
        ""
    };
    format!("libclang: {text}{hint}")
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|source| Error::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}
