//! clang-extract's list of what it did (`-DCE_DSC_OUTPUT`), in the format of libpulp's descriptions: a line
//! `LIVEPATH_CONTAINER`, a line `@OBJECT`, then `FUNCTION:REPLACEMENT` for each patched function and
//! `#SYMBOL:VARIABLE[:MODULE]` for each externalized one, with a `%` before the symbol if it is thread-local. No newline at
//! the end. Written by its `libcextract/DscFileGenerator.cpp`.

use super::super::external::{is_identifier, is_module_name};

/// An externalized symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    pub symbol: String,
    pub variable: String,
    /// `None`: it is in vmlinux.
    pub object: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// Each patched function with its replacement.
    pub functions: Vec<(String, String)>,
    pub symbols: Vec<Symbol>,
}

/// Reads the list.
///
/// # Errors
/// A line is none of those above.
pub fn list(text: &str) -> Result<List, String> {
    let mut lines = text.lines().enumerate();
    let head = [lines.next(), lines.next()].map(|line| line.map_or("", |(_, text)| text));
    if !(head[0].starts_with("LIVEPAT") && head[1].starts_with('@')) {
        return Err(format!("wrote no list of symbols: it begins with {:?}", head[0]));
    }
    let mut list = List::default();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |why: &str| {
            format!(
                "wrote an odd line {} in its list of symbols ({why}): {line:?}",
                number + 1
            )
        };
        let (external, rest) = match line.strip_prefix('#') {
            Some(rest) => (true, rest.strip_prefix('%').unwrap_or(rest)),
            None => (false, line),
        };
        let words: Vec<&str> = rest.split(':').collect();
        let (from, to, object) = match (external, &words[..]) {
            (_, [from, to]) => (*from, *to, None),
            (true, [from, to, object]) => (*from, *to, Some(*object)),
            _ => return Err(bad("names separated by colons were expected")),
        };
        if !is_identifier(from) || !is_identifier(to) {
            return Err(bad("not a C identifier"));
        }
        if object.is_some_and(|o| !is_module_name(o)) {
            return Err(bad("not a module's name"));
        }
        if external {
            list.symbols.push(Symbol {
                symbol: from.to_owned(),
                variable: to.to_owned(),
                object: object.map(str::to_owned),
            });
        } else if list.functions.iter().all(|(f, _)| f != from) {
            list.functions.push((from.to_owned(), to.to_owned()));
        }
    }
    Ok(list)
}
