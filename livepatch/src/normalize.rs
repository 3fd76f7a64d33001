//! What two outputs must have in common to count as the same code.
//!
//! Comments are dropped (they hold line numbers, which differ between codestreams of equal code) and white space is
//! reduced: runs of blanks to one, blank lines and blanks at line ends to nothing. String and character literals are
//! left alone. Lines stay lines, because the preprocessor reads them.
//!
//! Some of what a tool writes depends on the kernel around the code and means nothing: headers that every file gets
//! anyway, a definition that takes a keyword back for the tool's own sake (real-time kernels have it, others of the same
//! code don't), and numbers that count lines or names of a translation unit. Lines of the first two kinds are dropped,
//! such numbers are too.

/// Headers that kbuild includes in front of each file.
const EVERYWHERE: [&str; 3] = ["linux/kconfig.h", "linux/compiler-version.h", "linux/compiler_types.h"];

/// What names begin with that end in a number of their own in each translation unit.
const NUMBERED: [&str; 2] = ["__compiletime_assert_", "__UNIQUE_ID_"];

/// The normalised form of a C source.
pub fn normalize(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    for line in strip_comments(source).lines() {
        let start = out.len();
        push_squeezed(line, &mut out);
        out.truncate(out.trim_end_matches(' ').len().max(start));
        if means_nothing(&out[start..]) {
            out.truncate(start);
        }
        if out.len() > start {
            out.push('\n');
        }
    }
    without_numbers(&out)
}

/// Whether a squeezed line is a directive that makes no difference to the code.
fn means_nothing(line: &str) -> bool {
    let Some(directive) = line.strip_prefix('#') else {
        return false;
    };
    let words: Vec<&str> = directive
        .split([' ', '"', '<', '>'])
        .filter(|w| !w.is_empty())
        .collect();
    match words[..] {
        ["define", "__auto_type", "int"] => true,
        ["include", path] => EVERYWHERE.iter().any(|header| {
            path.strip_suffix(header)
                .is_some_and(|before| before.is_empty() || before.ends_with('/'))
        }),
        _ => false,
    }
}

