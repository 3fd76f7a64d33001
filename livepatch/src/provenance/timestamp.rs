//! Times as RFC 3339 writes them, in UTC and to the millisecond: `2026-11-26T21:00:00.123Z`.

use serde::{Deserialize, Serialize};

use crate::date::Date;

const DAY: i64 = 86_400_000;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(pub i64);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (date, ms) = (Date::from_unix_days(self.0.div_euclid(DAY)), self.0.rem_euclid(DAY));
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        let (year, month, day) = (date.year(), date.month(), date.day());
        let ms = ms % 1000;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"
        )
    }
}

impl std::str::FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{} is no time like 2026-11-26T21:00:00.123Z",
                crate::names::quoted(text)
            )
        };
        let read = || {
            let bytes = text.as_bytes();
            let marks = [(10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
            if bytes.len() != 24 || marks.iter().any(|(at, mark)| bytes[*at] != *mark) {
                return None;
            }
            let number = |range| {
                let digits = text.get(range).filter(|t: &&str| t.bytes().all(|b| b.is_ascii_digit()));
                digits?.parse::<i64>().ok()
            };
            let date: Date = text.get(..10)?.parse().ok()?;
            let (hour, minute) = (number(11..13)?, number(14..16)?);
            let (second, ms) = (number(17..19)?, number(20..23)?);
            let in_day = hour < 24 && minute < 60 && second < 60;
            let time = ((hour * 60 + minute) * 60 + second) * 1000 + ms;
            in_day.then(|| Self(date.unix_days() * DAY + time))
        };
        read().ok_or_else(bad)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}
