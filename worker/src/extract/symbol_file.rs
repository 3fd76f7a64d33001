//! The ELF file that klp-ccp and clang-extract read symbols from: the patched object's symbol table, and no more.
//!
//! Written anew for each extraction, because the object itself often won't do. Debian has no vmlinux but in an 860 MB
//! package, clang-extract doesn't read xz, it takes a symbol for vmlinux's when the file's name has dashes, and it knows
//! no other way to be told which symbols it must not externalize.

use std::path::{Path, PathBuf};

use klp_livepatch::Arch;
use object::write::{self, StandardSection, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, Object, ObjectSection, ObjectSymbol, SymbolKind, SymbolScope};

use super::Error;
use crate::symbols::image::{Image, starts_with_elf_magic};
use crate::symbols::{self, NameTable, SymbolTable};

/// Holds `depends=`, which klp-ccp insists on.
const MODINFO: &[u8] = b".modinfo";

/// Holds `struct module` with the module's name, by which clang-extract knows whose the symbols are.
const THIS_MODULE: &[u8] = b".gnu.linkonce.this_module";

/// Where the name is in `struct module` (include/linux/module.h: `state` and `list` come before it), on 64 bits.
const NAME_IN_MODULE: usize = 24;

/// Symbols that need addresses of their own are put so far apart: equal ones count as one symbol twice.
const STEP: u64 = 16;

/// Whose symbols, and from where.
pub struct Source<'a> {
    /// `vmlinux`, or the module's name.
    pub object: &'a str,
    /// The module's file; for vmlinux its name table or itself.
    pub file: &'a Path,
    pub arch: Arch,
}

/// Writes the symbols that are `wanted` into a file in `dir`; returns the file's path.
///
/// # Errors
/// The table can't be read or the file can't be written.
pub fn write(source: &Source<'_>, wanted: &dyn Fn(&str) -> bool, dir: &Path) -> Result<PathBuf, Error> {
    let (name, image) = match source.object {
        "vmlinux" => ("vmlinux".to_owned(), None),
        module => {
            let name = module.replace('-', "_");
            (format!("{name}.ko"), Some(name))
        }
    };
    let mut file = File::new(source.arch);
    if starts_with_elf_magic(source.file)? || image.is_some() {
        file.copy(source.file, wanted)?;
    } else {
        file.list(&NameTable::open(source.file)?, wanted);
    }
    if let Some(module) = image {
        file.this_module(&module);
    }
    let path = dir.join(name);
    let io = |source| Error::Io {
        action: "write",
        path: path.clone(),
        source,
    };
    let bytes = file.0.write().map_err(|e| io(std::io::Error::other(e)))?;
    std::fs::write(&path, bytes).map_err(io)?;
    Ok(path)
}

