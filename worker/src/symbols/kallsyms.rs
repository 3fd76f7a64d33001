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
//! (`kallsyms_expand_symbol`) for the tables, and Documentation/arch/x86/boot.rst for the boot image.

use std::path::Path;

use super::image::{Compression, map_file};
use super::table::{NamedSymbol, is_type_letter};
use super::{SymbolError, boot_places};

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

/// Recovers the symbols of an x86 boot image (bzImage), in the order of their addresses.
///
/// # Errors
/// If the file is no such image, is compressed in a way that isn't supported, or holds no kallsyms tables.
pub fn read_boot_image(path: &Path) -> Result<Vec<NamedSymbol>, SymbolError> {
    let map = map_file(path)?;
    payload(&map)
        .and_then(decompress)
        .and_then(|vmlinux| {
            let mut symbols = recover(&vmlinux)?;
            boot_places::mark_traced(&vmlinux, &mut symbols);
            Ok(symbols)
        })
        .map_err(|problem| SymbolError::broken(path, problem))
}

/// The compressed kernel inside a bzImage: its setup header gives offset and length from the protected-mode code.
fn payload(image: &[u8]) -> Result<&[u8], String> {
    const NO_IMAGE: &str = "is not an x86 kernel boot image (bzImage)";
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(NO_IMAGE.to_owned());
    }
    let version = u16_at(image, 0x206).ok_or(NO_IMAGE)?;
    if version < 0x208 {
        return Err(
            "is a boot image of a protocol before 2.08 (kernel 2.6.26), which doesn't say where the kernel is".into(),
        );
    }
    // 0 means 4, for old boot loaders' sake.
    let setup_sectors = match image[0x1f1] {
        0 => 4,
        n => usize::from(n),
    };
    let offset = u32_at(image, 0x248).ok_or(NO_IMAGE)? as usize;
    let length = u32_at(image, 0x24c).ok_or(NO_IMAGE)? as usize;
    ((setup_sectors + 1) * 512)
        .checked_add(offset)
        .and_then(|start| image.get(start..start.checked_add(length)?))
        .ok_or_else(|| "is cut short: the kernel it announces lies beyond its end".to_owned())
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, String> {
    if let Some(compression) = Compression::detect(payload) {
        return compression.decompress(payload);
    }
    let name = match payload {
        [b'B', b'Z', b'h', ..] => "bzip2",
        [0x02, 0x21, 0x4c, 0x18, ..] => "lz4",
        [0x5d, 0, 0, ..] => "lzma",
        [0x89, b'L', b'Z', b'O', ..] => "lzo",
        _ => "an unknown method",
    };
    Err(format!(
        "holds a kernel compressed with {name}, which is not supported (xz, zstd and gzip are); \
         install the package with the unstripped vmlinux, such as linux-image-<version>-dbg"
    ))
}

/// Finds the tables in an uncompressed kernel and expands the names.
fn recover(image: &[u8]) -> Result<Vec<NamedSymbol>, String> {
    let mut why = "holds no kallsyms token table; the kernel was built without CONFIG_KALLSYMS".to_owned();
    for tokens in TokenTable::find_all(image) {
        match find_names(image, &tokens) {
            Ok(symbols) => return Ok(symbols),
            Err(problem) => why = problem,
        }
    }
    Err(why)
}

struct TokenTable<'a> {
    /// Where the table begins in the image.
    start: usize,
    /// Where its index ends.
    end: usize,
    tokens: Vec<&'a [u8]>,
}

