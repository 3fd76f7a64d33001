//! What stands behind a command's options in its help, by what it is: examples, exit codes, and the rest.

/// Texts as they are laid out in the help; empty where there is nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Epilogue {
    pub examples: String,
    pub exit_codes: String,
    pub rest: String,
}

impl Epilogue {
    /// Paragraphs that begin with `Examples:` or `Exit codes:` are those; what is indented belongs to what stands before it.
    pub fn of(text: &str) -> Self {
        let mut found = Self::default();
        for paragraph in text.split("\n\n") {
            let (into, body) = if let Some(body) = strip(paragraph, &["Examples:", "Example:"]) {
                (&mut found.examples, body)
            } else if let Some(body) = strip(paragraph, &["Exit codes:"]) {
                (&mut found.exit_codes, body)
            } else {
                (&mut found.rest, paragraph)
            };
            if !into.is_empty() {
                into.push_str("\n\n");
            }
            into.push_str(body.trim_matches('\n'));
        }
        found
    }
}

fn strip<'a>(paragraph: &'a str, heads: &[&str]) -> Option<&'a str> {
    heads.iter().find_map(|head| paragraph.strip_prefix(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_told_by_their_heads() {
        let text = "Examples:\n  a b\n  c\n\nFirst.\n\nExit codes: 0 done, 1 failed.\n\nSecond.";
        let found = Epilogue::of(text);
        assert_eq!(found.examples, "  a b\n  c");
        assert_eq!(found.exit_codes.trim(), "0 done, 1 failed.");
        assert_eq!(found.rest, "First.\n\nSecond.");
    }
}