struct File(write::Object<'static>);

impl File {
    fn new(arch: Arch) -> Self {
        let (architecture, endianness) = match arch {
            Arch::X86_64 => (Architecture::X86_64, Endianness::Little),
            Arch::Aarch64 => (Architecture::Aarch64, Endianness::Little),
            Arch::Ppc64le => (Architecture::PowerPc64, Endianness::Little),
            Arch::S390x => (Architecture::S390x, Endianness::Big),
        };
        Self(write::Object::new(BinaryFormat::Elf, architecture, endianness))
    }

    fn add(&mut self, name: &[u8], kind: SymbolKind, place: Place) {
        let section = match (place.defined, kind) {
            (false, _) => SymbolSection::Undefined,
            (true, SymbolKind::Text) => SymbolSection::Section(self.0.section_id(StandardSection::Text)),
            // Labels too: what has no type is data to both tools if its section is.
            (true, _) => SymbolSection::Section(self.0.section_id(StandardSection::Data)),
        };
        self.0.add_symbol(write::Symbol {
            name: name.to_owned(),
            value: place.value,
            size: 0,
            kind: if place.defined { kind } else { SymbolKind::Unknown },
            scope: if place.global || !place.defined {
                SymbolScope::Dynamic
            } else {
                SymbolScope::Compilation
            },
            weak: place.weak,
            section,
            flags: object::SymbolFlags::None,
        });
    }

    /// Takes over an ELF file's symbols and module information.
    fn copy(&mut self, path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        let image = Image::open(path)?;
        let broken = |e: object::Error| symbols::SymbolError::Broken {
            path: path.to_owned(),
            problem: format!("is not a usable ELF file: {e}"),
        };
        let elf = object::File::parse(image.bytes()).map_err(broken)?;
        for symbol in elf.symbols() {
            let Ok(name) = symbol.name() else { continue };
            let kind = match symbol.kind() {
                SymbolKind::Section | SymbolKind::File => continue,
                SymbolKind::Text => SymbolKind::Text,
                SymbolKind::Data | SymbolKind::Tls => SymbolKind::Data,
                // Assembler code has no type, but is in a section of code.
                _ if in_code(&elf, &symbol) => SymbolKind::Text,
                _ => SymbolKind::Label,
            };
            if name.is_empty() || !wanted(name) {
                continue;
            }
            let place = Place {
                // Sections begin at 0 each in a module: places in two of them must not look like one.
                // Only that they differ counts, whatever a damaged file says.
                value: symbol
                    .address()
                    .wrapping_add(symbol.section_index().map_or(0, |s| s.0 as u64) << 32),
                global: symbol.is_global(),
                weak: symbol.is_weak(),
                defined: !symbol.is_undefined(),
            };
            self.add(name.as_bytes(), kind, place);
        }
        if let Some(modinfo) = elf.section_by_name_bytes(MODINFO) {
            let data = modinfo.data().map_err(broken)?;
            self.section(MODINFO, data);
        }
        Ok(())
    }

    /// Takes over a list of names.
    fn list(&mut self, table: &NameTable, wanted: &dyn Fn(&str) -> bool) {
        let mut value = 0;
        let mut before = String::new();
        table.for_each_name(&mut |name| {
            if name == before || !wanted(name) {
                return;
            }
            name.clone_into(&mut before);
            let Some(info) = table.lookup(name) else { return };
            let kind = match info.kind {
                symbols::SymbolKind::Function => SymbolKind::Text,
                symbols::SymbolKind::Object => SymbolKind::Data,
                // Per-CPU variables are absolute symbols in kallsyms.
                symbols::SymbolKind::Other => SymbolKind::Label,
            };
            for _ in 0..info.count {
                value += STEP;
                let place = Place {
                    value,
                    global: info.global,
                    weak: false,
                    defined: true,
                };
                self.add(name.as_bytes(), kind, place);
            }
        });
    }

    fn this_module(&mut self, name: &str) {
        let mut data = vec![0; NAME_IN_MODULE];
        data.extend_from_slice(name.as_bytes());
        data.push(0);
        self.section(THIS_MODULE, &data);
    }

    fn section(&mut self, name: &[u8], data: &[u8]) {
        let section = self
            .0
            .add_section(Vec::new(), name.to_owned(), object::SectionKind::Data);
        self.0.append_section_data(section, data, 8);
    }
}

struct Place {
    value: u64,
    global: bool,
    weak: bool,
    defined: bool,
}

fn in_code<'d>(elf: &object::File<'d>, symbol: &impl ObjectSymbol<'d>) -> bool {
    symbol
        .section_index()
        .and_then(|index| elf.section_by_index(index).ok())
        .is_some_and(|section| section.kind() == object::SectionKind::Text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::symbols::ObjectSymbols;
    use crate::symbols::table::NamedSymbol;

    fn named(name: &str, letter: u8) -> NamedSymbol {
        NamedSymbol {
            name: name.into(),
            letter,
            ..NamedSymbol::default()
        }
    }

    #[test]
    fn a_name_table_becomes_an_elf_file_without_what_is_to_be_avoided() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("vmlinux.symbols");
        let symbols = vec![
            named("vprintk", b'T'),
            named("reset", b't'),
            named("reset", b't'),
            named("jiffies", b'D'),
            named("current_task", b'A'),
            named("gone", b't'),
        ];
        NameTable::write(symbols, &mut std::fs::File::create(&table).unwrap()).unwrap();
        let source = Source {
            object: "vmlinux",
            file: &table,
            arch: Arch::X86_64,
        };
        let path = write(&source, &|name| name != "gone", dir.path()).unwrap();
        assert_eq!(path.file_name().unwrap(), "vmlinux");
        let found = ObjectSymbols::open(&path).unwrap();
        let info = |name: &str| found.lookup(name).map(|i| (i.kind, i.global, i.count));
        assert_eq!(info("vprintk"), Some((symbols::SymbolKind::Function, true, 1)));
        assert_eq!(info("reset"), Some((symbols::SymbolKind::Function, false, 2)));
        assert_eq!(info("jiffies"), Some((symbols::SymbolKind::Object, true, 1)));
        assert_eq!(info("current_task").map(|i| i.0), Some(symbols::SymbolKind::Other));
        assert_eq!(info("gone"), None);
        let bytes = std::fs::read(&path).unwrap();
        let elf = object::File::parse(&*bytes).unwrap();
        let places: BTreeSet<u64> = elf
            .symbols()
            .filter(|s| s.name() == Ok("reset"))
            .map(|s| s.address())
            .collect();
        assert_eq!(places.len(), 2, "two functions of one name must not look like one");
    }

    #[test]
    fn a_module_keeps_its_information_and_gets_a_name_without_dashes() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = File::new(Arch::X86_64);
        let place = |value, global, defined| Place {
            value,
            global,
            weak: false,
            defined,
        };
        made.add(b"own", SymbolKind::Text, place(8, false, true));
        made.add(b"kfree", SymbolKind::Text, place(0, true, false));
        made.section(MODINFO, b"depends=snd\0");
        let ko = dir.path().join("snd-x.ko");
        std::fs::write(&ko, made.0.write().unwrap()).unwrap();
        let source = Source {
            object: "snd-x",
            file: &ko,
            arch: Arch::X86_64,
        };
        let out = dir.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let path = write(&source, &|_| true, &out).unwrap();
        assert_eq!(path.file_name().unwrap(), "snd_x.ko");
        let bytes = std::fs::read(&path).unwrap();
        let elf = object::File::parse(&*bytes).unwrap();
        let section = |name: &[u8]| elf.section_by_name_bytes(name).unwrap().data().unwrap().to_vec();
        assert_eq!(section(MODINFO), b"depends=snd\0");
        assert_eq!(&section(THIS_MODULE)[24..], b"snd_x\0");
        let undefined = |name: &str| {
            elf.symbols()
                .find(|s| s.name() == Ok(name))
                .map(|s| (s.is_undefined(), s.is_global()))
        };
        assert_eq!(undefined("own"), Some((false, false)));
        assert_eq!(undefined("kfree"), Some((true, true)));
    }
}
