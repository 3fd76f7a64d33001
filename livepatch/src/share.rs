//! How livepatches compete for workers, and the words people give with what they order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::spec::Violation;

/// A livepatch's claim on workers: a higher priority goes first; within one, running tasks are kept in proportion to
/// weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    priority: i16,
    weight: u16,
}

impl Share {
    pub const DEFAULT_WEIGHT: u16 = 100;
    const PRIORITIES: std::ops::RangeInclusive<i32> = -100..=100;
    const MAX_WEIGHT: u32 = 1000;

    /// A weight of 0 means the default.
    ///
    /// # Errors
    /// Each value that is out of range.
    pub fn new(priority: i32, weight: u32) -> Result<Self, Vec<Violation>> {
        let mut bad = Vec::new();
        let mut refuse = |field: &str, message: String| {
            bad.push(Violation {
                field: field.to_owned(),
                message,
            });
        };
        if !Self::PRIORITIES.contains(&priority) {
            refuse("share.priority", format!("{priority}; it must be -100 to 100"));
        }
        if weight > Self::MAX_WEIGHT {
            refuse(
                "share.weight",
                format!("{weight}; it must be 1 to {}", Self::MAX_WEIGHT),
            );
        }
        let weight = match weight {
            0 => u32::from(Self::DEFAULT_WEIGHT),
            weight => weight,
        };
        match (i16::try_from(priority), u16::try_from(weight)) {
            (Ok(priority), Ok(weight)) if bad.is_empty() => Ok(Self { priority, weight }),
            _ => Err(bad),
        }
    }

    pub fn priority(self) -> i16 {
        self.priority
    }

    /// At least 1.
    pub fn weight(self) -> u16 {
        self.weight
    }
}

impl Default for Share {
    fn default() -> Self {
        Self {
            priority: 0,
            weight: Self::DEFAULT_WEIGHT,
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "priority {}, weight {}", self.priority, self.weight)
    }
}

/// Why somebody ordered something, in their words: 1 to 200 characters, none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(String);

impl Reason {
    const MAX: usize = 200;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A reason that may be left out.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn optional(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some)
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let text = one_line(s, Self::MAX)?;
        if text.is_empty() {
            return Err("empty; say why, for whoever looks at it later".to_owned());
        }
        Ok(Self(text))
    }
}

/// Who submitted a livepatch, as they said: up to 100 characters, none of them a control character; none if they did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submitter(String);

impl Submitter {
    const MAX: usize = 100;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Submitter {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        one_line(s, Self::MAX).map(Self)
    }
}

fn one_line(text: &str, max: usize) -> Result<String, String> {
    let text = text.trim();
    if text.chars().count() > max {
        return Err(format!("longer than {max} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("has control characters; one line of text is wanted".to_owned());
    }
    Ok(text.to_owned())
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_and_every_bad_value_is_named() {
        assert_eq!(Share::new(0, 0).unwrap(), Share::default());
        assert_eq!(Share::new(-100, 1000).unwrap().priority(), -100);
        let bad = Share::new(101, 1001).unwrap_err();
        assert_eq!(bad.len(), 2);
        assert_eq!(bad[0].field, "share.priority");
    }

    #[test]
    fn reasons_are_one_short_line() {
        assert_eq!(
            " disk is swapped ".parse::<Reason>().unwrap().as_str(),
            "disk is swapped"
        );
        assert!("".parse::<Reason>().is_err());
        assert!("a\nb".parse::<Reason>().is_err());
        assert!("é".repeat(201).parse::<Reason>().is_err());
        assert_eq!(Reason::optional("").unwrap(), None);
    }
}
