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
    let behind = found.end.next_multiple_of(8);
    let before = || relative(kernel, base_before?.checked_sub(offsets_size)?, base_before?, count);
    let absolute = || {
        let from = found.count_at.checked_sub(8 * count)?;
        let all = (0..count)
            .map(|i| kernel.u64_at(from + 8 * i))
            .collect::<Option<Vec<_>>>()?;
        all.is_sorted().then_some(all)
    };
    relative(kernel, behind, behind + offsets_size, count)
        .or_else(before)
        .or_else(absolute)
}

fn relative(kernel: View<'_>, offsets_at: usize, base_at: usize, count: usize) -> Option<Vec<u64>> {
    let base = kernel.u64_at(base_at)?;
    let offsets: Vec<u32> = (0..count)
        .map(|i| kernel.u32_at(offsets_at + 4 * i))
        .collect::<Option<_>>()?;
    // A list of zeros is sorted, too.
    if offsets.first() == offsets.last() {
        return None;
    }
    if offsets.is_sorted() {
        return Some(
            offsets
                .iter()
                .map(|offset| base.wrapping_add(u64::from(*offset)))
                .collect(),
        );
    }
    let signed = |offset: &u32| match offset.cast_signed() {
        absolute @ 0.. => u64::from(absolute.unsigned_abs()),
        below => base.wrapping_add(u64::from(below.unsigned_abs()) - 1),
    };
    let all: Vec<u64> = offsets.iter().map(signed).collect();
    all.is_sorted().then_some(all)
}
