//! A folder that looks like a source tree but for some files: folders of its own where they must be, links to the tree
//! for all else.
//!
//! A compiler resolves the `..` of `#include "../x.h"` from where a folder really is. Behind a link that is the tree, where
//! `x.h` is as it was. So where a changed file may be included, every folder is real and only files are links
//! ([`Reach::All`]); else only the folders that lead to changed files are ([`Reach::Ancestors`]).
//!
//! All folders of Debian's 6.1 are 2,900 with 48,000 links, 23 MiB and seconds of a busy disk; the ancestors of one file a
//! few hundred links and 10 ms.
//!
//! A link's text fits into its inode while it is short. So each real folder holds one long link, [`TREE`], to the folder it
//! stands for, and its other links go through that one.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use klp_livepatch::Arch;

/// In each real folder, the link to the tree's own.
const TREE: &str = ".tree";

/// Folders below the source's root that no file of the kernel proper includes anything from, or by `..`: these stay links.
const APART: [&str; 5] = ["Documentation", "LICENSES", "samples", "tools", "usr"];

/// Which folders are real.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    All,
    Ancestors,
}

pub(super) struct Farm<'a> {
    pub tree: &'a Path,
    /// Not there yet.
    pub view: &'a Path,
    pub arch: Arch,
    /// Files that the view has of its own or lacks, relative to the root.
    pub touched: &'a BTreeSet<String>,
    pub reach: Reach,
    /// Set when nobody wants the view any more.
    pub stop: &'a AtomicBool,
}

/// A folder that was made, with what is to be linked in it.
struct Folder {
    /// Relative to the root.
    path: PathBuf,
    links: Vec<(OsString, PathBuf)>,
}

impl Farm<'_> {
    /// Makes folders and links; what is touched is left out, for the caller to put there.
    pub fn make(&self) -> io::Result<()> {
        let mut leading = BTreeSet::new();
        for file in self.touched {
            leading.extend(Path::new(file).ancestors().skip(1).map(Path::to_owned));
        }
        let mut folders = Vec::new();
        let mut open = vec![PathBuf::new()];
        while let Some(path) = open.pop() {
            self.go_on()?;
            let folder = self.folder(path, &leading, &mut open)?;
            std::fs::create_dir(self.view.join(&folder.path))?;
            folders.push(folder);
        }
        self.link(folders)
    }

    fn go_on(&self) -> io::Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }

    fn folder(&self, path: PathBuf, leading: &BTreeSet<PathBuf>, open: &mut Vec<PathBuf>) -> io::Result<Folder> {
        let mut links = vec![(OsString::from(TREE), self.tree.join(&path))];
        for entry in std::fs::read_dir(self.tree.join(&path))? {
            let entry = entry?;
            let name = entry.file_name();
            let inner = path.join(&name);
            let touched = inner.to_str().is_some_and(|inner| self.touched.contains(inner));
            // A name of ours, and a repository, whose place git would look for.
            if touched || name == TREE || name == ".git" {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() && (leading.contains(&inner) || self.is_real(&inner)) {
                open.push(inner);
                continue;
            }
            let inside = match kind.is_symlink() {
                true => stays_inside(&path, &std::fs::read_link(entry.path())?),
                false => None,
            };
            let target = inside.unwrap_or_else(|| Path::new(TREE).join(&name));
            links.push((name, target));
        }
        Ok(Folder { path, links })
    }

    /// Whether a folder that no touched file is in must be real.
    fn is_real(&self, folder: &Path) -> bool {
        let mut parts = folder.iter();
        let apart = match (
            parts.next().and_then(OsStr::to_str),
            parts.next().and_then(OsStr::to_str),
        ) {
            (Some("arch"), Some(arch)) => {
                // arm64 shares code with arm.
                arch != self.arch.kernel_dir() && (self.arch, arch) != (Arch::Aarch64, "arm")
            }
            (Some(top), _) => APART.contains(&top),
            _ => false,
        };
        self.reach == Reach::All && !apart
    }

    fn link(&self, folders: Vec<Folder>) -> io::Result<()> {
        let threads = match self.reach {
            Reach::Ancestors => 1,
            // Beyond a few they wait for the file system.
            Reach::All => std::thread::available_parallelism().map_or(1, |n| n.get().min(4)),
        };
        let todo = Mutex::new(folders);
        let work = || -> io::Result<()> {
            loop {
                let next = todo.lock().map_or(None, |mut todo| todo.pop());
                let Some(Folder { path, links }) = next else {
                    return Ok(());
                };
                self.go_on()?;
                let dir = self.view.join(path);
                for (name, target) in links {
                    symlink(target, dir.join(name))?;
                }
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let others = others.into_iter().map(|other| {
                let died = || Err(io::Error::other("a thread died"));
                other.join().unwrap_or_else(|_| died())
            });
            others.fold(mine, Result::and)
        })
    }
}

