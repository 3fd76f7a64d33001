//! A kernel's modules by name.
//!
//! The kernel takes `-` and `_` in a module's name for the same, and so does this; a name must belong to one file only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

const SUFFIXES: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// Folders of a built kernel tree that hold no modules of it.
const SKIPPED: [&str; 4] = [".git", "Documentation", "tools", "include"];

/// Why a module was not found.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("there is no module `{name}` in {}{hint}", dir.display())]
    Absent { name: String, dir: PathBuf, hint: String },
    #[error("module `{name}` is ambiguous in {}: {}", dir.display(), files.join(", "))]
    Ambiguous {
        name: String,
        dir: PathBuf,
        files: Vec<String>,
    },
    #[error("can't read {}: {cause}", path.display())]
    Io { path: PathBuf, cause: std::io::Error },
}

/// Where each module of a kernel is.
#[derive(Debug)]
pub struct ModuleIndex {
    dir: PathBuf,
    /// By name with underscores; paths relative to `dir`, without `.ko` and what follows it.
    modules: HashMap<String, Vec<String>>,
}

impl ModuleIndex {
    /// Reads `modules.order`, or where there is none walks the folder.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub fn read(dir: &Path) -> Result<Self, ModuleError> {
        let order = dir.join("modules.order");
        match std::fs::read_to_string(&order) {
            Ok(text) => Ok(Self::listed(dir, &text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::of(dir, walk(dir)?)),
            Err(cause) => Err(ModuleError::Io { path: order, cause }),
        }
    }

    /// The modules that a `modules.order` lists.
    pub fn listed(dir: &Path, order: &str) -> Self {
        Self::of(dir, order.lines().filter_map(stem_of).map(str::to_owned).collect())
    }

    fn of(dir: &Path, stems: Vec<String>) -> Self {
        let mut modules: HashMap<String, Vec<String>> = HashMap::new();
        for stem in stems {
            let found = modules.entry(normal_name(&stem)).or_default();
            if !found.contains(&stem) {
                found.push(stem);
            }
        }
        Self {
            dir: dir.to_owned(),
            modules,
        }
    }

    pub fn len(&self) -> usize {
        self.modules.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// The module's file.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn find(&self, name: &str) -> Result<PathBuf, ModuleError> {
        let stems = self
            .modules
            .get(&normal_name(name))
            .map(Vec::as_slice)
            .unwrap_or_default();
        let files: Vec<PathBuf> = stems
            .iter()
            .flat_map(|stem| {
                SUFFIXES
                    .iter()
                    .map(move |suffix| self.dir.join(format!("{stem}{suffix}")))
            })
            .filter(|file| file.is_file())
            .collect();
        match &files[..] {
            [one] => Ok(one.clone()),
            [] => Err(ModuleError::Absent {
                name: name.to_owned(),
                dir: self.dir.clone(),
                hint: match stems {
                    [] => String::new(),
                    [stem, ..] => {
                        format!(": modules.order lists {stem}.ko, but the file is missing; build it or verify the tree")
                    }
                },
            }),
            _ => Err(ModuleError::Ambiguous {
                name: name.to_owned(),
                dir: self.dir.clone(),
                files: files
                    .iter()
                    .map(|file| file.strip_prefix(&self.dir).unwrap_or(file).display().to_string())
                    .collect(),
            }),
        }
    }

    /// The names of all modules, with underscores.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// The names of the modules built from a folder of the source tree, such as `sound/core`, with dashes as the files
    /// have them.
    pub fn in_folder(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .modules
            .values()
            .flatten()
            .filter_map(|stem| stem.strip_prefix("kernel/").unwrap_or(stem).rsplit_once('/'))
            .filter(|(its_folder, _)| *its_folder == folder)
            .map(|(_, name)| name.to_owned())
            .collect();
        names.sort();
        names
    }
}

/// `kernel/sound/core/snd-pcm` of `kernel/sound/core/snd-pcm.ko`, whatever its compression; since 6.4 a built tree's
/// modules.order says `.o`. Paths that leave the folder are none of ours.
fn stem_of(line: &str) -> Option<&str> {
    let stem = SUFFIXES
        .iter()
        .find_map(|suffix| line.strip_suffix(suffix))
        .or_else(|| line.strip_suffix(".o"))?;
    let inside = !stem.starts_with('/') && !stem.split('/').any(|part| part == ".." || part.is_empty());
    inside.then_some(stem)
}

/// The name a stem's module is found by.
fn normal_name(stem: &str) -> String {
    stem.rsplit('/').next().unwrap_or(stem).replace('-', "_")
}

fn walk(dir: &Path) -> Result<Vec<String>, ModuleError> {
    let mut stems = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = dir.join(&folder);
        let failed = |cause| ModuleError::Io {
            path: path.clone(),
            cause,
        };
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let inner = if folder.is_empty() {
                name.clone()
            } else {
                format!("{folder}/{name}")
            };
            // Links are not followed: `build` and `source` lead elsewhere.
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() && !(folder.is_empty() && SKIPPED.contains(&name.as_str())) {
                folders.push(inner);
            } else if kind.is_file() && !name.ends_with(".o") {
                stems.extend(stem_of(&inner).map(str::to_owned));
            }
        }
    }
    stems.sort();
    Ok(stems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str], order: Option<&str>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        if let Some(order) = order {
            std::fs::write(dir.path().join("modules.order"), order).unwrap();
        }
        dir
    }

    #[test]
    fn dashes_and_underscores_are_the_same() {
        let files = ["kernel/sound/core/snd-pcm.ko.xz", "kernel/net/sch_qfq.ko"];
        for order in [None, Some("kernel/sound/core/snd-pcm.ko\nkernel/net/sch_qfq.ko\n")] {
            let dir = folder(&files, order);
            let index = ModuleIndex::read(dir.path()).unwrap();
            assert_eq!(index.len(), 2);
            assert_eq!(index.find("snd_pcm").unwrap(), dir.path().join(files[0]));
            assert_eq!(index.find("sch-qfq").unwrap(), dir.path().join(files[1]));
            assert!(matches!(index.find("sch"), Err(ModuleError::Absent { .. })));
            assert_eq!(index.in_folder("sound/core"), ["snd-pcm"]);
        }
    }

    #[test]
    fn a_built_tree_lists_objects() {
        let dir = folder(
            &["sound/core/snd-pcm.ko", "sound/core/snd-pcm.o"],
            Some("sound/core/snd-pcm.o\n"),
        );
        let index = ModuleIndex::read(dir.path()).unwrap();
        assert_eq!(index.find("snd-pcm").unwrap(), dir.path().join("sound/core/snd-pcm.ko"));
    }

    #[test]
    fn two_files_of_one_name_are_ambiguous_and_a_missing_one_is_told() {
        let dir = folder(&["a/x-y.ko", "b/x_y.ko"], None);
        let index = ModuleIndex::read(dir.path()).unwrap();
        let error = index.find("x-y").unwrap_err().to_string();
        assert!(error.contains("a/x-y.ko, b/x_y.ko"), "{error}");
        let dir = folder(&[], Some("kernel/a/b.ko\n/etc/c.ko\nkernel/../../d.ko\n"));
        let index = ModuleIndex::read(dir.path()).unwrap();
        assert_eq!(index.names().collect::<Vec<_>>(), ["b"]);
        assert!(index.find("b").unwrap_err().to_string().contains("the file is missing"));
    }
}
