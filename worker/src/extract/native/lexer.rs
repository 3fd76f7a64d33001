//! A tokenizer for C source text: just enough to find names, brackets and directives, with byte offsets.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ident,
    Number,
    /// A string or character literal.
    Literal,
    Punct,
    /// A whole preprocessor directive, continuation lines and all, without its final newline.
    Directive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    pub fn text(self, source: &str) -> &str {
        &source[self.start..self.end]
    }
}

/// Bytes as text of the same length: whatever isn't UTF-8 becomes `?`, so that offsets stay the compiler's.
pub fn same_length_text(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(bad) => bad
            .into_bytes()
            .into_iter()
            .map(|b| if b.is_ascii() { char::from(b) } else { '?' })
            .collect(),
    }
}

/// Skips the comment that starts at `i`, if one does; returns the offset behind it.
fn comment_end(b: &[u8], i: usize) -> Option<usize> {
    match (b.get(i), b.get(i + 1)) {
        (Some(b'/'), Some(b'*')) => {
            let mut j = i + 2;
            while j < b.len() && !(b[j] == b'*' && b.get(j + 1) == Some(&b'/')) {
                j += 1;
            }
            Some((j + 2).min(b.len()))
        }
        (Some(b'/'), Some(b'/')) => {
            let mut j = i + 2;
            while j < b.len() && b[j] != b'\n' {
                j += 1;
            }
            Some(j)
        }
        _ => None,
    }
}

/// The offset behind the literal that starts at `i` (a quote character).
fn literal_end(b: &[u8], i: usize) -> usize {
    let quote = b[i];
    let mut j = i + 1;
    while j < b.len() && b[j] != quote && b[j] != b'\n' {
        j += if b[j] == b'\\' { 2 } else { 1 };
    }
    (j + 1).min(b.len())
}

/// The offset of the newline that ends the directive at `i`, continuations and comments spanning lines included.
fn directive_end(b: &[u8], i: usize) -> usize {
    let mut j = i;
    while j < b.len() {
        if let Some(end) = comment_end(b, j) {
            j = end;
            continue;
        }
        match b[j] {
            b'\n' => return j,
            b'\\' if b.get(j + 1) == Some(&b'\n') => j += 2,
            b'\\' if b.get(j + 1) == Some(&b'\r') => j += 3,
            b'"' => j = literal_end(b, j),
            _ => j += 1,
        }
    }
    b.len()
}

/// The tokens of `text`; comments and blanks are left out.
pub fn tokens(text: &str) -> Vec<Token> {
    let b = text.as_bytes();
    let mut out = Vec::with_capacity(b.len() / 5);
    let (mut i, mut line_start) = (0, true);
    while i < b.len() {
        if let Some(end) = comment_end(b, i) {
            i = end;
            continue;
        }
        let c = b[i];
        if c == b'\n' {
            line_start = true;
            i += 1;
            continue;
        }
        if c.is_ascii_whitespace() || c == b'\\' {
            i += 1;
            continue;
        }
        let (kind, end) = if c == b'#' && line_start {
            (Kind::Directive, directive_end(b, i))
        } else if c.is_ascii_alphabetic() || c == b'_' || c == b'$' {
            let mut j = i + 1;
            while j < b.len() && (b[j].is_ascii_alphanumeric() || b[j] == b'_' || b[j] == b'$') {
                j += 1;
            }
            // A prefixed literal (L"x", u8"x") is one token.
            if j < b.len() && (b[j] == b'"' || b[j] == b'\'') && matches!(&b[i..j], b"L" | b"u" | b"U" | b"u8") {
                (Kind::Literal, literal_end(b, j))
            } else {
                (Kind::Ident, j)
            }
        } else if c.is_ascii_digit() || (c == b'.' && b.get(i + 1).is_some_and(u8::is_ascii_digit)) {
            let mut j = i + 1;
            while j < b.len()
                && (b[j].is_ascii_alphanumeric()
                    || b[j] == b'_'
                    || b[j] == b'.'
                    || (matches!(b[j], b'+' | b'-')
                        && matches!(b[j - 1], b'e' | b'E' | b'p' | b'P')
                        && !b[i..j].starts_with(b"0x")))
            {
                j += 1;
            }
            (Kind::Number, j)
        } else if c == b'"' || c == b'\'' {
            (Kind::Literal, literal_end(b, i))
        } else if c == b'-' && b.get(i + 1) == Some(&b'>') {
            (Kind::Punct, i + 2)
        } else {
            // A multi-byte character can only stand in a comment or literal of valid C; step over it whole all the same.
            (Kind::Punct, i + text[i..].chars().next().map_or(1, char::len_utf8))
        };
        out.push(Token { kind, start: i, end });
        line_start = false;
        i = end;
    }
    out
}

/// The identifiers of a text, those inside directives included.
pub fn identifiers(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    for token in tokens(text) {
        match token.kind {
            Kind::Ident => out.push(token.text(text)),
            Kind::Directive => {
                let inner = token.text(text);
                out.extend(
                    tokens(&inner[1..])
                        .into_iter()
                        .filter(|t| t.kind == Kind::Ident)
                        .map(|t| t.text(&inner[1..])),
                );
            }
            _ => {}
        }
    }
    out
}

/// A directive's keyword and the offset (within the directive) behind it.
pub fn directive(text: &str) -> (&str, usize) {
    let inner = &text[1..];
    match tokens(inner).first() {
        Some(t) if t.kind == Kind::Ident => (t.text(inner), t.end + 1),
        _ => ("", 1),
    }
}

/// The index of the token that closes the bracket at `open`.
pub fn closing(tokens: &[Token], text: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (i, t) in tokens.iter().enumerate().skip(open) {
        if t.kind == Kind::Punct {
            match t.text(text) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(i);
                    }
                }
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_literals_and_directives_do_not_leak_names() {
        let text = "/* a */ int b; // c\n#define D(x) \\\n  x /* e\n f */ + g\nchar *h = \"i /* j\";k->l";
        let names: Vec<&str> = tokens(text)
            .into_iter()
            .filter(|t| t.kind == Kind::Ident)
            .map(|t| t.text(text))
            .collect();
        assert_eq!(names, ["int", "b", "char", "h", "k", "l"]);
        let d = tokens(text)
            .into_iter()
            .find(|t| t.kind == Kind::Directive)
            .map(|t| t.text(text));
        assert_eq!(d, Some("#define D(x) \\\n  x /* e\n f */ + g"));
        assert_eq!(directive("#  define X 1"), ("define", 9));
        assert!(identifiers("#define D(x) y").contains(&"y"));
    }

    #[test]
    fn bytes_that_are_not_text_keep_their_offsets() {
        assert_eq!(same_length_text(vec![b'a', 0xe9, b'b']), "a?b");
    }
}
