//! Where a boot image's symbols are, and which of its functions ftrace can divert, for kernels that come without vmlinux.
//!
//! Beside kallsyms' names lie their addresses, as 32-bit offsets from a base: right before the number of symbols, and since
//! 6.4 behind the token index (scripts/kallsyms.c, `write_src`; kernel/kallsyms.c, `kallsyms_sym_address`). Where
//! CONFIG_KALLSYMS_ABSOLUTE_PERCPU is set, an offset that isn't negative is the address itself, and the others count down from
//! below the base. The addresses must rise as the table's order says, and the lowest must be the base: what doesn't is something else.
//!
//! ftrace's table is initialised data between two symbols whose addresses are then known. x86's boot image holds an ELF
//! file whose program headers tell where that is.

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endian, Endianness, elf};

use super::ftrace::{Locations, entry_of};
use super::table::NamedSymbol;

const ALIGN: usize = 8;

/// Fills in the addresses, if they are where they should be: `count_at` is the place of the number of symbols, `index_end`
/// where the token index ends.
pub(super) fn add_addresses(image: &[u8], count_at: usize, index_end: usize, symbols: &mut [NamedSymbol]) {
    let table = (4 * symbols.len()).next_multiple_of(ALIGN);
    let before = count_at
        .checked_sub(ALIGN)
        .and_then(|base_at| Some((base_at.checked_sub(table)?, base_at)));
    let after_at = index_end.next_multiple_of(ALIGN);
    let after = after_at.checked_add(table).map(|base_at| (after_at, base_at));
    let found = [before, after].into_iter().flatten().find_map(|(offsets_at, base_at)| {
        let offsets = image.get(offsets_at..offsets_at.checked_add(4 * symbols.len())?)?;
        let base = image.get(base_at..base_at.checked_add(8)?)?;
        // s390x is big-endian; only the right order of bytes gives rising addresses.
        [Endianness::Little, Endianness::Big]
            .into_iter()
            .find_map(|endian| addresses(endian, offsets, endian.read_u64(base.try_into().ok()?)))
    });
    for (symbol, address) in symbols.iter_mut().zip(found.into_iter().flatten()) {
        symbol.address = Some(address);
    }
}

fn addresses(endian: Endianness, offsets: &[u8], base: u64) -> Option<Vec<u64>> {
    let offsets = || {
        let words = offsets.chunks_exact(4).filter_map(|word| word.try_into().ok());
        words.map(|word| endian.read_u32(word).cast_signed())
    };
    let with_percpu = |offset: i32| match u64::try_from(offset) {
        Ok(absolute) => Some(absolute),
        Err(_) => base.checked_add(u64::from((-1 - offset).unsigned_abs())),
    };
    let plain = |offset: i32| base.checked_add(u64::from(offset.cast_unsigned()));
    [
        offsets().map(with_percpu).collect::<Option<Vec<u64>>>(),
        offsets().map(plain).collect(),
    ]
    .into_iter()
    .flatten()
    .find(|all| all.is_sorted() && all.binary_search(&base).is_ok())
}

/// Marks each function as traced or not, if the image shows ftrace's locations.
pub(super) fn mark_traced(image: &[u8], symbols: &mut [NamedSymbol]) {
    let Some(locations) = locations(image, symbols) else {
        return;
    };
    for symbol in symbols {
        symbol.traced = symbol
            .address
            .map(|address| matches!(symbol.letter, b't' | b'T' | b'w' | b'W') && locations.hold(0, address));
    }
}

fn locations(image: &[u8], symbols: &[NamedSymbol]) -> Option<Locations> {
    let address_of = |name: &str| symbols.iter().find(|symbol| symbol.name == name)?.address;
    let (start, stop) = (address_of("__start_mcount_loc")?, address_of("__stop_mcount_loc")?);
    let header = elf::FileHeader64::<Endianness>::parse(image).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, image).ok()?;
    let table = segments.iter().find_map(|segment| {
        let inside = start.checked_sub(segment.p_vaddr(endian))?;
        let bytes = segment.data(endian, image).ok()?;
        bytes
            .get(usize::try_from(inside).ok()?..)?
            .get(..usize::try_from(stop.checked_sub(start)?).ok()?)
    })?;
    let found: Vec<_> = table
        .chunks_exact(8)
        .filter_map(|word| Some(endian.read_u64(word.try_into().ok()?)))
        .filter(|address| *address != 0)
        .map(|address| (0, address))
        .collect();
    // A kernel that relocates itself has zeros there, which say nothing.
    (!found.is_empty()).then_some(Locations::new(found, entry_of(header.e_machine(endian))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(all: &[i32]) -> Vec<u8> {
        all.iter().flat_map(|offset| offset.to_le_bytes()).collect()
    }

    #[test]
    fn both_kinds_of_offsets_are_told_apart() {
        const BASE: u64 = 0xffff_0000_8100_0000;
        assert_eq!(
            addresses(Endianness::Little, &offsets(&[0, 0x40, -1, -1, -0x11]), BASE).unwrap(),
            [0, 0x40, BASE, BASE, BASE + 0x10]
        );
        assert_eq!(
            addresses(Endianness::Little, &offsets(&[0, 0x10, i32::MIN]), BASE).unwrap(),
            [BASE, BASE + 0x10, BASE + 0x8000_0000]
        );
        for not_sorted in [&[0x10, 0, -1][..], &[-1, -0x20, -0x10], &[5, 6]] {
            assert_eq!(
                addresses(Endianness::Little, &offsets(not_sorted), BASE),
                None,
                "{not_sorted:?}"
            );
        }
    }

    #[test]
    fn addresses_lie_before_the_count_or_behind_the_index() {
        let symbols = || {
            vec![
                NamedSymbol {
                    name: "a".into(),
                    ..NamedSymbol::default()
                };
                3
            ]
        };
        let table = [&offsets(&[0, 8, 16])[..], &[0; 4], &0x1000u64.to_le_bytes()].concat();
        let behind = [&[9; 16][..], &table].concat();
        let before = [&table[..], &[9; 16]].concat();
        for (image, count_at, index_end) in [(&before, 24, 40), (&behind, 0, 16)] {
            let mut all = symbols();
            add_addresses(image, count_at, index_end, &mut all);
            assert_eq!(
                all.iter().filter_map(|s| s.address).collect::<Vec<_>>(),
                [0x1000, 0x1008, 0x1010]
            );
        }
        let swapped: Vec<u8> = [0u32, 0x108, 0x201]
            .iter()
            .flat_map(|offset| offset.to_be_bytes())
            .collect();
        let swapped = [&swapped[..], &[0; 4], &0x1000u64.to_be_bytes(), &[9; 16]].concat();
        let mut all = symbols();
        add_addresses(&swapped, 24, 40, &mut all);
        assert_eq!(all[2].address, Some(0x1201), "big-endian");
        let mut all = symbols();
        add_addresses(&[0; 20], 8, 16, &mut all);
        assert!(all.iter().all(|symbol| symbol.address.is_none()));
    }
}
