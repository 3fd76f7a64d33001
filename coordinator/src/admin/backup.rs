//! Copies a data folder as it is at one moment, beside the coordinator that uses it.
//!
//! The database is copied as one read transaction, which holds up no writer; then the artifacts that the copy names, unless
//! they are in a bucket, and the logs of its tasks. Nothing is cleared away meanwhile, and contents never change, so all that the copy names is
//! there. It is made under another name, checked, and renamed into place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rusqlite::Connection;
use rusqlite::backup::StepResult;

use super::Folder;
use super::check::{Depth, Findings, examine};
use crate::aside::Aside;
use crate::auth::files;
use crate::blobs::{Blobs, mark};
use crate::config::Config;
use crate::disk::{link_or_copy, sync_folder};
use crate::logs;
use crate::store::audit;

/// How a backup went.
pub enum Backup {
    /// It is there, and holds this.
    Done(Findings),
    /// The copy has problems, as the original does; it was not kept.
    Unsound(Findings),
}

/// Copies the data folder to `destination`, which must not exist. Artifacts in a bucket are not copied; the copy is checked
/// against them.
///
/// # Errors
/// It could not be copied; nothing is left at the destination.
pub fn backup(config: &Config, destination: &Path) -> anyhow::Result<Backup> {
    let folder = Folder::existing(&config.data_dir)?;
    let blobs = Blobs::at(config, Aside::Threads)?;
    ensure!(
        fs::symlink_metadata(destination).is_err(),
        "{} exists already, and a backup overwrites nothing; name another destination",
        destination.display()
    );
    let (parent, name) = place(destination)?;
    let kept = folder.keep_all()?;
    let aside = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .tempdir_in(&parent)
        .with_context(|| format!("can't make a folder in {}", parent.display()))?;
    let copy = Folder::new(aside.path());
    copy_database(&folder, &copy).context("can't copy the database")?;
    let copied = copy_artifacts(&blobs, &copy).context("can't copy the artifacts")?;
    copy_logs(&folder, &copy).context("can't copy the logs")?;
    copy_identity(&folder, &copy).context("can't copy the certificates")?;
    let mut findings = examine(&copy, &copied, Depth::Usual).context("can't check the copy")?;
    drop(kept);
    if !findings.sound {
        return Ok(Backup::Unsound(findings));
    }
    clear_traces(&copy)?;
    let made = sync_folder(copy.path())
        .and_then(|()| fs::rename(aside.path(), destination))
        .and_then(|()| sync_folder(&parent));
    made.with_context(|| format!("can't put the copy at {}", destination.display()))?;
    // What it was is not there any more.
    let _ = aside.keep();
    findings.data_dir = destination.to_owned();
    Ok(Backup::Done(findings))
}

/// The folder the backup will be in, and its name there.
fn place(destination: &Path) -> anyhow::Result<(PathBuf, String)> {
    let absolute = std::path::absolute(destination)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok((parent.to_owned(), name.to_string_lossy().into_owned())),
        _ => bail!("{} can't be a backup's name", destination.display()),
    }
}

fn copy_database(from: &Folder, to: &Folder) -> anyhow::Result<()> {
    let source = audit::open_existing(&from.database())?;
    let mut target = Connection::open(to.database())?;
    {
        let copying = rusqlite::backup::Backup::new(&source, &mut target)?;
        // All pages in one step: between steps others may write, and then it would begin anew.
        let done = copying.step(-1)?;
        ensure!(done == StepResult::Done, "the database is locked ({done:?}); try again");
    }
    target.close().map_err(|(_, error)| error)?;
    File::open(to.database())?.sync_all()?;
    Ok(())
}

/// Copies contents that are files; those in a bucket stay there, and are the copy's too.
fn copy_artifacts(blobs: &Blobs, to: &Folder) -> anyhow::Result<Blobs> {
    fs::create_dir_all(to.blobs())?;
    if blobs.folder().is_none() {
        return Ok(blobs.clone());
    }
    let target = Blobs::in_folder(to.blobs(), Aside::Threads);
    let db = audit::open_existing(&to.database())?;
    audit::each_content(&db, |digest, _, user| {
        let (Some(from), Some(to)) = (blobs.path(&digest), target.path(&digest)) else {
            return Ok(());
        };
        if let Some(shard) = to.parent() {
            fs::create_dir_all(shard)?;
        }
        match link_or_copy(&from, &to) {
            // Said by the check, with all else that is missing; or copied before, for another size.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Ok(()),
            copied => copied.with_context(|| format!("{} of artifact {user}", from.display())),
        }
    })?;
    sync_tree(&to.blobs())?;
    Ok(target)
}

fn copy_logs(from: &Folder, to: &Folder) -> anyhow::Result<()> {
    fs::create_dir_all(to.logs())?;
    let db = audit::open_existing(&to.database())?;
    for task in logs::tasks(&from.logs())? {
        if !audit::has_task(&db, task)? {
            continue;
        }
        let folder = logs::folder(&to.logs(), task);
        fs::create_dir_all(&folder)?;
        for log in logs::of_task(&from.logs(), task)? {
            log.copy_to(&folder)
                .with_context(|| format!("the log of attempt {}", log.id))?;
        }
    }
    sync_tree(&to.logs())?;
    Ok(())
}

/// The farm's CA and certificate go along: without them every worker would have to be let in anew.
fn copy_identity(from: &Folder, to: &Folder) -> anyhow::Result<()> {
    let (from_bare, to_bare) = (files::bare_signer(from.path()), files::bare_signer(to.path()));
    if from_bare.try_exists()? {
        klp_identity::files::write_private(&to_bare, &klp_identity::files::read(&from_bare)?)?;
    }
    // By which a bucket is known as this farm's.
    let (from_mark, to_mark) = (mark(from.path()), mark(to.path()));
    if from_mark.try_exists()? {
        klp_identity::files::write_public(&to_mark, &klp_identity::files::read(&from_mark)?)?;
    }
    let (from, to) = (files::folder(from.path()), files::folder(to.path()));
    if !from.try_exists()? {
        return Ok(());
    }
    klp_identity::files::private_folder(&to)?;
    for path in [files::ca, files::server] {
        klp_identity::files::write_public(&path(&to), &klp_identity::files::read(&path(&from))?)?;
    }
    let mut private = vec![files::ca_key(&from), files::server_key(&from)];
    // A farm of a former version has none until it is started.
    private.extend(Some(files::signer(&from)).filter(|path| path.exists()));
    // Of a replacement of the CA.
    private.extend(Some(files::ca_next_key(&from)).filter(|path| path.exists()));
    let former = files::ca_former(&from);
    if former.exists() {
        klp_identity::files::write_public(&files::ca_former(&to), &klp_identity::files::read(&former)?)?;
    }
    for path in private {
        let name = path.file_name().unwrap_or_default();
        klp_identity::files::write_private(&to.join(name), &klp_identity::files::read(&path)?)?;
    }
    Ok(())
}

/// Syncs a folder and those in it; files are synced as they are made.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folder(&entry.path())?;
        }
    }
    sync_folder(dir)
}

/// Removes what reading the copy has left: an empty log of changes and its index.
fn clear_traces(copy: &Folder) -> anyhow::Result<()> {
    for name in ["farm.db-wal", "farm.db-shm"] {
        let path = copy.path().join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("can't remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
