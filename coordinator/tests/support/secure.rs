//! A coordinator that knows who is who, and callers of each kind.
#![allow(dead_code, reason = "not every test file uses all of it")]

use std::net::SocketAddr;
use std::sync::Arc;

use klp_coordinator::admin::init;
use klp_coordinator::{Config, Coordinator};
use klp_identity::{Authority, Role, Token, Trust, authority, certificate, trust};
use klp_proto::v1;
use klp_proto::v1::access_service_client::AccessServiceClient;
use klp_proto::v1::fleet_service_client::FleetServiceClient;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::platform;

pub struct Secure {
    pub coordinator: Coordinator,
    pub config: Config,
    ca: String,
    admin: String,
    dir: TempDir,
}

/// A caller's way to the farm.
pub struct Called {
    channel: Channel,
    header: Header,
}

#[derive(Clone)]
pub struct Header(Option<String>);

impl Interceptor for Header {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(text) = &self.0 {
            request.metadata_mut().insert("authorization", text.parse().unwrap());
        }
        Ok(request)
    }
}

type Intercepted = InterceptedService<Channel, Header>;

impl Secure {
    /// A farm on loopback that `init` has prepared.
    pub async fn start(settings: &str) -> Self {
        Self::start_with(settings, None).await
    }

    pub async fn start_with(settings: &str, http: Option<SocketAddr>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.toml");
        std::fs::write(&file, settings).unwrap();
        let config = Config {
            insecure: false,
            http_listen: http,
            tryout_ms: 0,
            data_dir: dir.path().join("data"),
            listen: ([127, 0, 0, 1], 0).into(),
            ..Config::read(&file).unwrap()
        };
        let made = init::init(&config, &[]).await.unwrap();
        let coordinator = Coordinator::start(config.clone()).await.unwrap();
        assert_eq!(coordinator.scheme(), "https");
        Self {
            coordinator,
            ca: std::fs::read_to_string(made.ca).unwrap(),
            admin: made.token.unwrap(),
            config,
            dir,
        }
    }

    /// The same people and workers, with another coordinator.
    pub fn moved_to(self, coordinator: Coordinator) -> Self {
        Self { coordinator, ..self }
    }

