//! A C source as lines of HTML: comments, strings, keywords and a livepatch's own names marked, and each kept piece named by
//! where it came from. A reader's eye wants this, no compiler: what is not C is shown as it is.

/// One line of a source.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    pub number: usize,
    /// Escaped, with marks.
    pub html: String,
}

/// A piece of the kernel's text that a backend kept, by the comment in front of it: `/* net/core/sock.c:12 */` of the native
/// one, `/** clang-extract: from net/core/sock.c:12:1 */`, or klp-ccp's `/* klp-ccp: from net/core/sock.h */` for a file's.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    pub line: usize,
    pub from: String,
}

const KEYWORDS: [&str; 32] = [
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float",
    "for", "goto", "if", "inline", "int", "long", "return", "short", "signed", "sizeof", "static", "struct", "switch",
    "typedef", "union", "unsigned", "void", "volatile", "while",
];

pub fn lines(text: &str) -> Vec<Line> {
    let marked = mark(text);
    let mut lines: Vec<Line> = Vec::new();
    // A mark that spans lines is closed at each line's end and opened again: a line is an element of its own.
    let mut open: Option<&'static str> = None;
    let mut html = String::new();
    let flush = |html: &mut String, open: Option<&'static str>, lines: &mut Vec<Line>| {
        if open.is_some() {
            html.push_str("</span>");
        }
        let number = lines.len() + 1;
        lines.push(Line {
            number,
            html: std::mem::take(html),
        });
    };
    for (class, token) in marked {
        for (i, line) in token.split('\n').enumerate() {
            if i > 0 {
                flush(&mut html, open, &mut lines);
            }
            open = (!class.is_empty()).then_some(class);
            if let Some(class) = open {
                html.push_str(&format!("<span class=\"{class}\">"));
            }
            escape(line, &mut html);
        }
        if open.take().is_some() {
            html.push_str("</span>");
        }
    }
    flush(&mut html, None, &mut lines);
    if text.ends_with('\n') {
        lines.pop();
    }
    lines
}

pub fn pieces(text: &str) -> Vec<Piece> {
    let piece = |(i, line): (usize, &str)| {
        let comment = line.trim().strip_prefix("/*")?.strip_suffix("*/")?;
        let comment = comment.trim_start_matches('*').trim();
        let by_tool = ["klp-ccp: from ", "clang-extract: from "];
        let from = match by_tool.iter().find_map(|prefix| comment.strip_prefix(prefix)) {
            Some(from) => from,
            None => comment
                .rsplit_once(':')
                .filter(|(_, line)| is_number(line))
                .map(|_| comment)?,
        };
        let named = from.contains('.') && !from.contains(' ');
        named.then(|| Piece {
            line: i + 1,
            from: from.to_owned(),
        })
    };
    text.lines().enumerate().filter_map(piece).collect()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

/// The text in pieces, each with its class or none.
fn mark(text: &str) -> Vec<(&'static str, &str)> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let (mut at, mut plain) = (0, 0);
    let word = |b: u8| b == b'_' || b.is_ascii_alphanumeric();
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (class, end) = if rest.starts_with(b"/*") {
            ("c", text[at + 2..].find("*/").map_or(bytes.len(), |n| at + n + 4))
        } else if rest.starts_with(b"//") {
            ("c", text[at..].find('\n').map_or(bytes.len(), |n| at + n))
        } else if rest[0] == b'"' || rest[0] == b'\'' {
            ("s", literal(bytes, at))
        } else if rest[0] == b'#' && text[..at].rsplit('\n').next().is_none_or(|line| line.trim().is_empty()) {
            let end = at + 1 + rest[1..].iter().take_while(|b| **b == b' ').count();
            ("k", end + bytes[end..].iter().take_while(|b| word(**b)).count())
        } else if word(rest[0]) {
            let end = at + rest.iter().take_while(|b| word(**b)).count();
            (class(&text[at..end]), end)
        } else {
            at += 1;
            continue;
        };
        if class.is_empty() {
            at = end;
            continue;
        }
        out.push(("", &text[plain..at]));
        out.push((class, &text[at..end]));
        (at, plain) = (end, end);
    }
    out.push(("", &text[plain..]));
    out.retain(|(_, text)| !text.is_empty());
    out
}

fn class(word: &str) -> &'static str {
    match word {
        word if word.starts_with("klpp_") => "p",
        word if word.starts_with("klpe_") || word.starts_with("klpr_") => "e",
        "KLP_RELOC_SYMBOL" => "e",
        word if KEYWORDS.binary_search(&word).is_ok() => "k",
        _ => "",
    }
}

/// Where a string or a character ends: at its closing quote, or at the line's end.
fn literal(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'\n' => return at,
            b if b == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_sorted() {
        assert!(KEYWORDS.is_sorted());
    }

    #[test]
    fn names_of_the_livepatch_are_marked_and_all_is_escaped() {
        let text = "/* a\n<b> */\nint klpp_f(void)\n{\n\treturn (*klpe_x)(\"</span>\\\"&\");\n}\n";
        let html: Vec<String> = lines(text).into_iter().map(|l| l.html).collect();
        assert_eq!(
            html,
            [
                "<span class=\"c\">/* a</span>",
                "<span class=\"c\">&lt;b&gt; */</span>",
                "<span class=\"k\">int</span> <span class=\"p\">klpp_f</span>(<span class=\"k\">void</span>)",
                "{",
                "\t<span class=\"k\">return</span> (*<span class=\"e\">klpe_x</span>)(<span class=\"s\">&quot;&lt;/span&gt;\\&quot;&amp;&quot;</span>);",
                "}",
            ]
        );
    }

    #[test]
    fn pieces_are_found_by_where_they_come_from() {
        let text = "/* not one */\n/* net/core/sock.c:12 */\nint x;\n /* a b.c:1 */\n/* a.c: */\n\
                    /** clang-extract: from ./net/core/sock.c:12:3 */\n/* klp-ccp: from net/sock.h */\n\
                    /* klp-ccp: not from file */\n/* klp-ccp: from */\n/**/\n/*/\n";
        let found: Vec<(usize, String)> = pieces(text).into_iter().map(|p| (p.line, p.from)).collect();
        let expected = [
            (2, "net/core/sock.c:12"),
            (6, "./net/core/sock.c:12:3"),
            (7, "net/sock.h"),
        ];
        assert_eq!(found, expected.map(|(line, from)| (line, from.to_owned())));
    }

    proptest::proptest! {
        /// Whatever the text: nothing is lost, each line is its own element, and nothing of it becomes markup.
        #[test]
        fn any_text_can_be_shown(text in "[a-z<>&\"'/*#\\\\\n é_klpe]{0,60}") {
            let all: Vec<String> = lines(&text).into_iter().map(|l| l.html).collect();
            for line in &all {
                proptest::prop_assert_eq!(line.matches("<span").count(), line.matches("</span>").count());
            }
            let mut plain = all.join("\n");
            for class in ["c", "s", "k", "p", "e"] {
                plain = plain.replace(&format!("<span class=\"{class}\">"), "");
            }
            let plain = plain.replace("</span>", "");
            proptest::prop_assert!(!plain.contains('<') && !plain.contains('>'));
            let back = plain.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&");
            proptest::prop_assert_eq!(back, text.strip_suffix('\n').unwrap_or(&text));
        }
    }
}
