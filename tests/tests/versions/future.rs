//! Coordinators of other versions than ours, as a worker or a command line of ours meets them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{HeaderMap, Uri, header};
use klp_proto::protocol::VERSION_HEADER;
use klp_proto::v1;
use klp_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use klp_tests::serve;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// A coordinator of the future: it refuses the first session, and speaks to the next in a version that nobody knows yet.
pub struct Future {
    seen: Arc<Seen>,
    pub url: String,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct Seen {
    sessions: AtomicUsize,
    /// Of everything but sessions.
    calls: AtomicUsize,
}

impl Future {
    pub fn start() -> Self {
        let seen = Arc::<Seen>::default();
        let service = WorkerServiceServer::new(Service(seen.clone()));
        let (url, runtime) = serve(Server::builder().add_service(service));
        Self {
            seen,
            url,
            _runtime: runtime,
        }
    }

    /// How often it was asked for anything but a session.
    pub fn calls(&self) -> usize {
        self.seen.calls.load(Ordering::SeqCst)
    }
}

struct Service(Arc<Seen>);

type Stream<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    fn called<T>(&self) -> Result<Response<T>, Status> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        Err(Status::unavailable("not now"))
    }
}

#[tonic::async_trait]
impl WorkerService for Service {
    type SessionStream = Stream<v1::FarmState>;

    async fn session(
        &self,
        request: Request<Streaming<v1::WorkerState>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let agent = request
            .metadata()
            .get("user-agent")
            .and_then(|agent| agent.to_str().ok());
        assert!(agent.is_some_and(|agent| agent.starts_with(concat!("klp-worker/", env!("CARGO_PKG_VERSION")))));
        let first = request.into_inner().message().await?;
        assert!(first.is_some_and(|state| state.protocol.is_some()));
        if self.0.sessions.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(Status::failed_precondition("Upgrade this worker at last"));
        }
        let attempt = v1::Attempt {
            task_id: uuid::Uuid::now_v7().to_string(),
            number: 1,
        };
        // An assignment that a worker of ours would begin and, since it makes no sense, fail at once.
        let assignment = v1::Assignment {
            attempt: Some(attempt),
            kind: v1::TaskKind::Check.into(),
            ..Default::default()
        };
        let state = v1::FarmState {
            assignments: vec![assignment],
            lease_ms: 30_000,
            heartbeat_ms: 500,
            protocol: 99,
            version: "99.0.0".to_owned(),
            ..Default::default()
        };
        let (states, receiver) = tokio::sync::mpsc::channel(1);
        states.send(Ok(state)).await.unwrap();
        tokio::spawn(async move { states.closed().await });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(
            receiver,
        ))))
    }

    async fn append_log(&self, _: Request<v1::AppendLogRequest>) -> Result<Response<v1::AppendLogResponse>, Status> {
        self.called()
    }

    async fn upload_artifact(
        &self,
        _: Request<Streaming<v1::UploadArtifactRequest>>,
    ) -> Result<Response<v1::UploadArtifactResponse>, Status> {
        self.called()
    }

    async fn answer_errand(
        &self,
        _: Request<v1::AnswerErrandRequest>,
    ) -> Result<Response<v1::AnswerErrandResponse>, Status> {
        self.called()
    }

    type DownloadArtifactStream = Stream<v1::ArtifactChunk>;

    async fn download_artifact(
        &self,
        _: Request<v1::GetArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        self.called()
    }

    async fn commit(&self, _: Request<v1::CommitRequest>) -> Result<Response<v1::CommitResponse>, Status> {
        self.called()
    }
}

/// The address of a coordinator that has none of the methods it is asked for, and says its version, or is too old for that.
pub async fn without_methods(version: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap| async move {
        let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        assert!(agent.is_some_and(|agent| agent.starts_with(concat!("klp-farm/", env!("CARGO_PKG_VERSION")))));
        let mut answer = axum::http::Response::builder()
            .header(header::CONTENT_TYPE, "application/grpc")
            .header("grpc-status", "12");
        if let Some(version) = version {
            answer = answer
                .header("grpc-message", format!("there is no method {}", uri.path()))
                .header(VERSION_HEADER, version);
        }
        answer.body(axum::body::Body::empty()).unwrap()
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}
