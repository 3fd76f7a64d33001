//! Time and chance, as the farm gets them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

// Not the system's: where a runtime's time is simulated, so is this.
use tokio::time::Instant;
use uuid::Uuid;

use crate::lifecycle::Millis;

/// Wall-clock time at the start of the process plus what has passed since: steps of the system's clock neither expire
/// leases nor prolong them.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Duration,
    started: Instant,
    dice: fn() -> u128,
}

impl Clock {
    pub fn system() -> Self {
        // A clock before 1970 counts from 1970.
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::new(epoch, || Uuid::now_v7().as_u128())
    }

    /// A clock on which `epoch` after 1970 is now. The low 80 bits of what `dice` answers are random.
    pub fn new(epoch: Duration, dice: fn() -> u128) -> Self {
        let started = Instant::now();
        Self { epoch, started, dice }
    }

    pub fn now(&self) -> Millis {
        let now = self.epoch + self.started.elapsed();
        Millis::try_from(now.as_millis()).unwrap_or(Millis::MAX)
    }

    pub fn roll(&self) -> u128 {
        (self.dice)()
    }
}

/// A time for people, as in `2026-11-24 02:05:00 UTC`.
pub fn utc(ms: Millis) -> String {
    let (days, second) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) / 1000);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The Gregorian date of a day counted from 1970-01-01: whole 400-year cycles, then years that begin in March, so that
/// the leap day is a year's last (as in Howard Hinnant's notes on date algorithms).
fn civil(days: i64) -> (i64, i64, i64) {
    const CYCLE: i64 = 146_097;
    // 1970-01-01 is day 719,468 counted from 0000-03-01.
    let shifted = days + 719_468;
    let (cycle, day) = (shifted.div_euclid(CYCLE), shifted.rem_euclid(CYCLE));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (cycle * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_485_900_999), "2026-11-24 02:05:00 UTC");
        assert_eq!(utc(-1), "1969-12-31 23:59:59 UTC");
    }
}
