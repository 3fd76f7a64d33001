//! A sorted list of symbol names in a text file, searched over a memory map: what a tree keeps of vmlinux.
//!
//! One line a symbol, `name type`, sorted by bytes; the type is the letter `nm` and kallsyms use (`t`/`T` text, capital:
//! global). A name that occurs several times has several lines. Text, so that `grep` works on it too.

use std::io::Write;
use std::path::Path;

use memmap2::Mmap;

use super::image::map_file;
use super::{ObjectSymbols, SymbolError, SymbolInfo, SymbolKind, SymbolTable};

/// A symbol as kallsyms knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedSymbol {
    pub name: String,
    /// The letter `nm` would give it.
    pub letter: u8,
}

/// An opened name table.
pub struct NameTable {
    map: Mmap,
}

impl NameTable {
    /// # Errors
    /// If the file can't be mapped, or is not such a list.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        let map = map_file(path)?;
        let first = map.split(|b| *b == b'\n').next().unwrap_or_default();
        if parse_line(first).is_none() || map.last() != Some(&b'\n') {
            return Err(SymbolError::broken(path, "is not a list of symbols"));
        }
        Ok(Self { map })
    }

    /// Writes the table of `symbols`, sorting them first.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(mut symbols: Vec<NamedSymbol>, out: &mut dyn Write) -> std::io::Result<()> {
        symbols.sort_unstable();
        let mut out = std::io::BufWriter::new(out);
        for symbol in symbols {
            writeln!(out, "{} {}", symbol.name, char::from(symbol.letter))?;
        }
        out.flush()
    }

    /// The line that holds byte `at`, without its newline, and where it begins.
    fn line_at(&self, at: usize) -> (usize, &[u8]) {
        let start = self.map[..at].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let rest = &self.map[start..];
        let len = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        (start, &rest[..len])
    }

    /// Where the first line whose name is not below `name` begins.
    fn lower_bound(&self, name: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.map.len());
        while low < high {
            let (start, line) = self.line_at(low + (high - low) / 2);
            if name_of(line) < name {
                low = start + line.len() + 1;
            } else {
                high = start;
            }
        }
        low.min(self.map.len())
    }
}

impl SymbolTable for NameTable {
    fn lookup(&self, name: &str) -> Option<SymbolInfo> {
        let mut found: Option<SymbolInfo> = None;
        for line in self.map[self.lower_bound(name.as_bytes())..].split(|b| *b == b'\n') {
            let Some((this, letter)) = parse_line(line) else { break };
            if this != name.as_bytes() {
                break;
            }
            let (kind, global) = meaning(letter);
            match &mut found {
                Some(info) => info.add(kind, global),
                None => found = Some(SymbolInfo { kind, global, count: 1 }),
            }
        }
        found
    }

    fn for_each_name(&self, each: &mut dyn FnMut(&str)) {
        for line in self.map.split(|b| *b == b'\n') {
            if let Ok(name) = std::str::from_utf8(name_of(line))
                && !name.is_empty()
            {
                each(name);
            }
        }
    }
}

fn name_of(line: &[u8]) -> &[u8] {
    line.split(|b| *b == b' ').next().unwrap_or_default()
}

fn parse_line(line: &[u8]) -> Option<(&[u8], u8)> {
    match line {
        [name @ .., b' ', letter] if !name.is_empty() && is_type_letter(*letter) => Some((name, *letter)),
        _ => None,
    }
}

/// Whether `nm` may give a symbol this letter; `?` is for what it doesn't know, as in sections of unusual kinds.
pub(super) fn is_type_letter(letter: u8) -> bool {
    letter.is_ascii_alphabetic() || letter == b'?'
}

/// What `nm`'s letter means: kind, and whether the symbol is global.
fn meaning(letter: u8) -> (SymbolKind, bool) {
    let kind = match letter.to_ascii_lowercase() {
        // Weak symbols of no particular kind are functions in a kernel; weak data is `v`.
        b't' | b'w' => SymbolKind::Function,
        b'd' | b'b' | b'r' | b'v' | b'g' | b's' | b'c' => SymbolKind::Object,
        _ => SymbolKind::Other,
    };
    (kind, letter.is_ascii_uppercase() || matches!(letter, b'w' | b'v'))
}

impl ObjectSymbols {
    /// The symbols as a name table holds them.
    pub fn to_named(&self) -> Vec<NamedSymbol> {
        let mut all = Vec::new();
        for (name, info) in self.iter() {
            let lower = match info.kind {
                SymbolKind::Function => b't',
                SymbolKind::Object => b'd',
                SymbolKind::Other => b'n',
            };
            let letter = if info.global { lower.to_ascii_uppercase() } else { lower };
            for _ in 0..info.count {
                all.push(NamedSymbol {
                    name: name.to_owned(),
                    letter,
                });
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn table(symbols: Vec<NamedSymbol>) -> (tempfile::NamedTempFile, NameTable) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        NameTable::write(symbols, file.as_file_mut()).unwrap();
        let table = NameTable::open(file.path()).unwrap();
        (file, table)
    }

    fn symbol(name: &str, letter: u8) -> NamedSymbol {
        NamedSymbol {
            name: name.into(),
            letter,
        }
    }

    #[test]
    fn lookups_tell_kind_binding_and_count() {
        let (_file, table) = table(vec![
            symbol("vprintk", b'T'),
            symbol("reset", b't'),
            symbol("reset", b't'),
            symbol("jiffies", b'D'),
            symbol("a", b'?'),
        ]);
        let info = |name: &str| table.lookup(name).map(|i| (i.kind, i.global, i.count));
        assert_eq!(info("vprintk"), Some((SymbolKind::Function, true, 1)));
        assert_eq!(info("reset"), Some((SymbolKind::Function, false, 2)));
        assert_eq!(info("jiffies"), Some((SymbolKind::Object, true, 1)));
        assert_eq!(info("a"), Some((SymbolKind::Other, false, 1)));
        for absent in ["", "res", "resets", "zzz", "0"] {
            assert_eq!(info(absent), None, "{absent}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        for content in [&b""[..], b"hello\n", b"name T", b"\0\0\0"] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(content).unwrap();
            assert!(NameTable::open(file.path()).is_err(), "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn every_symbol_is_found_and_no_other(names in prop::collection::vec("[a-c_.]{1,4}", 1..60), probe in "[a-c_.]{1,4}") {
            let mut model = BTreeMap::<String, u32>::new();
            for name in &names {
                *model.entry(name.clone()).or_default() += 1;
            }
            let (_file, table) = table(names.iter().map(|n| symbol(n, b't')).collect());
            for (name, count) in &model {
                prop_assert_eq!(table.lookup(name).map(|i| i.count), Some(*count));
            }
            prop_assert_eq!(table.lookup(&probe).map(|i| i.count), model.get(&probe).copied());
        }
    }
}
