//! Recovers vmlinux's symbol names from a kernel boot image, for distributions that ship no vmlinux.
//!
//! A kernel built with CONFIG_KALLSYMS carries the names of its symbols, compressed by a table of 256 tokens. They are
//! found by their shape, in three steps that each check the one before:
//!
//! 1. the token table is where the tokens for the digits follow one another (`0\0` `1\0` … `9\0`: digits stand for
//!    themselves), and the index that follows it must list the offset of each of the 256 tokens;
//! 2. before it lie the markers, the offset of every 256th name, which rise from 0; in 6.2, 6.3 and later 6.1.y three
//!    bytes for each name (`kallsyms_seqs_of_names`) lie between the two, elsewhere nothing does;
//! 3. before the markers lie the names, and before them their number, which must fit the place of the markers; walking
//!    that many names must hit every marker and end where the markers begin.
//!
//! Sources of the formats: the kernel's scripts/kallsyms.c (`write_src`) and kernel/kallsyms.c
//! (`kallsyms_expand_symbol`). Numbers are in the byte order of the kernel's architecture.

use std::path::Path;

use super::SymbolError;
use super::addresses::addresses;
use super::boot::{self, View};
use super::image::map_file;
use super::table::{NamedSymbol, is_type_letter};
use super::traceable::traceable;

const TOKENS: usize = 256;
/// Names per marker.
const STRIDE: usize = 256;
/// Tables are aligned to the size of a pointer.
const ALIGN: usize = 8;
/// KSYM_NAME_LEN, 512 since 6.1, and the type's letter.
const MAX_NAME: usize = 513;
/// Most a name takes in the table: two bytes of length, and a token for each letter.
const MAX_ENTRY: usize = 2 + MAX_NAME;
/// Bytes per name in `kallsyms_seqs_of_names`.
const SEQ: usize = 3;
/// No kernel has fewer symbols, nor more.
const MIN_SYMBOLS: usize = 1000;
const MAX_SYMBOLS: usize = 4 << 20;

/// Recovers the symbols in a boot image of any architecture, in the order of their addresses, which is the order of the
/// kernel's own look-ups.
///
/// # Errors
/// If the file is no such image, is compressed in a way that isn't supported, or holds no kallsyms tables.
pub fn read_boot_image(path: &Path) -> Result<Vec<NamedSymbol>, SymbolError> {
    let map = map_file(path)?;
    boot::kernel(&map)
        .and_then(|kernel| placed(kernel.view()))
        .map_err(|problem| SymbolError::broken(path, problem))
}

/// The symbols with what the image tells of their places: an address each, and whether ftrace can hook what is there.
pub(super) fn placed(kernel: View<'_>) -> Result<Vec<NamedSymbol>, String> {
    let found = recover(kernel)?;
    let Some(addresses) = addresses(kernel, &found) else {
        return Ok(found.symbols);
    };
    let entries = entries_of(found, addresses);
    let traced = traceable(kernel, &entries).ok();
    let named = entries.into_iter().map(|entry| NamedSymbol {
        traced: traced
            .as_ref()
            .map(|all| is_function(entry.letter) && all.contains(&entry.address)),
        name: entry.name,
        letter: entry.letter,
        address: Some(entry.address),
        ..NamedSymbol::default()
    });
    Ok(named.collect())
}

/// Whether `nm`'s letter is one of a function's.
pub(super) fn is_function(letter: u8) -> bool {
    matches!(letter, b't' | b'T' | b'w' | b'W')
}

/// A symbol of the kernel's own table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KallsymsEntry {
    pub name: String,
    /// The letter `nm` would give it.
    pub letter: u8,
    /// As the kernel was linked; on aarch64, whose image leaves the base to relocation, from the first symbol's.
    pub address: u64,
}

/// The kernel's own table with addresses, in its order.
///
/// # Errors
/// As [`read_boot_image`], or if the addresses can't be told.
pub fn read_entries(path: &Path) -> Result<Vec<KallsymsEntry>, SymbolError> {
    let map = map_file(path)?;
    boot::kernel(&map)
        .and_then(|kernel| entries(kernel.view()))
        .map_err(|problem| SymbolError::broken(path, problem))
}

