//! The parts of a 64-bit ELF file that the index reads, over its bytes: of a mapped file only the pages of what is asked for.
//!
//! Formats: the System V ABI's gABI chapters 4 and 5, and the processors' supplements for the numbers of relocations.

use object::read::elf::{FileHeader, Rela, SectionHeader, SectionTable, Sym, SymbolTable};
use object::{Endianness, SectionIndex, elf};

type Header = elf::FileHeader64<Endianness>;
pub(super) type RawSymbol = elf::Sym64<Endianness>;

/// Relocations of one table; no kernel has as many.
const MAX_RELOCATIONS: usize = 4 << 20;

/// Sections may share their place in a file, so that a small one holds any number of relocations.
fn bounded(relocations: usize) -> Result<(), String> {
    match relocations {
        0..=MAX_RELOCATIONS => Ok(()),
        _ => Err(format!("has more than {MAX_RELOCATIONS} relocations of one table")),
    }
}

/// An ELF file whose headers and symbol table are in order.
pub(super) struct Elf<'a> {
    data: &'a [u8],
    endian: Endianness,
    header: &'a Header,
    sections: SectionTable<'a, Header>,
    symbols: SymbolTable<'a, Header>,
}

impl<'a> Elf<'a> {
    /// # Errors
    /// If it is no 64-bit ELF file with a symbol table.
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, String> {
        let file = Self::parse_stripped(data)?;
        if file.symbols.is_empty() {
            return Err("has no symbol table (it was stripped)".to_owned());
        }
        Ok(file)
    }

    /// # Errors
    /// If it is no 64-bit ELF file.
    pub(super) fn parse_stripped(data: &'a [u8]) -> Result<Self, String> {
        let unusable = |e: object::Error| format!("is not a usable ELF file: {e}");
        let header = Header::parse(data).map_err(unusable)?;
        let endian = header.endian().map_err(unusable)?;
        let sections = header.sections(endian, data).map_err(unusable)?;
        let symbols = sections.symbols(endian, data, elf::SHT_SYMTAB).map_err(unusable)?;
        Ok(Self {
            data,
            endian,
            header,
            sections,
            symbols,
        })
    }

    pub(super) fn endian(&self) -> Endianness {
        self.endian
    }

    pub(super) fn machine(&self) -> elf::Machine {
        self.header.e_machine(self.endian)
    }

    /// Modules are relocatable, vmlinux is linked.
    pub(super) fn is_module(&self) -> bool {
        self.header.e_type(self.endian) == elf::ET_REL
    }

    /// The symbols with their numbers.
    pub(super) fn symbols(&self) -> impl Iterator<Item = (usize, &'a RawSymbol)> {
        self.symbols.enumerate().map(|(index, symbol)| (index.0, symbol))
    }

