//! A farm for one livepatch, in this process: what `--kdir` and `--data-dir` ask for, so that one machine with kernels on its
//! disk needs no other. Its state is beside the livepatch, in `<work folder>/<name>/.klp-farm`, and later commands on the
//! livepatch find it there.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use klp_coordinator::{Config, Coordinator};
use klp_livepatch::Arch;
use klp_livepatch::names::LivepatchName;
use klp_livepatch::task::Platform;
use klp_worker::trees::{TreeStore, kdir};
use klp_worker::{WorkerConfig, config, worker};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Uri;

use crate::client::Client;
use crate::output::Failed;

/// What klp-build calls the one codestream of a kernel in a folder.
const KDIR_CODESTREAM: &str = "linux";

const FOLDER: &str = ".klp-farm";
const RECORD: &str = "local.json";

/// How long the worker may take to be there: it looks at every tree and tries every tool.
const START: Duration = Duration::from_secs(120);

#[derive(Args)]
pub struct LocalArgs {
    /// Ask no farm: work here, on a built kernel in the folder --data-dir or KLP_DATA_DIR names
    #[arg(long)]
    kdir: bool,
    /// Ask no farm: work here, on SUSE's kernels in this folder (with --kdir: on the built kernel in it)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Where a livepatch's own farm finds its kernels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Local {
    kdir: bool,
    data_dir: PathBuf,
}

impl LocalArgs {
    /// The kernels that the flags name; `None`: they ask for no farm of the livepatch's own.
    fn wanted(&self) -> anyhow::Result<Option<Local>> {
        let (kdir, named) = (self.kdir, self.data_dir.clone());
        let dir = match (kdir, named) {
            (false, None) => return Ok(None),
            (_, Some(dir)) => dir,
            (true, None) => match std::env::var_os(config::SUSE_DATA_DIR) {
                Some(dir) => PathBuf::from(dir),
                None => bail!("--kdir needs the kernel's folder: name it with --data-dir or KLP_DATA_DIR"),
            },
        };
        let data_dir = dir
            .canonicalize()
            .with_context(|| format!("can't open {}", dir.display()))?;
        Ok(Some(Local { kdir, data_dir }))
    }
}

/// A farm that runs until it is stopped.
pub struct LocalFarm {
    coordinator: Coordinator,
    worker: JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
    uri: Uri,
}

impl LocalFarm {
    /// The farm that the flags ask for, or that the livepatch had before; `None`: neither.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn for_livepatch(
        args: Option<&LocalArgs>,
        name: &str,
        work_dir: &Path,
        catalog: Option<PathBuf>,
    ) -> Result<Option<Self>, Failed> {
        let wanted = args.map(LocalArgs::wanted).transpose()?.flatten();
        // What is no name is told by whoever checks the livepatch.
        let Ok(name) = name.parse::<LivepatchName>() else {
            return Ok(None);
        };
        let folder = work_dir.join(name.as_str()).join(FOLDER);
        let local = match wanted {
            Some(local) => local,
            None => match recorded(&folder)? {
                Some(local) => local,
                None => return Ok(None),
            },
        };
        Ok(Some(Self::start(&folder, &local, catalog).await?))
    }

    async fn start(folder: &Path, local: &Local, catalog: Option<PathBuf>) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        let trees_dir = folder.join("trees");
        if local.kdir {
            add_kernel(&trees_dir, &local.data_dir).await?;
        }
        let record = folder.join(RECORD);
        fs::write(&record, serde_json::to_vec(local)?).with_context(|| format!("can't write {}", record.display()))?;
        let coordinator = Coordinator::start(Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            // For this process alone.
            insecure: true,
            data_dir: folder.join("coordinator"),
            catalog: catalog.clone(),
            ..Config::default()
        });
        let coordinator = coordinator.await?;
        let uri: Uri = format!("http://{}", coordinator.local_addr()).parse()?;
        let stop = CancellationToken::new();
        let worker = worker::run(
            WorkerConfig {
                coordinator: uri.clone(),
                name: config::laptop_name(),
                trees_dir,
                data_dir: folder.join("worker"),
                kernel_source: std::env::var_os("KLP_KERNEL_SOURCE").map(PathBuf::from),
                catalog,
                suse_data_dir: (!local.kdir).then(|| local.data_dir.clone()),
                slots: config::default_slots(),
                tools: config::ToolPaths::from_env(),
                tuned: config::Tunable::new(config::Tuned::at_a_desk()),
                isolation: Default::default(),
            },
            stop.clone().cancelled_owned(),
        );
        let worker = tokio::spawn(worker);
        let farm = Self {
            coordinator,
            worker,
            stop,
            uri,
        };
        farm.until_ready().await?;
        Ok(farm)
    }

    pub fn client(&self) -> Client {
        Client::own(self.uri.clone())
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        let client = self.client();
        let ready = async {
            while !self.worker.is_finished() {
                if let Ok(known) = client.workers().await
                    && known.workers.iter().any(|w| w.connected && !w.trees.is_empty())
                {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            bail!("this machine's own worker ended at once; RUST_LOG=info shows why")
        };
        match tokio::time::timeout(START, ready).await {
            Ok(ready) => ready,
            Err(_) => bail!(
                "no kernel in the folder can be used; `klp-worker tree list` with the same folder (KLP_DATA_DIR) says what is \
                 missing"
            ),
        }
    }

    /// Stops it; what it was doing goes on with the next command on the livepatch.
    pub async fn stop(self) {
        self.stop.cancel();
        // It was asked to end, and how it does is in its log.
        let _ = self.worker.await;
        self.coordinator.shutdown().await;
    }
}

fn recorded(folder: &Path) -> anyhow::Result<Option<Local>> {
    let path = folder.join(RECORD);
    match fs::read(&path) {
        Ok(bytes) => {
            let local = serde_json::from_slice(&bytes);
            Ok(Some(local.with_context(|| {
                format!("{} is not what was written there", path.display())
            })?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

/// Takes the kernel in a folder as the one tree there is.
async fn add_kernel(trees_dir: &Path, kernel: &Path) -> anyhow::Result<()> {
    let store = TreeStore::open(trees_dir)?;
    let request = kdir::Request {
        path: kernel.to_owned(),
        platform: Platform {
            codestream: KDIR_CODESTREAM.parse()?,
            arch: Arch::host().context("this machine's architecture is none that livepatches are made for")?,
        },
        mod_dir: None,
    };
    kdir::add(&store, &request, &CancellationToken::new(), &mut |text| {
        eprintln!("{text}")
    })
    .await?;
    Ok(())
}
