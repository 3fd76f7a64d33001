//! Asks the coordinator how the farm is: of livepatches only those that have changed.

use std::collections::BTreeMap;

use klp_proto::v1;
use klp_telemetry::redact;
use tonic::Status;

use super::farm::Farm;
use crate::client::Client;
use crate::output::Failed;

/// The most that a list answers at once.
const PAGE: u32 = 500;

pub struct Poll<'a> {
    client: &'a Client,
    cursor: String,
    /// Those in progress, by id: these sort by age.
    livepatches: BTreeMap<String, v1::Livepatch>,
}

impl<'a> Poll<'a> {
    pub fn new(client: &'a Client) -> Self {
        Self {
            client,
            cursor: String::new(),
            livepatches: BTreeMap::new(),
        }
    }

    /// The farm as it is now.
    ///
    /// # Errors
    /// The coordinator can't be asked, or refuses.
    pub async fn look(&mut self) -> Result<Farm, Failed> {
        let client = self.client;
        self.ask().await.map_err(|status| client.explain(status))
    }

    async fn ask(&mut self) -> Result<Farm, Status> {
        self.catch_up().await?;
        let mut fleet = (self.client.fleet(), self.client.fleet());
        let (workers, queue) = tokio::try_join!(
            fleet.0.list_workers(v1::ListWorkersRequest {}),
            fleet.1.queue(v1::QueueRequest {}),
        )?;
        Ok(Farm {
            coordinator: redact::url(self.client.uri()).to_string(),
            workers: workers.into_inner().workers,
            livepatches: self.livepatches.values().cloned().collect(),
            waiting: queue.into_inner().waiting,
        })
    }

    /// Learns which livepatches are in progress now.
    async fn catch_up(&mut self) -> Result<(), Status> {
        loop {
            let cursor = self.cursor.clone();
            let changes = self.client.livepatches().changes(v1::ChangesRequest { cursor }).await?;
            let changes = changes.into_inner();
            if changes.reset {
                self.livepatches = self.running().await?;
            }
            for livepatch in changes.livepatches {
                match livepatch.state() {
                    v1::LivepatchState::Running => self.livepatches.insert(livepatch.id.clone(), livepatch),
                    _ => self.livepatches.remove(&livepatch.id),
                };
            }
            // Only now: who failed before has learned nothing.
            self.cursor = changes.cursor;
            if !changes.more {
                return Ok(());
            }
        }
    }

    async fn running(&self) -> Result<BTreeMap<String, v1::Livepatch>, Status> {
        let mut running = BTreeMap::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListRequest {
                page_size: PAGE,
                page_token,
                states: vec![v1::LivepatchState::Running.into()],
                ..Default::default()
            };
            let page = self.client.livepatches().list(request).await?.into_inner();
            running.extend(
                page.livepatches
                    .into_iter()
                    .map(|livepatch| (livepatch.id.clone(), livepatch)),
            );
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(running);
            }
        }
    }
}
