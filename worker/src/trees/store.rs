//! The folder that holds all trees of a worker.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use klp_livepatch::task::Platform;
use klp_livepatch::{Arch, Codestream};
use tokio_util::sync::CancellationToken;

use super::lock::TreeLock;
use super::suse::SuseData;
use super::{Tree, TreeError, disk, record};

/// Trees below one folder, as `<arch>/<codestream>/`, and those of SUSE's data folder where there is one. Nothing is kept
/// in memory: a tree that was added by another process is there at the next look.
#[derive(Clone, Debug)]
pub struct TreeStore {
    dir: PathBuf,
    suse: Option<SuseData>,
}

/// All trees of a store.
#[derive(Debug, Default)]
pub struct Listing {
    /// By architecture, then codestream in natural order.
    pub trees: Vec<Tree>,
    /// Folders that are meant to be trees but can't be used, each with whose it would be and the reason.
    pub broken: Vec<(Platform, TreeError)>,
}

impl Listing {
    /// Takes in another listing's trees, but for those that are here too.
    fn add(&mut self, other: Self) {
        let here: HashSet<Platform> = {
            let trees = self.trees.iter().map(|tree| &tree.platform);
            trees
                .chain(self.broken.iter().map(|(platform, _)| platform))
                .cloned()
                .collect()
        };
        self.trees
            .extend(other.trees.into_iter().filter(|tree| !here.contains(&tree.platform)));
        self.broken.extend(
            other
                .broken
                .into_iter()
                .filter(|(platform, _)| !here.contains(platform)),
        );
        let order = |platform: &Platform| (platform.arch, platform.codestream.clone());
        self.trees.sort_by_cached_key(|tree| order(&tree.platform));
        self.broken.sort_by_cached_key(|(platform, _)| order(platform));
    }
}

impl TreeStore {
    /// Opens, and makes where needed, the folder of all trees.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn open(dir: &Path) -> Result<Self, TreeError> {
        disk::make_dir(dir)?;
        // Absolute and without links, because `make` writes such paths into what it builds.
        let dir = dir.canonicalize().map_err(TreeError::io("open", dir))?;
        Ok(Self { dir, suse: None })
    }

    /// With the kernels of a data folder too. One that was added under the same name goes first.
    #[must_use]
    pub fn with_suse(mut self, suse: Option<SuseData>) -> Self {
        self.suse = suse;
        self
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a tree is, or would be.
    pub fn tree_dir(&self, platform: &Platform) -> PathBuf {
        self.dir.join(platform.arch.as_str()).join(platform.codestream.as_str())
    }

    /// Reads what trees there are: a small file for each.
    pub fn list(&self) -> Listing {
        let mut listing = Listing::default();
        for arch in Arch::ALL {
            let Ok(entries) = std::fs::read_dir(self.dir.join(arch.as_str())) else {
                continue;
            };
            let mut codestreams: Vec<Codestream> = entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect();
            codestreams.sort();
            for codestream in codestreams {
                let platform = Platform { codestream, arch };
                match self.get(&platform) {
                    Ok(tree) => listing.trees.push(tree),
                    Err(e) => listing.broken.push((platform, e)),
                }
            }
        }
        let found = self.suse.as_ref().map(SuseData::list).unwrap_or_default();
        listing.add(found);
        listing
    }

    /// Trees whose making was interrupted, or is at work, as `<arch>-<codestream>`.
    pub fn half_made(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join(super::partial::FOLDER))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The tree for a platform.
    ///
    /// # Errors
    /// If there is none, or its `tree.json` can't be used.
    pub fn get(&self, platform: &Platform) -> Result<Tree, TreeError> {
        let dir = self.tree_dir(platform);
        if !dir.join(record::FILE).exists() {
            if let Some(found) = self
                .suse
                .as_ref()
                .filter(|_| !dir.exists())
                .and_then(|suse| suse.get(platform))
            {
                return found;
            }
            return Err(if dir.exists() {
                TreeError::Broken {
                    dir,
                    problem: format!("it has no {}; remove the folder", record::FILE),
                }
            } else {
                TreeError::NotFound {
                    platform: platform.clone(),
                    dir: self.dir.clone(),
                }
            });
        }
        let tree = Tree::load(&dir)?;
        if tree.platform != *platform {
            return Err(TreeError::Broken {
                dir,
                problem: format!(
                    "its {} says it is {}; the folder was renamed",
                    record::FILE,
                    tree.platform
                ),
            });
        }
        Ok(tree)
    }

    /// Removes a tree with everything that belongs to it, also one that can't be used or that is half made. A kernel that
    /// somebody else built stays.
    ///
    /// # Errors
    /// If there is none, or it can't be removed.
    pub async fn remove(
        &self,
        platform: &Platform,
        cancel: &CancellationToken,
        told: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), TreeError> {
        let _lock = TreeLock::take(&self.dir, platform, cancel, told).await?;
        let dir = self.tree_dir(platform);
        let partial = super::partial::dir(&self.dir, platform);
        if !dir.exists() && !partial.exists() {
            if let Some(suse) = self.suse.as_ref().filter(|suse| suse.get(platform).is_some()) {
                return Err(TreeError::Refused(format!(
                    "{platform} is in the data folder {}, which klp-worker only reads; remove its files there",
                    suse.dir().display()
                )));
            }
            return Err(TreeError::NotFound {
                platform: platform.clone(),
                dir: self.dir.clone(),
            });
        }
        if dir.exists() {
            // Out of sight first: nobody starts to use a tree that is half gone.
            let grave = self.dir.join(".removed").join(uuid::Uuid::now_v7().to_string());
            disk::make_dir(&self.dir.join(".removed"))?;
            std::fs::rename(&dir, &grave).map_err(TreeError::io("remove", &dir))?;
        }
        disk::remove_dir(&partial)?;
        disk::remove_dir(&self.dir.join(".removed"))
    }
}
