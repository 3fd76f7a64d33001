//! What the compiler copied where: the dump that gcc writes with `-fdump-ipa-clones`.
//!
//! Format, from gcc's cgraphclones.cc (`dump_callgraph_transformation`): a line for each copy, its fields separated by
//! semicolons: `Callgraph clone`, then name, order, file, line and column of the original and of what was made of it or that
//! it went into, then how: `inlining to`, or a suffix such as `isra` or `constprop`. Lines that begin with `Callgraph
//! removal` name functions that are gone. Written for SUSE, whose kernels' packages hold these files.

use std::collections::{BTreeSet, HashMap};

/// Bytes of a dump that are read; the largest kernel file's is a tenth of it.
pub const MAX_DUMP: u64 = 64 << 20;

/// Bytes of a line: two names and two paths.
const MAX_LINE: usize = 16 << 10;

const COPY: &str = "Callgraph clone";

/// Of each function, where copies of it went: names of functions, or of clones such as `f.isra.0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpaClones {
    copies: HashMap<Box<str>, BTreeSet<Box<str>>>,
}

impl IpaClones {
    /// Reads a dump; what is no such line is passed over, as new versions of gcc may say more.
    pub fn parse(text: &str) -> Self {
        let mut clones = Self::default();
        for line in text.lines().filter(|line| line.len() <= MAX_LINE) {
            if let Some((from, to)) = parse_line(line)
                && from != to
            {
                clones.copies.entry(from.into()).or_default().insert(to.into());
            }
        }
        clones
    }

    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// All that holds a copy of a function's code, through however many steps, but for itself; sorted.
    pub fn holders(&self, function: &str) -> Vec<&str> {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut waiting = vec![function];
        while let Some(name) = waiting.pop() {
            for into in self.copies.get(name).into_iter().flatten() {
                if &**into != function && seen.insert(into) {
                    waiting.push(into);
                }
            }
        }
        seen.into_iter().collect()
    }
}

fn parse_line(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split(';');
    if fields.next()? != COPY {
        return None;
    }
    let from = fields.next().filter(|name| is_symbol(name))?;
    // Order, file, line, column.
    let to = fields.nth(4).filter(|name| is_symbol(name))?;
    // The same again, and how.
    fields.nth(4)?;
    fields.next().is_none().then_some((from, to))
}

fn is_symbol(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inlined(from: &str, to: &str) -> String {
        format!("Callgraph clone;{from};0;a/b.c;1;12;{to};1;a/b.c;2;12;inlining to\n")
    }

    #[test]
    fn copies_are_followed_to_the_end() {
        let dump = [
            inlined("helper", "mid"),
            inlined("mid", "outer"),
            inlined("mid", "other.isra.0"),
            "Callgraph clone;mid;1;b.c;2;12;mid.constprop.0;8;b.c;2;12;constprop\n".into(),
            inlined("mid.constprop.0", "last"),
            "Callgraph removal;mid;1;b.c;2;12\n".into(),
            inlined("outer", "outer"),
        ]
        .concat();
        let clones = IpaClones::parse(&dump);
        let holders = ["last", "mid", "mid.constprop.0", "other.isra.0", "outer"];
        assert_eq!(clones.holders("helper"), holders);
        assert_eq!(clones.holders("outer"), [""; 0]);
        assert_eq!(clones.holders("nobody"), [""; 0]);
    }

    #[test]
    fn what_is_no_copy_is_passed_over() {
        for odd in [
            "Callgraph clone;a;0;a.c;1;2;b;1;a.c;2;3",
            "Callgraph clone;;0;a.c;1;2;b;1;a.c;2;3;inlining to",
            "Callgraph clone;a;0;a.c;1;2;b/c;1;a.c;2;3;inlining to",
            "Callgraph clone;a;0;a.c;1;2;b;1;a.c;2;3;inlining to;more",
            "something new",
            "",
        ] {
            assert!(IpaClones::parse(odd).is_empty(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,200}") {
            IpaClones::parse(&text).holders("a");
        }

        /// Following copies is the transitive closure, whatever circles there are.
        #[test]
        fn holders_are_the_transitive_closure(edges in prop::collection::vec((0..6usize, 0..6usize), 0..20), of in 0..6usize) {
            let name = |i: usize| format!("f{i}");
            let text: String = edges.iter().map(|(a, b)| inlined(&name(*a), &name(*b))).collect();
            let mut reached = [false; 6];
            let mut grown = true;
            while grown {
                grown = false;
                for (a, b) in &edges {
                    if (*a == of || reached[*a]) && !reached[*b] {
                        reached[*b] = true;
                        grown = true;
                    }
                }
            }
            reached[of] = false;
            let model: Vec<String> = (0..6).filter(|i| reached[*i]).map(name).collect();
            let clones = IpaClones::parse(&text);
            prop_assert_eq!(clones.holders(&name(of)), model);
        }
    }
}
