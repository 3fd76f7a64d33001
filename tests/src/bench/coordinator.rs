//! A coordinator as a child process, and what the kernel says it uses.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use klp_livepatch::outcome::{Artifact, Digest};
use klp_proto::v1;
use klp_proto::v1::livepatch_service_client::LivepatchServiceClient;
use klp_proto::v1::worker_service_client::WorkerServiceClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use super::worker::Simulated;

/// What every simulated extraction gives.
pub const SOURCE: &[u8] = b"int klpp_f(void) { return 0; }\n";

/// Nothing that is measured takes this long; what does is stuck.
pub const PATIENCE: Duration = Duration::from_secs(600);

pub struct Coordinator {
    child: Child,
    pub url: String,
    /// Of its dashboard.
    pub http: String,
    dir: TempDir,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub cpu: Duration,
    /// Bytes.
    pub resident: u64,
    /// Bytes.
    pub peak: u64,
}

impl Coordinator {
    /// Starts one on an empty folder below `disk`.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(disk: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("klp-farm-bench-").tempdir_in(disk)?;
        let config = "tryout_ms = 0\nmax_open_livepatches = 1000000\ncheck_memory = 1\nextract_memory = 1\n\
                      http_listen = \"127.0.0.1:0\"\n";
        std::fs::write(dir.path().join("coordinator.toml"), config)?;
        let (child, url, http) = spawn(dir.path(), "127.0.0.1:0")?;
        Ok(Self { child, url, http, dir })
    }

    /// Kills it and starts it again on the same port and data.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let address = self.url.trim_start_matches("http://").to_owned();
        (self.child, self.url, self.http) = spawn(self.dir.path(), &address)?;
        Ok(())
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// # Errors
    /// It does not run.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.child.id())
    }

    /// # Errors
    /// It does not listen.
    pub async fn connect(&self) -> Result<Channel> {
        Ok(Endpoint::from_shared(self.url.clone())?
            .tcp_nodelay(true)
            .connect()
            .await?)
    }

    /// Makes all platforms known, by a worker without slots, and uploads what extractions give.
    ///
    /// # Errors
    /// It is refused.
    pub async fn prepare(&self) -> Result<()> {
        let channel = self.connect().await?;
        Simulated::new("holder", 0).open(channel.clone()).await?.hear().await?;
        upload_source(channel).await
    }

    /// Submits livepatches until `tasks` more tasks are queued, each with one for each platform; answers their names.
    ///
    /// # Errors
    /// One is refused.
    pub async fn fill(&self, tasks: usize) -> Result<Vec<String>> {
        let client = LivepatchServiceClient::new(self.connect().await?);
        let (mut open, mut names) = (tokio::task::JoinSet::new(), Vec::new());
        for _ in 0..tasks.div_ceil(super::PLATFORMS) {
            if open.len() >= 16 {
                names.push(open.join_next().await.context("nothing is open")???);
            }
            let client = client.clone();
            open.spawn(async move { submit(client, "cs-.*").await });
        }
        while let Some(done) = open.join_next().await {
            names.push(done??);
        }
        Ok(names)
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Uploads what every simulated extraction gives.
///
/// # Errors
/// It is refused.
pub async fn upload_source(channel: Channel) -> Result<()> {
    upload(channel, SOURCE).await
}

/// # Errors
/// It is refused.
pub async fn upload(channel: Channel, bytes: &[u8]) -> Result<()> {
    use v1::upload_artifact_request::Part;
    let header = Part::Header(v1::UploadHeader {
        digest: Digest::of(bytes).to_string(),
        size: bytes.len() as u64,
    });
    let parts = [header, Part::Data(bytes.to_vec())];
    let parts = parts.map(|part| v1::UploadArtifactRequest { part: Some(part) });
    WorkerServiceClient::new(channel)
        .upload_artifact(tokio_stream::iter(parts))
        .await?;
    Ok(())
}

/// Submits a livepatch for the codestreams that match; answers its name.
///
/// # Errors
/// It is refused.
pub async fn submit(mut client: LivepatchServiceClient<Channel>, codestreams: &str) -> Result<String> {
    let request = order(codestreams);
    let name = request.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default();
    client.submit(request).await?;
    Ok(name)
}

/// A livepatch of one function, for the codestreams that match, under a name of its own.
pub fn order(codestreams: &str) -> v1::SubmitRequest {
    let id = Uuid::now_v7();
    let spec = v1::Spec {
        name: format!("bench-{id}"),
        codestreams: codestreams.to_owned(),
        targets: vec![v1::Target {
            file: "sound/core/pcm.c".into(),
            functions: vec!["snd_pcm_attach_substream".into()],
            config: "CONFIG_SND_PCM".into(),
            object: "snd-pcm".into(),
        }],
        ..Default::default()
    };
    v1::SubmitRequest {
        id: id.to_string(),
        spec: Some(spec),
        ..Default::default()
    }
}

/// The artifact of a simulated extraction.
pub fn source(file: &str) -> v1::Artifact {
    v1::Artifact::from(&Artifact {
        name: file.to_owned(),
        digest: Digest::of(SOURCE),
        size: SOURCE.len() as u64,
    })
}

fn spawn(dir: &Path, listen: &str) -> Result<(Child, String, String)> {
    let program = std::env::current_exe()?.with_file_name("klp-coordinator");
    let (out, log) = (dir.join("out"), dir.join("log"));
    let mut child = Command::new(&program)
        .arg("--config")
        .arg(dir.join("coordinator.toml"))
        .args(["--insecure", "--listen", listen])
        .arg("--data-dir")
        .arg(dir.join("data"))
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(File::create(&out)?)
        .stderr(File::create(&log)?)
        .spawn()
        .with_context(|| format!("can't start {}; build the workspace first", program.display()))?;
    let start = Instant::now();
    loop {
        let text = std::fs::read_to_string(&out)?;
        let said = |prefix| text.lines().find_map(|line| line.strip_prefix(prefix));
        if let (Some(url), Some(http)) = (said("listening on "), said("dashboard at ")) {
            return Ok((child, url.to_owned(), http.to_owned()));
        }
        if child.try_wait()?.is_some() || start.elapsed() > PATIENCE {
            // What keeps it from listening is in its log.
            let _ = child.kill();
            bail!("the coordinator did not come up: {}", std::fs::read_to_string(&log)?);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a process uses, as /proc says.
///
/// # Errors
/// It does not run.
pub fn usage(pid: u32) -> Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name, in parentheses, may hold anything; what is counted comes after it.
    let rest = stat.rsplit(')').next().context("stat has no name")?;
    let field = |n: usize| rest.split_whitespace().nth(n).and_then(|f| f.parse::<u64>().ok());
    let ticks = field(11).context("no utime")? + field(12).context("no stime")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
    };
    Ok(Usage {
        // Linux counts in hundredths of a second towards user space, whatever its own tick.
        cpu: Duration::from_millis(ticks * 10),
        resident: bytes("VmRSS:").context("no VmRSS")?,
        peak: bytes("VmHWM:").context("no VmHWM")?,
    })
}
