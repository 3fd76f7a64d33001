//! An object's symbols where they stand: an ELF file that is mapped, and walked once for all the names that are asked.
//!
//! Nothing is kept of it in memory but what was asked for, so that a vmlinux of 600 MB with debug information costs no
//! more than its symbol table's pages, which the kernel takes back as it likes.

use std::collections::HashMap;
use std::path::Path;

use klp_livepatch::report::Traced;
use object::elf;

use super::ftrace::Locations;
use super::image::Image;
use super::places::{self, Place, Places};
use super::raw::{Elf, RawSymbol};
use super::table::NamedSymbol;
use super::{SymbolError, SymbolInfo, SymbolKind, SymbolTable};

/// An opened object.
pub struct ObjectIndex {
    image: Image,
}

impl ObjectIndex {
    /// Opens an ELF file, or one compressed with xz, zstd or gzip, which is decompressed into memory.
    ///
    /// # Errors
    /// If the file can't be read, is no ELF file, or has no symbol table.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        let image = Image::open(path)?;
        Elf::parse(image.bytes()).map_err(|problem| SymbolError::broken(path, problem))?;
        Ok(Self { image })
    }

    /// # Errors
    /// If it is no ELF file with a symbol table.
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        Elf::parse(&bytes)?;
        Ok(Self {
            image: Image::Memory(bytes),
        })
    }

    /// `None` only if somebody changes the mapped file.
    fn file(&self) -> Option<Elf<'_>> {
        Elf::parse(self.image.bytes()).ok()
    }

    /// A `key=value` of a module's `.modinfo`, the first of its key (kernel/module/main.c, `get_next_modinfo`).
    pub fn modinfo(&self, key: &str) -> Option<String> {
        let file = self.file()?;
        let value = file.section_bytes(b".modinfo")?.split(|b| *b == 0).find_map(|entry| {
            let rest = entry.strip_prefix(key.as_bytes())?;
            rest.strip_prefix(b"=")
        })?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// All of vmlinux's symbols as a name table holds them.
    ///
    /// # Errors
    /// If the file can't be read any more.
    pub fn to_named(&self) -> Result<Vec<NamedSymbol>, String> {
        let file = Elf::parse(self.image.bytes())?;
        let locations = Locations::read(&file).ok();
        let mut all = Vec::new();
        walk(&file, &mut |found| {
            let Ok(name) = std::str::from_utf8(found.name) else {
                return;
            };
            let lower = match found.kind {
                SymbolKind::Function => b't',
                SymbolKind::Object => b'd',
                SymbolKind::Other => b'n',
            };
            let function = found.kind == SymbolKind::Function;
            all.push(NamedSymbol {
                name: name.to_owned(),
                letter: if found.global {
                    lower.to_ascii_uppercase()
                } else {
                    lower
                },
                address: Some(file.value(found.symbol)),
                traced: locations
                    .as_ref()
                    .map(|locations| function && locations.hold(0, file.value(found.symbol))),
                file: found
                    .file
                    .and_then(|file| std::str::from_utf8(file).ok())
                    .map(Box::from),
            });
        });
        Ok(all)
    }
}

/// A defined symbol as the walk comes by it.
struct Found<'a> {
    name: &'a [u8],
    symbol: &'a RawSymbol,
    kind: SymbolKind,
    global: bool,
    file: Option<&'a [u8]>,
    number: usize,
}

/// Calls `each` for every defined symbol with a name, in the table's order.
fn walk<'a>(elf: &Elf<'a>, each: &mut dyn FnMut(Found<'a>)) {
    let mut file = None;
    for (number, symbol) in elf.symbols() {
        let kind = match symbol.st_type() {
            elf::STT_FILE => {
                // Local symbols follow the file they are of (gABI, "Symbol Table").
                file = Some(elf.name(symbol)).filter(|name| !name.is_empty());
                continue;
            }
            elf::STT_SECTION => continue,
            elf::STT_FUNC | elf::STT_GNU_IFUNC => SymbolKind::Function,
            elf::STT_OBJECT | elf::STT_TLS | elf::STT_COMMON => SymbolKind::Object,
            _ => SymbolKind::Other,
        };
        if elf.is_undefined(symbol) {
            continue;
        }
        let name = elf.name(symbol);
        if name.is_empty() {
            continue;
        }
        let global = symbol.st_bind() != elf::STB_LOCAL;
        each(Found {
            name,
            symbol,
            kind,
            global,
            file: file.filter(|_| !global),
            number,
        });
    }
}

impl SymbolTable for ObjectIndex {
    fn lookup(&self, name: &str) -> Option<SymbolInfo> {
        let mut info: Option<SymbolInfo> = None;
        walk(&self.file()?, &mut |found| {
            if found.name == name.as_bytes() {
                let (kind, global) = (found.kind, found.global);
                match &mut info {
                    Some(info) => info.add(kind, global),
                    None => info = Some(SymbolInfo { kind, global, count: 1 }),
                }
            }
        });
        info
    }

