//! Is a replacement what the kernel has, but for its names? Compares the functions after the preprocessor, token by token.
//!
//! A compile check can't tell a lost `#define` from a kept one; this can. What is rewritten on purpose (tests of static keys,
//! static calls behind pointers, statics made automatic) shows as a difference too: it is for people to read.

use std::path::Path;
use std::process::Command;

use super::compile_check::module_args;
use super::native::lexer::{Kind, Token, closing, same_length_text, tokens};
use super::{Error, Extraction, Request, tool};

/// The first place where a replacement differs from its original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub function: String,
    /// Some tokens from there on.
    pub original: String,
    pub replacement: String,
}

/// The patched functions whose preprocessed text differs; `source` is where the extraction's source was written.
///
/// # Errors
/// When the compiler can't be started.
pub fn differences(request: &Request, extraction: &Extraction, source: &Path) -> Result<Vec<Difference>, Error> {
    let original = preprocess(
        request,
        &request.src_dir.join(&request.file),
        request.command.args.iter().any(|a| a == "-DMODULE"),
    )?;
    let made = preprocess(request, source, true)?;
    let length = |p: &Path| std::fs::read(p).map_or(0, |b| b.iter().filter(|b| **b == b'\n').count());
    let lengths = (length(&request.src_dir.join(&request.file)), length(source));
    let mut found = Vec::new();
    for p in &extraction.patched {
        let a = function(&original, &p.function).map(|w| without_statics(w, extraction));
        let b = function(&made, &p.replacement).map(own_names);
        let (Some(a), Some(b)) = (a, b) else {
            found.push(Difference {
                function: p.function.clone(),
                original: "not found".into(),
                replacement: String::new(),
            });
            continue;
        };
        let mut lines = Lines {
            longest: lengths,
            moved: None,
        };
        let differs = a.iter().zip(&b).position(|(a, b)| !same(a, b, &mut lines));
        if let Some(at) = differs.or_else(|| (a.len() != b.len()).then_some(a.len().min(b.len()))) {
            let some = |w: &[String]| {
                w[at.min(w.len())..]
                    .iter()
                    .take(20)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            found.push(Difference {
                function: p.function.clone(),
                original: some(&a),
                replacement: some(&b),
            });
        }
    }
    Ok(found)
}

fn preprocess(request: &Request, file: &Path, module: bool) -> Result<String, Error> {
    let args = module_args(request).into_iter().filter(|a| module || a != "-DMODULE");
    let output = tool::output(
        Command::new(&request.command.compiler)
            .args(args)
            .args(["-E", "-P"])
            .arg(file)
            .current_dir(&request.command.directory),
    )?;
    Ok(same_length_text(output.stdout))
}

/// The tokens of a function's definition, from its name on.
fn function(text: &str, name: &str) -> Option<Vec<String>> {
    let all: Vec<Token> = tokens(text).into_iter().filter(|t| t.kind != Kind::Directive).collect();
    for (i, t) in all.iter().enumerate() {
        if t.text(text) != name || all.get(i + 1).is_none_or(|n| n.text(text) != "(") {
            continue;
        }
        let Some(open) = closing(&all, text, i + 1).map(|c| c + 1) else {
            continue;
        };
        if all.get(open).is_some_and(|b| b.text(text) == "{") {
            let end = closing(&all, text, open)?;
            return Some(all[i..=end].iter().map(|t| t.text(text).to_owned()).collect());
        }
    }
    None
}

/// Takes `klpp_`, `klpr_` and `(*klpe_...)` off.
fn own_names(words: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(words.len());
    let mut i = 0;
    while i < words.len() {
        if words[i] == "("
            && words.get(i + 1).is_some_and(|w| w == "*")
            && words.get(i + 3).is_some_and(|w| w == ")")
            && let Some(name) = words[i + 2].strip_prefix("klpe_")
        {
            out.push(name.to_owned());
            i += 4;
            continue;
        }
        let word = &words[i];
        out.push(
            word.strip_prefix("klpp_")
                .or_else(|| word.strip_prefix("klpr_"))
                .unwrap_or(word)
                .to_owned(),
        );
        i += 1;
    }
    out
}

/// The original without the static variables that stay the kernel's, and with their pointers' names.
fn without_statics(mut words: Vec<String>, extraction: &Extraction) -> Vec<String> {
    for e in extraction.externalized.iter().filter(|e| e.symbol.contains('.')) {
        let Some(name) = e.symbol.split('.').next() else {
            continue;
        };
        let mut i = 0;
        while let Some(start) = words[i..].iter().position(|w| w == "static").map(|n| n + i) {
            let end = statement_end(&words, start);
            let head = words[start..end].iter().take_while(|w| *w != "=");
            if head.clone().any(|w| w == name) {
                words.drain(start..end);
                break;
            }
            i = end;
        }
        let variable = e.variable.trim_start_matches("klpe_");
        for i in 0..words.len() {
            let member = i > 0 && matches!(words[i - 1].as_str(), "." | "->");
            if words[i] == name && !member {
                variable.clone_into(&mut words[i]);
            }
        }
    }
    words
}

fn statement_end(words: &[String], start: usize) -> usize {
    let mut depth = 0usize;
    for (i, w) in words.iter().enumerate().skip(start) {
        match w.as_str() {
            "{" | "(" => depth += 1,
            "}" | ")" => depth = depth.saturating_sub(1),
            ";" if depth == 0 => return i + 1,
            _ => {}
        }
    }
    words.len()
}

/// Tells line numbers that moved from constants that differ.
struct Lines {
    /// The lengths of the two files.
    longest: (usize, usize),
    /// How far the function was moved, once a line number told.
    moved: Option<i64>,
}

impl Lines {
    /// Branches that were not taken are cut, so not all lines of a function move equally far.
    const SLACK: u64 = 100;

    fn agree(&mut self, a: &str, b: &str) -> bool {
        let number = |w: &str| w.trim_matches('"').parse::<u32>().ok().filter(|n| *n > 0);
        let (Some(a), Some(b)) = (number(a), number(b)) else {
            return false;
        };
        let moved = i64::from(b) - i64::from(a);
        let by = *self.moved.get_or_insert(moved);
        a as usize <= self.longest.0 && b as usize <= self.longest.1 && moved.abs_diff(by) <= Self::SLACK
    }
}

/// Equal, or both of what changes with the file and the line: line numbers, file names, names made unique by a counter.
fn same(a: &str, b: &str, lines: &mut Lines) -> bool {
    let file = |w: &str| w.starts_with('"') && w.ends_with(".c\"");
    let counted = |w: &str| w.contains("__UNIQUE_ID_") || w.starts_with("__compiletime_assert_");
    let stem = |w: &str| w.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
    a == b || (file(a) && file(b)) || (counted(a) && counted(b) && stem(a) == stem(b)) || lines.agree(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|t| t.text(text).to_owned()).collect()
    }

    #[test]
    fn a_function_is_found_where_it_is_defined() {
        let text = "int f(int); int g(void) { return f(1); } int f(int a) { return a; }";
        assert_eq!(function(text, "f"), Some(words("f(int a) { return a; }")));
        assert_eq!(function(text, "h"), None);
    }

    #[test]
    fn names_are_taken_back_and_only_lines_may_differ() {
        assert_eq!(own_names(words("klpp_f((*klpe_g)(1), klpr_h)")), words("f(g(1), h)"));
        let mut lines = Lines {
            longest: (2000, 500),
            moved: None,
        };
        assert!(same("1120", "87", &mut lines) && same("\"1130\"", "\"97\"", &mut lines));
        assert!(!same("4096", "1024", &mut lines), "no line of the file");
        assert!(
            !same("1024", "512", &mut lines) && !same("1500", "100", &mut lines),
            "moved by another distance"
        );
        assert!(same("__UNIQUE_ID_a12", "__UNIQUE_ID_a7", &mut lines) && same("\"a/b.c\"", "\"/t/x.c\"", &mut lines));
    }
}
