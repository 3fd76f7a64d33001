//! Copies of the files that patches name, with the patches applied: what a view is made of, and all that a check needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klp_livepatch::names::quoted;
use tokio_util::sync::CancellationToken;

use super::apply::Stage;
use super::{Patch, PatchFailure, diff};
use crate::isolation::Cell;
use crate::trees::Tree;

/// The most all patches of an attempt may have together, in bytes.
const MAX_ALL: usize = 32 << 20;
/// The most files they may name together.
const MAX_FILES: usize = 1000;

/// Patched copies. They last as long as the folder they are in.
#[derive(Debug)]
pub struct Staged {
    /// Holds the copies, by their paths in the tree; a file that the patches leave no trace of has none.
    pub copies: PathBuf,
    /// The files that patches named, relative to the source folder.
    pub touched: BTreeSet<String>,
    /// Hunks that needed fuzz, and patched files that have no effect here, in sentences that begin with the platform.
    pub warnings: Vec<String>,
}

impl Staged {
    /// Applies patches in order to copies below `dir`, which is made, by programs within the cell.
    ///
    /// # Errors
    /// The first patch that is refused or can't be applied.
    pub async fn new(
        tree: &Tree,
        dir: &Path,
        patches: &[Patch],
        cell: &Cell,
        cancel: &CancellationToken,
    ) -> Result<Self, PatchFailure> {
        let about = |failure: PatchFailure, patch: &str| failure.of(&tree.platform, patch);
        let total: usize = patches.iter().map(|patch| patch.bytes.len()).sum();
        let mut read = Vec::with_capacity(patches.len());
        for patch in patches {
            let name = quoted(&patch.name);
            let refused = |why| about(PatchFailure::refused(why), &name);
            if total > MAX_ALL {
                let most = MAX_ALL >> 20;
                return Err(refused(format!("with the others it has more than {most} MiB")));
            }
            let files = diff::parse(&patch.bytes)
                .map_err(|refusal| refused(format!("line {}: {}", refusal.line, refusal.why)))?;
            read.push((name, files));
        }
        let io = |path: &Path, e| about(PatchFailure::io("make", path, e), "");
        std::fs::create_dir_all(dir).map_err(|e| io(dir, e))?;
        let mut stage = Stage::new(&tree.src, dir, cell, cancel).map_err(|e| io(dir, e))?;
        let mut warnings = Vec::new();
        for (name, files) in &read {
            let named = stage.touched.len() + files.len();
            if named > MAX_FILES {
                let refusal = PatchFailure::refused(format!("with the others it names more than {MAX_FILES} files"));
                return Err(about(refusal, name));
            }
            let fuzzy = stage.apply(files).await.map_err(|failure| about(failure, name))?;
            warnings.extend(
                fuzzy
                    .into_iter()
                    .map(|hunk| format!("{}: patch {name}: {hunk}", tree.platform)),
            );
        }
        stage.is_plain().map_err(|failure| about(failure, ""))?;
        warnings.extend(without_effect(&stage.touched).map(|file| {
            format!(
                "{}: {file} is patched, but files are still compiled as the kernel's build compiled them",
                tree.platform
            )
        }));
        Ok(Self {
            copies: stage.room.path().to_owned(),
            touched: stage.touched,
            warnings,
        })
    }
}

/// Files that tell the kernel's build what to do, which is not asked again.
fn without_effect(touched: &BTreeSet<String>) -> impl Iterator<Item = &String> {
    touched.iter().filter(|file| {
        let name = file.rsplit('/').next().unwrap_or_default();
        name == "Kbuild" || name.starts_with("Makefile") || name.starts_with("Kconfig")
    })
}
