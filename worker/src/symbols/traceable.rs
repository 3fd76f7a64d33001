//! Which functions of a kernel ftrace can hook, told from its boot image: only those can be livepatched.
//!
//! The kernel keeps a table of the places, from `__start_mcount_loc` to `__stop_mcount_loc`. Where the image is an ELF file
//! (x86_64, ppc64le) and the two are known by name, it is read. The plain images of s390x and aarch64 name neither, but
//! there the place is at once known by its code: what the compiler leaves at a function's entry for ftrace to fill.
//!
//! Sources: the kernel's include/asm-generic/vmlinux.lds.h (MCOUNT_REC); arch/powerpc/kernel/trace/ftrace.c for where in a
//! function the place may be; gcc's -mhotpatch (s390x) and -fpatchable-function-entry=2 (aarch64) for the code.

use std::collections::HashSet;
use std::path::Path;

use object::{Endianness, Object, ObjectSegment, ObjectSymbol};

use super::SymbolError;
use super::boot::{self, View};
use super::image::{ELF_MAGIC, map_file};
use super::kallsyms::{self, KallsymsEntry};

/// Bytes from a function's address to the place, at most: on ppc64le two instructions set up the TOC, and one saves where
/// to return to; on x86_64 an ENDBR64 may come before.
const FARTHEST: u64 = 16;

/// `brcl 0,0`: branches never, and is six bytes long.
const S390X_ENTRY: &[u8] = &[0xc0, 0x04, 0, 0, 0, 0];
/// Two times `nop`, perhaps after `bti c`.
const AARCH64_ENTRY: &[u8] = &[0x1f, 0x20, 0x03, 0xd5, 0x1f, 0x20, 0x03, 0xd5];
const AARCH64_BTI_C: &[u8] = &[0x5f, 0x24, 0x03, 0xd5];
/// Where in aarch64's image the first symbol is: the header before it is padded to a segment (SEGMENT_ALIGN).
const AARCH64_FIRST: u64 = 0x10000;

/// The addresses, as [`kallsyms::read_entries`] gives them, of the functions that ftrace can hook.
///
/// # Errors
/// As [`kallsyms::read_entries`], or if the image tells nothing about ftrace.
pub fn read_traceable(path: &Path) -> Result<HashSet<u64>, SymbolError> {
    let map = map_file(path)?;
    boot::kernel(&map)
        .and_then(|kernel| {
            let entries = kallsyms::entries(kernel.view())?;
            traceable(kernel.view(), &entries)
        })
        .map_err(|problem| SymbolError::broken(path, problem))
}

pub(super) fn traceable(kernel: View<'_>, entries: &[KallsymsEntry]) -> Result<HashSet<u64>, String> {
    let found = if kernel.bytes.starts_with(ELF_MAGIC) {
        at_functions(table(kernel, entries)?, entries)
    } else {
        by_code(kernel, entries)
    };
    // Most functions can be traced; a few that look so are chance.
    if found.len() < entries.len() / 10 {
        return Err(
            "doesn't tell which functions ftrace can hook; was the kernel built with CONFIG_DYNAMIC_FTRACE?".into(),
        );
    }
    Ok(found)
}

/// The kernel's own table.
fn table(kernel: View<'_>, entries: &[KallsymsEntry]) -> Result<Vec<u64>, String> {
    let vmlinux = object::File::parse(kernel.bytes).map_err(|e| format!("is not a usable ELF file: {e}"))?;
    let place = |name: &str| {
        let known = entries
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| entry.address);
        let symbol = || vmlinux.symbols().find(|symbol| symbol.name() == Ok(name));
        known.or_else(|| symbol().map(|symbol| symbol.address()))
    };
    let (Some(start), Some(stop)) = (place("__start_mcount_loc"), place("__stop_mcount_loc")) else {
        return Err("doesn't tell where its table of ftrace locations is (CONFIG_KALLSYMS_ALL is off)".to_owned());
    };
    let bytes = vmlinux.segments().find_map(|segment| {
        let from = usize::try_from(start.checked_sub(segment.address())?).ok()?;
        let size = usize::try_from(stop.checked_sub(start)?).ok()?;
        segment.data().ok()?.get(from..from.checked_add(size)?)
    });
    let bytes = bytes.ok_or("is cut short: its table of ftrace locations lies beyond its end")?;
    let whole = View { bytes, ..kernel };
    Ok((0..bytes.len() / 8).filter_map(|i| whole.u64_at(8 * i)).collect())
}

