//! Makes what a farm needs before its coordinator can let anybody in: a CA, the coordinator's certificate, and a first token
//! for an admin.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use klp_identity::authority::{AUTHORITY_LIFE, SERVER_LIFE, Span};
use klp_identity::{Authority, Kind, Role, Token, certificate, files as texts};
use serde::Serialize;

use super::Folder;
use crate::Config;
use crate::aside::Aside;
use crate::auth::{files, signing};
use crate::clock::Clock;
use crate::ledger::access;
use crate::store::{Change, Store, StoreError};

/// The name of the first token.
const FIRST: &str = "admin";

/// What was made.
#[derive(Debug, Serialize)]
pub struct Made {
    pub ca: PathBuf,
    /// By which a worker recognises the farm when it enrolls.
    pub ca_sha256: String,
    /// What the coordinator may be asked by.
    pub names: Vec<String>,
    /// How long its certificate lasts, in milliseconds since the Unix epoch.
    pub expires_ms: i64,
    /// The admin's token, which is kept nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Makes everything anew; overwrites nothing.
///
/// # Errors
/// Something is there already, a coordinator uses the folder, or the disk's.
pub async fn init(config: &Config, names: &[String]) -> anyhow::Result<Made> {
    let data = Folder::new(&config.data_dir);
    std::fs::create_dir_all(data.path()).with_context(|| format!("can't make {}", data.path().display()))?;
    let _lock = own(&data)?;
    let folder = files::folder(data.path());
    for path in [
        files::ca(&folder),
        files::ca_key(&folder),
        files::server(&folder),
        files::server_key(&folder),
    ] {
        if path.exists() {
            bail!(
                "{} exists already, and nothing is overwritten: --rotate-server renews the coordinator's certificate, --rotate-ca the \
                 CA, --new-token makes another admin's token. For a farm that starts anew, with every worker enrolled again, remove {} \
                 first",
                path.display(),
                folder.display()
            );
        }
    }
    let clock = Clock::system();
    texts::private_folder(&folder)?;
    let names = with_usual(names);
    let called = certificate::authority_name(&names[0]);
    let (authority, key) = Authority::new(&called, Span::from_now(clock.now(), AUTHORITY_LIFE)?)?;
    texts::write_private(&files::ca_key(&folder), &key)?;
    texts::write_public(&files::ca(&folder), authority.pem())?;
    let expires_ms = write_server(&folder, &authority, &names, clock.now())?;
    signing::current(data.path(), clock.now())?;
    let token = first_token(config, &data, clock).await?;
    Ok(Made {
        ca: files::ca(&folder),
        ca_sha256: authority.fingerprint()?.to_string(),
        names,
        expires_ms,
        token: Some(token),
    })
}

/// Renews the coordinator's certificate, also beside a running one, which takes it within a second. Its names stay, and get
/// more.
///
/// # Errors
/// There is no CA, or the disk's.
pub fn rotate_server(config: &Config, names: &[String]) -> anyhow::Result<Made> {
    let (folder, authority) = authority(config)?;
    let former = texts::read(&files::server(&folder))?;
    let mut all = certificate::names(&certificate::first(&former)?)?;
    all.extend(
        names
            .iter()
            .filter(|name| !all.contains(name))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let expires_ms = write_server(&folder, &authority, &all, Clock::system().now())?;
    Ok(Made {
        ca: files::ca(&folder),
        ca_sha256: authority.fingerprint()?.to_string(),
        names: all,
        expires_ms,
        token: None,
    })
}

/// Makes another key to sign statements with, also beside a running coordinator, which takes it at once; answers its id.
///
/// # Errors
/// There is no data folder, or the disk's.
pub fn rotate_signer(config: &Config) -> anyhow::Result<String> {
    let data = Folder::existing(&config.data_dir)?;
    Ok(signing::rotate(data.path(), Clock::system().now())?.key_id())
}

/// Makes another admin's token, for a farm whose admins have lost theirs.
///
/// # Errors
/// A coordinator uses the folder, or the disk's.
pub async fn new_token(config: &Config) -> anyhow::Result<String> {
    let data = Folder::existing(&config.data_dir)?;
    let _lock = own(&data)?;
    first_token(config, &data, Clock::system()).await
}

fn authority(config: &Config) -> anyhow::Result<(PathBuf, Authority)> {
    let folder = files::folder(&config.data_dir);
    let read = texts::read(&files::ca(&folder)).and_then(|ca| Ok((ca, texts::read(&files::ca_key(&folder))?)));
    let (ca, key) = read.context("there is no CA; make one with `klp-coordinator init`")?;
    Ok((folder, Authority::open(&ca, &key)?))
}

fn own(data: &Folder) -> anyhow::Result<std::fs::File> {
    let dir = data.path().display();
    let lock = data.try_own().with_context(|| format!("can't lock {dir}"))?;
    lock.with_context(|| {
        format!("a coordinator uses {dir}; stop it first. Another token comes from `klp-farm token create`, too")
    })
}

/// Whoever reads them in between finds a certificate and a key that don't belong together, and looks again.
pub(super) fn write_server(folder: &Path, authority: &Authority, names: &[String], now: i64) -> anyhow::Result<i64> {
    let (issued, key) = authority.server(names, Span::from_now(now, SERVER_LIFE)?)?;
    texts::write_private(&files::server_key(folder), &key)?;
    texts::write_public(&files::server(folder), &issued.pem)?;
    Ok(issued.until_ms)
}

async fn first_token(config: &Config, data: &Folder, clock: Clock) -> anyhow::Result<String> {
    let token = Token::new(Kind::Access)?;
    let shown = token.reveal();
    let nobody = |_: Vec<Change>| {};
    let (store, writing) = Store::open(&data.database(), config.readers as usize, Aside::Threads, nobody)?;
    let now = clock.now();
    let add = move |tx: &mut crate::store::Tx<'_>| {
        access::add_token(tx, &token, (FIRST, Role::Admin), "klp-coordinator init", None, now)
    };
    store.write::<_, StoreError>(add).await?;
    drop(store);
    // It ends when all is written.
    let _ = writing.await;
    Ok(shown)
}

/// The names that were given, and those by which this machine is asked anyway.
fn with_usual(names: &[String]) -> Vec<String> {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let usual = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut all: Vec<String> = Vec::new();
    for name in names
        .iter()
        .cloned()
        .chain(host.filter(|host| !host.is_empty()))
        .chain(usual)
    {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}
