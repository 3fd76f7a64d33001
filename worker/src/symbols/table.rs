//! A sorted list of symbol names in a text file, searched over a memory map: what a tree keeps of vmlinux.
//!
//! One line a symbol, `name type address mark file`, sorted by the name's bytes, then as the kernel counts namesakes. The type
//! is the letter `nm` and kallsyms use (`t`/`T` text, capital: global), the address is hexadecimal, and the mark is `+` for a
//! function that ftrace has a location for, `-` for one it has none for, `?` where that isn't known. The file, the last part
//! of its path, is there where a local symbol's is known. Tables of former versions end after the type. A name that occurs
//! several times has several lines. Text, so that `grep` works on it too.

use std::io::Write;
use std::path::Path;

use klp_livepatch::report::Traced;
use memmap2::Mmap;

use super::image::map_file;
use super::places::{self, Place, Places};
use super::{SymbolError, SymbolInfo, SymbolKind, SymbolTable};

/// What a table of a former version can't answer.
const FORMER: &str = "vmlinux's symbols were listed by an older klp-worker, without their addresses; \
     run `klp-worker tree verify --repair`, or remove the tree and add it again";

/// A symbol as kallsyms knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedSymbol {
    pub name: String,
    /// The letter `nm` would give it.
    pub letter: u8,
    pub address: Option<u64>,
    /// Whether ftrace has a location for it; only where the address is known.
    pub traced: Option<bool>,
    /// The last part of the path of the file it is local to.
    pub file: Option<Box<str>>,
}

/// A line's fields.
struct Line<'a> {
    name: &'a [u8],
    letter: u8,
    /// Address and mark.
    place: Option<(u64, u8)>,
    file: Option<&'a [u8]>,
}

/// An opened name table.
pub struct NameTable {
    map: Mmap,
}

impl NameTable {
    /// # Errors
    /// If the file can't be mapped, or is not such a list.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        Self::of_map(map_file(path)?).ok_or_else(|| SymbolError::broken(path, "is not a list of symbols"))
    }

    pub(super) fn of_map(map: Mmap) -> Option<Self> {
        let first = map.split(|b| *b == b'\n').next().unwrap_or_default();
        (Line::parse(first).is_some() && map.last() == Some(&b'\n')).then_some(Self { map })
    }

    /// Writes the table of `symbols`, which are in the order kallsyms has, sorting them first.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(mut symbols: Vec<NamedSymbol>, out: &mut dyn Write) -> std::io::Result<()> {
        // Stable: what shares an address stays in the kernel's order.
        symbols.sort_by(|a, b| (&a.name, a.address).cmp(&(&b.name, b.address)));
        let mut out = std::io::BufWriter::new(out);
        for symbol in symbols {
            write!(out, "{} {}", symbol.name, char::from(symbol.letter))?;
            if let Some(address) = symbol.address {
                let mark = match symbol.traced {
                    Some(true) => '+',
                    Some(false) => '-',
                    None => '?',
                };
                write!(out, " {address:x} {mark}")?;
                // A file's name is foreign text: one with a space or a newline would be taken for something else.
                let file = symbol
                    .file
                    .as_deref()
                    .filter(|file| file.bytes().all(|b| b.is_ascii_graphic()));
                if let Some(file) = file {
                    write!(out, " {file}")?;
                }
            }
            writeln!(out)?;
        }
        out.flush()
    }

    /// Whether the table says where the symbols are.
    pub fn has_places(&self) -> bool {
        self.map
            .split(|b| *b == b'\n')
            .next()
            .and_then(Line::parse)
            .is_some_and(|line| line.place.is_some())
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.map.split(|b| *b == b'\n').filter_map(Line::parse)
    }

    /// The lines of one name.
    fn lines_of(&self, name: &[u8]) -> impl Iterator<Item = Line<'_>> {
        self.map[self.lower_bound(name)..]
            .split(|b| *b == b'\n')
            .map_while(Line::parse)
            .take_while(move |line| line.name == name)
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
        for line in self.lines_of(name.as_bytes()) {
            let (kind, global) = meaning(line.letter);
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

    fn places(&self, names: &[&str]) -> Result<Places, String> {
        if !self.has_places() {
            return Err(FORMER.to_owned());
        }
        let one = |name: &str| self.lines_of(name.as_bytes()).next();
        let address = |name: &str| Some(one(name)?.place?.0);
        let init = address("_sinittext").unwrap_or_default()..address("_einittext").unwrap_or_default();
        let mut found = Places::default();
        for name in names {
            let mut places: Vec<_> = self.lines_of(name.as_bytes()).map(|line| line.place(&init)).collect();
            places::number(&mut places, false);
            found.by_name.push(places);
        }
        if found.by_name.iter().any(|places| places.len() > 1) {
            self.add_neighbours(&mut found);
        }
        // vprintk, as every kernel has it.
        if one("vprintk")
            .and_then(|line| line.place)
            .is_some_and(|(_, mark)| mark == b'?')
        {
            found.untold = Some("the boot image does not show where ftrace's locations are".to_owned());
        }
        Ok(found)
    }
}