/// The functions at whose beginning one of the places is; `entries` are sorted.
fn at_functions(places: Vec<u64>, entries: &[KallsymsEntry]) -> HashSet<u64> {
    let function = |place: u64| {
        let after = entries.partition_point(|entry| entry.address <= place);
        let address = entries.get(after.checked_sub(1)?)?.address;
        (place - address <= FARTHEST).then_some(address)
    };
    places.into_iter().filter_map(function).collect()
}

/// The functions that begin as the compiler leaves those that can be traced.
fn by_code(kernel: View<'_>, entries: &[KallsymsEntry]) -> HashSet<u64> {
    let code = |address: u64| {
        let first = match kernel.order {
            Endianness::Big => 0,
            Endianness::Little => AARCH64_FIRST,
        };
        let at = usize::try_from(address.checked_add(first)?).ok()?;
        kernel.bytes.get(at..)
    };
    let can = |code: &[u8]| match kernel.order {
        Endianness::Big => code.starts_with(S390X_ENTRY),
        Endianness::Little => code
            .strip_prefix(AARCH64_BTI_C)
            .unwrap_or(code)
            .starts_with(AARCH64_ENTRY),
    };
    entries
        .iter()
        .filter(|entry| kallsyms::is_function(entry.letter))
        .filter(|entry| code(entry.address).is_some_and(can))
        .map(|entry| entry.address)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: u64, letter: u8) -> KallsymsEntry {
        KallsymsEntry {
            name: format!("f{address}"),
            letter,
            address,
        }
    }

    #[test]
    fn a_place_belongs_to_the_function_that_begins_with_it() {
        let entries = [
            entry(0x100, b'T'),
            entry(0x100, b't'),
            entry(0x140, b't'),
            entry(0x200, b't'),
        ];
        let found = at_functions(vec![0x50, 0x100, 0x10c, 0x14c, 0x211], &entries);
        assert_eq!(
            found,
            HashSet::from([0x100, 0x140]),
            "0x50 is before all, 0x211 too far in"
        );
    }

    #[test]
    fn entry_code_tells_where_there_is_no_table() {
        let entries = [
            entry(0, b'T'),
            entry(16, b't'),
            entry(32, b'D'),
            entry(48, b't'),
            entry(1 << 40, b't'),
        ];
        let mut big = vec![0; 64];
        for at in [0, 32] {
            big[at..at + S390X_ENTRY.len()].copy_from_slice(S390X_ENTRY);
        }
        let order = Endianness::Big;
        assert_eq!(by_code(View { bytes: &big, order }, &entries), HashSet::from([0]));
        let first = usize::try_from(AARCH64_FIRST).unwrap();
        let mut little = vec![0; first + 64];
        little[first + 16..][..8].copy_from_slice(AARCH64_ENTRY);
        little[first + 48..][..12].copy_from_slice(&[AARCH64_BTI_C, AARCH64_ENTRY].concat());
        let order = Endianness::Little;
        assert_eq!(
            by_code(View { bytes: &little, order }, &entries),
            HashSet::from([16, 48])
        );
    }

    #[test]
    fn an_image_without_ftrace_is_an_error() {
        let entries: Vec<_> = (0..100).map(|i| entry(16 * i, b't')).collect();
        let kernel = View {
            bytes: &[0; 2000],
            order: Endianness::Big,
        };
        assert!(
            traceable(kernel, &entries)
                .unwrap_err()
                .contains("CONFIG_DYNAMIC_FTRACE")
        );
    }
}
