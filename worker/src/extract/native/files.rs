//! The files of a parse: their texts, their names from the tree's root, and which of them are the patched file's own.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use super::lexer::{self, Token};
use super::libclang::FileHandle;

pub type FileId = usize;

pub struct SourceFile {
    pub handle: FileHandle,
    /// The path from the source (or object) directory's root; what is outside both keeps only its base name.
    pub label: String,
    /// True for headers a module outside the tree can include: those of include/ and arch/*/include/.
    pub public: bool,
    path: PathBuf,
    /// Where it really is.
    real: PathBuf,
    text: OnceCell<String>,
    tokens: OnceCell<Vec<Token>>,
    line_ends: OnceCell<Vec<usize>>,
}

impl SourceFile {
    pub fn text(&self) -> &str {
        self.text
            .get_or_init(|| lexer::same_length_text(std::fs::read(&self.path).unwrap_or_default()))
    }

    pub fn tokens(&self) -> &[Token] {
        self.tokens.get_or_init(|| lexer::tokens(self.text()))
    }

    /// The line (from 1) of a byte offset.
    pub fn line(&self, offset: usize) -> usize {
        let ends = self
            .line_ends
            .get_or_init(|| self.text().match_indices('\n').map(|(at, _)| at).collect());
        ends.partition_point(|end| *end < offset) + 1
    }

    /// How a source outside the tree includes this file.
    pub fn include_name(&self) -> Option<String> {
        let inside = public_part(&self.label)?;
        Some(format!("<{inside}>"))
    }
}

/// A path without `.` and `..`, by its words alone.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// The part of a public header's path an `#include <...>` names.
fn public_part(label: &str) -> Option<&str> {
    let rest = match label.strip_prefix("arch/") {
        Some(arch) => arch.split_once('/')?.1,
        None => label,
    };
    let inside = rest.strip_prefix("include/")?;
    Some(if label.starts_with("arch/") {
        inside.strip_prefix("generated/").unwrap_or(inside)
    } else {
        inside
    })
}

/// All files seen so far.
pub struct Files {
    roots: Vec<PathBuf>,
    directory: PathBuf,
    list: Vec<SourceFile>,
    by_handle: HashMap<FileHandle, FileId>,
    /// libclang has a handle for each way a file is named.
    by_path: HashMap<PathBuf, FileId>,
    /// The text that was read in place of a file's own, and that file's label.
    instead: Option<(String, String)>,
}

impl Files {
    pub fn new(src_dir: &Path, obj_dir: &Path, directory: &Path) -> Self {
        // As they are called and as they really are; an object directory inside the source directory goes first.
        let mut roots: Vec<PathBuf> = [src_dir, obj_dir]
            .into_iter()
            .flat_map(|p| [Some(plain(p)), p.canonicalize().ok()])
            .flatten()
            .collect();
        roots.sort_by_key(|p| std::cmp::Reverse(p.as_os_str().len()));
        roots.dedup();
        Self {
            roots,
            directory: directory.to_owned(),
            list: Vec::new(),
            by_handle: HashMap::new(),
            by_path: HashMap::new(),
            instead: None,
        }
    }

    /// Of the file with this label another text was parsed.
    pub fn reading(mut self, label: &str, text: &str) -> Self {
        self.instead = Some((label.to_owned(), text.to_owned()));
        self
    }

    /// The path from a root. A tree may be a view made of links into another: the name a file is reached by counts first.
    fn label(&self, path: &Path, real: &Path) -> String {
        let inside = |path: &Path| {
            self.roots
                .iter()
                .find_map(|root| path.strip_prefix(root).ok().map(Path::to_path_buf))
        };
        inside(&plain(path))
            .or_else(|| inside(real))
            .unwrap_or_else(|| PathBuf::from(real.file_name().unwrap_or_default()))
            .to_string_lossy()
            .into_owned()
    }

    pub fn id(&mut self, handle: FileHandle) -> FileId {
        if let Some(id) = self.by_handle.get(&handle) {
            return *id;
        }
        let path = self.directory.join(handle.name());
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if let Some(id) = self.by_path.get(&real) {
            self.by_handle.insert(handle, *id);
            return *id;
        }
        let label = self.label(&path, &real);
        let public = public_part(&label).is_some();
        let id = self.list.len();
        let instead = self.instead.as_ref().filter(|(of, _)| *of == label);
        let text = instead.map_or_else(OnceCell::new, |(_, text)| OnceCell::from(text.clone()));
        self.list.push(SourceFile {
            handle,
            label,
            public,
            path,
            real: real.clone(),
            text,
            tokens: OnceCell::new(),
            line_ends: OnceCell::new(),
        });
        self.by_handle.insert(handle, id);
        self.by_path.insert(real, id);
        id
    }

    /// The file, if it has been seen under this name.
    pub fn known(&self, handle: FileHandle) -> Option<FileId> {
        self.by_handle.get(&handle).copied()
    }

    /// The files below `src_dir` that `other`, another tree, has not got (`true`) or has with another content. What is built
    /// and links that lead elsewhere are nobody's change.
    pub fn differing(&self, src_dir: &Path, obj_dir: &Path, other: &Path) -> Vec<(FileId, bool)> {
        let real = |dir: &Path| dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let (src_dir, obj_dir) = (real(src_dir), real(obj_dir));
        let built = |file: &SourceFile| src_dir != obj_dir && file.real.starts_with(&obj_dir);
        self.iter()
            .filter(|(_, file)| file.real.starts_with(&src_dir) && !built(file))
            .filter_map(|(id, file)| {
                let there = std::fs::read(other.join(&file.label)).ok();
                let here = std::fs::read(&file.real).ok()?;
                (there.as_ref() != Some(&here)).then_some((id, there.is_none()))
            })
            .collect()
    }

    /// Has headers that other trees lack be treated as the patched file's own.
    pub fn make_private(&mut self, labels: &BTreeSet<String>) {
        for file in self.list.iter_mut().filter(|file| labels.contains(&file.label)) {
            file.public = false;
        }
    }

    pub fn get(&self, id: FileId) -> &SourceFile {
        &self.list[id]
    }

    pub fn iter(&self) -> impl Iterator<Item = (FileId, &SourceFile)> {
        self.list.iter().enumerate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_start_at_the_innermost_root() {
        let files = Files::new(
            Path::new("/k/src"),
            Path::new("/k/src/build"),
            Path::new("/k/src/build"),
        );
        let label = |p: &str| files.label(Path::new(p), Path::new(p));
        assert_eq!(label("/k/src/build/./include/generated/a.h"), "include/generated/a.h");
        assert_eq!(label("/k/src/net/../mm/slab.h"), "mm/slab.h");
        assert_eq!(label("/tmp/scratch/klp-builtin.h"), "klp-builtin.h");
    }

    #[test]
    fn public_headers_are_those_a_module_can_include() {
        assert_eq!(public_part("include/linux/a.h"), Some("linux/a.h"));
        assert_eq!(public_part("include/uapi/linux/a.h"), Some("uapi/linux/a.h"));
        assert_eq!(public_part("include/generated/bounds.h"), Some("generated/bounds.h"));
        assert_eq!(public_part("arch/x86/include/asm/a.h"), Some("asm/a.h"));
        assert_eq!(public_part("arch/x86/include/generated/asm/a.h"), Some("asm/a.h"));
        assert_eq!(public_part("arch/x86/kvm/x.h"), None);
        assert_eq!(public_part("drivers/net/include/a.h"), None);
    }
}