    /// A symbol's name; empty if it has none that can be read.
    pub(super) fn name(&self, symbol: &RawSymbol) -> &'a [u8] {
        self.symbols.symbol_name(self.endian, symbol).unwrap_or_default()
    }

    /// The section that defines a symbol; `None`: it is undefined or absolute.
    pub(super) fn section_of(&self, number: usize, symbol: &RawSymbol) -> Option<usize> {
        let index = object::SymbolIndex(number);
        let section = self.symbols.symbol_section(self.endian, symbol, index).ok()??;
        (section.0 < self.sections.len()).then_some(section.0)
    }

    pub(super) fn is_undefined(&self, symbol: &RawSymbol) -> bool {
        symbol.is_undefined(self.endian)
    }

    pub(super) fn value(&self, symbol: &RawSymbol) -> u64 {
        symbol.st_value(self.endian)
    }

    pub(super) fn size(&self, symbol: &RawSymbol) -> u64 {
        symbol.st_size(self.endian)
    }

    /// Each section's number and name.
    pub(super) fn section_names(&self) -> impl Iterator<Item = (usize, &'a [u8])> {
        self.sections.enumerate().map(|(index, section)| {
            let name = self.sections.section_name(self.endian, section);
            (index.0, name.unwrap_or_default())
        })
    }

    /// Whether a section is loaded.
    pub(super) fn is_loaded(&self, section: usize) -> bool {
        self.sections
            .section(SectionIndex(section))
            .is_ok_and(|section| section.sh_flags(self.endian).0 & elf::SHF_ALLOC.0 != 0)
    }

    pub(super) fn section_name(&self, section: usize) -> &'a [u8] {
        self.sections
            .section(SectionIndex(section))
            .and_then(|section| self.sections.section_name(self.endian, section))
            .unwrap_or_default()
    }

    /// A section's content, by its name.
    pub(super) fn section_bytes(&self, name: &[u8]) -> Option<&'a [u8]> {
        let (_, section) = self.sections.section_by_name(self.endian, name)?;
        section.data(self.endian, self.data).ok()
    }

    /// What is at an address once the file is loaded.
    pub(super) fn bytes_at(&self, address: u64, len: u64) -> Option<&'a [u8]> {
        self.sections.iter().find_map(|section| {
            let (start, size) = (section.sh_addr(self.endian), section.sh_size(self.endian));
            let inside = section.sh_flags(self.endian).0 & elf::SHF_ALLOC.0 != 0
                && section.sh_type(self.endian) != elf::SHT_NOBITS
                && start != 0
                && address >= start
                && address.checked_add(len)? <= start.checked_add(size)?;
            let at = usize::try_from(address.checked_sub(start)?).ok()?;
            let bytes = inside.then(|| section.data(self.endian, self.data).ok())??;
            bytes.get(at..at.checked_add(usize::try_from(len).ok()?)?)
        })
    }

    /// The values of two symbols that occur once.
    pub(super) fn values_of(&self, names: [&str; 2]) -> [Option<u64>; 2] {
        let mut found = [None; 2];
        for (_, symbol) in self.symbols() {
            let name = self.name(symbol);
            if let Some(i) = names.iter().position(|wanted| wanted.as_bytes() == name)
                && !self.is_undefined(symbol)
            {
                found[i] = Some(self.value(symbol));
            }
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        found
    }

    /// What a section's relocations point to, as section and offset.
    ///
    /// # Errors
    /// If the relocations can't be read.
    pub(super) fn targets_of(&self, section: usize) -> Result<Vec<(usize, u64)>, String> {
        let mut found = Vec::new();
        for relocations in self.sections.iter() {
            if relocations.sh_info(self.endian) as usize != section {
                continue;
            }
            let broken = |e: object::Error| format!("has relocations that can't be read: {e}");
            let Some((entries, _)) = relocations.rela(self.endian, self.data).map_err(broken)? else {
                continue;
            };
            found.extend(entries.iter().filter_map(|entry| self.target(entry)));
            bounded(found.len())?;
        }
        Ok(found)
    }

    fn target(&self, entry: &elf::Rela64<Endianness>) -> Option<(usize, u64)> {
        let number = entry.r_sym(self.endian, false) as usize;
        let symbol = self.symbols.symbol(object::SymbolIndex(number)).ok()?;
        let section = self.section_of(number, symbol)?;
        let addend: i64 = entry.r_addend(self.endian);
        Some((section, self.value(symbol).checked_add_signed(addend)?))
    }

    /// What relative relocations between two addresses put there.
    ///
    /// # Errors
    /// If they can't be read.
    pub(super) fn relative_addends(&self, start: u64, stop: u64) -> Result<impl Iterator<Item = u64> + use<>, String> {
        let relative = match self.machine() {
            elf::EM_X86_64 => elf::R_X86_64_RELATIVE.0,
            elf::EM_AARCH64 => elf::R_AARCH64_RELATIVE.0,
            elf::EM_S390 => elf::R_390_RELATIVE.0,
            elf::EM_PPC64 => elf::R_PPC64_RELATIVE.0,
            _ => 0,
        };
        let mut found = Vec::new();
        for section in self.sections.iter() {
            let broken = |e: object::Error| format!("has relocations that can't be read: {e}");
            let Some((entries, _)) = section.rela(self.endian, self.data).map_err(broken)? else {
                continue;
            };
            for entry in entries {
                if (start..stop).contains(&entry.r_offset(self.endian))
                    && entry.r_type(self.endian, false).0 == relative
                {
                    found.push(entry.r_addend(self.endian).cast_unsigned());
                }
            }
            bounded(found.len())?;
        }
        Ok(found.into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module of 64-bit x86 whose sections of relocations, all for section 0, lie in one place.
    fn overlapping(sections: u64, relocations: u64) -> Vec<u8> {
        let (header, entry, rela) = (64, 64, 24);
        let table = header + rela * relocations;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([1, 0, 62, 0, 1, 0, 0, 0]);
        file.resize(40, 0);
        file.extend(table.to_le_bytes());
        file.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0]);
        file.extend((sections as u16 + 3).to_le_bytes());
        file.extend([1, 0]);
        file.resize(table as usize, 0);
        let mut section = |kind: u32, offset: u64, size: u64, link: u32, each: u64| {
            let start = file.len();
            file.extend([0; 4]);
            file.extend(kind.to_le_bytes());
            file.resize(start + 24, 0);
            file.extend([offset, size].map(u64::to_le_bytes).concat());
            file.extend(link.to_le_bytes());
            file.resize(start + 56, 0);
            file.extend(each.to_le_bytes());
        };
        section(0, 0, 0, 0, 0);
        section(elf::SHT_STRTAB.0, header, 1, 0, 0);
        section(elf::SHT_SYMTAB.0, header, rela, 1, 24);
        for _ in 0..sections {
            section(elf::SHT_RELA.0, header, rela * relocations, 2, 24);
        }
        assert_eq!(file.len() as u64, table + entry * (sections + 3));
        file
    }

    #[test]
    fn sections_that_share_their_place_do_not_multiply_without_end() {
        let few = overlapping(3, 10);
        let few = Elf::parse_stripped(&few).unwrap();
        assert_eq!(few.relative_addends(0, 1).unwrap().count(), 0);
        // R_X86_64_RELATIVE.
        let mut many = overlapping(2000, 2200);
        for at in 0..2200 {
            many[64 + 24 * at + 8] = 8;
        }
        let many = Elf::parse_stripped(&many).unwrap();
        assert!(many.relative_addends(0, 1).err().unwrap().contains("more than"));
    }
}