pub(super) fn entries(kernel: View<'_>) -> Result<Vec<KallsymsEntry>, String> {
    let found = recover(kernel)?;
    let addresses = addresses(kernel, &found).ok_or("holds kallsyms names, but no list of addresses that fits them")?;
    Ok(entries_of(found, addresses))
}

fn entries_of(found: Recovered, addresses: Vec<u64>) -> Vec<KallsymsEntry> {
    let entry = |(NamedSymbol { name, letter, .. }, address)| KallsymsEntry { name, letter, address };
    found.symbols.into_iter().zip(addresses).map(entry).collect()
}

/// The names, and where their tables are.
#[derive(Debug)]
pub(super) struct Recovered {
    pub symbols: Vec<NamedSymbol>,
    /// Where the number of symbols is, right before the names.
    pub count_at: usize,
    /// Where the index of tokens ends.
    pub end: usize,
}

/// Finds the tables in an uncompressed kernel and expands the names.
fn recover(image: View<'_>) -> Result<Recovered, String> {
    let mut why = "holds no kallsyms token table; the kernel was built without CONFIG_KALLSYMS".to_owned();
    for tokens in TokenTable::find_all(image) {
        match find_names(image, &tokens) {
            Ok((symbols, count_at)) => {
                return Ok(Recovered {
                    symbols,
                    count_at,
                    end: tokens.end,
                });
            }
            Err(problem) => why = problem,
        }
    }
    Err(why)
}

struct TokenTable<'a> {
    /// Where the table begins in the image.
    start: usize,
    tokens: Vec<&'a [u8]>,
    /// Where its index ends.
    end: usize,
}