impl NameTable {
    fn add_neighbours(&self, found: &mut Places) {
        let lines: Vec<Line<'_>> = self.lines().filter(|line| !places::is_marker(line.name)).collect();
        let mut around: Vec<(u64, SymbolKind, &[u8])> = lines
            .chunk_by(|a, b| a.name == b.name)
            .filter_map(|alike| match alike {
                [line] => Some((line.place?.0, meaning(line.letter).0, line.name)),
                _ => None,
            })
            .collect();
        around.sort_by_key(|(address, ..)| *address);
        for place in found.by_name.iter_mut().filter(|places| places.len() > 1).flatten() {
            let alike: Vec<_> = {
                // Enough on each side that those of the other kind may be passed over.
                let at = around.partition_point(|(address, ..)| *address < place.address);
                let near = at.saturating_sub(64)..(at + 64).min(around.len());
                around[near].iter().filter(|(_, kind, _)| *kind == place.kind).collect()
            };
            let at = alike.partition_point(|(address, ..)| *address < place.address);
            place.neighbours = places::around(at, alike.len())
                .map(|i| String::from_utf8_lossy(alike[i].2).into())
                .collect();
        }
    }
}

fn name_of(line: &[u8]) -> &[u8] {
    line.split(|b| *b == b' ').next().unwrap_or_default()
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let letter = match fields.next()? {
            [letter] if is_type_letter(*letter) => *letter,
            _ => return None,
        };
        let place = match fields.next() {
            None => None,
            Some(address) => {
                let address = std::str::from_utf8(address).ok()?;
                let address = u64::from_str_radix(address, 16).ok()?;
                match fields.next()? {
                    [mark @ (b'+' | b'-' | b'?')] => Some((address, *mark)),
                    _ => return None,
                }
            }
        };
        let file = fields.next();
        let whole = fields.next().is_none();
        whole.then_some(Self {
            name,
            letter,
            place,
            file,
        })
    }

    fn place(&self, init_code: &std::ops::Range<u64>) -> Place {
        let (kind, global) = meaning(self.letter);
        let (address, mark) = self.place.unwrap_or((0, b'?'));
        Place {
            kind,
            global,
            file: self.file.map(|file| String::from_utf8_lossy(file).into()),
            address,
            size: 0,
            init: init_code.contains(&address),
            position: None,
            traced: match mark {
                b'+' => Traced::Yes,
                b'-' => Traced::No,
                _ => Traced::Unknown,
            },
            neighbours: Vec::new(),
        }
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
            ..NamedSymbol::default()
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

    #[test]
    fn places_come_in_the_kernel_s_order() {
        let at = |name: &str, address: u64, traced, file: Option<&str>| NamedSymbol {
            name: name.into(),
            letter: b't',
            address: Some(address),
            traced,
            file: file.map(Into::into),
        };
        let (_file, table) = table(vec![
            at("_sinittext", 0x900, Some(false), None),
            at("_einittext", 0xa00, Some(false), None),
            at("reset", 0x910, Some(true), None),
            at("reset", 0x30, Some(true), Some("b.c")),
            at("a1", 0x20, Some(false), None),
            at("b1", 0x40, None, Some("odd name.c")),
        ]);
        let found = table.places(&["reset", "a1", "b1", "none"]).unwrap();
        let facts = |i: usize| -> Vec<_> {
            found.by_name[i]
                .iter()
                .map(|p| (p.position, p.address, p.traced, p.file.as_deref(), p.init))
                .collect()
        };
        assert_eq!(
            facts(0),
            [
                (Some(1), 0x30, Traced::Yes, Some("b.c"), false),
                (Some(2), 0x910, Traced::Yes, None, true)
            ]
        );
        assert_eq!(
            *found.by_name[0][0].neighbours,
            ["a1", "b1", "_sinittext", "_einittext"].map(Box::from)
        );
        assert_eq!(facts(1), [(Some(0), 0x20, Traced::No, None, false)]);
        assert_eq!(facts(2), [(Some(0), 0x40, Traced::Unknown, None, false)]);
        assert_eq!(facts(3), []);
    }

    #[test]
    fn a_former_table_says_what_to_do() {
        let (_file, table) = table(vec![symbol("a", b't')]);
        assert!(table.places(&["a"]).unwrap_err().contains("tree verify --repair"));
    }

    proptest! {
        /// A table somebody damaged gives odd answers, nothing worse.
        #[test]
        fn any_lines_are_survived(lines in prop::collection::vec("[ab_]{0,2} ?[tT?]? ?[0-9a-f]{0,17} ?[+?-]? ?[a. ]{0,3}", 0..12)) {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            write!(file, "a t 0 +\n{}\n", lines.join("\n")).unwrap();
            if let Ok(table) = NameTable::open(file.path()) {
                let _ = table.places(&["a", "b", "_", ""]);
                table.lookup("b");
            }
        }

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
