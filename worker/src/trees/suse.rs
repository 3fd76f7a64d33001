//! SUSE's trees, found where klp-build keeps them, without being added one by one.
//!
//! A data folder (KLP_DATA_DIR) holds what SUSE's packages of many kernels unpack to, for each architecture apart:
//!
//! ```text
//! <arch>/usr/src/linux-<kernel>[-rt]                        sources (kernel-source)
//! <arch>/usr/src/linux-<kernel>[-rt]-obj/<arch>/<flavour>   what was built (kernel-<flavour>-devel)
//! <arch>/boot/{vmlinux,config,symvers}-<kernel>-<flavour>   and
//! <arch>/lib/modules/<kernel>-<flavour>                     up to SLE 15 (kernel-<flavour>)
//! <arch>/usr/lib/modules/<kernel>-<flavour>/{vmlinux,config,symvers,…}     SLE 16 and SL Micro
//! ```
//!
//! vmlinux, symvers and modules may be compressed with gzip, xz or zstd. Nothing is ever written there: the index of
//! vmlinux's names is kept in the worker's own folder. Source: klp-build's own code, and SUSE's packages.

mod find;
mod index;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use klp_livepatch::catalog::Catalog;
pub use klp_livepatch::suse::Flavour;
use klp_livepatch::suse::SuseName;
use klp_livepatch::task::Platform;
use klp_livepatch::{Arch, Codestream};

use super::record::{Stamp, VmlinuxNames};
use super::store::Listing;
use super::{KernelConfig, ModuleIndex, Tree, TreeError, TreeKind};
use find::{Found, Pieces};
pub(super) use index::current as current_names;

/// Which codestreams are built from a kernel, such as `6.4.0-150600.23.73`, in a flavour; none if it is unknown.
pub type KnownKernels = dyn Fn(&str, Flavour) -> Vec<Codestream> + Send + Sync;

/// For who has no catalog: each kernel goes by its own name, such as `linux-6.4.0-150600.23.73-default`.
pub fn unknown() -> Arc<KnownKernels> {
    Arc::new(|_, _| Vec::new())
}

/// For who has one: a kernel is that of the codestreams whose release it is.
pub fn known_by(catalog: &Catalog) -> Arc<KnownKernels> {
    let mut by_release: HashMap<String, Vec<Codestream>> = HashMap::new();
    for entry in catalog.entries() {
        if let Some(name) = SuseName::of(&entry.codestream) {
            let release = name.release(&entry.kernel);
            by_release.entry(release).or_default().push(entry.codestream.clone());
        }
    }
    Arc::new(move |kernel, flavour| {
        by_release
            .get(&format!("{kernel}-{flavour}"))
            .cloned()
            .unwrap_or_default()
    })
}

/// A data folder in SUSE's layout.
#[derive(Clone)]
pub struct SuseData {
    dir: PathBuf,
    /// The worker's own folder for vmlinux's names.
    indexes: PathBuf,
    known: Arc<KnownKernels>,
    /// What files said when they were last read, so that a look costs some calls of `stat` for each kernel.
    read: Arc<Mutex<HashMap<PathBuf, Remembered>>>,
}

/// What a kernel's configuration and its list of modules say.
#[derive(Clone)]
struct Remembered {
    stamps: [Option<Stamp>; 2],
    facts: Result<Facts, String>,
}

#[derive(Clone)]
struct Facts {
    compiler: String,
    modules: usize,
}

