//! klp-ccp's lists and warnings. Its policy writes the lists (`examples/policies/suse/klp_policy.py`): one symbol or name a
//! line, the words of a line separated by one blank, the last line with or without a newline.

use super::super::external::{is_identifier, is_module_name};

/// How a symbol is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Through a pointer that is filled by name.
    Kallsyms,
    /// By a relocation that klp-convert makes.
    KlpConvert,
    /// As it is: it is exported.
    Export,
}

/// A line of `fun_exts` or `obj_exts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    pub method: Method,
    pub symbol: String,
    /// What the source calls it.
    pub variable: String,
    /// The object that has it, as the kernel calls it.
    pub object: String,
}

/// Reads `fun_exts` or `obj_exts`: `METHOD SYMBOL VARIABLE OBJECT`.
///
/// # Errors
/// A line is none: a symbol that is overlooked would be called through an empty pointer.
pub fn externals(text: &str) -> Result<Vec<External>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            let bad = |why: &str| {
                format!(
                    "wrote an odd line {} in its list of symbols ({why}): {line:?}",
                    number + 1
                )
            };
            let words: Vec<&str> = line.split_whitespace().collect();
            let [method, symbol, variable, object] = words[..] else {
                return Err(bad("four words were expected"));
            };
            let method = match method {
                "KALLSYMS" => Method::Kallsyms,
                "KLP_CONVERT" => Method::KlpConvert,
                "EXPORT" => Method::Export,
                _ => return Err(bad("the method is unknown")),
            };
            if !is_identifier(symbol) || !is_identifier(variable) {
                return Err(bad("not a C identifier"));
            }
            if !is_module_name(object) {
                return Err(bad("not a module's name"));
            }
            // Some versions repeat the symbol here, though their source uses the pointer.
            let variable = match method {
                Method::Kallsyms if variable == symbol => format!("klpe_{symbol}"),
                _ => variable.to_owned(),
            };
            Ok(External {
                method,
                symbol: symbol.to_owned(),
                variable,
                object: object.to_owned(),
            })
        })
        .collect()
}

/// Reads `patched_funcs`: a function's name a line, here sorted.
///
/// # Errors
/// A line is no function's name.
pub fn patched(text: &str) -> Result<Vec<String>, String> {
    let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
    let mut names = names
        .map(|name| match is_identifier(name) {
            true => Ok(name.to_owned()),
            false => Err(format!("wrote an odd name in patched_funcs: {name:?}")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    names.sort();
    names.dedup();
    Ok(names)
}

/// What of its log a person must know, each once, in the order it came.
pub fn warnings(said: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in said.lines() {
        let quoted = |before: &str, after: &str| {
            let rest = &line[line.find(before)? + before.len()..];
            rest.split_once('"').filter(|(_, rest)| rest.starts_with(after))
        };
        let warning = if let Some((clone, _)) = quoted("optimized function \"", " in callgraph") {
            let function = clone.split('.').next().unwrap_or(clone);
            format!(
                "the compiler made an optimized copy of {function} ({clone}), which can't be patched: patch all callers of \
                 {function} too"
            )
        } else if let Some((symbol, _)) = quoted("warning: \"", " symbol found in ELF but IPA says removed") {
            format!("whether {symbol} is inlined everywhere could not be found out: look at its callers")
        } else if let Some((symbol, _)) = quoted("conflicting definitions for symbol \"", " found in ELF") {
            format!("the patched object has several symbols {symbol}: see to the position (sympos) of the right one")
        } else {
            continue;
        };
        if !found.contains(&warning) {
            found.push(warning);
        }
    }
    found
}
