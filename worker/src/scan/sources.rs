//! The kernels' sources, as far as this worker has them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use klp_livepatch::Codestream;
use klp_livepatch::names::TreePath;

/// Bytes of one source file.
const MAX_SOURCE: u64 = 8 << 20;

/// Where the text of a kernel's files comes from.
pub trait Sources: Send + Sync {
    fn has(&self, codestream: &Codestream) -> bool;

    /// A file's text by its path from the kernel's root, unpatched; `None` if there is no such file.
    fn read(&self, codestream: &Codestream, path: &str) -> Option<String>;
}

/// No sources at all.
pub struct NoSources;

impl Sources for NoSources {
    fn has(&self, _: &Codestream) -> bool {
        false
    }

    fn read(&self, _: &Codestream, _: &str) -> Option<String> {
        None
    }
}

/// The source folders of kernel trees.
pub struct SourceDirs(BTreeMap<Codestream, PathBuf>);

impl SourceDirs {
    /// Folders that can't be found are left out.
    pub fn new(dirs: impl IntoIterator<Item = (Codestream, PathBuf)>) -> Self {
        let found = dirs
            .into_iter()
            .filter_map(|(name, dir)| Some((name, dir.canonicalize().ok()?)));
        Self(found.collect())
    }
}

impl Sources for SourceDirs {
    fn has(&self, codestream: &Codestream) -> bool {
        self.0.contains_key(codestream)
    }

    fn read(&self, codestream: &Codestream, path: &str) -> Option<String> {
        let dir = self.0.get(codestream)?;
        // Makefiles name paths, too, and links lead anywhere.
        let path: TreePath = path.parse().ok()?;
        let file = dir
            .join(path.as_str())
            .canonicalize()
            .ok()
            .filter(|file| file.starts_with(dir) && file.is_file())?;
        let mut bytes = Vec::new();
        std::fs::File::open(file)
            .ok()?
            .take(MAX_SOURCE + 1)
            .read_to_end(&mut bytes)
            .ok()?;
        (bytes.len() as u64 <= MAX_SOURCE).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_folder_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("src");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(dir.path().join("secret.c"), "secret").unwrap();
        std::fs::write(inside.join("a.c"), "int a;").unwrap();
        std::os::unix::fs::symlink("../secret.c", inside.join("link.c")).unwrap();
        let name: Codestream = "15.6u1".parse().unwrap();
        let sources = SourceDirs::new([(name.clone(), inside)]);
        assert_eq!(sources.read(&name, "a.c").as_deref(), Some("int a;"));
        for bad in ["../secret.c", "link.c", "/etc/passwd", "", "none.c"] {
            assert_eq!(sources.read(&name, bad), None, "{bad}");
        }
    }
}
