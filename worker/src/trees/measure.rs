//! Measures a tree: what its files are that all else depends on.

use std::path::{Path, PathBuf};

use klp_livepatch::provenance::Digests;
use klp_livepatch::provenance::origin::{CONFIG, FileUsed, SYMVERS, TreeUsed};

use super::{Tree, TreeError};

/// What is larger is not read for each extraction; a vmlinux with debug information is one of that kind. Bytes.
const MOST: u64 = 64 << 20;

impl Tree {
    /// Its configuration, its Module.symvers, and its other key files as they are now.
    ///
    /// # Errors
    /// One can't be read.
    pub fn measure(&self) -> Result<TreeUsed, TreeError> {
        let names = self.vmlinux_names();
        let key_files = self.key_files.iter().map(|file| &file.path);
        let mut paths: Vec<&PathBuf> = [&self.config, &self.symvers, &names]
            .into_iter()
            .chain(key_files)
            .collect();
        let mut known = std::collections::BTreeSet::new();
        paths.retain(|path| known.insert(*path));
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            if path.metadata().map_err(TreeError::io("read", path))?.len() > MOST {
                continue;
            }
            let bytes = std::fs::read(path).map_err(TreeError::io("read", path))?;
            files.push(FileUsed {
                name: self.name_of(path),
                digests: Digests::of(&bytes),
            });
        }
        Ok(TreeUsed {
            kind: self.kind.as_str().to_owned(),
            release: self.release.clone(),
            compiler: self.compiler.clone(),
            files,
        })
    }

    /// The same on every machine.
    fn name_of(&self, path: &Path) -> String {
        if path == self.config {
            return CONFIG.to_owned();
        }
        if path == self.symvers {
            return SYMVERS.to_owned();
        }
        let within = [&self.dir, &self.obj, &self.src].into_iter();
        let inner = within.filter_map(|dir| path.strip_prefix(dir).ok()).next();
        let name = inner.or(path.file_name().map(Path::new)).unwrap_or(path);
        name.to_string_lossy().into_owned()
    }
}
