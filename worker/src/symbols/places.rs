//! Where the symbols of a name are: what tells namesakes apart, and whether the kernel can divert a function's calls.
//!
//! A livepatch names a symbol by object, name and position (`sympos`): the n-th of its name, from 1, in the order the
//! kernel walks its own tables; 0 says that it is the only one (kernel/livepatch/core.c, `klp_find_object_symbol`). That
//! order is, for vmlinux, the one of kallsyms, by address; what shares an address is the same place, whichever comes first
//! (scripts/kallsyms.c, `compare_symbols`). For a module it is the one of its symbol table, of which the kernel keeps what is
//! in allocated sections that stay after its init (kernel/module/kallsyms.c, `is_core_symbol`).

use klp_livepatch::report::Traced;

use super::SymbolKind;

/// Neighbours on each side that are remembered for a symbol with namesakes.
pub const NEIGHBOURS: usize = 8;

/// One symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub kind: SymbolKind,
    /// Or weak.
    pub global: bool,
    /// The last part of the path of the file that was compiled, where the table tells; globals never say.
    pub file: Option<Box<str>>,
    /// In vmlinux where it is linked to; in a module from the beginning of its section.
    pub address: u64,
    /// In bytes; 0: unknown.
    pub size: u64,
    /// It is in code or data that is freed after the kernel's or the module's start.
    pub init: bool,
    /// What a livepatch gives as `sympos`, 0: it is the only one; `None`: the kernel forgets it with the module's init.
    pub position: Option<u32>,
    pub traced: Traced,
    /// The names around it, nearest first, of the same section and kind, that occur only once; only where there are namesakes.
    pub neighbours: Vec<Box<str>>,
}

/// What a table has of the names it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// For each name, in the order asked, its symbols in the order the kernel walks them.
    pub by_name: Vec<Vec<Place>>,
    /// Why no function is known to be traced or not.
    pub untold: Option<String>,
}

/// Numbers the symbols of a name as the kernel counts them.
pub(super) fn number(places: &mut [Place], is_module: bool) {
    // vmlinux's kallsyms has its init code too, and keeps it.
    let counts = |place: &Place| !(is_module && place.init);
    let only = places.iter().filter(|place| counts(place)).count() == 1;
    let mut next = 1;
    for place in places {
        place.position = counts(place).then_some(if only { 0 } else { next });
        next += u32::from(place.position.is_some());
    }
}

/// Whether a symbol is part of the code, not a mark the build put there.
pub(super) fn is_marker(name: &[u8]) -> bool {
    const MARKS: [&[u8]; 8] = [
        b"$",
        b".L",
        b"__pfx_",
        b"__cfi_",
        b"__ksymtab_",
        b"__kstrtab",
        b"__crc_",
        b"__export_symbol_",
    ];
    name.is_empty() || MARKS.iter().any(|mark| name.starts_with(mark))
}

/// Which of `len` things that are in order are nearest to the gap before number `at`, the nearest first.
pub(super) fn around(at: usize, len: usize) -> impl Iterator<Item = usize> {
    (0..NEIGHBOURS)
        .flat_map(move |step| [at.checked_sub(step + 1), at.checked_add(step)])
        .flatten()
        .filter(move |i| *i < len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(init: bool) -> Place {
        Place {
            kind: SymbolKind::Function,
            global: false,
            file: None,
            address: 0,
            size: 0,
            init,
            position: None,
            traced: Traced::Unknown,
            neighbours: Vec::new(),
        }
    }

    #[test]
    fn a_module_s_init_code_has_no_position() {
        for (init, is_module, positions) in [
            (vec![false], true, vec![Some(0)]),
            (vec![false, false], true, vec![Some(1), Some(2)]),
            (vec![false, true, false], true, vec![Some(1), None, Some(2)]),
            (vec![true, false], true, vec![None, Some(0)]),
            (vec![true, false], false, vec![Some(1), Some(2)]),
        ] {
            let mut places: Vec<_> = init.into_iter().map(place).collect();
            number(&mut places, is_module);
            assert_eq!(places.iter().map(|p| p.position).collect::<Vec<_>>(), positions);
        }
    }

    #[test]
    fn neighbours_come_nearest_first() {
        assert_eq!(around(1, 5).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(around(5, 5).collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
        assert_eq!(around(0, 0).count(), 0);
    }
}
