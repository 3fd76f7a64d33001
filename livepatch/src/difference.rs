//! What keeps two outputs from being the same code, as short as it can be said.

use similar::{ChangeTag, TextDiff};

use crate::normalize::normalize;

/// The difference of two normalised texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// A unified diff; empty: they are the same code.
    pub diff: String,
    /// Lines that only one of them has.
    pub lines: usize,
    /// All of these lines ask the preprocessor whether a CONFIG is set, or end such a question.
    pub only_guards: bool,
}

/// Compares two outputs as groups do: what normalising drops is no difference.
pub fn difference(a: (&str, &str), b: (&str, &str), context: usize) -> Difference {
    let (left, right) = (normalize(a.1), normalize(b.1));
    let diff = TextDiff::from_lines(&left, &right);
    let changed: Vec<&str> = diff
        .iter_all_changes()
        .filter(|change| change.tag() != ChangeTag::Equal)
        .map(|change| change.value())
        .collect();
    let unified = diff.unified_diff().context_radius(context).header(a.0, b.0).to_string();
    Difference {
        lines: changed.len(),
        only_guards: !changed.is_empty() && changed.iter().all(|line| is_guard(line)),
        diff: unified,
    }
}

fn is_guard(line: &str) -> bool {
    let line = line.trim();
    let Some(directive) = line.strip_prefix('#') else {
        return line.is_empty();
    };
    let directive = directive.trim_start();
    let asks = [
        "IS_ENABLED(",
        "IS_BUILTIN(",
        "IS_MODULE(",
        "IS_REACHABLE(",
        "defined(CONFIG_",
    ];
    match directive.split_whitespace().next() {
        Some("endif" | "else") => true,
        Some("if" | "elif") => asks.iter().any(|ask| directive.contains(ask)),
        Some("ifdef" | "ifndef") => directive.contains("CONFIG_"),
        // What a module's guard says when it is built in.
        Some("error") => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(a: &str, b: &str) -> Difference {
        difference(("a", a), ("b", b), 0)
    }

    #[test]
    fn comments_are_no_difference_and_code_is() {
        assert_eq!(of("int a; /* 1 */\n", "int  a;\n").diff, "");
        let code = of("int a;\nint b;\n", "int a;\nlong b;\n");
        assert_eq!((code.lines, code.only_guards), (2, false));
        assert!(code.diff.contains("-int b;\n+long b;\n"), "{}", code.diff);
        assert!(code.diff.starts_with("--- a\n+++ b\n"), "{}", code.diff);
    }

    #[test]
    fn guards_alone_are_told_apart() {
        let guarded = of("int a;\n", "#if IS_ENABLED(CONFIG_A)\nint a;\n#endif\n");
        assert!(guarded.only_guards);
        assert!(!of("int a;\n", "#if X > 1\nint a;\n#endif\n").only_guards);
        assert!(!of("int a;\n", "int a;\n").only_guards);
    }
}
