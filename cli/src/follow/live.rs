//! Follows on a terminal: a loop over what is heard, what is typed and the time that passes.

use std::time::Duration;

use klp_livepatch::names::LivepatchName;
use klp_proto::v1;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::draw;
use super::facts::Facts;
use super::stream::{self, News};
use super::view::View;
use crate::client::{Client, by_name};
use crate::output::{Failed, now_ms};
use crate::tui::{Input, Inputs, Screen, Theme};

/// How often it is asked what running attempts do, and what waiting tasks wait for: events don't tell.
const LOOK: Duration = Duration::from_secs(2);
/// Events from before that are told.
const BEFORE: u64 = 100;

/// Follows until the livepatch has ended. `None`: whoever watched has left.
///
/// # Errors
/// As reading does; the terminal's.
pub async fn follow(
    client: &Client,
    name: &LivepatchName,
    mut screen: Screen,
) -> Result<Option<v1::Livepatch>, Failed> {
    let mut inputs = Inputs::new(screen.keys)?;
    // All platforms from the first moment on; events tell of those that something has happened to.
    let first = tokio::select! {
        first = look(client, name) => first.map_err(|status| client.explain(status))?,
        () = left(&mut inputs) => return Ok(None),
    };
    first.livepatch.iter().for_each(|livepatch| client.about(livepatch));
    let mut facts = Facts::new(first);
    let (told, mut heard) = mpsc::unbounded_channel();
    let hear = |news| {
        // Nobody hears what comes after the end.
        let _ = told.send(news);
        Ok(())
    };
    let from = facts.livepatch.last_event.saturating_sub(BEFORE);
    let mut reading = std::pin::pin!(stream::read(client, name, from, hear));
    let mut looking = std::pin::pin!(looks(client, name, &told));
    let (mut view, theme) = (View::default(), Theme::of_environment());
    let (mut changed, mut second) = (true, 0);
    loop {
        tokio::select! {
            biased;
            ended = &mut reading => return ended.map(Some),
            Some(news) = heard.recv() => {
                changed = true;
                match news {
                    News::Event(event) => facts.hear(*event),
                    News::Look(answer) => facts.look(*answer),
                    News::Lost => facts.lost_ms = facts.lost_ms.or(Some(now_ms())),
                }
            }
            input = inputs.next() => {
                let now = now_ms();
                let drawn = match input {
                    Input::Tick => changed || now / 1000 != second,
                    Input::Leave => return Ok(None),
                    Input::Key(key) if view.key(key, &facts.grid()) => return Ok(None),
                    Input::Key(_) => true,
                    Input::Redraw => { screen.redraw()?; true }
                    Input::Suspend => { screen.suspend()?; true }
                };
                if drawn {
                    screen.draw(|area, buf| draw::draw(&facts, &mut view, now, theme, area, buf))?;
                    (changed, second) = (false, now / 1000);
                }
            }
            () = &mut looking => {}
        }
    }
}

async fn look(client: &Client, name: &LivepatchName) -> Result<v1::GetResponse, tonic::Status> {
    let request = v1::GetRequest {
        livepatch: Some(by_name(name)),
        without_reports: true,
    };
    Ok(client.livepatches().get(request).await?.into_inner())
}

/// Looks again and again, for ever.
async fn looks(client: &Client, name: &LivepatchName, told: &mpsc::UnboundedSender<News>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // What keeps us from looking keeps us from reading, which tells of it.
        if let Ok(answer) = look(client, name).await {
            let _ = told.send(News::Look(Box::new(answer)));
        }
    }
}

/// Returns when somebody wants to leave though there is nothing to see yet.
async fn left(inputs: &mut Inputs) {
    use crossterm::event::KeyCode::{Char, Esc};
    loop {
        match inputs.next().await {
            Input::Leave => return,
            Input::Key(key) if matches!(key.code, Char('q') | Esc) => return,
            _ => {}
        }
    }
}
