//! Text that comes from elsewhere, made harmless for a terminal: it can't move the cursor, change the title or turn itself
//! around. What was there is seen as a replacement character.

use std::borrow::Cow;

const REPLACEMENT: char = '\u{fffd}';

/// What a terminal obeys instead of showing, and what lets a text be read in another order than it is written.
fn harms(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn replaced(text: &str, with: impl Fn(char) -> char) -> Cow<'_, str> {
    match text.chars().any(|c| with(c) != c) {
        true => Cow::Owned(text.chars().map(with).collect()),
        false => Cow::Borrowed(text),
    }
}

/// One line of text.
pub fn line(text: &str) -> Cow<'_, str> {
    replaced(text, |c| match c {
        '\n' | '\t' => ' ',
        c if harms(c) => REPLACEMENT,
        c => c,
    })
}

/// Several lines: ends of lines and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    replaced(text, |c| match c {
        '\n' | '\t' => c,
        c if harms(c) => REPLACEMENT,
        c => c,
    })
}

/// Lines that we have coloured: colours (`ESC [ … m`) stay, too.
pub fn coloured(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let mut out = lines(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let colour = part.strip_prefix('[').and_then(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != ';')?;
            rest[end..].starts_with('m').then(|| rest.split_at(end + 1))
        });
        match colour {
            Some((colour, rest)) => {
                out.push_str("\x1b[");
                out.push_str(colour);
                out.push_str(&lines(rest));
            }
            None => {
                out.push(REPLACEMENT);
                out.push_str(&lines(part));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_steer_a_terminal() {
        let hostile = "a\x1b]0;title\x07b\x1b[2Jc\u{9b}31md\x7fe\r\u{202e}f\ng\th";
        assert_eq!(line(hostile), "a�]0;title�b�[2Jc�31md�e��f g h");
        assert_eq!(lines(hostile), "a�]0;title�b�[2Jc�31md�e��f\ng\th");
        assert!(matches!(line("15.6u1 ✓ compiles"), Cow::Borrowed(_)));
    }

    #[test]
    fn only_colours_pass_in_what_we_print() {
        assert_eq!(
            coloured("\x1b[38;5;9m✗ no\x1b[0m\n\x1b[39m"),
            "\x1b[38;5;9m✗ no\x1b[0m\n\x1b[39m"
        );
        assert_eq!(
            coloured("\x1b[2J\x1b]0;x\x07\x1b\x1b[1;1H\x1b[m\x1b["),
            "�[2J�]0;x��[1;1H\x1b[m�[".replace("x��", "x��\u{fffd}")
        );
    }
}
