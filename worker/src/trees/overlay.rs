//! A tree as it is with fix patches applied, for one attempt.
//!
//! A [`View`] lies in the attempt's scratch folder: files that patches change are copies, all else are links into the tree,
//! which is never written. Two attempts on one tree, or two codestreams that share one source folder, have a view each and
//! can't see each other's patches.
//!
//! Patches come from whoever submits, so they are read and judged here ([`diff`]) before a program sees anything, and
//! applied to lone copies ([`apply`]): exactly as `git apply` does, else file by file with fuzz as GNU patch does. Who only
//! wants to know whether they apply, and what they make of their files, stops there ([`Staged`]). What is made of them is
//! only ever read and compiled. A Makefile may be patched, but `make` must be asked in the tree, and what it
//! says be turned into the view's with [`View::command`].

mod apply;
mod diff;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
mod links;
mod paths;
mod reads;
mod staged;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};

use tokio_util::sync::CancellationToken;

use super::Tree;
use crate::extract::CompileCommand;
use crate::isolation::Cell;
pub use failure::{Applied, FailedHunk, PatchFailure};
use links::{Farm, Reach};
use paths::Paths;
pub(crate) use paths::replaced;
pub use staged::Staged;

/// A patch to apply, as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// For messages; never a path.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// A patched tree. It lasts as long as the scratch folder it is in.
#[derive(Debug)]
pub struct View {
    paths: Paths,
    /// Hunks that needed fuzz, and patched files that have no effect here.
    warnings: Vec<String>,
    changed: Vec<String>,
    reach: Reach,
}

impl View {
    /// Makes the view of a tree below `scratch`, an existing folder of the attempt's own in which there is no view yet.
    /// Patches are applied in order, by programs within the cell. `None` if there are none: the tree itself is to be used.
    ///
    /// # Errors
    /// The first patch that is refused or can't be applied.
    pub async fn new(
        tree: &Tree,
        scratch: &Path,
        patches: &[Patch],
        cell: &Cell,
        cancel: &CancellationToken,
    ) -> Result<Option<Self>, PatchFailure> {
        if patches.is_empty() {
            return Ok(None);
        }
        let dir = scratch.join("view");
        let io = |path: &Path, e| PatchFailure::io("make", path, e).of(&tree.platform, "");
        let Staged {
            copies,
            touched,
            warnings,
        } = Staged::new(tree, &dir, patches, cell, cancel).await?;
        let changed: Vec<String> = touched.iter().cloned().collect();
        let paths = Paths {
            tree_src: tree.src.clone(),
            tree_obj: tree.obj.clone(),
            view_src: dir.join("src"),
        };
        let reach = links::reach(&touched, |file| {
            read_text(&copies, file).or_else(|| read_text(&tree.src, file))
        });
        let (making, maker) = Making::begin();
        let (arch, to_make) = (tree.platform.arch, paths.clone());
        let made = tokio::task::spawn_blocking(move || {
            // As a whole: of a field alone, the other end would stay here.
            let maker = maker;
            let farm = Farm {
                tree: &to_make.tree_src,
                view: &to_make.view_src,
                arch,
                touched: &touched,
                reach,
                stop: &maker.stop,
            };
            farm.make()?;
            for file in &touched {
                put(&copies.join(file), &to_make.view_src.join(file))?;
            }
            std::io::Result::Ok(())
        });
        let made = made.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        drop(making);
        made.map_err(|e| io(&paths.view_src, e))?;
        Ok(Some(Self {
            paths,
            warnings,
            changed,
            reach,
        }))
    }

    /// The patched source, to use in place of the tree's. Links in it lead into the tree: whoever writes there, writes into
    /// the tree.
    pub fn src(&self) -> &Path {
        &self.paths.view_src
    }

    /// The object folder to use: the tree's own, or the view for a kernel that was built in its source folder.
    pub fn obj(&self) -> &Path {
        self.paths.view_obj()
    }

    /// The command that compiles a file of the view, from the one that compiles it in the tree.
    pub fn command(&self, in_tree: &CompileCommand) -> CompileCommand {
        self.paths.command(in_tree)
    }

    /// A tool's output with the tree's paths in place of the view's, so that it is the same on every host that has the
    /// tree.
    pub fn to_tree(&self, text: &str) -> String {
        self.paths.to_tree(text)
    }

    /// What a person should know: where fuzz was needed, and what has no effect.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The files that patches named, relative to the source folder, sorted.
    pub fn changed(&self) -> &[String] {
        &self.changed
    }

    /// Whether every folder of the source is the view's own, because a changed file may be included from anywhere.
    pub fn is_whole(&self) -> bool {
        self.reach == Reach::All
    }
}

/// A view that is being made on another thread. Dropped, it waits until that has stopped, so that nothing is made any more
/// in a scratch folder that is removed next.
struct Making {
    stop: Arc<AtomicBool>,
    stopped: Receiver<()>,
}

/// The other thread's end.
struct Maker {
    stop: Arc<AtomicBool>,
    _gone_when_dropped: Sender<()>,
}

impl Making {
    fn begin() -> (Self, Maker) {
        let (sender, stopped) = std::sync::mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let maker = Maker {
            stop: stop.clone(),
            _gone_when_dropped: sender,
        };
        (Self { stop, stopped }, maker)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Nothing is ever sent: this ends when the other end is gone, at most one folder of links later.
        let _ = self.stopped.recv();
    }
}

/// A Makefile, for its text.
fn read_text(root: &Path, file: &str) -> Option<String> {
    let bytes = std::fs::read(root.join(file)).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Moves a patched copy to its place; a file that a patch deleted has none.
fn put(copy: &Path, place: &PathBuf) -> std::io::Result<()> {
    if !copy.is_file() {
        return Ok(());
    }
    if let Some(dir) = place.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::rename(copy, place)
}
