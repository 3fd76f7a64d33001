//! Reads a livepatch's events to the last one, over as many connections as it takes.

use std::time::Duration;

use klp_livepatch::names::LivepatchName;
use klp_proto::v1;
use tonic::Code;

use crate::client::{Client, by_name, is_broken};
use crate::output::Failed;

const RECONNECT: Duration = Duration::from_secs(1);

/// What is heard of a livepatch.
pub enum News {
    Event(Box<v1::Event>),
    /// The whole livepatch, as somebody who looked beside the stream saw it.
    Look(Box<v1::GetResponse>),
    /// The connection broke; it is tried again.
    Lost,
}

/// Reads the events after a cursor to the last one, reconnecting with the newest whenever the stream breaks. Gives the
/// livepatch as it ended.
///
/// # Errors
/// The first connection can't be made, the coordinator refuses, or the hearer fails.
pub async fn read(
    client: &Client,
    name: &LivepatchName,
    mut cursor: u64,
    mut hear: impl FnMut(News) -> Result<(), Failed>,
) -> Result<v1::Livepatch, Failed> {
    let mut connected = false;
    loop {
        let request = v1::WatchRequest {
            livepatch: Some(by_name(name)),
            after_event: cursor,
        };
        let broken = match client.livepatches().watch(request).await {
            Ok(response) => {
                connected = true;
                let mut stream = response.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(event)) => {
                            cursor = event.number;
                            let ended = event.ended.clone();
                            hear(News::Event(Box::new(event)))?;
                            if let Some(livepatch) = ended {
                                return Ok(livepatch);
                            }
                        }
                        Ok(None) => break tonic::Status::unavailable("the coordinator closed the stream"),
                        Err(status) => break status,
                    }
                }
            }
            // Nothing was seen yet: whoever typed the command should know at once.
            Err(status) if !connected => return Err(client.explain(status)),
            Err(status) => status,
        };
        if !is_broken(&broken) && broken.code() != Code::ResourceExhausted {
            return Err(client.explain(broken));
        }
        hear(News::Lost)?;
        tokio::time::sleep(RECONNECT).await;
    }
}