impl fmt::Debug for SuseData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SuseData")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl SuseData {
    /// `indexes` is a folder of the worker's own, made when it is needed.
    ///
    /// # Errors
    /// There is no such data folder.
    pub fn open(dir: &Path, indexes: &Path, known: Arc<KnownKernels>) -> Result<Self, TreeError> {
        let refuse = |why: String| {
            let dir = dir.display();
            TreeError::Refused(format!(
                "the folder of SUSE's kernels, {dir}, which KLP_DATA_DIR or --suse-data-dir names, {why}"
            ))
        };
        let real = dir
            .canonicalize()
            .map_err(|e| refuse(format!("can't be opened: {e}")))?;
        if !real.is_dir() {
            return Err(refuse("is no folder".to_owned()));
        }
        Ok(Self {
            dir: real,
            indexes: std::path::absolute(indexes).map_err(TreeError::io("name", indexes))?,
            known,
            read: Arc::default(),
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All kernels that are there: as trees those that are whole, the others with what they lack.
    pub fn list(&self) -> Listing {
        let mut listing = Listing::default();
        for arch in Arch::ALL {
            for found in find::kernels(&self.dir, arch) {
                for codestream in self.codestreams(&found) {
                    let platform = Platform { codestream, arch };
                    match self.tree(platform.clone(), &found) {
                        Ok(tree) => listing.trees.push(tree),
                        Err(e) => listing.broken.push((platform, e)),
                    }
                }
            }
        }
        listing
    }

    /// The tree of a platform, if its kernel is there.
    ///
    /// # Errors
    /// It lacks something.
    pub fn get(&self, platform: &Platform) -> Option<Result<Tree, TreeError>> {
        find::kernels(&self.dir, platform.arch)
            .into_iter()
            .find(|found| self.codestreams(found).contains(&platform.codestream))
            .map(|found| self.tree(platform.clone(), &found))
    }

    /// The codestreams of a kernel; one that nobody knows goes by its own name, so that it can be used too.
    fn codestreams(&self, found: &Found) -> Vec<Codestream> {
        let known = (self.known)(&found.kernel, found.flavour);
        match known.is_empty() {
            false => known,
            // What can't be a name is no kernel of SUSE's.
            true => format!("linux-{}", found.release()).parse().into_iter().collect(),
        }
    }

    fn tree(&self, platform: Platform, found: &Found) -> Result<Tree, TreeError> {
        let broken = |problem: String| TreeError::Broken {
            dir: self.dir.join(platform.arch.as_str()),
            problem: format!("kernel {}: {problem}", found.release()),
        };
        let pieces = found.pieces(&self.dir).map_err(|missing| {
            broken(format!(
                "{} missing; download the packages that have {} again",
                missing.join(", "),
                if missing.len() == 1 { "it" } else { "them" }
            ))
        })?;
        let facts = self.facts(&pieces, platform.arch).map_err(broken)?;
        let made_from = Stamp::of(&pieces.vmlinux).map_err(TreeError::io("read", &pieces.vmlinux))?;
        let table = index::place(&self.indexes, platform.arch, &found.release(), &made_from);
        Ok(Tree {
            platform,
            kind: TreeKind::Suse,
            dir: self.dir.clone(),
            src: pieces.src.clone(),
            obj: pieces.obj,
            config: pieces.config,
            symvers: pieces.symvers,
            modules_dir: pieces.modules,
            release: found.release(),
            compiler: facts.compiler,
            boot_image: None,
            warnings: Vec::new(),
            key_files: Vec::new(),
            module_count: facts.modules,
            built_at: pieces.src,
            vmlinux: VmlinuxNames {
                table,
                made_from: Some(made_from),
            },
        })
    }

    /// What must be read of a kernel to use it; read once for each state of its files.
    fn facts(&self, pieces: &Pieces, arch: Arch) -> Result<Facts, String> {
        let order = pieces.modules.join("modules.order");
        let stamps = [Stamp::of(&pieces.config).ok(), Stamp::of(&order).ok()];
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match read.get(&pieces.config) {
            Some(remembered) if remembered.stamps == stamps => remembered.facts.clone(),
            _ => {
                let facts = read_facts(pieces, arch);
                let remembered = Remembered {
                    stamps,
                    facts: facts.clone(),
                };
                read.insert(pieces.config.clone(), remembered);
                facts
            }
        }
    }
}

fn read_facts(pieces: &Pieces, arch: Arch) -> Result<Facts, String> {
    let config = KernelConfig::open(&pieces.config).map_err(|e| e.to_string())?;
    if config.arch() != Some(arch) {
        let is = config
            .arch()
            .map_or("another architecture".to_owned(), |is| is.to_string());
        return Err(format!("{} is for {is}, not for {arch}", pieces.config.display()));
    }
    Ok(Facts {
        compiler: config.compiler()?,
        modules: ModuleIndex::read(&pieces.modules).map_err(|e| e.to_string())?.len(),
    })
}
