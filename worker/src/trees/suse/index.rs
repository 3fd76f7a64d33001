//! The names of a vmlinux that belongs to somebody else, kept in the worker's own folder so that a task opens them at once.
//!
//! Made when it is first needed. Its name tells the size and time of the vmlinux it was made from, so that another vmlinux
//! in its place has another index.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use klp_livepatch::Arch;

use super::super::record::Stamp;
use super::super::{TreeError, disk};
use crate::symbols::{NameTable, ObjectIndex, SymbolError};

const SUFFIX: &str = ".symbols";

/// Only one at a time: a decompressed vmlinux takes much memory.
static MAKING: Mutex<()> = Mutex::new(());

/// Where the index of a vmlinux is, or will be.
pub(super) fn place(indexes: &Path, arch: Arch, release: &str, vmlinux: &Stamp) -> PathBuf {
    let name = format!("{release}@{}-{}{SUFFIX}", vmlinux.size, vmlinux.modified);
    indexes.join(arch.as_str()).join(name)
}

/// The index, made if there is none; vmlinux itself where that is not possible.
pub(in crate::trees) fn current(table: &Path, vmlinux: &Path) -> PathBuf {
    let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if table.is_file() {
        return table.to_owned();
    }
    match make(table, vmlinux) {
        Ok(()) => table.to_owned(),
        Err(e) => {
            tracing::warn!("no index of {}, which will be slow to read: {e}", vmlinux.display());
            vmlinux.to_owned()
        }
    }
}

fn make(table: &Path, vmlinux: &Path) -> Result<(), TreeError> {
    let symbols = ObjectIndex::open(vmlinux)?.to_named();
    let symbols = symbols.map_err(|problem| SymbolError::broken(vmlinux, problem))?;
    let mut bytes = Vec::new();
    NameTable::write(symbols, &mut bytes).map_err(TreeError::io("read", vmlinux))?;
    let dir = table.parent().unwrap_or(Path::new("."));
    disk::make_dir(dir)?;
    disk::write_whole(table, &bytes)?;
    remove_former(dir, table);
    Ok(())
}

/// Removes what was made from a vmlinux that is not there any more.
fn remove_former(dir: &Path, table: &Path) {
    let name = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let current = name(table);
    let Some((release, _)) = current.split_once('@') else {
        return;
    };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let other = name(&entry.path());
        let former = other.split_once('@').is_some_and(|(of, _)| of == release);
        if former && other != current && other.ends_with(SUFFIX) {
            // It only takes up room.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
