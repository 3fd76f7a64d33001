//! What is wrong with a text of settings: the line, the key, and what was probably meant.

use std::fmt;

use serde::de::DeserializeOwned;

/// How alike two names are, from 0 to 1, that one may be meant by the other; as clap has it for options.
const ALIKE: f64 = 0.7;

/// More names than these are not listed.
const FEW: usize = 12;

/// A slip in a text of settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slip {
    /// Counted from 1; `None`: the text as a whole.
    pub line: Option<usize>,
    pub what: String,
}

impl fmt::Display for Slip {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(out, "line {line}: {}", self.what),
            None => out.write_str(&self.what),
        }
    }
}

impl std::error::Error for Slip {}

/// Reads settings.
///
/// # Errors
/// The first thing that is no TOML, no setting of `T`, or no value for it.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Slip> {
    toml::from_str(text).map_err(|error| explain(text, &error))
}

/// All settings that `T` has, those without a default value included.
pub fn keys<T: DeserializeOwned>() -> Vec<String> {
    // serde tells a struct's fields to nobody but in the error about one that it has not.
    let Err(error) = toml::from_str::<T>("-no-setting- = 1") else {
        return Vec::new();
    };
    let names = unknown(error.message()).map(|(_, known)| known).unwrap_or_default();
    names.into_iter().map(str::to_owned).collect()
}

fn explain(text: &str, error: &toml::de::Error) -> Slip {
    let start = error.span().map(|span| span.start.min(text.len()));
    let line = start.map(|at| text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1);
    let what = match unknown(error.message()) {
        Some((name, known)) => unknown_setting(name, &known),
        None => {
            let written = line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
            match written.split_once('=') {
                Some((key, _)) if !key.trim().is_empty() => format!("{}: {}", key.trim(), error.message()),
                _ => error.message().to_owned(),
            }
        }
    };
    Slip { line, what }
}

/// The name and the known ones, of serde's message about a field that there is not.
fn unknown(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let name = quoted.next()?;
    Some((name, quoted.collect()))
}

fn unknown_setting(name: &str, known: &[&str]) -> String {
    let alike = known.iter().map(|known| (strsim::jaro_winkler(name, known), *known));
    let nearest = alike.max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((degree, nearest)) if degree > ALIKE => format!("unknown setting `{name}`; did you mean `{nearest}`?"),
        _ if known.is_empty() || known.len() > FEW => {
            format!("unknown setting `{name}`; the sample configuration explains all that there are")
        }
        _ => format!("unknown setting `{name}`; there are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        lease_ms: u32,
        catalog: Option<String>,
        inner: Inner,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        scratch: u64,
    }

    #[test]
    fn slips_are_told_with_line_key_and_what_may_be_meant() {
        for (text, said) in [
            (
                "# first\n\nleese_ms = 3\n",
                "line 3: unknown setting `leese_ms`; did you mean `lease_ms`?",
            ),
            ("lease = 3", "line 1: unknown setting `lease`; did you mean `lease_ms`?"),
            (
                "zzz = 1",
                "line 1: unknown setting `zzz`; there are lease_ms, catalog, inner",
            ),
            (
                "[inner]\nscrach = 1",
                "line 2: unknown setting `scrach`; did you mean `scratch`?",
            ),
            (
                "lease_ms = \"x\"",
                "line 1: lease_ms: invalid type: string \"x\", expected u32",
            ),
        ] {
            assert_eq!(parse::<Sample>(text).unwrap_err().to_string(), said);
        }
        for (text, line) in [("lease_ms = 1\nlease_ms = 2\n", 2), ("\n\nlease_ms 3", 3)] {
            assert_eq!(parse::<Sample>(text).unwrap_err().line, Some(line), "{text}");
        }
    }

    #[test]
    fn all_settings_are_known_also_those_without_a_value() {
        assert_eq!(keys::<Sample>(), ["lease_ms", "catalog", "inner"]);
    }
}
