//! Splits C text into tokens before any preprocessing: comments and spaces gone, directives kept as tokens of their own.

/// Bytes of one source text.
pub const MAX_TEXT: usize = 8 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Word,
    Number,
    /// A string or a character.
    Quoted,
    Punct,
    /// The `#` of a directive.
    Hash,
    /// The end of a directive's line; empty.
    End,
}

#[derive(Clone, Copy, Debug)]
pub struct Token {
    pub kind: Kind,
    start: u32,
    end: u32,
}

/// A text and its tokens.
pub struct Tokens<'a> {
    text: &'a str,
    pub all: Vec<Token>,
    /// Where each line begins.
    lines: Vec<u32>,
}

impl<'a> Tokens<'a> {
    /// `None` if the text is longer than [`MAX_TEXT`].
    pub fn new(text: &'a str) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let lines = std::iter::once(0)
            .chain(
                text.bytes()
                    .enumerate()
                    .filter(|(_, b)| *b == b'\n')
                    .map(|(at, _)| at as u32 + 1),
            )
            .collect();
        let mut lexer = Lexer {
            bytes: text.as_bytes(),
            at: 0,
            all: Vec::new(),
        };
        lexer.run();
        Some(Self {
            text,
            all: lexer.all,
            lines,
        })
    }

    pub fn text(&self, at: usize) -> &'a str {
        let Some(token) = self.all.get(at) else { return "" };
        self.text
            .get(token.start as usize..token.end as usize)
            .unwrap_or_default()
    }

    pub fn kind(&self, at: usize) -> Option<Kind> {
        self.all.get(at).map(|token| token.kind)
    }

    /// A punctuation's character, else a blank.
    pub fn punct(&self, at: usize) -> char {
        match self.kind(at) {
            Some(Kind::Punct) => self.text(at).chars().next().unwrap_or(' '),
            _ => ' ',
        }
    }

    pub fn word(&self, at: usize) -> Option<&'a str> {
        (self.kind(at) == Some(Kind::Word)).then(|| self.text(at))
    }

    /// The line a token begins in, from 1.
    pub fn line(&self, at: usize) -> usize {
        let start = self.all.get(at).map_or(self.text.len() as u32, |token| token.start);
        self.lines.partition_point(|line| *line <= start)
    }

    /// Whether a token is the first thing in its line, not even after a space.
    pub fn begins_line(&self, at: usize) -> bool {
        self.all
            .get(at)
            .is_some_and(|token| self.lines.binary_search(&token.start).is_ok())
    }
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    all: Vec<Token>,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn push(&mut self, kind: Kind, start: usize) {
        self.all.push(Token {
            kind,
            start: start as u32,
            end: self.at as u32,
        });
    }

    fn run(&mut self) {
        let mut line_begins = true;
        let mut directive = false;
        while self.at < self.bytes.len() {
            let start = self.at;
            let byte = self.bytes[self.at];
            match byte {
                b'\n' => {
                    if directive {
                        self.push(Kind::End, start);
                        directive = false;
                    }
                    line_begins = true;
                    self.at += 1;
                    continue;
                }
                b'\\' if self.peek(1) == b'\n' => {
                    self.at += 2;
                    continue;
                }
                b' ' | b'\t' | b'\r' | 0x0b | 0x0c => {
                    self.at += 1;
                    continue;
                }
                b'/' if self.peek(1) == b'*' => {
                    let rest = &self.bytes[self.at + 2..];
                    let end = rest
                        .windows(2)
                        .position(|pair| pair == b"*/")
                        .map_or(rest.len(), |end| end + 2);
                    self.at += 2 + end;
                    continue;
                }
                b'/' if self.peek(1) == b'/' => {
                    let rest = &self.bytes[self.at..];
                    self.at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                    continue;
                }
                b'#' if line_begins => {
                    self.at += 1;
                    directive = true;
                    self.push(Kind::Hash, start);
                }
                b'"' | b'\'' => {
                    self.quoted(byte);
                    self.push(Kind::Quoted, start);
                }
                b'0'..=b'9' => {
                    self.while_word();
                    self.push(Kind::Number, start);
                }
                _ if is_word(byte) => {
                    self.while_word();
                    self.push(Kind::Word, start);
                }
                _ => {
                    self.at += 1;
                    self.push(Kind::Punct, start);
                }
            }
            line_begins = false;
        }
        if directive {
            self.push(Kind::End, self.at);
        }
    }

    fn while_word(&mut self) {
        while self.at < self.bytes.len() && is_word(self.bytes[self.at]) {
            self.at += 1;
        }
    }

    /// A string ends at its line's end at the latest, so that an apostrophe in `#error` takes no file along.
    fn quoted(&mut self, quote: u8) {
        self.at += 1;
        while self.at < self.bytes.len() {
            match self.bytes[self.at] {
                b'\\' if self.at + 1 < self.bytes.len() => self.at += 2,
                b'\n' => return,
                byte => {
                    self.at += 1;
                    if byte == quote {
                        return;
                    }
                }
            }
        }
    }
}

/// Bytes outside ASCII count as letters, so that no character is ever cut.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let tokens = Tokens::new(text).unwrap();
        (0..tokens.all.len()).map(|at| tokens.text(at)).collect()
    }

    #[test]
    fn comments_and_continuations_are_gone() {
        assert_eq!(
            words("a /* b\n*/ c // d\n\"/*\\\"\" 'x'"),
            ["a", "c", "\"/*\\\"\"", "'x'"]
        );
        assert_eq!(
            words("#define A \\\n  1 /* x\n y */ 2\nb"),
            ["#", "define", "A", "1", "2", "", "b"]
        );
        assert_eq!(
            words("#error don't\nint é;"),
            ["#", "error", "don", "'t", "", "int", "é", ";"]
        );
    }

    #[test]
    fn lines_are_counted() {
        let tokens = Tokens::new("a\n\n  b\nc").unwrap();
        assert_eq!((tokens.line(0), tokens.line(1), tokens.line(2)), (1, 3, 4));
        assert!(!tokens.begins_line(1) && tokens.begins_line(2));
    }
}