impl<'a> TokenTable<'a> {
    /// Every place that has the shape of a token table and whose index agrees.
    fn find_all(image: View<'a>) -> impl Iterator<Item = Self> + 'a {
        const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
        let mut from = 0;
        std::iter::from_fn(move || {
            let at = find(image.bytes, DIGITS, from)?;
            from = at + 1;
            Some(at)
        })
        .filter_map(move |at| Self::around_digits(image, at))
    }

    /// `at` is where the token for `0`, number 0x30, is supposed to be.
    fn around_digits(image: View<'a>, at: usize) -> Option<Self> {
        let mut end = at;
        for _ in usize::from(b'0')..TOKENS {
            end += image.bytes[end..].iter().take(MAX_NAME).position(|b| *b == 0)? + 1;
        }
        let index_at = end.next_multiple_of(ALIGN);
        let index: Vec<usize> = (0..TOKENS)
            .map(|i| image.u16_at(index_at + 2 * i).map(usize::from))
            .collect::<Option<_>>()?;
        let start = at.checked_sub(index[usize::from(b'0')])?;
        let mut tokens = Vec::with_capacity(TOKENS);
        let mut offset = 0;
        for expected in index {
            if expected != offset {
                return None;
            }
            let rest = image.bytes.get(start + offset..)?;
            let token = &rest[..rest.iter().take(MAX_NAME).position(|b| *b == 0)?];
            offset += token.len() + 1;
            tokens.push(token);
        }
        (start + offset == end).then_some(Self {
            start,
            tokens,
            end: index_at + 2 * TOKENS,
        })
    }
}

fn find_names(image: View<'_>, tokens: &TokenTable) -> Result<(Vec<NamedSymbol>, usize), String> {
    let lowest = tokens.start.saturating_sub(MAX_SYMBOLS * (SEQ + 1));
    let mut at = tokens.start - tokens.start % ALIGN;
    while at >= lowest + ALIGN {
        at -= ALIGN;
        if let Some(run) = rising_run(image, at, tokens.start)
            && let Some(found) = names_before(image, tokens, at, &run)
        {
            return Ok(found);
        }
    }
    Err("holds a kallsyms token table, but no list of names that fits it".to_owned())
}

/// The numbers from `at` on that rise from 0 as markers do, if there are enough of them.
fn rising_run(image: View<'_>, at: usize, end: usize) -> Option<Vec<u32>> {
    if image.u32_at(at) != Some(0) {
        return None;
    }
    let mut run = vec![0];
    let mut below = 0;
    for place in (at + 4..end).step_by(4) {
        let offset = image.u32_at(place)?;
        // What only looks like markers may rise up to the largest number there is.
        let rise = offset.checked_sub(below).map(|rise| rise as usize);
        if !rise.is_some_and(|rise| (STRIDE..=STRIDE * MAX_ENTRY).contains(&rise)) {
            break;
        }
        run.push(offset);
        below = offset;
    }
    (run.len() * STRIDE >= MIN_SYMBOLS).then_some(run)
}

/// The names that end where the markers begin, at `markers_at`. What follows the markers may happen to go on rising, so
/// each count of markers that the distance to the token table allows is tried.
fn names_before(
    image: View<'_>,
    tokens: &TokenTable,
    markers_at: usize,
    run: &[u32],
) -> Option<(Vec<NamedSymbol>, usize)> {
    let distance = tokens.start - markers_at;
    let without_seqs = distance / 4;
    let with_seqs = distance / (4 + SEQ * STRIDE);
    [without_seqs, without_seqs.saturating_sub(1)]
        .into_iter()
        .chain(with_seqs..with_seqs + 2)
        .filter_map(|count| run.get(..count))
        .find_map(|markers| names_with(image, tokens, markers_at, markers))
}

fn names_with(
    image: View<'_>,
    tokens: &TokenTable,
    markers_at: usize,
    markers: &[u32],
) -> Option<(Vec<NamedSymbol>, usize)> {
    // The names begin within the last stride's worth of bytes before where the last marker would point.
    let latest = markers_at.checked_sub(*markers.last()? as usize)?;
    let earliest = latest.saturating_sub(STRIDE * MAX_ENTRY).max(ALIGN);
    let mut start = latest - latest % ALIGN;
    while start >= earliest {
        // The number of symbols lies before the names, padded to a pointer's size.
        let count = image.u32_at(start - ALIGN)? as usize;
        let after = (markers_at + 4 * markers.len()).next_multiple_of(ALIGN);
        let fits = (MIN_SYMBOLS..MAX_SYMBOLS).contains(&count)
            && count.div_ceil(STRIDE) == markers.len()
            && image.u32_at(start - 4) == Some(0)
            && (after == tokens.start || (after + SEQ * count).next_multiple_of(ALIGN) == tokens.start);
        if fits && let Some(symbols) = expand_all(&image.bytes[start..markers_at], count, markers, &tokens.tokens) {
            return Some((symbols, start - ALIGN));
        }
        start -= ALIGN;
    }
    None
}

/// Expands `count` names; `None` unless they hit every marker, are all plausible, and fill `data` up to its padding.
fn expand_all(data: &[u8], count: usize, markers: &[u32], tokens: &[&[u8]]) -> Option<Vec<NamedSymbol>> {
    let mut symbols = Vec::with_capacity(count);
    let mut at = 0;
    for i in 0..count {
        if i % STRIDE == 0 && markers.get(i / STRIDE).map(|m| *m as usize) != Some(at) {
            return None;
        }
        let mut length = usize::from(*data.get(at)?);
        at += 1;
        if length & 0x80 != 0 {
            // Since 6.1: names of 128 tokens and more have a second byte of length.
            length = (length & 0x7f) | usize::from(*data.get(at)?) << 7;
            at += 1;
        }
        let packed = data.get(at..at + length)?;
        at += length;
        let mut name = Vec::with_capacity(2 * length);
        for token in packed {
            name.extend_from_slice(tokens[usize::from(*token)]);
        }
        symbols.push(plausible(name)?);
    }
    (data.len() - at < ALIGN && data[at..].iter().all(|b| *b == 0)).then_some(symbols)
}

/// An expanded entry is the type's letter and a printable name.
fn plausible(entry: Vec<u8>) -> Option<NamedSymbol> {
    let (letter, name) = entry.split_first()?;
    let good =
        is_type_letter(*letter) && !name.is_empty() && name.len() <= MAX_NAME && name.iter().all(u8::is_ascii_graphic);
    good.then(|| NamedSymbol {
        name: String::from_utf8_lossy(name).into_owned(),
        letter: *letter,
        ..NamedSymbol::default()
    })
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = from;
    loop {
        at += haystack.get(at..)?.iter().position(|b| *b == first)?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use object::{Endian, Endianness};

    use super::*;

    const ORDERS: [Endianness; 2] = [Endianness::Little, Endianness::Big];

    /// Builds the tables as scripts/kallsyms.c lays them out, with tokens of one character.
    fn tables(symbols: &[String], before: &[u8], seqs: bool, order: Endianness) -> Vec<u8> {
        let (short, long) = (|n: u16| order.write_u16(n), |n: u32| order.write_u32(n));
        let mut image = before.to_vec();
        let pad = |image: &mut Vec<u8>| image.resize(image.len().next_multiple_of(ALIGN), 0);
        pad(&mut image);
        image.extend(long(symbols.len() as u32));
        pad(&mut image);
        let names_at = image.len();
        let mut markers = Vec::new();
        for (i, symbol) in symbols.iter().enumerate() {
            if i % STRIDE == 0 {
                markers.push((image.len() - names_at) as u32);
            }
            if symbol.len() < 0x80 {
                image.push(symbol.len() as u8);
            } else {
                image.push(symbol.len() as u8 & 0x7f | 0x80);
                image.push((symbol.len() >> 7) as u8);
            }
            image.extend(symbol.bytes());
        }
        pad(&mut image);
        image.extend(markers.into_iter().flat_map(long));
        pad(&mut image);
        if seqs {
            image.extend((0..symbols.len() as u32).flat_map(|i| [(i >> 16) as u8, (i >> 8) as u8, i as u8]));
            pad(&mut image);
        }
        let mut index = Vec::new();
        let table_at = image.len();
        for token in 0..=255u8 {
            index.push((image.len() - table_at) as u16);
            if token.is_ascii_graphic() {
                image.push(token);
            } else {
                image.extend(format!("unused{token}").bytes());
            }
            image.push(0);
        }
        pad(&mut image);
        image.extend(index.into_iter().flat_map(short));
        image.extend([7; 100]);
        image
    }

    fn symbols(count: usize) -> Vec<String> {
        let mut all: Vec<_> = (0..count).map(|i| format!("tfunction_{i}")).collect();
        all[77] = format!("T{}", "long".repeat(90));
        all[78] = "?__smp_locks".to_owned();
        all
    }

    #[test]
    fn tables_are_found_and_expanded() {
        // A decoy before them: the digits alone, as other tables have them.
        let decoy = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00 decoy";
        for seqs in [false, true] {
            for (count, order) in [1100, 1279, 1280, 1281, 5001]
                .into_iter()
                .flat_map(|n| ORDERS.map(|order| (n, order)))
            {
                let all = symbols(count);
                let bytes = tables(&all, decoy, seqs, order);
                let found = recover(View { bytes: &bytes, order }).unwrap().symbols;
                let found: Vec<_> = found
                    .iter()
                    .map(|s| format!("{}{}", char::from(s.letter), s.name))
                    .collect();
                assert_eq!(found, all, "{count} {seqs} {order:?}");
            }
        }
    }

    #[test]
    fn numbers_that_rise_to_the_very_end_are_taken() {
        let step = (STRIDE * MAX_ENTRY) as u32;
        let run: Vec<u32> = (0..=u32::MAX / step)
            .map(|i| i * step)
            .chain([u32::MAX, 0, 1])
            .collect();
        let bytes: Vec<u8> = run.iter().flat_map(|n| n.to_le_bytes()).collect();
        let order = Endianness::Little;
        let found = rising_run(View { bytes: &bytes, order }, 0, bytes.len()).unwrap();
        assert_eq!(
            found.len(),
            run.len() - 3 + usize::from(u32::MAX % step >= STRIDE as u32)
        );
    }

    #[test]
    fn damage_is_an_error_not_nonsense() {
        let recover = |bytes: &[u8]| {
            let order = Endianness::Little;
            recover(View { bytes, order }).map(|found| found.symbols)
        };
        let good = tables(&symbols(5001), b"xyz", true, Endianness::Little);
        let names = good.windows(10).position(|w| w == b"function_1").unwrap();
        let mut bad = good.clone();
        // The length of a name: every later marker is missed.
        bad[names - 2] += 1;
        assert!(recover(&bad).unwrap_err().contains("no list of names"), "length");
        for cut in (0..good.len()).step_by(1001) {
            assert!(recover(&good[..cut.min(good.len() - 700)]).is_err(), "cut at {cut}");
        }
        assert!(recover(b"").is_err());
    }
}
