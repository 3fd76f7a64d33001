//! Codestream names and their natural order.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::{InvalidName, check_codestream};

/// One supported kernel build line, such as `15.5u40` or `debian12-6.1.0-50`.
///
/// Ordered naturally: runs of digits compare as numbers, so `15.6u9` comes before `15.6u10`. Cheap to clone: a coordinator
/// keeps each name in many places.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Codestream(Arc<str>);

impl Codestream {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Codestream {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, InvalidName> {
        check_codestream(s).map_err(InvalidName)?;
        Ok(Self(s.into()))
    }
}

impl TryFrom<String> for Codestream {
    type Error = InvalidName;

    fn try_from(s: String) -> Result<Self, InvalidName> {
        s.parse()
    }
}

impl From<Codestream> for String {
    fn from(c: Codestream) -> String {
        c.0.to_string()
    }
}

impl fmt::Display for Codestream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl PartialOrd for Codestream {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Codestream {
    fn cmp(&self, other: &Self) -> Ordering {
        natural_cmp(&self.0, &other.0)
    }
}

/// Compares texts with runs of ASCII digits taken as numbers of any length. A total order that agrees with equality:
/// numbers that differ only in leading zeros are told apart at the end.
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a, b);
    loop {
        match (x.chars().next(), y.chars().next()) {
            (Some(c), Some(d)) if c.is_ascii_digit() && d.is_ascii_digit() => {
                let (m, rest_x) = split_number(x);
                let (n, rest_y) = split_number(y);
                match m.len().cmp(&n.len()).then_with(|| m.cmp(n)) {
                    Ordering::Equal => (x, y) = (rest_x, rest_y),
                    unequal => return unequal,
                }
            }
            (Some(c), Some(d)) if c == d => (x, y) = (&x[c.len_utf8()..], &y[d.len_utf8()..]),
            (Some(c), Some(d)) => return c.cmp(&d),
            (None, None) => return a.cmp(b),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
        }
    }
}

/// The leading run of digits without its leading zeros, and what follows it.
fn split_number(s: &str) -> (&str, &str) {
    let end = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (number, rest) = s.split_at(end);
    (number.trim_start_matches('0'), rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cs(s: &str) -> Codestream {
        s.parse().unwrap()
    }

    #[test]
    fn order_is_natural() {
        let mut names = [
            cs("15.6u10"),
            cs("15.6u9"),
            cs("12.5u3"),
            cs("15.6rtu2"),
            cs("debian12-6.1.0-50"),
            cs("debian12-6.1.0-9"),
        ];
        names.sort();
        let sorted: Vec<_> = names.iter().map(Codestream::as_str).collect();
        assert_eq!(
            sorted,
            [
                "12.5u3",
                "15.6rtu2",
                "15.6u9",
                "15.6u10",
                "debian12-6.1.0-9",
                "debian12-6.1.0-50"
            ]
        );
    }

    #[test]
    fn names_that_could_be_paths_or_options_are_refused() {
        for bad in ["", "-x", "../a", "a/b", "a b", ".", "..", ".a"] {
            assert!(bad.parse::<Codestream>().is_err(), "{bad:?}");
        }
        assert!("debian12-6.12.117+deb12".parse::<Codestream>().is_ok());
    }

    proptest! {
        #[test]
        fn natural_order_is_total(a in "[a-c0-9.]{0,8}", b in "[a-c0-9.]{0,8}", c in "[a-c0-9.]{0,8}") {
            prop_assert_eq!(natural_cmp(&a, &b), natural_cmp(&b, &a).reverse());
            prop_assert_eq!(natural_cmp(&a, &b) == Ordering::Equal, a == b);
            if natural_cmp(&a, &b) != Ordering::Greater && natural_cmp(&b, &c) != Ordering::Greater {
                prop_assert_ne!(natural_cmp(&a, &c), Ordering::Greater);
            }
        }

        #[test]
        fn numbers_compare_as_numbers(text in "[a-c.-]{1,4}", m: u64, n: u64, rest in "[a-c.-][a-c0-9]{0,3}") {
            let name = |number: u64| format!("{text}{number}{rest}");
            prop_assert_eq!(natural_cmp(&name(m), &name(n)), m.cmp(&n));
        }

        #[test]
        fn a_prefix_comes_first(text in "[a-c0-9.]{0,6}", rest in "[a-c.][a-c0-9]{0,3}") {
            prop_assert_eq!(natural_cmp(&text, &format!("{text}{rest}")), Ordering::Less);
        }
    }
}
