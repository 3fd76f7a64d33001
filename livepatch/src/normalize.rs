//! What two outputs must have in common to count as the same code.
//!
//! Comments are dropped (they hold line numbers, which differ between codestreams of equal code) and white space is
//! reduced: runs of blanks to one, blank lines and blanks at line ends to nothing. String and character literals are
//! left alone. Lines stay lines, because the preprocessor reads them.

/// The normalised form of a C source.
pub fn normalize(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    for line in strip_comments(source).lines() {
        let start = out.len();
        push_squeezed(line, &mut out);
        out.truncate(out.trim_end_matches(' ').len().max(start));
        if out.len() > start {
            out.push('\n');
        }
    }
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
