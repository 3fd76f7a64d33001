//! A calendar day: when support ends.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::names::{InvalidName, quoted};

/// A day of the Gregorian calendar in UTC, from 0000-01-01 to 9999-12-31, written `2026-11-15`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// `None` for a day that the calendar doesn't have.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let fits = year <= 9999 && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
        fits.then_some(Self { year, month, day })
    }

    pub fn year(self) -> u16 {
        self.year
    }

    pub fn month(self) -> u8 {
        self.month
    }

    pub fn day(self) -> u8 {
        self.day
    }

    /// The day of a time.
    pub fn of(time: SystemTime) -> Self {
        let days = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs() / 86_400).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_secs().div_ceil(86_400)).unwrap_or(i64::MAX),
        };
        Self::from_unix_days(days)
    }

    /// The day that many days after 1970-01-01; the calendar's last or first where it would be outside.
    pub fn from_unix_days(days: i64) -> Self {
        let days = days.clamp(Self::FIRST.unix_days(), Self::LAST.unix_days());
        // Counted from 0000-01-01 it is not negative, and small: 400 years are 146,097 days.
        let mut left = u32::try_from(days - Self::FIRST.unix_days()).unwrap_or(0);
        let mut year = 400 * (left / 146_097);
        left %= 146_097;
        let in_year = |year: u32| if is_leap(year) { 366 } else { 365 };
        while left >= in_year(year) {
            left -= in_year(year);
            year += 1;
        }
        let (year, mut month) = (u16::try_from(year).unwrap_or(9999), 1);
        while left >= u32::from(days_in(year, month)) {
            left -= u32::from(days_in(year, month));
            month += 1;
        }
        let day = u8::try_from(left + 1).unwrap_or(1);
        Self { year, month, day }
    }

    const FIRST: Self = Self {
        year: 0,
        month: 1,
        day: 1,
    };
    const LAST: Self = Self {
        year: 9999,
        month: 12,
        day: 31,
    };

    /// Days since 1970-01-01.
    pub fn unix_days(self) -> i64 {
        let year = i64::from(self.year);
        // Leap days before this year, counted from year 0, which is one.
        let leaps = match year {
            0 => 0,
            year => (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400 + 1,
        };
        let months: i64 = (1..self.month).map(|m| i64::from(days_in(self.year, m))).sum();
        365 * year + leaps + months + i64::from(self.day) - 1 - 719_528
    }

    /// Days from `earlier` to this one; negative if this is the earlier one.
    pub fn days_since(self, earlier: Self) -> i64 {
        self.unix_days() - earlier.unix_days()
    }
}

fn is_leap(year: u32) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

fn days_in(year: u16, month: u8) -> u8 {
    match month {
        2 if is_leap(year.into()) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl FromStr for Date {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, InvalidName> {
        let parse = || {
            let bytes = s.as_bytes();
            if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
                return None;
            }
            let number = |range| s.get(range).filter(|t: &&str| t.bytes().all(|b| b.is_ascii_digit()));
            Self::new(
                number(0..4)?.parse().ok()?,
                number(5..7)?.parse().ok()?,
                number(8..10)?.parse().ok()?,
            )
        };
        parse().ok_or_else(|| InvalidName(format!("{} is not a day like 2026-11-15", quoted(s))))
    }
}

impl TryFrom<String> for Date {
    type Error = InvalidName;

    fn try_from(s: String) -> Result<Self, InvalidName> {
        s.parse()
    }
}

impl From<Date> for String {
    fn from(d: Date) -> String {
        d.to_string()
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_day_follows_the_one_before() {
        let mut today = Date::new(1899, 12, 31).unwrap();
        while today.year < 2101 {
            let next = Date::from_unix_days(today.unix_days() + 1);
            let expected = Date::new(today.year, today.month, today.day + 1)
                .or_else(|| Date::new(today.year, today.month + 1, 1))
                .or_else(|| Date::new(today.year + 1, 1, 1));
            assert_eq!(Some(next), expected);
            assert_eq!(next.days_since(today), 1);
            today = next;
        }
    }

    #[test]
    fn known_days() {
        assert_eq!(Date::new(1970, 1, 1).unwrap().unix_days(), 0);
        assert_eq!(Date::new(2000, 3, 1).unwrap().unix_days(), 11_017);
        assert_eq!("2026-11-15".parse::<Date>().unwrap().unix_days(), 20_772);
        assert_eq!(
            Date::of(UNIX_EPOCH + Duration::from_secs(86_399)).to_string(),
            "1970-01-01"
        );
        assert_eq!(Date::of(UNIX_EPOCH - Duration::from_secs(1)).to_string(), "1969-12-31");
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for bad in [
            "",
            "2026-02-29",
            "2026-13-01",
            "2026-1-1",
            "26-01-01",
            "2026-00-10",
            "2026-01-00",
            "2026/01/01",
            "+026-01-01",
            "2026-01-é",
        ] {
            assert!(bad.parse::<Date>().is_err(), "{bad}");
        }
        assert!("2024-02-29".parse::<Date>().is_ok());
    }

    prop_compose! {
        pub(crate) fn any_date()(days in Date::FIRST.unix_days()..=Date::LAST.unix_days()) -> Date {
            Date::from_unix_days(days)
        }
    }

    proptest! {
        #[test]
        fn days_count_both_ways(days: i64) {
            let date = Date::from_unix_days(days);
            prop_assert_eq!(Date::from_unix_days(date.unix_days()), date);
        }

        #[test]
        fn text_and_number_come_back(date in any_date()) {
            prop_assert_eq!(date.to_string().parse::<Date>().unwrap(), date);
            prop_assert_eq!(Date::new(date.year, date.month, date.day), Some(date));
            prop_assert_eq!(Date::from_unix_days(date.unix_days()), date);
        }
    }
}