    pub fn now(&self) -> i64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        i64::try_from(now.unwrap().as_millis()).unwrap()
    }

    pub fn authority(&self) -> Authority {
        let key = std::fs::read_to_string(self.config.data_dir.join("tls/ca.key")).unwrap();
        Authority::open(&self.ca, &key).unwrap()
    }

    /// Everybody trusts these from now on.
    pub fn trust(&mut self, ca: &str) {
        ca.clone_into(&mut self.ca);
    }

    fn called(&self, own: Option<&str>, header: Option<String>) -> Called {
        let url = format!("https://{}", self.coordinator.local_addr());
        let endpoint = Endpoint::from_shared(url).unwrap();
        let endpoint = Trust::Authority(self.ca.clone()).secure(endpoint, own).unwrap();
        Called {
            channel: endpoint.connect_lazy(),
            header: Header(header),
        }
    }

    pub fn admin(&self) -> Called {
        self.with_token(&self.admin)
    }

    pub fn admin_token(&self) -> &str {
        &self.admin
    }

    pub fn anonymous(&self) -> Called {
        self.called(None, None)
    }

    pub fn with_header(&self, header: &str) -> Called {
        self.called(None, Some(header.to_owned()))
    }

    pub fn with_token(&self, token: &str) -> Called {
        self.called(None, Some(format!("Bearer {token}")))
    }

    /// `pem`: key and certificate.
    pub async fn with_certificate(&self, pem: &str) -> Called {
        self.called(Some(pem), None)
    }

    /// Somebody who doesn't speak TLS.
    pub fn plaintext(&self) -> Called {
        let url = format!("http://{}", self.coordinator.local_addr());
        Called {
            channel: Endpoint::from_shared(url).unwrap().connect_lazy(),
            header: Header(None),
        }
    }

    pub async fn token(&self, name: &str, role: Role) -> String {
        self.token_until(name, role, 0).await
    }

    pub async fn token_until(&self, name: &str, role: Role, expires_ms: i64) -> String {
        let request = v1::CreateTokenRequest {
            name: name.to_owned(),
            role: role.to_string(),
            expires_ms,
        };
        let made = self.admin().access().create_token(request).await.unwrap();
        made.into_inner().secret
    }

    pub async fn revoke_token(&self, token: &str) {
        let id = token.parse::<Token>().unwrap().id.to_string();
        let request = v1::RevokeTokenRequest { id };
        self.admin().access().revoke_token(request).await.unwrap();
    }

    pub async fn enrollment(&self, worker: &str) -> String {
        self.enrollment_for(worker, 0).await
    }

    pub async fn enrollment_for(&self, worker: &str, valid_ms: u64) -> String {
        let request = v1::CreateEnrollmentRequest {
            worker: worker.to_owned(),
            valid_ms,
        };
        let made = self.admin().access().create_enrollment(request).await.unwrap();
        made.into_inner().secret
    }

    /// The key and certificate of a new worker.
    pub async fn enroll(&self, worker: &str) -> String {
        let token = self.enrollment(worker).await;
        self.enroll_with(&token, worker).await.unwrap()
    }

    pub async fn enroll_with(&self, token: &str, worker: &str) -> Result<String, Status> {
        let (key, request_pem) = authority::request(&worker.parse().unwrap()).unwrap();
        let request = v1::EnrollRequest {
            token: token.to_owned(),
            request_pem,
        };
        let given = self.anonymous().access().enroll(request).await?.into_inner();
        assert_eq!((given.worker.as_str(), &given.ca_pem), (worker, &self.ca));
        Ok(key + &given.certificate_pem)
    }

    pub async fn revoke_worker(&self, worker: &str) {
        let worker = worker.to_owned();
        let request = v1::RevokeWorkerRequest { worker };
        self.admin().access().revoke_worker(request).await.unwrap();
    }

    pub async fn audit(&self) -> Vec<v1::AuditEntry> {
        let listed = self.admin().access().list_audit(v1::ListAuditRequest::default()).await;
        listed.unwrap().into_inner().entries
    }

    /// Has a worker announce the tree `a` and go, so that livepatches find a codestream.
    pub async fn known_tree(&self) {
        let worker = self.with_certificate(&self.enroll("holder").await).await;
        let (states, receiver) = mpsc::channel(1);
        let state = v1::WorkerState {
            worker: "holder".to_owned(),
            incarnation: Uuid::now_v7().to_string(),
            trees: vec![platform("a")],
            draining: true,
            ..Default::default()
        };
        states.send(state).await.unwrap();
        let answers = worker.workers().session(ReceiverStream::new(receiver)).await.unwrap();
        answers.into_inner().message().await.unwrap().unwrap();
    }

    async fn handshake(&self, address: SocketAddr, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate::first(&self.ca).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(trust::provider());
        let config = config
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let socket = TcpStream::connect(address).await.unwrap();
        connector.connect(address.ip().into(), socket).await.unwrap()
    }

    /// The certificate that the coordinator shows now.
    pub async fn shown_certificate(&self) -> Vec<u8> {
        let stream = self.handshake(self.coordinator.local_addr(), b"h2").await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    /// Sends one request by HTTP/1.1; answers the status, the head and the body.
    pub async fn http(&self, request: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
        let address = self.coordinator.http_addr().unwrap();
        let mut stream = self.handshake(address, b"http/1.1").await;
        let mut text = format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Whoever closes without a farewell has still answered.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, head.to_owned(), body.to_owned())
    }
}

impl Called {
    fn over(&self) -> Intercepted {
        InterceptedService::new(self.channel.clone(), self.header.clone())
    }

    pub fn access(&self) -> AccessServiceClient<Intercepted> {
        AccessServiceClient::new(self.over())
    }

    pub fn livepatches(&self) -> LivepatchServiceClient<Intercepted> {
        LivepatchServiceClient::new(self.over())
    }

    pub fn fleet(&self) -> FleetServiceClient<Intercepted> {
        FleetServiceClient::new(self.over())
    }

    pub fn workers(&self) -> WorkerServiceClient<Intercepted> {
        WorkerServiceClient::new(self.over())
    }

    pub async fn submit(&self, spec: v1::Spec) -> Result<v1::Livepatch, Status> {
        let request = v1::SubmitRequest {
            id: Uuid::now_v7().to_string(),
            spec: Some(spec),
            ..Default::default()
        };
        Ok(self
            .livepatches()
            .submit(request)
            .await?
            .into_inner()
            .livepatch
            .unwrap())
    }

    pub async fn list_workers(&self) -> Vec<v1::Worker> {
        let listed = self.fleet().list_workers(v1::ListWorkersRequest {}).await;
        listed.unwrap().into_inner().workers
    }

    /// Calls a method with an empty message; answers what its answer begins with.
    pub async fn call(&self, path: &str) -> (Code, String) {
        let mut client = tonic::client::Grpc::new(self.over());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        let path = path.parse().unwrap();
        let called = client.server_streaming(Request::new(()), path, codec).await;
        match called {
            Ok(_) => (Code::Ok, String::new()),
            Err(status) => (status.code(), status.message().to_owned()),
        }
    }
}
