//! Entry points for `fuzz/`: what reads symbols out of bytes, with what must hold of any. Nothing else uses them.

use memmap2::{Mmap, MmapMut};
use object::Endianness;

use super::boot::{self, View};
use super::places::NEIGHBOURS;
use super::{NameTable, ObjectIndex, ObjectSymbols, Place, SymbolTable, kallsyms};

/// Names that are asked for beside those that are there: what the readers themselves look up.
const NAMES: [&str; 4] = ["vprintk", "__start_mcount_loc", "a", ""];

/// An ELF file through both readers.
///
/// # Panics
/// If they contradict themselves.
pub fn elf(bytes: &[u8]) {
    if let Ok(symbols) = ObjectSymbols::parse(bytes) {
        symbols.for_each_name(&mut |name| assert!(symbols.lookup(name).is_some_and(|info| info.count > 0)));
    }
    let Ok(index) = ObjectIndex::of_bytes(bytes.to_vec()) else {
        return;
    };
    let _ = (index.modinfo("name"), index.to_named());
    asked(&index);
}

/// vmlinux's name table.
///
/// # Panics
/// If it contradicts itself, or an answer is out of bounds.
pub fn name_table(bytes: &[u8]) {
    if let Some(table) = mapped(bytes).and_then(NameTable::of_map) {
        asked(&table);
    }
}

/// Asks a table for some of its names and some others.
fn asked(table: &dyn SymbolTable) {
    let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    table.for_each_name(&mut |name| {
        if names.len() < 40 {
            names.push(name.to_owned());
        }
    });
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names {
        table.lookup(name);
    }
    let Ok(found) = table.places(&names) else { return };
    assert_eq!(found.by_name.len(), names.len());
    for (places, name) in found.by_name.iter().zip(&names) {
        assert!(places.iter().all(|place| place.neighbours.len() <= 2 * NEIGHBOURS));
        let mut numbered: Vec<u32> = places.iter().filter_map(|place: &Place| place.position).collect();
        numbered.sort_unstable();
        let only = numbered == [0];
        assert!(
            only || numbered.iter().zip(1..).all(|(position, n)| *position == n),
            "{name}"
        );
    }
}

fn mapped(bytes: &[u8]) -> Option<Mmap> {
    let mut map = MmapMut::map_anon(bytes.len()).ok()?;
    map.copy_from_slice(bytes);
    map.make_read_only().ok()
}

/// A boot image of any kind.
pub fn boot_image(bytes: &[u8]) {
    if let Ok(kernel) = boot::kernel(bytes) {
        let _ = kallsyms::placed(kernel.view());
    }
}

/// A kernel's kallsyms tables, in both byte orders.
///
/// # Panics
/// If a recovered symbol is none.
pub fn kallsyms(bytes: &[u8]) {
    for order in [Endianness::Little, Endianness::Big] {
        if let Ok(symbols) = kallsyms::placed(View { bytes, order }) {
            assert!(symbols.iter().all(|symbol| !symbol.name.is_empty()));
            let addresses: Option<Vec<u64>> = symbols.iter().map(|symbol| symbol.address).collect();
            assert!(addresses.is_none_or(|addresses| addresses.is_sorted()));
        }
    }
}