impl<'a> TokenTable<'a> {
    /// Every place that has the shape of a token table and whose index agrees.
    fn find_all(image: &'a [u8]) -> impl Iterator<Item = Self> + 'a {
        const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
        let mut from = 0;
        std::iter::from_fn(move || {
            let at = find(image, DIGITS, from)?;
            from = at + 1;
            Some(at)
        })
        .filter_map(|at| Self::around_digits(image, at))
    }

    /// `at` is where the token for `0`, number 0x30, is supposed to be.
    fn around_digits(image: &'a [u8], at: usize) -> Option<Self> {
        let mut end = at;
        for _ in usize::from(b'0')..TOKENS {
            end += image[end..].iter().take(MAX_NAME).position(|b| *b == 0)? + 1;
        }
        let index_at = end.next_multiple_of(ALIGN);
        let index: Vec<usize> = (0..TOKENS)
            .map(|i| u16_at(image, index_at + 2 * i).map(usize::from))
            .collect::<Option<_>>()?;
        let start = at.checked_sub(index[usize::from(b'0')])?;
        let mut tokens = Vec::with_capacity(TOKENS);
        let mut offset = 0;
        for expected in index {
            if expected != offset {
                return None;
            }
            let rest = &image[start + offset..];
            let token = &rest[..rest.iter().take(MAX_NAME).position(|b| *b == 0)?];
            offset += token.len() + 1;
            tokens.push(token);
        }
        (start + offset == end).then_some(Self {
            start,
            end: index_at + 2 * TOKENS,
            tokens,
        })
    }
}

fn find_names(image: &[u8], tokens: &TokenTable) -> Result<Vec<NamedSymbol>, String> {
    let lowest = tokens.start.saturating_sub(MAX_SYMBOLS * (SEQ + 1));
    let mut at = tokens.start - tokens.start % ALIGN;
    while at >= lowest + ALIGN {
        at -= ALIGN;
        if let Some(run) = rising_run(image, at, tokens.start)
            && let Some(symbols) = names_before(image, tokens, at, &run)
        {
            return Ok(symbols);
        }
    }
    Err("holds a kallsyms token table, but no list of names that fits it".to_owned())
}

/// The numbers from `at` on that rise from 0 as markers do, if there are enough of them.
fn rising_run(image: &[u8], at: usize, end: usize) -> Option<Vec<u32>> {
    if u32_at(image, at) != Some(0) {
        return None;
    }
    let mut run = vec![0];
    let mut below = 0;
    for place in (at + 4..end).step_by(4) {
        let offset = u32_at(image, place)?;
        if offset < below + STRIDE as u32 || offset - below > (STRIDE * MAX_ENTRY) as u32 {
            break;
        }
        run.push(offset);
        below = offset;
    }
    (run.len() * STRIDE >= MIN_SYMBOLS).then_some(run)
}

/// The names that end where the markers begin, at `markers_at`. What follows the markers may happen to go on rising, so
/// each count of markers that the distance to the token table allows is tried.
fn names_before(image: &[u8], tokens: &TokenTable, markers_at: usize, run: &[u32]) -> Option<Vec<NamedSymbol>> {
    let distance = tokens.start - markers_at;
    let without_seqs = distance / 4;
    let with_seqs = distance / (4 + SEQ * STRIDE);
    [without_seqs, without_seqs.saturating_sub(1)]
        .into_iter()
        .chain(with_seqs..with_seqs + 2)
        .filter_map(|count| run.get(..count))
        .find_map(|markers| names_with(image, tokens, markers_at, markers))
}

fn names_with(image: &[u8], tokens: &TokenTable, markers_at: usize, markers: &[u32]) -> Option<Vec<NamedSymbol>> {
    // The names begin within the last stride's worth of bytes before where the last marker would point.
    let latest = markers_at.checked_sub(*markers.last()? as usize)?;
    let earliest = latest.saturating_sub(STRIDE * MAX_ENTRY).max(ALIGN);
    let mut start = latest - latest % ALIGN;
    while start >= earliest {
        // The number of symbols lies before the names, padded to a pointer's size.
        let count = u32_at(image, start - ALIGN)? as usize;
        let after = (markers_at + 4 * markers.len()).next_multiple_of(ALIGN);
        let fits = (MIN_SYMBOLS..MAX_SYMBOLS).contains(&count)
            && count.div_ceil(STRIDE) == markers.len()
            && u32_at(image, start - 4) == Some(0)
            && (after == tokens.start || (after + SEQ * count).next_multiple_of(ALIGN) == tokens.start);
        if fits && let Some(mut symbols) = expand_all(&image[start..markers_at], count, markers, &tokens.tokens) {
            boot_places::add_addresses(image, start - ALIGN, tokens.end, &mut symbols);
            return Some(symbols);
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

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds the tables as scripts/kallsyms.c lays them out, with tokens of one character.
    fn tables(symbols: &[String], before: &[u8], seqs: bool) -> Vec<u8> {
        let mut image = before.to_vec();
        let pad = |image: &mut Vec<u8>| image.resize(image.len().next_multiple_of(ALIGN), 0);
        pad(&mut image);
        image.extend((symbols.len() as u32).to_le_bytes());
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
        image.extend(markers.iter().flat_map(|m| m.to_le_bytes()));
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
        image.extend(index.iter().flat_map(|i| i.to_le_bytes()));
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
            for count in [1100, 1279, 1280, 1281, 5001] {
                let all = symbols(count);
                let found = recover(&tables(&all, decoy, seqs)).unwrap();
                let found: Vec<_> = found
                    .iter()
                    .map(|s| format!("{}{}", char::from(s.letter), s.name))
                    .collect();
                assert_eq!(found, all, "{count} {seqs}");
            }
        }
    }

    #[test]
    fn damage_is_an_error_not_nonsense() {
        let good = tables(&symbols(5001), b"xyz", true);
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

    #[test]
    fn images_that_lie_are_errors() {
        assert!(payload(b"").unwrap_err().contains("not an x86 kernel"));
        let mut image = vec![0; 4096];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(payload(&image).unwrap_err().contains("before 2.08"));
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&u32::MAX.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(payload(&image).unwrap_err().contains("cut short"));
        assert!(decompress(b"BZh91AY").unwrap_err().contains("bzip2"));
    }
}