/// The text without the numbers that numbered names end in, and with 0 for those that a `.lineno` is set to.
fn without_numbers(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| word(c) || c == '"' || c == '\'') {
        out.push_str(&rest[..at]);
        // As in `{ .lineno = 7 }`; `p.lineno = 7` is code.
        let designator = out
            .strip_suffix('.')
            .is_some_and(|before| !before.ends_with(|c: char| word(c) || matches!(c, ')' | ']')));
        rest = &rest[at..];
        if rest.starts_with(['"', '\'']) {
            let end = literal_end(rest);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let end = rest.find(|c: char| !word(c)).unwrap_or(rest.len());
        let name = &rest[..end];
        rest = &rest[end..];
        if NUMBERED.iter().any(|beginning| name.starts_with(beginning)) {
            out.push_str(name.trim_end_matches(|c: char| c.is_ascii_digit()));
            continue;
        }
        out.push_str(name);
        if designator
            && name == "lineno"
            && let Some(value) = rest.trim_start().strip_prefix('=')
        {
            let digits = value.trim_start();
            let behind = digits.trim_start_matches(|c: char| c.is_ascii_digit());
            if behind.len() < digits.len() {
                out.push_str(" = 0");
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Replaces each comment by one blank, as the C standard does (translation phase 3).
fn strip_comments(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find(['/', '"', '\'']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = if let Some(body) = rest.strip_prefix("/*") {
            out.push(' ');
            body.find("*/").map_or(rest.len(), |i| i + 4)
        } else if rest.starts_with("//") {
            line_comment_end(rest)
        } else if rest.starts_with('/') {
            out.push('/');
            1
        } else {
            let end = literal_end(rest);
            out.push_str(&rest[..end]);
            end
        };
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Where a `//` comment ends: before the first newline that no backslash continues.
fn line_comment_end(rest: &str) -> usize {
    rest.match_indices('\n')
        .find(|(i, _)| !rest[..*i].ends_with('\\'))
        .map_or(rest.len(), |(i, _)| i)
}

/// The length of the string or character literal at the start of `rest`, or up to the line's end if it is not closed.
fn literal_end(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let quote = bytes[0];
    let mut i = 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            b'\n' => return i,
            b if b == quote => return i + 1,
            _ => {}
        }
        i += 1;
    }
    rest.len()
}

/// Appends a line with its runs of blanks outside of literals reduced to one, and none in front.
fn push_squeezed(line: &str, out: &mut String) {
    let mut rest = line.trim_start();
    while let Some(at) = rest.find([' ', '\t', '"', '\'']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with(['"', '\'']) {
            let end = literal_end(rest);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        } else {
            out.push(' ');
            rest = rest.trim_start_matches([' ', '\t']);
        }
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn positions_and_spacing_do_not_matter() {
        let a = "/* sound/core/pcm.c:887 */\nint  f(void)\n{\n\treturn 1; // one\n}\n";
        let b = "/* sound/core/pcm.c:891 */\n\nint f(void)\n{\n    return 1;\n}";
        assert_eq!(normalize(a), normalize(b));
        assert_eq!(normalize(a), "int f(void)\n{\nreturn 1;\n}\n");
    }

    #[test]
    fn literals_are_left_alone() {
        assert_eq!(normalize("s = \"a  /* b */ //\";"), "s = \"a  /* b */ //\";\n");
        assert_eq!(
            normalize("c = '\"'; /* x */ d = \"\\\"  \";"),
            "c = '\"'; d = \"\\\"  \";\n"
        );
        assert_ne!(normalize("s = \"a  b\";"), normalize("s = \"a b\";"));
    }

    #[test]
    fn a_continued_line_comment_ends_where_the_compiler_ends_it() {
        assert_eq!(normalize("a // x \\\n still\nb"), "a\nb\n");
    }

    #[test]
    fn what_only_real_time_kernels_have_does_not_split_groups() {
        let code = "int f(void)\n{\nreturn 1;\n}\n";
        for line in [
            "#define __auto_type int\n",
            "#  define\t__auto_type   int \n",
            "#include \"/k/src/include/linux/kconfig.h\"\n",
            "#include <linux/compiler-version.h>\n",
        ] {
            // As klp-build's search for a backslash and an n never did.
            assert_eq!(normalize(&format!("{line}{code}")), normalize(code), "{line}");
        }
        for line in [
            "#define __auto_type long\n",
            "#define __auto_types int\n",
            "#include \"linux/mkconfig.h\"\n",
            "#include \"notlinux/kconfig.h\"\n",
            "#define f \"#define __auto_type int\"\n",
        ] {
            assert_ne!(normalize(&format!("{line}{code}")), normalize(code), "{line}");
        }
    }

    #[test]
    fn numbers_of_lines_and_names_do_not_matter_but_others_do() {
        let text = |n: u32| {
            format!(
                "static int __UNIQUE_ID_x{n};\n__compiletime_assert_{n}();\nstruct d e = {{ .lineno = {n}, .flags = 7 }};\n"
            )
        };
        assert_eq!(normalize(&text(12)), normalize(&text(9)));
        assert!(
            normalize(&text(12)).contains("{ .lineno = 0, .flags = 7 }"),
            "{}",
            normalize(&text(12))
        );
        for pair in [
            ["x12();", "x9();"],
            ["int lineno = 1;", "int lineno = 2;"],
            ["s = \".lineno = 1\";", "s = \".lineno = 2\";"],
            ["p.lineno == 1;", "p.lineno == 2;"],
        ] {
            assert_ne!(normalize(pair[0]), normalize(pair[1]));
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "[ab \t\n/*\"'\\\\]{0,40}") {
            let once = normalize(&text);
            // A removed comment can put a `/` beside a `*`; C's own phases have no second pass either.
            prop_assume!(!once.contains("/*") && !once.contains("//"));
            prop_assert_eq!(normalize(&once), once);
        }
    }
}
