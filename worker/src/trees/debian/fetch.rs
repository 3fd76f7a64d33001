//! Gets packages from apt, and uses none that isn't what apt announced.

use std::path::{Path, PathBuf};

use super::apt::{Package, Packages};
use super::root::Apt;
use crate::trees::progress::Step;
use crate::trees::tools::{self, Tools};
use crate::trees::{TreeError, disk};

/// Has every package in `debs`, complete and with the right digest: what is there already, what `kept` has from an
/// earlier time, and the rest from the network.
pub(super) async fn fetch(
    apt: &Apt,
    packages: &Packages,
    debs: &Path,
    kept: &Path,
    tools: &Tools<'_>,
    step: &mut Step<'_>,
) -> Result<(), TreeError> {
    disk::make_dir(debs)?;
    let mut missing = Vec::new();
    for package in packages.all() {
        let file = debs.join(package.file_name());
        if is_good(&file, package, tools, step).await? {
            continue;
        }
        let earlier = kept.join(package.file_name());
        if is_good(&earlier, package, tools, step).await? {
            step.note(&format!("{} was kept from an earlier time", package.file_name()));
            std::fs::hard_link(&earlier, &file)
                .or_else(|_| std::fs::copy(&earlier, &file).map(|_| ()))
                .map_err(|e| disk::full_or_io("copy", &file, e))?;
            continue;
        }
        missing.push(package);
    }
    if missing.is_empty() {
        return Ok(());
    }
    // Fetched apart, so that what an interrupted download leaves is never taken for a package.
    let incoming = debs.join("incoming");
    disk::remove_dir(&incoming)?;
    disk::make_dir(&incoming)?;
    download(apt, &missing, &incoming, tools, step).await?;
    for package in missing {
        let arrived = incoming.join(package.file_name());
        if !is_good(&arrived, package, tools, step).await? {
            return Err(TreeError::Refused(format!(
                "apt fetched {} {}, but it is not the file apt announced; run `apt-get update`, then the same command again",
                package.name, package.version
            )));
        }
        let file = debs.join(package.file_name());
        std::fs::rename(&arrived, &file).map_err(TreeError::io("move", &file))?;
    }
    disk::remove_dir(&incoming)
}

async fn download(
    apt: &Apt,
    packages: &[&Package],
    into: &Path,
    tools: &Tools<'_>,
    step: &mut Step<'_>,
) -> Result<(), TreeError> {
    let wanted = packages
        .iter()
        .map(|package| format!("{}={}", package.name, package.version));
    let command = apt
        .command("apt-get", into)
        .args(["-o", "Acquire::Retries=3", "download"])
        .args(wanted);
    let total: u64 = packages.iter().map(|package| package.size).sum();
    let arrived = || {
        let files = std::fs::read_dir(into).into_iter().flatten().flatten();
        let bytes: u64 = files.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum();
        format!("{} % of {} MB", bytes * 100 / total.max(1), total / 1_000_000)
    };
    tools.run(&command, step, &arrived).await
}

/// Whether the package's file is there and right; a file that is wrong is removed.
async fn is_good(file: &Path, package: &Package, tools: &Tools<'_>, step: &Step<'_>) -> Result<bool, TreeError> {
    let Ok(metadata) = file.metadata() else {
        return Ok(false);
    };
    if metadata.len() == package.size && tools::sha256(file, tools.cancel).await? == package.sha256 {
        return Ok(true);
    }
    step.note(&format!("{} is damaged, so it is fetched again", package.file_name()));
    std::fs::remove_file(file).map_err(TreeError::io("remove", file))?;
    Ok(false)
}

/// Moves fetched packages to where a later run finds them.
pub(super) fn keep(debs: &Path, kept: &Path) -> Result<(), TreeError> {
    disk::make_dir(kept)?;
    let files: Vec<PathBuf> = std::fs::read_dir(debs)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|ext| ext == "deb"))
    {
        if let Some(name) = file.file_name() {
            let to = kept.join(name);
            std::fs::rename(file, &to).map_err(TreeError::io("move", &to))?;
        }
    }
    Ok(())
}
