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

/// A regular expression over codestream names that must match from the name's start, but not to its end, as klp-build's
/// `--filter` does (Python's `re.match`). So `15.6u1` also selects `15.6u10` to `15.6u19`, which klp-build's users know, and
/// have been bitten by: end it with `$` for one codestream alone, or ask for a list with [`CodestreamFilter::exactly`].
/// Alternation binds loosest, so `15.5|15.6` is what starts with either. Look-ahead works: `^(?!12.5u12).*` is everything
/// that doesn't start with `12.5u12`. Empty means all.
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

    /// Selects these and no others; none selects none.
    ///
    /// # Errors
    /// More names than a filter may hold.
    pub fn exactly<'a>(codestreams: impl IntoIterator<Item = &'a Codestream>) -> Result<Self, InvalidName> {
        let names: Vec<_> = codestreams
            .into_iter()
            .map(|c| fancy_regex::escape(c.as_str()))
            .collect();
        match names.as_slice() {
            [] => "(?!)".parse(),
            [one] => format!("{one}$").parse(),
            many => format!("(?:{})$", many.join("|")).parse(),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Selects what either of them does.
    ///
    /// # Errors
    /// Both together are longer than a filter may be.
    pub fn either(&self, other: &Self) -> Result<Self, InvalidName> {
        match (self.text.as_str(), other.text.as_str()) {
            ("", _) | (_, "") => Ok(Self::all()),
            (one, other) if one == other => Ok(self.clone()),
            (one, other) => format!("(?:{one})|(?:{other})").parse(),
        }
    }

    /// Whether the filter selects this codestream. An expression that gives up on a name selects nothing.
    pub fn matches(&self, codestream: &Codestream) -> bool {
        if self.text.is_empty() {
            return true;
        }
        let regex = self.regex.get_or_init(|| compile(&self.text).ok());
        // The leftmost match: if any starts at the name's start, this one does.
        let first = |regex: &fancy_regex::Regex| {
            regex
                .find(codestream.as_str())
                .ok()
                .flatten()
                .map(|found| found.start())
        };
        let selects = |regex: &fancy_regex::Regex| first(regex) == Some(0);
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
    let regex = fancy_regex::RegexBuilder::new(text)
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
    use proptest::prelude::*;

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

    #[test]
    fn r8_a_filter_is_open_at_its_end_unless_it_says_otherwise() {
        assert!(selects("15.6u1", "15.6u1") && selects("15.6u1", "15.6u19"));
        let one = CodestreamFilter::exactly(&["15.6u1".parse().unwrap()]).unwrap();
        assert!(one.matches(&"15.6u1".parse().unwrap()));
        assert!(!one.matches(&"15.6u10".parse().unwrap()));
        assert!(!one.matches(&"15x6u1".parse().unwrap()), "a dot is a dot");
        let none = CodestreamFilter::exactly([]).unwrap();
        assert!(!none.matches(&"15.6u1".parse().unwrap()));
        assert!(CodestreamFilter::exactly(&vec!["15.6u1".parse().unwrap(); 500]).is_err());
    }

    #[test]
    fn python_habits_work() {
        assert!(selects("(?x) 15[.]6 # the newest", "15.6u1"));
        assert!(selects("(?i)DEBIAN", "debian12-6.1.0-50"));
        assert!(selects(r"(?P<v>\d+)\.(?P=v)u", "15.15u1"));
        assert!(!selects(r"\d+\.(?!6u|6rt)", "15.6u1"));
        assert!(selects(".*rtu", "15.6rtu1") && !selects("rtu", "15.6rtu1"));
    }

    /// Names of a few letters, so that one is often another's start.
    const NAME: &str = "[a15][a15.u+]{0,4}";

    proptest! {
        #[test]
        fn a_plain_text_selects_what_starts_with_it(text in NAME, name in NAME) {
            let filter = fancy_regex::escape(&text);
            prop_assert_eq!(selects(&filter, &name), name.starts_with(&text));
            let rest = format!("^(?!{filter}).*");
            prop_assert_eq!(selects(&rest, &name), !name.starts_with(&text));
        }

        #[test]
        fn alternation_is_either(a in "(\\^?[a15.]{1,3}[$]?|\\(a[|]5\\))", b in "[a15.]{1,3}[$]?", name in NAME) {
            prop_assert_eq!(selects(&format!("{a}|{b}"), &name), selects(&a, &name) || selects(&b, &name));
        }

        #[test]
        fn a_list_selects_itself(names in proptest::collection::btree_set(NAME, 0..6), other in NAME) {
            let list: Vec<Codestream> = names.iter().map(|name| name.parse().unwrap()).collect();
            let filter = CodestreamFilter::exactly(&list).unwrap();
            for name in &list {
                prop_assert!(filter.matches(name));
            }
            prop_assert_eq!(filter.matches(&other.parse().unwrap()), names.contains(&other));
        }

        #[test]
        fn no_expression_makes_it_panic(text in "([a15.u]|[(][?]?[:!=<]?|[)*+?|^$\\[\\]]|.){0,16}", name in NAME) {
            if let Ok(filter) = text.parse::<CodestreamFilter>() {
                filter.matches(&name.parse().unwrap());
            }
        }
    }
}
