//! The addresses that belong to the names in a kernel's kallsyms tables.
//!
//! Up to 6.3 they lie before the number of names, later behind the index of tokens. Either the addresses themselves, or,
//! usually, 32-bit offsets from a base: plain ones, or on x86_64 before 6.15 (CONFIG_KALLSYMS_ABSOLUTE_PERCPU) those of
//! per-CPU variables as they are and all others negative, -1 for the base itself. Which, is told by the rule that holds
//! for all of them: the table is sorted.
//!
//! Sources: the kernel's scripts/kallsyms.c (`write_src`) and kernel/kallsyms.c (`kallsyms_sym_address`).

use super::boot::View;
use super::kallsyms::Recovered;

/// The address of each symbol; `None` if no list of them is where it should be.
pub(super) fn addresses(kernel: View<'_>, found: &Recovered) -> Option<Vec<u64>> {
    let count = found.symbols.len();
    let offsets_size = (4 * count).next_multiple_of(8);
    let base_before = found.count_at.checked_sub(8);
    let behind = found.end.checked_next_multiple_of(8)?;
    let before = || relative(kernel, base_before?.checked_sub(offsets_size)?, base_before?, count);
    let absolute = || {
        let from = found.count_at.checked_sub(8 * count)?;
        let all = (0..count)
            .map(|i| kernel.u64_at(from + 8 * i))
            .collect::<Option<Vec<_>>>()?;
        all.is_sorted().then_some(all)
    };
    relative(kernel, behind, behind.saturating_add(offsets_size), count)
        .or_else(before)
        .or_else(absolute)
}

fn relative(kernel: View<'_>, offsets_at: usize, base_at: usize, count: usize) -> Option<Vec<u64>> {
    let base = kernel.u64_at(base_at)?;
    let offsets: Vec<u32> = (0..count)
        .map(|i| kernel.u32_at(offsets_at.checked_add(4 * i)?))
        .collect::<Option<_>>()?;
    // A list of zeros is sorted, too.
    if offsets.first() == offsets.last() {
        return None;
    }
    // A base at the end of all addresses is none of a kernel's.
    if offsets.is_sorted() {
        return offsets
            .iter()
            .map(|offset| base.checked_add(u64::from(*offset)))
            .collect();
    }
    let signed = |offset: &u32| match offset.cast_signed() {
        absolute @ 0.. => u64::from(absolute.unsigned_abs()),
        below => base.wrapping_add(u64::from(below.unsigned_abs()) - 1),
    };
    let all: Vec<u64> = offsets.iter().map(signed).collect();
    all.is_sorted().then_some(all)
}

#[cfg(test)]
mod tests {
    use object::{Endian, Endianness};

    use super::*;
    use crate::symbols::table::NamedSymbol;

    const COUNT: usize = 5;
    const BASE: u64 = 0xffff_0000_8100_0000;

    fn bytes(order: Endianness, offsets: [i32; COUNT], base: u64) -> Vec<u8> {
        let words = offsets
            .into_iter()
            .chain([0])
            .flat_map(|offset| order.write_u32(offset.cast_unsigned()));
        words.chain(order.write_u64(base)).collect()
    }

    /// The addresses in `image`, whose number of names is at `count_at` and whose tokens end at `end`.
    fn found(image: &[u8], order: Endianness, count_at: usize, end: usize) -> Option<Vec<u64>> {
        let symbol = NamedSymbol {
            name: "a".into(),
            letter: b't',
            ..NamedSymbol::default()
        };
        let recovered = Recovered {
            symbols: vec![symbol; COUNT],
            count_at,
            end,
        };
        addresses(View { bytes: image, order }, &recovered)
    }

    #[test]
    fn offsets_are_found_before_and_behind_the_names() {
        for order in [Endianness::Little, Endianness::Big] {
            let table = bytes(order, [0, 16, 16, 0x100, i32::MIN], BASE);
            let wanted = [0, 16, 16, 0x100, 0x8000_0000].map(|offset| BASE + offset).to_vec();
            let names = [0xee; 61];
            let early = [&[0xee; 16][..], &table, &names].concat();
            assert_eq!(
                found(&early, order, 16 + table.len(), early.len()),
                Some(wanted.clone()),
                "{order:?}"
            );
            let late = [&names[..], &[0; 3], &table].concat();
            assert_eq!(found(&late, order, 0, names.len()), Some(wanted), "{order:?}");
        }
    }

    #[test]
    fn per_cpu_variables_keep_their_offsets() {
        let table = bytes(Endianness::Little, [0, 0x1000, -1, -17, -0x101], BASE);
        let wanted = vec![0, 0x1000, BASE, BASE + 16, BASE + 0x100];
        assert_eq!(found(&table, Endianness::Little, table.len(), 1 << 40), Some(wanted));
    }

    #[test]
    fn whole_addresses_are_found() {
        let wanted: Vec<u64> = (0..COUNT as u64).map(|i| BASE + (7 << 40) * i).collect();
        let table: Vec<u8> = wanted.iter().flat_map(|address| address.to_be_bytes()).collect();
        assert_eq!(found(&table, Endianness::Big, table.len(), 1 << 40), Some(wanted));
    }

    #[test]
    fn a_base_that_leaves_no_room_is_none() {
        let table = bytes(Endianness::Little, [0, 16, 16, 0x100, i32::MIN], u64::MAX - 0x100);
        assert_eq!(found(&table, Endianness::Little, table.len(), usize::MAX - 7), None);
    }

    #[test]
    fn what_is_not_sorted_is_no_list() {
        for offsets in [[0, 5, 3, 7, 9], [0; COUNT], [-1, -9, -4, -5, -6]] {
            let table = bytes(Endianness::Little, offsets, BASE);
            assert_eq!(
                found(&table, Endianness::Little, table.len(), usize::MAX - 7),
                None,
                "{offsets:?}"
            );
        }
        assert_eq!(found(&[], Endianness::Little, 0, 0), None);
    }
}
