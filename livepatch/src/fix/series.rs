//! Reads `series.conf` of SUSE's kernel-source repository: the patches of a kernel in the order they are applied.
//!
//! A line holds guards (`+name`, `-name`, either with `!`, or a bare `-`), then paths; `#` begins a comment, and `\` goes on in
//! the next line. The format is that of kernel-source's `scripts/guards`. No symbol is ever defined here, as in the kernels
//! that are released.

use std::str::FromStr;

use crate::names::TreePath;

/// Bytes of a series.
pub const MAX_SERIES: usize = 16 << 20;

/// The patches of a kernel, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    pub entries: Vec<Entry>,
    /// Lines, from 1, with a path that no patch can have; these are left out.
    pub odd: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: TreePath,
    /// False: a guard keeps it out, so the kernel has it not.
    pub applied: bool,
    /// From 1.
    pub line: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    #[error("series.conf has {0} bytes; at most {MAX_SERIES}")]
    TooLong(usize),
}

impl FromStr for Series {
    type Err = SeriesError;

    fn from_str(text: &str) -> Result<Self, SeriesError> {
        if text.len() > MAX_SERIES {
            return Err(SeriesError::TooLong(text.len()));
        }
        let mut series = Series::default();
        let mut guards = Guards::default();
        for (at, line) in text.lines().enumerate() {
            let line = without_comment(line);
            let (line, goes_on) = match line.strip_suffix('\\') {
                Some(line) => (line, true),
                None => (line, false),
            };
            for word in line.split_whitespace() {
                if word.starts_with(['+', '-']) {
                    guards.take(word);
                    continue;
                }
                match word.parse::<TreePath>() {
                    Ok(path) => series.entries.push(Entry {
                        path,
                        applied: guards.applied.unwrap_or(true),
                        line: at + 1,
                    }),
                    Err(_) => series.odd.push(at + 1),
                }
            }
            if !goes_on {
                guards = Guards::default();
            }
        }
        Ok(series)
    }
}

/// A comment begins a line or follows a space.
fn without_comment(line: &str) -> &str {
    let begins = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    let comment = line.match_indices('#').find(|(at, _)| begins(*at));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// What the guards so far decide; `None` without any.
#[derive(Default)]
struct Guards {
    applied: Option<bool>,
}

impl Guards {
    fn take(&mut self, guard: &str) {
        let wanted = guard.starts_with('+');
        let symbol = &guard[1..];
        // The last guard that holds decides; until one does, it is as if the first had been against.
        let holds = symbol.is_empty() || symbol.starts_with('!');
        if holds {
            self.applied = Some(wanted);
        } else {
            self.applied.get_or_insert(!wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn order_guards_and_comments() {
        let text = "\
# Kernel patches configuration file

\tpatches.suse/zz-first.patch\t# (bsc#1)
    patches.suse/aa-second.patch
+needs-update\tpatches.suse/out.patch
-rt  patches.suse/in.patch
-!kmp patches.suse/only-kmp.patch
+!rt -kmp patches.suse/in-too.patch
-\tpatches.suse/never.patch
+!a \\
patches.suse/next-line.patch patches.suse/same-line.patch
# patches.suse/commented.patch
";
        let series: Series = text.parse().unwrap();
        let seen: Vec<_> = series
            .entries
            .iter()
            .map(|e| (e.path.as_str(), e.applied, e.line))
            .collect();
        assert_eq!(
            seen,
            [
                ("patches.suse/zz-first.patch", true, 3),
                ("patches.suse/aa-second.patch", true, 4),
                ("patches.suse/out.patch", false, 5),
                ("patches.suse/in.patch", true, 6),
                ("patches.suse/only-kmp.patch", false, 7),
                ("patches.suse/in-too.patch", true, 8),
                ("patches.suse/never.patch", false, 9),
                ("patches.suse/next-line.patch", true, 11),
                ("patches.suse/same-line.patch", true, 11),
            ]
        );
    }

    #[test]
    fn a_path_that_no_patch_can_have_costs_its_line() {
        let series: Series = "a.patch\n../x.patch\nb.patch\n".parse().unwrap();
        assert_eq!((series.entries.len(), series.odd), (2, vec![2]));
        let long = " ".repeat(MAX_SERIES + 1);
        assert!(long.parse::<Series>().unwrap_err().to_string().contains("at most"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "([-+!# \t]|[a-z./]{1,5}|\n|.){0,60}") {
            let _ = text.parse::<Series>();
        }
    }
}
