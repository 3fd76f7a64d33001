//! Replaces the farm's CA beside a running coordinator, one step at a time. Each step ends with one file that is renamed into
//! place, so whoever reads meanwhile, and whatever a step breaks off at, finds papers that belong together.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use klp_identity::authority::{AUTHORITY_LIFE, Span};
use klp_identity::{Authority, Fingerprint, certificate, files as texts};
use serde::Serialize;

use super::{Folder, init};
use crate::Config;
use crate::auth::rotation::{self, Stage, Step};
use crate::auth::{files, signing};
use crate::clock::Clock;
use crate::store;

/// What a step has come to.
#[derive(Debug, Serialize)]
pub struct Taken {
    pub ca: PathBuf,
    /// The CA that makes certificates, and all that are trusted.
    pub issuer_sha256: String,
    pub trusted_sha256: Vec<String>,
    /// What to do next.
    pub next: &'static str,
}

/// The papers as they are.
struct Papers {
    folder: PathBuf,
    /// All that are trusted.
    trusted: String,
    issuer: Authority,
    /// The one that is trusted and issues nothing yet.
    next: Option<Authority>,
}

/// Takes a step, unless it is not its turn or, without `force`, cuts off somebody.
///
/// # Errors
/// There is no CA, the step may not be taken, or the disk's.
pub fn rotate_ca(config: &Config, step: Step, force: bool) -> anyhow::Result<Taken> {
    let data = Folder::existing(&config.data_dir)?;
    let folder = files::folder(data.path());
    let one_at_a_time = File::open(&folder).with_context(|| format!("can't open {}", folder.display()))?;
    one_at_a_time
        .try_lock()
        .context("another step is being taken just now")?;
    let (papers, now) = (Papers::read(folder)?, Clock::system().now());
    let db = store::audit::open_existing(&data.database())?;
    let known = store::certificates(&db).context("can't read whom the farm has let in")?;
    let new = papers
        .next
        .as_ref()
        .unwrap_or(&papers.issuer)
        .fingerprint()?
        .to_string();
    match rotation::may(step, papers.stage()?, &new, &known, now) {
        Err(rotation::Refused::Unaware(_) | rotation::Refused::Held(_)) if force => {}
        allowed => allowed?,
    }
    match step {
        Step::Trust => papers.trust(now)?,
        Step::Issue => papers.issue(data.path(), now)?,
        Step::Retire => papers.retire()?,
    }
    let papers = Papers::read(papers.folder)?;
    Ok(Taken {
        ca: files::ca(&papers.folder),
        issuer_sha256: papers.issuer.fingerprint()?.to_string(),
        trusted_sha256: papers.issuer.told_to_trust()?,
        next: match step {
            Step::Trust => {
                "workers take it by themselves within a minute. Give everybody else the new ca.pem, which `klp-farm ca` prints; \
                 then have it make certificates with --rotate-ca issue"
            }
            Step::Issue => {
                "workers get theirs within a minute. What `klp-farm enroll` printed before is of no use any more: have it print anew. \
                 Then trust the former CA no more with --rotate-ca retire"
            }
            Step::Retire => {
                "the former CA is in ca-former.pem: statements that were signed until it was replaced are verified by it"
            }
        },
    })
}

impl Papers {
    fn read(folder: PathBuf) -> anyhow::Result<Self> {
        let read = texts::read(&files::ca(&folder)).and_then(|ca| Ok((ca, texts::read(&files::ca_key(&folder))?)));
        let (trusted, key) = read.context("there is no CA; make one with `klp-coordinator init`")?;
        let issuer = Authority::open(&trusted, &key)?;
        let next = files::ca_next_key(&folder);
        // A key whose certificate is not there is of a step that broke off.
        let next = match next.exists() {
            true => Authority::open(&trusted, &texts::read(&next)?).ok(),
            false => None,
        };
        Ok(Self {
            folder,
            trusted,
            issuer,
            next,
        })
    }

    fn stage(&self) -> anyhow::Result<Stage> {
        Ok(match (&self.next, certificate::all(&self.trusted)?.len()) {
            (Some(_), _) => Stage::Trusted,
            (None, 1) => Stage::Settled,
            (None, _) => Stage::Issuing,
        })
    }

    fn trust(&self, now: i64) -> anyhow::Result<()> {
        let farm = certificate::farm_of(&certificate::first(self.issuer.pem())?)?;
        let span = Span::from_now(now, AUTHORITY_LIFE)?;
        let (next, key) = Authority::new(&certificate::authority_name(&farm), span)?;
        texts::write_private(&files::ca_next_key(&self.folder), &key)?;
        let both = self.issuer.trusted().to_owned() + next.pem();
        Ok(texts::write_public(&files::ca(&self.folder), &both)?)
    }

    fn issue(&self, data_dir: &Path, now: i64) -> anyhow::Result<()> {
        if self.next.is_some() {
            let (next, key) = (files::ca_next_key(&self.folder), files::ca_key(&self.folder));
            let renamed = std::fs::rename(&next, &key).and_then(|()| File::open(&self.folder)?.sync_all());
            renamed.with_context(|| format!("can't put {} in the place of {}", next.display(), key.display()))?;
        }
        let now_issues = Self::read(self.folder.clone())?.issuer;
        if !is_by(&files::server(&self.folder), &now_issues)? {
            let former = certificate::first(&texts::read(&files::server(&self.folder))?)?;
            init::write_server(&self.folder, &now_issues, &certificate::names(&former)?, now)?;
        }
        if !is_by(&files::signer(&self.folder), &now_issues)? {
            signing::rotate(data_dir, now)?;
        }
        Ok(())
    }

    fn retire(&self) -> anyhow::Result<()> {
        for path in [files::server(&self.folder), files::signer(&self.folder)] {
            if !is_by(&path, &self.issuer)? {
                bail!(
                    "{} is of the former CA still: take the step --rotate-ca issue again",
                    path.display()
                );
            }
        }
        let former = files::ca_former(&self.folder);
        let mut kept = match former.exists() {
            true => texts::read(&former)?,
            false => String::new(),
        };
        // What is there already came with a step that broke off.
        let trusted = self.issuer.trusted();
        let gone = trusted.strip_prefix(self.issuer.pem()).unwrap_or_default();
        if !kept.contains(gone) {
            kept += gone;
            texts::write_public(&former, &kept)?;
        }
        Ok(texts::write_public(&files::ca(&self.folder), self.issuer.pem())?)
    }
}

/// Whether a chain ends with this authority.
fn is_by(path: &Path, authority: &Authority) -> anyhow::Result<bool> {
    let chain = certificate::all(&texts::read(path)?).with_context(|| path.display().to_string())?;
    let own = authority.fingerprint()?;
    Ok(chain.iter().any(|certificate| Fingerprint::of(certificate) == own))
}
