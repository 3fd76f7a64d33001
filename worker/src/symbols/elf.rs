//! Symbol tables of modules and vmlinux, read over a memory map.

use std::collections::HashMap;
use std::path::Path;

use object::{Object, ObjectSymbol};

use super::image::Image;
use super::{Places, SymbolError, SymbolInfo, SymbolKind, SymbolTable};

/// The symbols an ELF file defines.
#[derive(Debug, Default)]
pub struct ObjectSymbols {
    names: HashMap<Box<str>, SymbolInfo>,
}

impl ObjectSymbols {
    /// Reads the symbol table of an ELF file, or of one compressed with xz, zstd or gzip.
    ///
    /// # Errors
    /// If the file can't be read, is no ELF file, or has no symbol table.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        let image = Image::open(path)?;
        Self::parse(image.bytes()).map_err(|problem| SymbolError::broken(path, problem))
    }

    /// Reads the symbol table of an ELF file in memory.
    ///
    /// # Errors
    /// If it is no ELF file or has no symbol table.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file = object::File::parse(bytes).map_err(|e| format!("is not a usable ELF file: {e}"))?;
        let mut names: HashMap<Box<str>, SymbolInfo> = HashMap::new();
        for symbol in file.symbols() {
            if symbol.is_undefined() {
                continue;
            }
            let kind = match symbol.kind() {
                object::SymbolKind::Text => SymbolKind::Function,
                object::SymbolKind::Data | object::SymbolKind::Tls => SymbolKind::Object,
                object::SymbolKind::Section | object::SymbolKind::File => continue,
                _ => SymbolKind::Other,
            };
            // A name that is no text can't be one somebody asks for.
            let Ok(name) = symbol.name() else { continue };
            if name.is_empty() {
                continue;
            }
            let global = symbol.is_global();
            match names.get_mut(name) {
                Some(info) => info.add(kind, global),
                None => {
                    let info = SymbolInfo { kind, global, count: 1 };
                    names.insert(name.into(), info);
                }
            }
        }
        if names.is_empty() {
            return Err("has no symbol table (it was stripped)".to_owned());
        }
        Ok(Self { names })
    }
}

impl SymbolInfo {
    /// Counts a further symbol of the same name.
    pub(crate) fn add(&mut self, kind: SymbolKind, global: bool) {
        self.count = self.count.saturating_add(1);
        self.global |= global;
        if kind == SymbolKind::Function || self.kind == SymbolKind::Other {
            self.kind = kind;
        }
    }
}

impl SymbolTable for ObjectSymbols {
    fn lookup(&self, name: &str) -> Option<SymbolInfo> {
        self.names.get(name).copied()
    }

    fn for_each_name(&self, each: &mut dyn FnMut(&str)) {
        for name in self.names.keys() {
            each(name);
        }
    }

    fn places(&self, _: &[&str]) -> Result<Places, String> {
        Err("the names alone were read, not where their symbols are".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_defines_its_own_functions() {
        let symbols = ObjectSymbols::open(&std::env::current_exe().unwrap()).unwrap();
        let main = symbols.lookup("main").unwrap();
        assert_eq!((main.kind, main.global), (SymbolKind::Function, true));
        assert_eq!(symbols.lookup("no_such_symbol_here"), None);
        // Undefined here, defined in libc.
        assert_eq!(symbols.lookup("memcpy"), None);
    }

    #[test]
    fn broken_files_are_errors_at_any_cut() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for len in [0, 3, 16, 63, 64, 100, 5000, whole.len() / 2] {
            assert!(ObjectSymbols::parse(&whole[..len]).is_err(), "{len}");
        }
    }
}
