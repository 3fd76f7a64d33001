//! What the service manager is told, where one asks by NOTIFY_SOCKET, as systemd does of units of `Type=notify`: when the
//! program is ready, what it is doing, and that it lives.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::redact;

/// How often the status is told anew where no watchdog asks more often.
const PERIOD: Duration = Duration::from_secs(10);

/// How often to say that the program lives, so that two words may be late.
pub fn period() -> Duration {
    sd_notify::watchdog_enabled().map_or(PERIOD, |within| (within / 3).min(PERIOD))
}

/// It does what it is there for.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&plain(status))]);
}

/// What it is doing, in one line.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&plain(status))]);
}

/// It lives, said only by what would not say it otherwise; and what it is doing.
pub fn alive(status: &str) {
    tell(&[NotifyState::Watchdog, NotifyState::Status(&plain(status))]);
}

/// It reads its configuration again; [`ready`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "there is no time to tell the service manager"),
    }
}

/// It ends, and may take this long to do so in order.
pub fn stopping(within: Duration) {
    let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping"),
        NotifyState::ExtendTimeoutUsec(within),
    ]);
}

/// One line, without what may be secret.
fn plain(text: &str) -> String {
    redact::scrub(text).replace(|c: char| c.is_control(), " ")
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a service manager this does nothing. One that can't be told will act on that itself.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager can't be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_without_secrets() {
        assert_eq!(
            plain("not connected to https://jane:hunter2@farm:7420\nWATCHDOG=1"),
            "not connected to https://***@farm:7420 WATCHDOG=1"
        );
    }
}
