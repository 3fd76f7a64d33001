//! Which functions ftrace has a location for: only those can be livepatched (Documentation/livepatch/livepatch.rst,
//! "Limitations").
//!
//! The compiler or objtool leaves the address of each call or padding at a function's entry in a section of its own. A
//! module keeps them as relocations, of `__mcount_loc` or `__patchable_function_entries`, which the module loader applies
//! (kernel/module/main.c, `find_module_sections`). Linking vmlinux gathers them between `__start_mcount_loc` and
//! `__stop_mcount_loc` (include/asm-generic/vmlinux.lds.h, `MCOUNT_REC`): as values, or, where the kernel relocates itself
//! and the linker leaves zeros, in the addends of relative relocations.

use object::{Endian, elf};

use super::raw::Elf;

/// Sections of a module whose relocations are ftrace's locations.
const MODULE_TABLES: [&[u8]; 2] = [b"__mcount_loc", b"__patchable_function_entries"];

/// No kernel has as many.
const MAX_LOCATIONS: u64 = 4 << 20;

/// ftrace's locations: of a module by section and offset, of vmlinux by address, with section 0.
#[derive(Debug)]
pub(super) struct Locations {
    sorted: Vec<(usize, u64)>,
    entry: Entry,
}

/// How far behind its function's symbol a location may lie, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// At one of these distances.
    At(&'static [i64]),
    /// Not further than this.
    Within(u64),
}

/// By the machine; `None`: nobody has tried it.
pub(super) fn entry_of(machine: elf::Machine) -> Option<Entry> {
    match machine {
        // The call itself, or ENDBR before it (arch/x86/kernel/ftrace.c, `ftrace_call_adjust`).
        elf::EM_X86_64 => Some(Entry::At(&[0, 4])),
        // The padding, BTI before it, or two instructions of padding before the function (arch/arm64/kernel/ftrace.c).
        elf::EM_AARCH64 => Some(Entry::At(&[0, 4, -8])),
        // -mfentry, or -mhotpatch: at the entry itself.
        elf::EM_S390 => Some(Entry::At(&[0])),
        // Behind the set-up of the TOC pointer and the saving of LR (arch/powerpc/include/asm/livepatch.h looked as far).
        elf::EM_PPC64 => Some(Entry::Within(16)),
        _ => None,
    }
}

impl Locations {
    pub(super) fn new(mut sorted: Vec<(usize, u64)>, entry: Entry) -> Self {
        sorted.sort_unstable();
        Self { sorted, entry }
    }

    pub(super) fn hold(&self, section: usize, address: u64) -> bool {
        match self.entry {
            Entry::At(distances) => distances.iter().any(|distance| {
                address
                    .checked_add_signed(*distance)
                    .is_some_and(|at| self.sorted.binary_search(&(section, at)).is_ok())
            }),
            Entry::Within(most) => {
                let first = self.sorted.partition_point(|at| *at < (section, address));
                self.sorted
                    .get(first)
                    .is_some_and(|(its, at)| *its == section && at - address <= most)
            }
        }
    }

    /// # Errors
    /// Why the file does not tell.
    pub(super) fn read(file: &Elf<'_>) -> Result<Self, String> {
        let entry = entry_of(file.machine()).ok_or_else(|| {
            format!(
                "is for a machine (ELF number {}) whose ftrace is not known",
                file.machine().0
            )
        })?;
        let sorted = if file.is_module() {
            of_module(file)?
        } else {
            of_vmlinux(file)?
        };
        Ok(Self::new(sorted, entry))
    }
}

/// A module without such a section has no function that ftrace could divert.
fn of_module(file: &Elf<'_>) -> Result<Vec<(usize, u64)>, String> {
    let mut found = Vec::new();
    for (index, name) in file.section_names() {
        if MODULE_TABLES.contains(&name) {
            found.extend(file.targets_of(index)?);
        }
    }
    Ok(found)
}

fn of_vmlinux(file: &Elf<'_>) -> Result<Vec<(usize, u64)>, String> {
    let [start, stop] = file.values_of(["__start_mcount_loc", "__stop_mcount_loc"]);
    let (Some(start), Some(stop)) = (start, stop) else {
        return Err(
            "has no __start_mcount_loc: it was built without CONFIG_DYNAMIC_FTRACE, or lost that symbol".into(),
        );
    };
    let bytes = stop
        .checked_sub(start)
        .filter(|len| len % 8 == 0 && len / 8 <= MAX_LOCATIONS)
        .and_then(|len| file.bytes_at(start, len))
        .ok_or("has no data between __start_mcount_loc and __stop_mcount_loc")?;
    let mut found: Vec<_> = bytes
        .chunks_exact(8)
        .filter_map(|word| Some(file.endian().read_u64(word.try_into().ok()?)))
        .filter(|address| *address != 0)
        .map(|address| (0, address))
        .collect();
    if found.is_empty() {
        found = file
            .relative_addends(start, stop)?
            .map(|address| (0, address))
            .collect();
    }
    if found.is_empty() {
        return Err("has an empty table of ftrace locations, and no relocations that would fill it".into());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_belongs_to_the_function_it_is_at_the_entry_of() {
        let at = |entry, address| Locations::new(vec![(1, 0x104), (1, 0x200), (2, 0x300)], entry).hold(1, address);
        let exact = Entry::At(&[0, 4]);
        assert!(at(exact, 0x100) && at(exact, 0x104) && at(exact, 0x200));
        assert!(!at(exact, 0x108) && !at(exact, 0xfc) && !at(exact, 0x300));
        let range = Entry::Within(16);
        assert!(at(range, 0x104) && at(range, 0xf4) && at(range, 0x1f0));
        assert!(!at(range, 0xf0) && !at(range, 0x105) && !at(range, 0x2f8));
        assert!(!at(Entry::At(&[-8]), 0) && at(Entry::At(&[-8]), 0x208));
    }
}
