//! The files of a parse: their texts, their names from the tree's root, and which of them are the patched file's own.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

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
    text: OnceCell<String>,
    tokens: OnceCell<Vec<Token>>,
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
        self.text().as_bytes()[..offset.min(self.text().len())]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1
    }

    /// How a source outside the tree includes this file.
    pub fn include_name(&self) -> Option<String> {
        let inside = public_part(&self.label)?;
        Some(format!("<{inside}>"))
    }
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
}

impl Files {
    pub fn new(src_dir: &Path, obj_dir: &Path, directory: &Path) -> Self {
        let real = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_owned());
        Self {
            roots: vec![real(src_dir), real(obj_dir)],
            directory: directory.to_owned(),
            list: Vec::new(),
            by_handle: HashMap::new(),
            by_path: HashMap::new(),
        }
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
        let label = self
            .roots
            .iter()
            .find_map(|root| real.strip_prefix(root).ok())
            .map_or_else(
                || real.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                |inside| inside.to_string_lossy().into_owned(),
            );
        let public = public_part(&label).is_some();
        let id = self.list.len();
        self.list.push(SourceFile {
            handle,
            label,
            public,
            path,
            text: OnceCell::new(),
            tokens: OnceCell::new(),
        });
        self.by_handle.insert(handle, id);
        self.by_path.insert(real, id);
        id
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
