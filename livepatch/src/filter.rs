//! Which codestreams a livepatch is for.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::Codestream;
use crate::names::{InvalidName, quoted};

/// Longest accepted expression, in bytes.
const MAX_LEN: usize = 1024;

/// Bound on the engine's backtracking steps for one name, so that no expression can hold the coordinator.
const BACKTRACK_LIMIT: usize = 100_000;

/// A regular expression over codestream names, anchored at the start only, as klp-build's `--filter` is (Python's
/// `re.match`): `15.6u1` also selects `15.6u10`; end it with `$` for exactly one. Look-ahead works, so
/// `^(?!12.5u12).*` is everything else. Empty means all.
///
/// What is deserialised was parsed before it was stored. It is compiled when it is first asked, if ever: that takes a
/// thousand times as long as reading it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct CodestreamFilter {
    text: String,
    /// `None` inside: not an expression, so it selects nothing.
    regex: OnceLock<Option<fancy_regex::Regex>>,
}

impl CodestreamFilter {
    pub fn all() -> Self {
        Self {
            text: String::new(),
            regex: OnceLock::new(),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the filter selects this codestream. An expression that gives up on a name selects nothing.
    pub fn matches(&self, codestream: &Codestream) -> bool {
        if self.text.is_empty() {
            return true;
        }
        let regex = self.regex.get_or_init(|| compile(&self.text).ok());
        let selects = |regex: &fancy_regex::Regex| regex.is_match(codestream.as_str()).unwrap_or(false);
        regex.as_ref().is_some_and(selects)
    }
}

impl FromStr for CodestreamFilter {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Ok(Self::all());
        }
        if text.len() > MAX_LEN {
            return Err(InvalidName(format!(
                "codestream filter is {} bytes long; at most {MAX_LEN}",
                text.len()
            )));
        }
        let regex = compile(text).map_err(|e| {
            InvalidName(format!(
                "codestream filter {} is not a regular expression: {e}",
                quoted(text)
            ))
        })?;
        Ok(Self {
            text: text.to_owned(),
            regex: Some(regex).into(),
        })
    }
}

fn compile(text: &str) -> Result<fancy_regex::Regex, Box<fancy_regex::Error>> {
    // On its own first: `a)|(b` would only become valid inside the group.
    fancy_regex::Regex::new(text)?;
    // Without the group, alternation would escape the anchor: `a|b` must mean "starts with a or with b".
    let regex = fancy_regex::RegexBuilder::new(&format!("^(?:{text})"))
        .backtrack_limit(BACKTRACK_LIMIT)
        .build()?;
    Ok(regex)
}

impl From<String> for CodestreamFilter {
    fn from(text: String) -> Self {
        let regex = OnceLock::new();
        Self { text, regex }
    }
}

impl From<CodestreamFilter> for String {
    fn from(f: CodestreamFilter) -> String {
        f.text
    }
}

impl fmt::Debug for CodestreamFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodestreamFilter({:?})", self.text)
    }
}

impl PartialEq for CodestreamFilter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for CodestreamFilter {}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(filter: &str, name: &str) -> bool {
        filter
            .parse::<CodestreamFilter>()
            .unwrap()
            .matches(&name.parse().unwrap())
    }

    #[test]
    fn anchored_at_the_start_only() {
        assert!(selects("15.6u1", "15.6u10"));
        assert!(!selects("15.6u1$", "15.6u10"));
        assert!(!selects("5.6", "15.6u1"));
        assert!(selects("", "anything"));
    }

    #[test]
    fn alternation_and_look_ahead() {
        assert!(!selects("15.5|15.6", "a15.6u1"));
        assert!(selects("15.5|15.6", "15.6u1"));
        assert!(!selects("^(?!12.5u12).*", "12.5u12"));
        assert!(selects("^(?!12.5u12).*", "12.5u13"));
    }

    #[test]
    fn a_broken_expression_says_so() {
        let error = "15.6u(".parse::<CodestreamFilter>().unwrap_err().to_string();
        assert!(
            error.contains("`15.6u(`") && error.contains("not a regular expression"),
            "{error}"
        );
        assert!("a)|(b".parse::<CodestreamFilter>().is_err());
    }

    #[test]
    fn a_hostile_expression_ends() {
        // Exponential without the limit; the result does not matter, coming back does.
        let filter = "(?:(a+)+)\\1b".parse::<CodestreamFilter>().unwrap();
        assert!(!filter.matches(&"a".repeat(60).parse().unwrap()));
    }
}