    fn for_each_name(&self, each: &mut dyn FnMut(&str)) {
        let Some(file) = self.file() else { return };
        walk(&file, &mut |found| {
            if let Ok(name) = std::str::from_utf8(found.name) {
                each(name);
            }
        });
    }

    fn places(&self, names: &[&str]) -> Result<Places, String> {
        let file = Elf::parse(self.image.bytes())?;
        let is_module = file.is_module();
        let mut candidates = gather(&file, names);
        if !is_module {
            // A stable sort: what shares an address stays in the table's order.
            for candidates in &mut candidates {
                candidates.sort_by_key(|candidate| candidate.place.address);
            }
        }
        add_neighbours(&file, &mut candidates);
        let (locations, untold) = match Locations::read(&file) {
            Ok(locations) => (Some(locations), None),
            Err(why) => (None, Some(why)),
        };
        let finish = |candidates: Vec<Candidate>| {
            let mut all: Vec<Place> = candidates
                .into_iter()
                .map(|Candidate { mut place, section }| {
                    if let Some(locations) = &locations
                        && place.kind == SymbolKind::Function
                    {
                        let section = if is_module { section } else { 0 };
                        place.traced = if locations.hold(section, place.address) {
                            Traced::Yes
                        } else {
                            Traced::No
                        };
                    }
                    place
                })
                .collect();
            places::number(&mut all, is_module);
            all
        };
        Ok(Places {
            by_name: candidates.into_iter().map(finish).collect(),
            untold,
        })
    }
}

struct Candidate {
    place: Place,
    section: usize,
}

/// Each name's symbols, found in one walk.
fn gather(file: &Elf<'_>, names: &[&str]) -> Vec<Vec<Candidate>> {
    let mut wanted: HashMap<&[u8], Vec<usize>> = HashMap::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        wanted.entry(name.as_bytes()).or_default().push(i);
    }
    let mut candidates: Vec<Vec<Candidate>> = names.iter().map(|_| Vec::new()).collect();
    walk(file, &mut |found| {
        let Some(indices) = wanted.get(found.name) else { return };
        // A module's symbols of no section, or one that is not loaded, are forgotten; vmlinux's absolute ones are kept.
        let section = match file.section_of(found.number, found.symbol) {
            Some(section) if !file.is_module() || file.is_loaded(section) => section,
            None if !file.is_module() => 0,
            _ => return,
        };
        for i in indices {
            candidates[*i].push(Candidate {
                place: Place {
                    kind: found.kind,
                    global: found.global,
                    file: found.file.map(|file| String::from_utf8_lossy(file).into()),
                    address: file.value(found.symbol),
                    size: file.size(found.symbol),
                    init: section != 0 && file.section_name(section).starts_with(b".init"),
                    position: None,
                    traced: Traced::Unknown,
                    neighbours: Vec::new(),
                },
                section,
            });
        }
    });
    candidates
}

/// A second walk, for names that several symbols have: who lies around each of them?
fn add_neighbours(file: &Elf<'_>, candidates: &mut [Vec<Candidate>]) {
    let mut sections: Vec<(usize, SymbolKind)> = Vec::new();
    for candidate in candidates.iter().filter(|all| all.len() > 1).flatten() {
        let lies = (candidate.section, candidate.place.kind);
        if !sections.contains(&lies) {
            sections.push(lies);
        }
    }
    if sections.is_empty() {
        return;
    }
    let mut around: Vec<Vec<(u64, &[u8])>> = sections.iter().map(|_| Vec::new()).collect();
    walk(file, &mut |found| {
        let section = file.section_of(found.number, found.symbol).unwrap_or(0);
        if let Some(i) = sections.iter().position(|lies| *lies == (section, found.kind))
            && !places::is_marker(found.name)
        {
            around[i].push((file.value(found.symbol), found.name));
        }
    });
    for list in &mut around {
        list.sort_unstable_by_key(|(_, name)| *name);
        *list = list
            .chunk_by(|a, b| a.1 == b.1)
            .filter(|alike| alike.len() == 1)
            .flatten()
            .copied()
            .collect();
        list.sort_unstable();
    }
    for candidate in candidates.iter_mut().filter(|all| all.len() > 1).flatten() {
        let lies = (candidate.section, candidate.place.kind);
        let Some(list) = sections.iter().position(|s| *s == lies).map(|i| &around[i]) else {
            continue;
        };
        let at = list.partition_point(|(address, _)| *address < candidate.place.address);
        candidate.place.neighbours = places::around(at, list.len())
            .map(|i| String::from_utf8_lossy(list[i].1).into())
            .collect();
    }
}
