//! `klp-farm top`: the farm on one screen.

use std::time::Duration;

use clap::Args;

use crate::client::Client;
use crate::output::{self, Failed, Mode, now_ms};
use crate::top::{self, Poll};
use crate::tui::Screen;

const EXAMPLES: &str = "\
Keys: Tab goes to the next part, s sorts it, r turns the order around, ? tells the rest.
Where there is no terminal, one picture is printed, as with --once.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct TopArgs {
    /// Look at the farm every so many seconds, 0.2 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Print one picture of the farm and end
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds, as in 1 or 0.5".to_owned())?;
    match (0.2..=3600.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("not between 0.2 and 3600 seconds".to_owned()),
    }
}

pub async fn run(args: TopArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let screen = match (mode, args.once) {
        (Mode::Table, false) => Screen::take()?,
        _ => None,
    };
    if let Some(screen) = screen {
        return top::live(client, args.interval, screen).await;
    }
    let farm = Poll::new(client).look().await?;
    match mode {
        Mode::Json => output::json(&top::picture(farm, now_ms())),
        Mode::Table => output::print(&top::describe(&farm, now_ms())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_limits() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "0.1", "3601", "-1", "NaN", "inf", "1s", ""] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
