//! Keeps what may be secret out of texts: the user and password that a URL may hold.

use std::borrow::Cow;
use std::fmt::Display;

/// What stands for a URL's user and password.
const HIDDEN: &str = "***";

/// A URL as it may be shown.
pub fn url(url: &impl Display) -> String {
    scrub(&url.to_string()).into_owned()
}

/// A text whose URLs hold no user and password any more.
pub fn scrub(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let mut copied = 0;
    let mut from = 0;
    while let Some(at) = text[from..].find("://") {
        let start = from + at + 3;
        let end = text[start..].find(ends_authority).map_or(text.len(), |len| start + len);
        if let Some(at) = text[start..end].rfind('@') {
            clean.push_str(&text[copied..start]);
            clean.push_str(HIDDEN);
            copied = start + at;
        }
        from = end;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    clean.push_str(&text[copied..]);
    Cow::Owned(clean)
}

/// What can't be in a URL's part between `//` and the path, or ends it.
fn ends_authority(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "/?#\"'`<>\\()|,".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_passwords_are_hidden() {
        for (text, clean) in [
            ("http://jane:hunter2@farm:7420/x", "http://***@farm:7420/x"),
            ("at \"https://token@host\" and", "at \"https://***@host\" and"),
            ("http://a:p@ss@host http://b:q@h/", "http://***@host http://***@h/"),
            (r#"{"url":"http://a:b@c\n"}"#, r#"{"url":"http://***@c\n"}"#),
            ("ssh://git@", "ssh://***@"),
        ] {
            assert_eq!(scrub(text), clean);
        }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for text in [
            "",
            "://",
            "jane@farm",
            "http://farm:7420/a@b",
            "http://farm jane@farm",
            "é://é",
            "a://b://c",
        ] {
            assert!(matches!(scrub(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
