//! Does the object define the target's functions, as functions that can be replaced?

use klp_livepatch::names::FunctionName;
use klp_livepatch::report::{FunctionCheck, Traced};
use klp_livepatch::spec::Target;

use super::object::{FoundObject, folder_of};
use super::{Findings, Kernel, TreeError, near};
use crate::symbols::{SymbolKind, SymbolTable};

/// Modules of the file's folder that are searched for a function that isn't where it should be.
const MAX_NEIGHBOURS: usize = 20;

/// The functions that are there; what stands against the others is told.
pub(super) fn check(
    kernel: &dyn Kernel,
    target: &Target,
    object: &FoundObject,
    source: Option<&str>,
    findings: &mut Findings,
) -> Result<Vec<FunctionCheck>, TreeError> {
    let mut found = Vec::new();
    for function in &target.functions {
        match object.symbols.lookup(function.as_str()) {
            Some(info) if info.kind == SymbolKind::Object => {
                findings.problem(format!("{function} is data in {}, not a function", object.name));
            }
            Some(info) => {
                if info.kind == SymbolKind::Other {
                    findings.warning(format!(
                        "{function} in {} is not marked as a function; it may be written in assembler, which can't be patched",
                        object.name
                    ));
                }
                if info.count > 1 {
                    findings.warning(format!(
                        "{} has {} symbols named {function}; the livepatch must give the position of the right one (sympos)",
                        object.name, info.count
                    ));
                }
                found.push(FunctionCheck {
                    function: function.clone(),
                    sympos: 0,
                    traced: Traced::Unknown,
                    clones: Vec::new(),
                    inlined_into: Vec::new(),
                });
            }
            None => {
                let why = why_absent(kernel, target, object, source, function)?;
                findings.problem(format!("{} has no symbol {function}: {why}", object.name));
            }
        }
    }
    Ok(found)
}

fn why_absent(
    kernel: &dyn Kernel,
    target: &Target,
    object: &FoundObject,
    source: Option<&str>,
    function: &FunctionName,
) -> Result<String, TreeError> {
    let variants = variants(&*object.symbols, function.as_str());
    if !variants.is_empty() {
        return Ok(format!(
            "the compiler left only {}, a copy made for certain callers; patch the functions that call it instead",
            near::and_list(&variants)
        ));
    }
    if let Some(place) = elsewhere(kernel, target, object, function)? {
        return Ok(format!("it is in {place}; change the target's module to that"));
    }
    match source {
        Some(text) if mentions(text, function.as_str()) => Ok(format!(
            "{} has it, so it was probably inlined everywhere; patch the functions that call it instead",
            target.file
        )),
        _ => {
            let mut names = Vec::new();
            object.symbols.for_each_name(&mut |name| {
                // Compilers' copies, and markers such as __ksymtab_x, are nothing to patch.
                if !name.contains('.') && !name.starts_with("__ksymtab") && !name.starts_with("__pfx_") {
                    names.push(name.to_owned());
                }
            });
            let near = near::nearest(function.as_str(), names.iter().map(String::as_str));
            Ok(match (near.is_empty(), source) {
                (false, _) => format!("did you mean {}?", near::or_list(&near)),
                (true, Some(_)) => format!(
                    "nor does {} mention it; this codestream may not have the code yet, or no longer",
                    target.file
                ),
                (true, None) => "and its file is not there either".to_owned(),
            })
        }
    }
}

/// What the compiler made of a function: `f.isra.0`, `f.constprop.0`, `f.part.0`, `f.cold`.
fn variants(symbols: &dyn SymbolTable, function: &str) -> Vec<String> {
    let mut variants = Vec::new();
    symbols.for_each_name(&mut |name| {
        if let Some(rest) = name.strip_prefix(function)
            && rest.starts_with('.')
            && rest[1..].starts_with(|c: char| c.is_ascii_alphabetic())
            && !variants.iter().any(|v| v == name)
        {
            variants.push(name.to_owned());
        }
    });
    variants.sort();
    variants
}

fn elsewhere(
    kernel: &dyn Kernel,
    target: &Target,
    object: &FoundObject,
    function: &FunctionName,
) -> Result<Option<String>, TreeError> {
    let is_function = |table: &dyn SymbolTable| {
        table
            .lookup(function.as_str())
            .is_some_and(|info| info.kind == SymbolKind::Function)
    };
    if !object.name.is_vmlinux() && is_function(&*kernel.vmlinux()?) {
        return Ok(Some("vmlinux".to_owned()));
    }
    let neighbours = kernel.modules_in(folder_of(target));
    Ok(neighbours
        .into_iter()
        .take(MAX_NEIGHBOURS)
        .filter(|name| *name != object.name.as_str())
        .find(|name| kernel.module(name).is_ok_and(|table| is_function(&*table)))
        .map(|name| format!("module {name}")))
}

/// Whether the text has the name, as a word of its own.
fn mentions(text: &str, name: &str) -> bool {
    let in_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    text.match_indices(name)
        .any(|(at, _)| !in_word(text[..at].chars().next_back()) && !in_word(text[at + name.len()..].chars().next()))
}
