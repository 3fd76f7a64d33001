//! A tree as the checks see it.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klp_livepatch::names::{ConfigName, SourcePath};
use klp_livepatch::task::Platform;

use super::Kernel;
use crate::symbols::{ObjectIndex, SymbolTable};
use crate::trees::{KernelConfig, ModuleIndex, Tree, TreeError};

/// Folders of a source tree that hold nothing to patch.
const SKIPPED: [&str; 4] = ["Documentation", "tools", "samples", ".git"];

/// Places at most that are suggested for a file.
const MAX_PLACES: usize = 3;

pub(super) struct TreeView<'a> {
    tree: &'a Tree,
    config: KernelConfig,
    modules: ModuleIndex,
    vmlinux: OnceCell<Arc<dyn SymbolTable>>,
    // Several targets are often in one module.
    loaded: RefCell<HashMap<PathBuf, Arc<ObjectIndex>>>,
}

impl<'a> TreeView<'a> {
    pub(super) fn open(tree: &'a Tree) -> Result<Self, TreeError> {
        Ok(Self {
            tree,
            config: tree.kernel_config()?,
            modules: tree.modules()?,
            vmlinux: OnceCell::new(),
            loaded: RefCell::new(HashMap::new()),
        })
    }
}

impl TreeView<'_> {
    fn index(&self, name: &str) -> Result<Arc<ObjectIndex>, TreeError> {
        let path = self.modules.find(name)?;
        if let Some(index) = self.loaded.borrow().get(&path) {
            return Ok(index.clone());
        }
        let index = Arc::new(ObjectIndex::open(&path)?);
        self.loaded.borrow_mut().insert(path, index.clone());
        Ok(index)
    }
}

impl Kernel for TreeView<'_> {
    fn platform(&self) -> &Platform {
        &self.tree.platform
    }

    fn config(&self) -> &KernelConfig {
        &self.config
    }

    fn source(&self, file: &SourcePath) -> Option<String> {
        let bytes = std::fs::read(self.tree.src.join(file.as_str())).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn vmlinux(&self) -> Result<Arc<dyn SymbolTable>, TreeError> {
        if let Some(table) = self.vmlinux.get() {
            return Ok(table.clone());
        }
        let table: Arc<dyn SymbolTable> = self.tree.vmlinux_symbols()?.into();
        Ok(self.vmlinux.get_or_init(|| table).clone())
    }

    fn module(&self, name: &str) -> Result<Arc<dyn SymbolTable>, TreeError> {
        Ok(self.index(name)?)
    }

    fn module_path(&self, name: &str) -> Option<String> {
        let path = self.modules.find(name).ok()?;
        let inside = path.strip_prefix(&self.tree.modules_dir).ok()?;
        Some(inside.to_str()?.to_owned())
    }

    fn modinfo(&self, name: &str, key: &str) -> Option<String> {
        self.index(name).ok()?.modinfo(key)
    }

    fn module_names(&self) -> Vec<String> {
        self.modules.names().map(str::to_owned).collect()
    }

    fn modules_in(&self, folder: &str) -> Vec<String> {
        self.modules.in_folder(folder)
    }

    fn has_option(&self, option: &ConfigName) -> bool {
        let bare = option.as_str().strip_prefix("CONFIG_").unwrap_or(option.as_str());
        let defines = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            matches!(words.next(), Some("config" | "menuconfig")) && words.next() == Some(bare)
        };
        any_file(&self.tree.src, &mut |name, path| {
            name.starts_with("Kconfig")
                && std::fs::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).lines().any(defines))
        })
    }

    fn files_named_like(&self, file: &SourcePath) -> Vec<String> {
        let wanted = file.as_str().rsplit('/').next().unwrap_or_default();
        let mut places = Vec::new();
        any_file(&self.tree.src, &mut |name, path| {
            if name == wanted
                && let Ok(inside) = path.strip_prefix(&self.tree.src)
            {
                places.push(inside.display().to_string());
            }
            false
        });
        // Those that share most folders with the path that was asked for come first.
        let folders: Vec<_> = file.as_str().split('/').collect();
        places.sort_by_key(|place| {
            let shared = place.split('/').filter(|part| folders.contains(part)).count();
            (std::cmp::Reverse(shared), place.clone())
        });
        places.truncate(MAX_PLACES);
        places
    }
}

/// Whether `test` holds for some file below `top`, given its name and path. Folders that can't be read are passed over.
fn any_file(top: &Path, test: &mut dyn FnMut(&str, &Path) -> bool) -> bool {
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let (Ok(kind), Some(name)) = (entry.file_type(), name.to_str()) else {
                continue;
            };
            if kind.is_dir() {
                if folder != top || !SKIPPED.contains(&name) {
                    folders.push(entry.path());
                }
            } else if kind.is_file() && test(name, &entry.path()) {
                return true;
            }
        }
    }
    false
}
