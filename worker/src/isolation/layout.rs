//! What a confined tool sees of the file system: decided beforehand, path by path, and made by the process that becomes the
//! tool ([`super::mounts`]).
//!
//! The new root is empty but for what is shown. A path is shown where it is named *and* where it really is: the links on the
//! way are made as the host has them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What every tool sees: programs, libraries, headers.
pub(super) const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt"];

/// Of /etc, what programs look at to run at all. The rest may hold secrets that the worker's user can read.
const ETC: [&str; 9] = [
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/etc/python3",
];

/// Links on the way to one path, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// A place in the new root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Node {
    /// A folder that leads to others.
    Dir,
    Link(PathBuf),
    /// What the host has there, with all below, read only.
    Folder,
    File,
    /// An empty folder on top of what is shown.
    Hidden,
}

/// The places, parents before what they hold, and those of them that can be written to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    pub nodes: BTreeMap<PathBuf, Node>,
    pub writable: BTreeSet<PathBuf>,
}

impl Layout {
    /// The system, these paths, and those that can be written to; what is not there is left out. Nothing below `hidden` is
    /// shown but by its own name.
    ///
    /// # Errors
    /// A link leads nowhere, or the disk refuses.
    pub fn new(read: &[PathBuf], write: &[PathBuf], hidden: &[PathBuf]) -> io::Result<Self> {
        let mut layout = Self::default();
        let system = SYSTEM.iter().chain(&ETC).map(Path::new);
        let read = system.chain(read.iter().map(PathBuf::as_path));
        let mut shown: BTreeSet<PathBuf> = BTreeSet::new();
        for path in read {
            shown.extend(layout.real(path)?);
        }
        let mut writable = BTreeSet::new();
        for path in write {
            writable.extend(layout.real(path)?);
        }
        let hidden: Vec<PathBuf> = hidden.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let is_hidden = |path: &Path| hidden.iter().any(|dir| path.starts_with(dir) && path != dir);
        let (inside, outside): (Vec<PathBuf>, Vec<PathBuf>) = shown.into_iter().partition(|path| is_hidden(path));
        // Folders come before what is in them, which needs no place of its own then.
        outside.iter().try_for_each(|path| layout.show(path))?;
        for dir in &hidden {
            if layout.is_shown(dir) {
                layout.nodes.insert(dir.clone(), Node::Hidden);
            }
        }
        inside.iter().try_for_each(|path| layout.show(path))?;
        for path in &writable {
            layout.lead_to(path);
            if !layout.is_shown(path) {
                layout.nodes.insert(path.clone(), Node::Dir);
            }
        }
        layout.writable = writable;
        // Where a folder is shown, its links are there.
        let (nodes, links): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut layout.nodes)
            .into_iter()
            .partition(|(_, node)| !matches!(node, Node::Link(_)));
        layout.nodes = nodes;
        for (path, node) in links {
            if !layout.is_shown(&path) {
                layout.lead_to(&path);
                layout.nodes.insert(path, node);
            }
        }
        Ok(layout)
    }

    /// What is shown read only, as it is really called.
    pub fn readable(&self) -> impl Iterator<Item = &Path> {
        let shown = self
            .nodes
            .iter()
            .filter(|(_, node)| matches!(node, Node::Folder | Node::File));
        shown.map(|(path, _)| path.as_path())
    }

    /// Where a path really is; the links on the way are taken down. `None`: there is nothing.
    fn real(&mut self, path: &Path) -> io::Result<Option<PathBuf>> {
        let words = |path: &Path| -> VecDeque<OsString> {
            let parts = path
                .components()
                .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
            parts.map(|part| part.as_os_str().to_owned()).collect()
        };
        let (mut at, mut rest) = (PathBuf::from("/"), words(path));
        let mut links = 0;
        while let Some(word) = rest.pop_front() {
            if word == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&word);
            match next.symlink_metadata() {
                // What the worker can't reach, it can't show.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                    return Ok(None);
                }
                Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", next.display()))),
                Ok(found) if !found.is_symlink() => at = next,
                Ok(_) => {
                    links += 1;
                    if links > MAX_LINKS {
                        let why = format!("{} leads through too many links", path.display());
                        return Err(io::Error::other(why));
                    }
                    let target = std::fs::read_link(&next)?;
                    self.nodes.insert(next, Node::Link(target.clone()));
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    let mut way = words(&target);
                    way.append(&mut rest);
                    rest = way;
                }
            }
        }
        Ok(Some(at))
    }

    fn show(&mut self, path: &Path) -> io::Result<()> {
        if self.is_shown(path) {
            return Ok(());
        }
        let node = match path.symlink_metadata()?.is_dir() {
            true => Node::Folder,
            false => Node::File,
        };
        self.lead_to(path);
        self.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    /// Whether the folder around it, or itself, is shown.
    fn is_shown(&self, path: &Path) -> bool {
        let nearest = path.ancestors().find_map(|dir| {
            self.nodes
                .get(dir)
                .filter(|node| !matches!(node, Node::Dir | Node::Link(_)))
        });
        nearest.is_some_and(|node| *node != Node::Hidden)
    }

    fn lead_to(&mut self, path: &Path) {
        for dir in path.ancestors().skip(1) {
            if self.is_shown(dir) || self.nodes.contains_key(dir) {
                return;
            }
            if dir.parent().is_some() {
                self.nodes.insert(dir.to_owned(), Node::Dir);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// The nodes below a folder, by their names in it.
    fn nodes(layout: &Layout, root: &Path) -> Vec<(String, Node)> {
        let inside = layout.nodes.iter();
        inside
            .filter_map(|(path, node)| Some((path.strip_prefix(root).ok()?.display().to_string(), node.clone())))
            .filter(|(name, _)| !name.is_empty())
            .collect()
    }

    #[test]
    fn a_path_is_shown_where_it_is_named_and_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("disk/trees/a/src")).unwrap();
        fs::create_dir_all(root.join("disk/other")).unwrap();
        symlink("disk/trees", root.join("trees")).unwrap();
        let read = [root.join("trees/a/src"), root.join("trees/a"), root.join("gone")];
        let layout = Layout::new(&read, &[], &[]).unwrap();
        assert_eq!(
            nodes(&layout, &root),
            [
                ("disk".to_owned(), Node::Dir),
                ("disk/trees".to_owned(), Node::Dir),
                ("disk/trees/a".to_owned(), Node::Folder),
                ("trees".to_owned(), Node::Link("disk/trees".into())),
            ]
        );
        assert!(layout.nodes.contains_key(Path::new("/usr")), "the system is there, too");
        assert!(!layout.nodes.contains_key(Path::new("/etc/shadow")));
    }

    #[test]
    fn what_is_hidden_is_so_within_what_is_shown_and_its_own_scratch_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (data, mine) = (root.join("opt/data"), root.join("opt/data/scratch/1"));
        fs::create_dir_all(&mine).unwrap();
        fs::create_dir_all(data.join("trees")).unwrap();
        let shown = [root.join("opt"), data.join("trees")];
        let layout = Layout::new(&shown, std::slice::from_ref(&mine), std::slice::from_ref(&data)).unwrap();
        assert_eq!(
            nodes(&layout, &root),
            [
                ("opt".to_owned(), Node::Folder),
                ("opt/data".to_owned(), Node::Hidden),
                ("opt/data/scratch".to_owned(), Node::Dir),
                ("opt/data/scratch/1".to_owned(), Node::Dir),
                ("opt/data/trees".to_owned(), Node::Folder),
            ]
        );
        assert!(layout.writable.contains(&mine));
        let apart = Layout::new(&[], &[], std::slice::from_ref(&data)).unwrap();
        assert!(nodes(&apart, &root).is_empty(), "what nothing shows needs no hiding");
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let error = Layout::new(&[dir.path().join("a/x")], &[], &[]).unwrap_err();
        assert!(error.to_string().contains("too many links"), "{error}");
    }
}
