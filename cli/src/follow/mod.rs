//! Follows a livepatch until it ends: a live matrix on a terminal, lines elsewhere, JSON lines for machines.
//!
//! [`stream`] reads events whatever happens to the connection. On a terminal, [`facts`] are what is known of the livepatch,
//! [`view`] is what a person chose to see of it, [`draw`] makes a frame of both, and [`live`] runs them.

mod draw;
mod facts;
mod live;
mod stream;
mod view;

use klp_livepatch::names::LivepatchName;
use klp_proto::v1;

use crate::client::Client;
use crate::cmd::status;
use crate::output::{self, Failed, Mode};
use crate::tui::Screen;
use stream::News;

/// Follows until the livepatch has ended, then shows how.
///
/// # Errors
/// [`Failed::NotAllSucceeded`] if it did not end in success everywhere, [`Failed::Interrupted`] on Ctrl-C.
pub async fn follow(client: &Client, name: &LivepatchName, mode: Mode) -> Result<(), Failed> {
    let screen = match mode {
        Mode::Table => Screen::take()?,
        Mode::Json => None,
    };
    let ended = match screen {
        Some(screen) => live::follow(client, name, screen).await,
        None => tokio::select! {
            ended = stream::read(client, name, 0, |news| show(news, mode)) => ended.map(Some),
            _ = tokio::signal::ctrl_c() => Ok(None),
        },
    };
    let Some(ended) = ended? else {
        eprintln!(
            "interrupted; {name} goes on. Follow it again with `klp-farm watch {name}`, end it with `klp-farm cancel {name}`"
        );
        return Err(Failed::Interrupted);
    };
    if mode == Mode::Table {
        let response = client.get(name).await?;
        status::print(client, name, response, Mode::Table).await?;
    }
    match ended.state() {
        v1::LivepatchState::Succeeded => Ok(()),
        _ => Err(Failed::NotAllSucceeded),
    }
}

/// Shows an event where there is no screen.
fn show(news: News, mode: Mode) -> Result<(), Failed> {
    match (news, mode) {
        (News::Event(event), Mode::Json) => return output::json_line(&klp_proto::view::Event::from(*event)),
        (News::Event(event), Mode::Table) => output::tell(&event.message),
        (News::Look(_), _) => {}
        (News::Lost, _) => eprintln!("connection to the coordinator lost; trying again"),
    }
    Ok(())
}
