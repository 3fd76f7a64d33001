//! The connection to the coordinator.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use klp_identity::{Trust, explain, trust};
use klp_livepatch::names::LivepatchName;
use klp_livepatch::outcome::{Artifact, Digest};
use klp_livepatch::task::LivepatchId;
use klp_proto::protocol::VERSION_HEADER;
use klp_proto::v1::access_service_client::AccessServiceClient;
use klp_proto::v1::fleet_service_client::FleetServiceClient;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use klp_proto::v1::{self, livepatch_ref::Ref};
use klp_proto::{MAX_ANSWER, MAX_ARTIFACT, protocol};
use klp_telemetry::grpc::Carrier;
use klp_telemetry::{Root, TraceParent, redact};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

use crate::output::Failed;
use crate::settings::Settings;

pub struct Client {
    uri: Uri,
    channel: Channel,
    /// The token that says who asks, as it travels.
    bearer: Option<MetadataValue<Ascii>>,
    /// The trace of the livepatch that the command is about, once that is known.
    trace: OnceLock<TraceParent>,
    /// Its first span, if it began here; it ends with the command.
    root: OnceLock<Root>,
}

/// What every request carries: whose it is, and the trace that it is of.
#[derive(Clone)]
pub struct Carried {
    bearer: Option<MetadataValue<Ascii>>,
    trace: Carrier,
}

impl Interceptor for Carried {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        self.trace.call(request)
    }
}

type Carrying = InterceptedService<Channel, Carried>;

/// Whether the connection could not be made, or broke before the answer was there: it may have been done or not.
pub fn is_broken(status: &Status) -> bool {
    matches!(
        status.code(),
        // The latter three as tonic has it, depending on where in the request it broke.
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
    )
}

/// Whether a coordinator said it, not the transport, which names a source, or what stands between and speaks HTTP alone.
fn answered(status: &Status) -> bool {
    std::error::Error::source(status).is_none() && !status.message().contains("mapped from HTTP status code")
}

impl Client {
    /// The configured coordinator, asked by whom the settings say. Connects at the first call.
    ///
    /// # Errors
    /// The CA or the token can't be read, or one is missing.
    pub fn configured(settings: &Settings) -> anyhow::Result<Self> {
        let uri = settings.coordinator.clone();
        let token = trust::token(settings.token_file.clone(), std::env::var("KLP_FARM_TOKEN").ok())?;
        let bearer = token.as_ref().and_then(trust::bearer);
        if uri.scheme_str() != Some("https") {
            return Ok(Self::over(uri.clone(), endpoint(uri), bearer));
        }
        let ca = settings.ca.as_deref().context(
            "over https the farm's CA has to be known: name its ca.pem with --ca or KLP_FARM_CA, or as `ca` in the configuration; \
             it is no secret, and in the coordinator's data_dir/tls",
        )?;
        let secured = Trust::read(ca)?.secure(endpoint(uri.clone()), None)?;
        Ok(Self::over(uri, secured, bearer))
    }

    /// A coordinator in this process.
    pub fn own(uri: Uri) -> Self {
        Self::over(uri.clone(), endpoint(uri), None)
    }

    fn over(uri: Uri, endpoint: Endpoint, bearer: Option<MetadataValue<Ascii>>) -> Self {
        Self {
            uri,
            channel: endpoint.connect_lazy(),
            bearer,
            trace: OnceLock::new(),
            root: OnceLock::new(),
        }
    }

    fn carried(&self) -> Carried {
        Carried {
            bearer: self.bearer.clone(),
            trace: Carrier(self.trace.get().copied()),
        }
    }

