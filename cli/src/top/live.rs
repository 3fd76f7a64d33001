//! Shows the farm on a terminal: a loop over answers, what is typed and the time that passes.

use std::time::Duration;

use tokio::sync::mpsc;

use super::draw;
use super::farm::Farm;
use super::poll::Poll;
use super::view::View;
use crate::client::Client;
use crate::output::{Failed, now_ms};
use crate::tui::{Input, Inputs, Screen, Theme};

/// Who does not answer is not asked more often.
const RETRY: Duration = Duration::from_secs(1);

/// Shows the farm until somebody leaves.
///
/// # Errors
/// The first answer is none; the terminal's.
pub async fn live(client: &Client, interval: Duration, mut screen: Screen) -> Result<(), Failed> {
    let mut inputs = Inputs::new(screen.keys)?;
    let (told, mut heard) = mpsc::unbounded_channel();
    let mut looking = std::pin::pin!(looks(client, interval, &told));
    let (mut view, theme) = (View::default(), Theme::of_environment());
    let mut farm: Option<Farm> = None;
    let mut lost: Option<(i64, String)> = None;
    let (mut changed, mut second) = (true, 0);
    loop {
        tokio::select! {
            Some(answer) = heard.recv() => {
                changed = true;
                match answer {
                    Ok(now) => (farm, lost) = (Some(now), None),
                    Err(error) if farm.is_none() => return Err(error),
                    Err(error) => {
                        let since = lost.map_or_else(now_ms, |(since, _)| since);
                        lost = Some((since, error.to_string()));
                    }
                }
            }
            input = inputs.next() => {
                let now = now_ms();
                let rows = farm.as_ref().map_or(0, |farm| draw::rows(farm, view.part));
                let drawn = match input {
                    Input::Tick => changed || now / 1000 != second,
                    Input::Leave => return Err(Failed::Interrupted),
                    Input::Key(key) if view.key(key, rows) => return Ok(()),
                    Input::Key(_) => true,
                    Input::Redraw => { screen.redraw()?; true }
                    Input::Suspend => { screen.suspend()?; true }
                };
                if let (true, Some(farm)) = (drawn, &farm) {
                    screen.draw(|area, buf| draw::draw(farm, lost.as_ref(), &mut view, now, theme, area, buf))?;
                    (changed, second) = (false, now / 1000);
                }
            }
            () = &mut looking => {}
        }
    }
}

/// Looks again and again, for ever.
async fn looks(client: &Client, interval: Duration, told: &mpsc::UnboundedSender<Result<Farm, Failed>>) {
    let mut poll = Poll::new(client);
    loop {
        let answer = poll.look().await;
        let pause = if answer.is_ok() { interval } else { interval.max(RETRY) };
        // Nobody hears what comes after the end.
        let _ = told.send(answer);
        tokio::time::sleep(pause).await;
    }
}
