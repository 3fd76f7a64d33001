//! Keeps what may be secret out of texts: the user and password that a URL may hold, and the secret part of a token.

use std::borrow::Cow;
use std::fmt::Display;

/// What stands for a URL's user and password.
const HIDDEN: &str = "***";

/// A URL as it may be shown.
pub fn url(url: &impl Display) -> String {
    scrub(&url.to_string()).into_owned()
}

/// A text whose URLs hold no user and password any more, and whose tokens no secret.
pub fn scrub(text: &str) -> Cow<'_, str> {
    match urls(text) {
        Cow::Borrowed(text) => tokens(text),
        Cow::Owned(text) => Cow::Owned(tokens(&text).into_owned()),
    }
}

/// A token is `klpf_` or `klpe_`, its id, `_` and its secret; of what looks like one, all that follows the id is hidden.
fn tokens(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let mut copied = 0;
    let mut from = 0;
    while let Some(at) = text[from..].find("klp") {
        let start = from + at;
        from = start + 3;
        let rest = &text[from..];
        let Some(rest) = rest.strip_prefix("f_").or_else(|| rest.strip_prefix("e_")) else {
            continue;
        };
        let id = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if !rest[id..].starts_with('_') {
            continue;
        }
        let secret = &rest[id + 1..];
        let length = secret
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(secret.len());
        if length == 0 {
            continue;
        }
        let begin = text.len() - secret.len();
        clean.push_str(&text[copied..begin]);
        clean.push_str(HIDDEN);
        copied = begin + length;
        from = copied;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    clean.push_str(&text[copied..]);
    Cow::Owned(clean)
}

fn urls(text: &str) -> Cow<'_, str> {
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
    fn secrets_of_tokens_are_hidden() {
        for (text, clean) in [
            ("Bearer klpf_00ff_a1b2c3", "Bearer klpf_00ff_***"),
            ("\"klpe_1_2\",\"klpf_3_4\"", "\"klpe_1_***\",\"klpf_3_***\""),
            ("http://a:b@c/ klpf_3_4.", "http://***@c/ klpf_3_***."),
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
            "klp_farm klpf_ klpf_1 klpf_1_ klpp_f_g",
        ] {
            assert!(matches!(scrub(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