    /// Where the coordinator is.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    pub fn livepatches(&self) -> LivepatchServiceClient<Carrying> {
        let carried = self.carried();
        LivepatchServiceClient::with_interceptor(self.channel.clone(), carried).max_decoding_message_size(MAX_ANSWER)
    }

    pub fn access(&self) -> AccessServiceClient<Carrying> {
        AccessServiceClient::with_interceptor(self.channel.clone(), self.carried())
            .max_decoding_message_size(MAX_ANSWER)
    }

    /// The command is about this livepatch: what is asked from now on belongs to its trace.
    pub fn about(&self, livepatch: &v1::Livepatch) {
        if let Some(id) = livepatch.id.parse().ok().map(LivepatchId) {
            // One command, one livepatch; another one's calls are told to be of the first.
            let _ = self.trace.set(TraceParent::of_livepatch(id));
        }
    }

    /// The trace of this livepatch begins with the command.
    pub fn begin(&self, livepatch: LivepatchId, root: Root) {
        let _ = self.trace.set(TraceParent::of_livepatch(livepatch));
        let _ = self.root.set(root);
    }

    pub fn fleet(&self) -> FleetServiceClient<Carrying> {
        FleetServiceClient::with_interceptor(self.channel.clone(), self.carried()).max_decoding_message_size(MAX_ANSWER)
    }

    /// A status as an error for people: a connection that failed says where to, and what to do.
    pub fn explain(&self, status: Status) -> Failed {
        if let Some(why) = explain::tls(&status) {
            return Failed::Error(anyhow::anyhow!(
                "can't talk to the coordinator at {}: {why}",
                redact::url(&self.uri)
            ));
        }
        // As while the coordinator itself can't reach its artifacts.
        if status.code() == Code::Unavailable && answered(&status) {
            return Failed::Error(anyhow::anyhow!(
                "the coordinator at {} can't do it now: {}",
                redact::url(&self.uri),
                status.message()
            ));
        }
        if status.code() == Code::Unavailable {
            return Failed::Error(anyhow::anyhow!(
                "can't reach the coordinator at {}: {}. Start one with `klp-coordinator` or `klp-farm up`, or name another with --coordinator",
                redact::url(&self.uri),
                innermost(&status)
            ));
        }
        // What the transport says itself has a source; what a coordinator answers has none.
        if is_broken(&status) && std::error::Error::source(&status).is_some() {
            return Failed::Error(anyhow::anyhow!(
                "the connection to the coordinator at {} broke: {}. Try again; what was asked may have been done",
                redact::url(&self.uri),
                innermost(&status)
            ));
        }
        if status.code() == Code::Unimplemented {
            return Failed::Error(anyhow::anyhow!("{}", not_there(&status)));
        }
        match Failed::from(status) {
            Failed::Error(error) => Failed::Error(error.context(format!(
                "the coordinator at {} refused",
                self.uri.authority().map_or("", |a| a.as_str().rsplit('@').next().unwrap_or_default())
            ))),
            failed => failed,
        }
    }

    pub async fn get(&self, name: &LivepatchName) -> Result<v1::GetResponse, Failed> {
        let request = v1::GetRequest {
            livepatch: Some(by_name(name)),
            ..Default::default()
        };
        let answer = self.livepatches().get(request).await;
        let answer = answer.map_err(|s| self.explain(s))?.into_inner();
        answer.livepatch.iter().for_each(|livepatch| self.about(livepatch));
        Ok(answer)
    }

    pub async fn groups(&self, name: &LivepatchName) -> Result<Vec<v1::Group>, Failed> {
        let request = v1::GroupsRequest {
            livepatch: Some(by_name(name)),
        };
        Ok(self
            .livepatches()
            .groups(request)
            .await
            .map_err(|s| self.explain(s))?
            .into_inner()
            .groups)
    }

    pub async fn workers(&self) -> Result<v1::ListWorkersResponse, Failed> {
        let answer = self.fleet().list_workers(v1::ListWorkersRequest {}).await;
        Ok(answer.map_err(|s| self.explain(s))?.into_inner())
    }

    /// An artifact's bytes, checked against its digest.
    pub async fn artifact(&self, artifact: &Artifact) -> Result<Vec<u8>, Failed> {
        let request = v1::GetArtifactRequest {
            digest: artifact.digest.to_string(),
        };
        let mut stream = self
            .livepatches()
            .get_artifact(request)
            .await
            .map_err(|s| self.explain(s))?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.message().await.map_err(|s| self.explain(s))? {
            bytes.extend_from_slice(&chunk.data);
            if bytes.len() as u64 > artifact.size.min(MAX_ARTIFACT) {
                break;
            }
        }
        if Digest::of(&bytes) != artifact.digest {
            return Err(Failed::Error(anyhow::anyhow!(
                "artifact {} arrived damaged: its bytes do not have the digest {}",
                artifact.name,
                artifact.digest
            )));
        }
        Ok(bytes)
    }
}

fn endpoint(uri: Uri) -> Endpoint {
    let endpoint = Endpoint::from(uri);
    let named = endpoint
        .clone()
        .user_agent(concat!("klp-farm/", env!("CARGO_PKG_VERSION")));
    named
        .unwrap_or(endpoint)
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
}

/// Why the coordinator has not got what was asked for.
fn not_there(status: &Status) -> String {
    let version = status
        .metadata()
        .get(VERSION_HEADER)
        .and_then(|version| version.to_str().ok());
    let method = status.message().strip_prefix("there is no method /");
    let method = method.and_then(|method| method.rsplit('/').next());
    let what = method.map_or("what this command asks for".to_owned(), |method| format!("`{method}`"));
    protocol::not_there(version, &what)
}

pub fn by_name(name: &LivepatchName) -> v1::LivepatchRef {
    v1::LivepatchRef {
        r#ref: Some(Ref::Name(name.to_string())),
    }
}

/// The last link of an error's chain, where the operating system's words are.
fn innermost(status: &Status) -> String {
    let mut error: &dyn std::error::Error = status;
    while let Some(source) = error.source() {
        error = source;
    }
    if std::ptr::eq(error as *const _ as *const u8, status as *const _ as *const u8) {
        status.message().to_owned()
    } else {
        error.to_string()
    }
}
