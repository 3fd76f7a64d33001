//! Does the object define the target's functions, as functions that can be replaced?

use klp_livepatch::names::FunctionName;
use klp_livepatch::report::{FunctionCheck, Traced};
use klp_livepatch::spec::Target;

use super::copies::{self, Copies};
use super::definitions::Definitions;
use super::object::{FoundObject, folder_of};
use super::{Findings, Kernel, TreeError, ftrace, namesake, near};
use crate::symbols::{Place, SymbolKind, SymbolTable};

/// Modules of the file's folder that are searched for a function that isn't where it should be.
const MAX_NEIGHBOURS: usize = 20;

/// What the target's functions are looked up in.
pub(super) struct Asked<'a> {
    pub kernel: &'a dyn Kernel,
    pub target: &'a Target,
    pub object: &'a FoundObject,
    /// The file's text, and what it defines.
    pub source: Option<(&'a str, &'a Definitions)>,
    pub copies: Copies<'a>,
}

/// The functions that are there; what stands against the others is told.
pub(super) fn check(asked: &Asked<'_>, findings: &mut Findings) -> Result<Vec<FunctionCheck>, TreeError> {
    let Asked { target, object, .. } = *asked;
    let names: Vec<&str> = target.functions.iter().map(FunctionName::as_str).collect();
    let places = object.symbols.places(&names);
    let mut found = Vec::new();
    let mut present = Vec::new();
    for (i, function) in target.functions.iter().enumerate() {
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
                present.push((i, function, info.count));
            }
            None => {
                let why = why_absent(asked, function)?;
                findings.doubt(format!("{} has no symbol {function}: {why}", object.name));
            }
        }
    }
    if let Err(why) = &places
        && !present.is_empty()
    {
        findings.warning(format!(
            "whether the functions can be traced, and so patched, is not known: {why}"
        ));
    }
    let variants = variants(&*object.symbols, &names);
    for (i, function, count) in present {
        let (sympos, traced) = match &places {
            Ok(places) => {
                let namesakes = places.by_name.get(i).map(Vec::as_slice).unwrap_or_default();
                place(asked, function, namesakes, places.untold.as_deref(), findings)
            }
            Err(why) => {
                if count > 1 {
                    findings.doubt(format!(
                        "{} has {count} symbols named {function}, and which is of this file can't be told: {why}",
                        object.name
                    ));
                }
                (0, Traced::Unknown)
            }
        };
        let clones = variants[i].clone();
        let inlined_into = asked.copies.holders(function, &*object.symbols);
        copies::warn(function, target, &clones, &inlined_into, findings);
        found.push(FunctionCheck {
            function: function.clone(),
            sympos,
            traced,
            clones,
            inlined_into,
        });
    }
    Ok(found)
}

/// The function's position among its namesakes, and whether it is traced.
fn place(
    asked: &Asked<'_>,
    function: &FunctionName,
    namesakes: &[Place],
    untold: Option<&str>,
    findings: &mut Findings,
) -> (u32, Traced) {
    let Asked { target, object, .. } = *asked;
    let definitions = asked.source.map(|(_, definitions)| definitions);
    let kept = namesakes.iter().filter(|place| place.position.is_some()).count();
    if kept == 0 {
        findings.doubt(format!(
            "{function} in {} is init code, which is freed once the module has started; patch what uses its results instead",
            object.name
        ));
        return (0, Traced::Unknown);
    }
    if kept < namesakes.len() {
        findings.warning(format!(
            "{} has a {function} in its init code, too, which the kernel counts while the module starts and forgets afterwards: the position holds for a module that is loaded already",
            object.name
        ));
    }
    match namesake::choose(namesakes, function.as_str(), &target.file, definitions) {
        Some(place) => {
            let traced = ftrace::check(function, &object.name, place, untold, findings);
            (place.position.unwrap_or_default(), traced)
        }
        None => {
            findings.doubt(format!(
                "{} has {kept} symbols named {function} ({}), and which is of this file can't be told; see which lies among the file's \
                 other functions, and give its number as the position (sympos) in patched_funcs.csv of a livepatch made with --no-check",
                object.name,
                namesake::describe(namesakes)
            ));
            (0, Traced::Unknown)
        }
    }
}

fn why_absent(asked: &Asked<'_>, function: &FunctionName) -> Result<String, TreeError> {
    let Asked {
        kernel,
        target,
        object,
        source,
        copies,
    } = asked;
    let variants = variants(&*object.symbols, &[function.as_str()]).concat();
    let holders = copies::shortened(&copies.holders(function, &*object.symbols));
    if !variants.is_empty() {
        let callers = match holders.is_empty() {
            true => String::new(),
            false => format!(", among them {}", near::and_list(&holders)),
        };
        return Ok(format!(
            "the compiler left only {}, a copy made for certain callers; patch the functions that call it instead{callers}",
            near::and_list(&variants)
        ));
    }
    if !holders.is_empty() {
        return Ok(format!(
            "it was inlined into {}; patch {} instead",
            near::and_list(&holders),
            if holders.len() == 1 { "that" } else { "those" }
        ));
    }
    if let Some(place) = elsewhere(*kernel, target, object, function)? {
        return Ok(format!("it is in {place}; change the target's module to that"));
    }
    match source {
        Some((text, _)) if mentions(text, function.as_str()) => Ok(format!(
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

/// What the compiler made of each function: `f.isra.0`, `f.constprop.0`, `f.part.0`, `f.cold`.
fn variants(symbols: &dyn SymbolTable, functions: &[&str]) -> Vec<Vec<String>> {
    let mut variants: Vec<Vec<String>> = functions.iter().map(|_| Vec::new()).collect();
    symbols.for_each_name(&mut |name| {
        if let Some((base, rest)) = name.split_once('.')
            && rest.starts_with(|c: char| c.is_ascii_alphabetic())
            && let Some(i) = functions.iter().position(|function| *function == base)
            && !variants[i].iter().any(|v| v == name)
        {
            variants[i].push(name.to_owned());
        }
    });
    variants.iter_mut().for_each(|all| all.sort());
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
