//! A client: submits livepatches, changes its mind about them, and watches them to their end over all breaks.

use std::time::Duration;

use klp_livepatch::task::LivepatchId;
use klp_proto::v1;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::book::Book;
use crate::net;

#[derive(Clone)]
struct Client {
    service: LivepatchServiceClient<Channel>,
    book: Book,
}

/// Submits `count` livepatches within `hurry`, does this and that to them, and returns when they have ended and all
/// their events were seen.
pub async fn use_farm(name: &'static str, count: usize, hurry: Duration, book: Book) -> turmoil::Result {
    // As the command line's.
    let endpoint = Endpoint::from(net::uri())
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10));
    let service = LivepatchServiceClient::new(net::channel(&endpoint));
    let client = Client { service, book };
    let mut following = Vec::new();
    for n in 0..count {
        pause(hurry / 2 / count as u32).await;
        let request = v1::SubmitRequest {
            id: LivepatchId(Uuid::from_u128(fastrand::u128(..))).to_string(),
            spec: Some(spec(&format!("{name}-{n}"))),
            share: None,
            fix_contents: Vec::new(),
            ..Default::default()
        };
        client.submit(&request).await;
        let (client, request) = (client.clone(), request);
        following.push(tokio::spawn(async move {
            for _ in 0..fastrand::u32(0..4) {
                pause(hurry / 6).await;
                client.change(&request).await;
            }
            client.ask("resume", &request.id, Client::resume).await;
            client.follow(&request.id).await;
        }));
    }
    for following in following {
        following.await?;
    }
    Ok(())
}

async fn pause(most: Duration) {
    tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
}

fn spec(name: &str) -> v1::Spec {
    v1::Spec {
        name: name.to_owned(),
        targets: vec![v1::Target {
            file: "kernel/fork.c".to_owned(),
            functions: vec!["copy_process".to_owned()],
            config: "CONFIG_MMU".to_owned(),
            object: "vmlinux".to_owned(),
        }],
        ..v1::Spec::default()
    }
}

fn by_id(id: &str) -> Option<v1::LivepatchRef> {
    Some(v1::LivepatchRef {
        r#ref: Some(v1::livepatch_ref::Ref::Id(id.to_owned())),
    })
}

/// Whether the coordinator was away, or did not answer; or has not met a worker yet.
fn is_transient(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
        || status.message().contains("holds no tree yet")
        // The connection broke, as h2 says it.
        || (status.code() == Code::Internal && status.message().contains("h2 protocol error"))
}

impl Client {
    /// Sends it until it is answered.
    async fn submit(&self, request: &v1::SubmitRequest) {
        let submit = |mut client: Client, _| {
            let request = request.clone();
            async move { client.service.submit(request).await.map(drop) }
        };
        if self.ask("submit", &request.id, submit).await {
            self.book.submitted(&request.id);
        }
    }

    /// Does something to a livepatch, or sends it once more.
    async fn change(&self, request: &v1::SubmitRequest) {
        match fastrand::u32(0..6) {
            0 => self.ask("cancel", &request.id, Self::cancel).await,
            1 | 2 => self.ask("retry", &request.id, Self::retry).await,
            3 => self.ask("pause", &request.id, Self::pause).await,
            4 => self.ask("resume", &request.id, Self::resume).await,
            _ => return self.submit(request).await,
        };
    }

    async fn cancel(mut self, id: String) -> Result<(), Status> {
        let (livepatch, reason) = (by_id(&id), String::new());
        let answer = self.service.cancel(v1::CancelRequest { livepatch, reason }).await;
        answer.map(drop)
    }

    async fn retry(mut self, id: String) -> Result<(), Status> {
        let livepatch = by_id(&id);
        let request = v1::RetryRequest {
            livepatch,
            ..v1::RetryRequest::default()
        };
        match self.service.retry(request).await {
            // There is nothing to retry.
            Err(status) if status.code() == Code::FailedPrecondition => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn pause(mut self, id: String) -> Result<(), Status> {
        let (livepatch, reason) = (by_id(&id), String::new());
        ended_is_fine(self.service.pause(v1::PauseRequest { livepatch, reason }).await)
    }

    async fn resume(mut self, id: String) -> Result<(), Status> {
        let livepatch = by_id(&id);
        ended_is_fine(self.service.resume(v1::ResumeRequest { livepatch }).await)
    }

    /// Asks until there is an answer; anything but a break of the connection is one. Answers whether it is done.
    async fn ask<F>(&self, what: &str, id: &str, ask: impl Fn(Client, String) -> F) -> bool
    where
        F: Future<Output = Result<(), Status>>,
    {
        loop {
            match ask(self.clone(), id.to_owned()).await {
                Err(status) if is_transient(&status) => {
                    self.book
                        .say(format!("{what} {id}: {:?} {}", status.code(), status.message()));
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                answer => {
                    self.book.heard(what, id, &answer);
                    return answer.is_ok();
                }
            }
        }
    }

    /// Reads events from where it was left, again and again, until the livepatch has ended and the last was seen.
    async fn follow(&self, id: &str) {
        let mut seen = 0;
        loop {
            let watched = self.watch(id, &mut seen).await;
            match watched {
                Ok(()) if self.has_ended(id, seen).await => return,
                Ok(()) => {}
                Err(status) if is_transient(&status) => {}
                Err(status) => self.book.wrong(format!("watching {id}: {status}")),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn watch(&self, id: &str, seen: &mut u64) -> Result<(), Status> {
        let request = v1::WatchRequest {
            livepatch: by_id(id),
            after_event: *seen,
        };
        let mut events = self.service.clone().watch(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            self.book.saw(id, &event);
            *seen = event.number;
        }
        Ok(())
    }

    async fn has_ended(&self, id: &str, seen: u64) -> bool {
        let request = v1::GetRequest {
            livepatch: by_id(id),
            ..Default::default()
        };
        let answer = self.service.clone().get(request).await.map(Response::into_inner);
        let livepatch = answer.ok().and_then(|answer| answer.livepatch);
        livepatch.is_some_and(|livepatch| livepatch.ended_ms > 0 && livepatch.last_event == seen)
    }
}

fn ended_is_fine<T>(answer: Result<Response<T>, Status>) -> Result<(), Status> {
    match answer {
        Err(status) if status.code() == Code::FailedPrecondition => Ok(()),
        answer => answer.map(drop),
    }
}