/// The target of a link in folder `dir`, if it is relative and leads to a place below the root: the same link in the view
/// then leads to the view's.
fn stays_inside(dir: &Path, target: &Path) -> Option<PathBuf> {
    let mut depth = dir.components().count();
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth = depth.checked_sub(1)?,
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(target.to_owned())
}

/// How far a set of patched files reaches. `text` reads a file of the root, as patched.
///
/// A `.c` file that is an object of its own is not included by `..` from another folder, except where a part of the kernel
/// is built a second time, for the boot loader, the EFI stub and tools, which nobody patches alive, and but for libfdt in
/// `scripts/`: in 6.1 that holds for all 44 such places.
pub(super) fn reach(touched: &BTreeSet<String>, text: impl Fn(&str) -> Option<String>) -> Reach {
    match touched.iter().any(|file| may_be_included(file, &text)) {
        true => Reach::All,
        false => Reach::Ancestors,
    }
}

fn may_be_included(file: &str, text: &impl Fn(&str) -> Option<String>) -> bool {
    let path = Path::new(file);
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if file.starts_with("Documentation/") || name.starts_with("Makefile") || name.starts_with("Kconfig") {
        return false;
    }
    match name.rsplit_once('.') {
        Some((_, "c")) if file.starts_with("scripts/") => true,
        Some((stem, "c")) => {
            let object = format!("{stem}.o");
            // The Makefile of a folder, or of one above that builds it along: fs/xfs builds libxfs.
            !path.ancestors().skip(1).take(3).any(|dir| {
                ["Makefile", "Kbuild"].iter().any(|makefile| {
                    let makefile = dir.join(makefile);
                    let text = makefile.to_str().and_then(text);
                    text.is_some_and(|text| has_word(&text, &object))
                })
            })
        }
        Some((_, "rst" | "txt" | "yaml" | "dts" | "sh" | "py" | "pl" | "config")) => false,
        None => !matches!(name, "Kbuild" | "MAINTAINERS" | "CREDITS"),
        Some(_) => true,
    }
}

/// Whether a text has a file's name, not merely as part of another.
fn has_word(text: &str, word: &str) -> bool {
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(of_a_name) && !text[at + word.len()..].starts_with(of_a_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_of_their_own_reach_no_further() {
        let makefiles = |path: &str| match path {
            "scripts/dtc/Makefile" => Some("hostprogs := fdt.o".to_owned()),
            "net/core/Makefile" => Some("obj-y := sock.o dev-x.o\n".to_owned()),
            "fs/xfs/Makefile" => Some("xfs-y += $(addprefix libxfs/, \\\n\txfs_ag.o)\n".to_owned()),
            _ => None,
        };
        let reach = |files: &[&str]| reach(&files.iter().map(|f| (*f).to_owned()).collect(), makefiles);
        for near in [
            "net/core/sock.c",
            "fs/xfs/libxfs/xfs_ag.c",
            "Documentation/x.h",
            "net/core/Makefile",
            "Kconfig",
            "MAINTAINERS",
        ] {
            assert_eq!(reach(&[near]), Reach::Ancestors, "{near}");
        }
        for far in [
            "net/core/x.c",
            "net/core/dev.c",
            "scripts/dtc/fdt.c",
            "include/net/sock.h",
            "net/core/x.inc",
            "lib/x.S",
        ] {
            assert_eq!(reach(&[far, "net/core/sock.c"]), Reach::All, "{far}");
        }
    }

    #[test]
    fn links_within_the_source_stay_within() {
        let stays = |dir: &str, target: &str| stays_inside(Path::new(dir), Path::new(target)).is_some();
        assert!(stays("scripts/dtc", "../../arch/arm") && stays("", "a"));
        assert!(!stays("scripts", "../../x") && !stays("scripts", "/usr/src") && !stays("", ".."));
    }
}
