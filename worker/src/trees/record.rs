//! `tree.json`: what a tree's folder says about itself. Paths in it are relative to the folder, except those into a
//! kernel that somebody else built.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use klp_livepatch::outcome::Digest;
use klp_livepatch::task::Platform;
use klp_livepatch::{Arch, Codestream};
use serde::{Deserialize, Serialize};

use super::{Tree, TreeError};

pub(super) const FILE: &str = "tree.json";

/// Rises when a reader of the former format would go wrong.
const FORMAT: u32 = 1;

/// Where a tree came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TreeKind {
    /// Made from Debian's packages.
    Debian,
    /// A kernel somebody built in its source folder.
    Kdir,
    /// Found in a data folder of SUSE's layout; it has no `tree.json`.
    Suse,
}

impl TreeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            TreeKind::Debian => "debian",
            TreeKind::Kdir => "kdir",
            TreeKind::Suse => "suse",
        }
    }
}

/// A file that must not change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    pub path: PathBuf,
    pub digest: Digest,
}

impl KeyFile {
    /// # Errors
    /// If the file can't be read.
    pub(super) fn of(path: &Path) -> Result<Self, TreeError> {
        let bytes = std::fs::read(path).map_err(TreeError::io("read", path))?;
        Ok(Self {
            path: path.to_owned(),
            digest: Digest::of(&bytes),
        })
    }
}

/// Where vmlinux's names are, and which vmlinux they were taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VmlinuxNames {
    /// The name table.
    pub table: PathBuf,
    /// A vmlinux that its owner may build anew; `None`: the table is all there is.
    pub made_from: Option<Stamp>,
}

/// A file as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub path: PathBuf,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: u64,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        let age = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            size: metadata.len(),
            modified: u64::try_from(age.as_nanos()).unwrap_or(u64::MAX),
        })
    }

    pub(super) fn is_current(&self) -> bool {
        Self::of(&self.path).is_ok_and(|now| now == *self)
    }
}

impl VmlinuxNames {
    pub(super) fn current(&self, dir: &Path) -> PathBuf {
        match &self.made_from {
            Some(stamp) if !stamp.is_current() => stamp.path.clone(),
            _ => dir.join(&self.table),
        }
    }
}

/// The file's content.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    codestream: Codestream,
    arch: Arch,
    kind: TreeKind,
    release: String,
    compiler: String,
    src: PathBuf,
    obj: PathBuf,
    config: PathBuf,
    symvers: PathBuf,
    modules_dir: PathBuf,
    boot_image: Option<PathBuf>,
    vmlinux: VmlinuxNames,
    module_count: usize,
    key_files: Vec<KeyFile>,
    built_at: PathBuf,
    warnings: Vec<String>,
}

impl Tree {
    /// Reads `dir/tree.json`.
    pub(super) fn load(dir: &Path) -> Result<Self, TreeError> {
        let path = dir.join(FILE);
        let bytes = std::fs::read(&path).map_err(TreeError::io("read", &path))?;
        let broken = |problem: String| TreeError::Broken {
            dir: dir.to_owned(),
            problem,
        };
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let unreadable =
            |e: serde_json::Error| broken(format!("{FILE} is damaged ({e}); remove the tree and add it again"));
        let Version { format } = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if format != FORMAT {
            return Err(broken(format!(
                "{FILE} has format {format}, this program reads {FORMAT}; remove the tree and add it again"
            )));
        }
        let record: Record = serde_json::from_slice(&bytes).map_err(unreadable)?;
        // Joining leaves absolute paths, those of a kdir, as they are.
        let absolute = |path: &Path| dir.join(path);
        Ok(Tree {
            platform: Platform {
                codestream: record.codestream,
                arch: record.arch,
            },
            kind: record.kind,
            dir: dir.to_owned(),
            src: absolute(&record.src),
            obj: absolute(&record.obj),
            config: absolute(&record.config),
            symvers: absolute(&record.symvers),
            modules_dir: absolute(&record.modules_dir),
            release: record.release,
            compiler: record.compiler,
            boot_image: record.boot_image.as_deref().map(absolute),
            warnings: record.warnings,
            key_files: record
                .key_files
                .into_iter()
                .map(|file| KeyFile {
                    path: dir.join(file.path),
                    digest: file.digest,
                })
                .collect(),
            module_count: record.module_count,
            built_at: record.built_at,
            vmlinux: record.vmlinux,
        })
    }

    /// Writes `tree.json` into `self.dir`, whole or not at all.
    pub(super) fn save(&self) -> Result<(), TreeError> {
        let relative = |path: &Path| path.strip_prefix(&self.dir).unwrap_or(path).to_owned();
        let record = Record {
            format: FORMAT,
            codestream: self.platform.codestream.clone(),
            arch: self.platform.arch,
            kind: self.kind,
            release: self.release.clone(),
            compiler: self.compiler.clone(),
            src: relative(&self.src),
            obj: relative(&self.obj),
            config: relative(&self.config),
            symvers: relative(&self.symvers),
            modules_dir: relative(&self.modules_dir),
            boot_image: self.boot_image.as_deref().map(relative),
            vmlinux: VmlinuxNames {
                table: relative(&self.vmlinux.table),
                made_from: self.vmlinux.made_from.clone(),
            },
            module_count: self.module_count,
            key_files: self
                .key_files
                .iter()
                .map(|file| KeyFile {
                    path: relative(&file.path),
                    digest: file.digest,
                })
                .collect(),
            built_at: self.built_at.clone(),
            warnings: self.warnings.clone(),
        };
        let path = self.dir.join(FILE);
        let mut json = serde_json::to_vec_pretty(&record).map_err(|e| TreeError::Broken {
            dir: self.dir.clone(),
            problem: format!("{FILE} can't be written: {e}"),
        })?;
        json.push(b'\n');
        super::disk::write_whole(&path, &json)
    }
}
