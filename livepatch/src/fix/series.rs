//! Reads `series.conf` of SUSE's kernel-source repository: the patches of a kernel in the order they are applied.
//!
//! A line holds guards (`+name`, `-name`, either with `!`), then one patch's path; `#` begins a comment. The format is
//! that of kernel-source's `scripts/guards`. No symbol is ever defined here, as in the kernels that are released.

use std::str::FromStr;

use crate::names::{TreePath, quoted};

/// Bytes of a series.
pub const MAX_SERIES: usize = 16 << 20;

/// The patches of a kernel, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    pub entries: Vec<Entry>,
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
    #[error("series.conf, line {line}: {why}")]
    BadLine { line: usize, why: String },
}

impl FromStr for Series {
    type Err = SeriesError;

    fn from_str(text: &str) -> Result<Self, SeriesError> {
        if text.len() > MAX_SERIES {
            return Err(SeriesError::TooLong(text.len()));
        }
        let mut entries = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let bad = |why| SeriesError::BadLine { line: at + 1, why };
            let mut applied = true;
            let mut guarded = false;
            let mut path = None;
            let words = line.split('#').next().unwrap_or_default().split_whitespace();
            for word in words {
                if path.is_some() {
                    return Err(bad(format!(
                        "{} follows the patch's path; one patch a line",
                        quoted(word)
                    )));
                }
                match word.strip_prefix(['+', '-']) {
                    Some(symbol) => {
                        let wanted = word.starts_with('+');
                        let holds = symbol.starts_with('!');
                        // A guard that does not hold leaves things as they are; at first, as if it had been against.
                        if holds {
                            applied = wanted;
                        } else if !guarded {
                            applied = !wanted;
                        }
                        guarded = true;
                    }
                    None => path = Some(word.parse::<TreePath>().map_err(|why| bad(why.0))?),
                }
            }
            if let Some(path) = path {
                entries.push(Entry {
                    path,
                    applied,
                    line: at + 1,
                });
            }
        }
        Ok(Series { entries })
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
            ]
        );
    }

    #[test]
    fn errors_name_the_line() {
        let error = |text: &str| text.parse::<Series>().unwrap_err().to_string();
        assert!(error("\n../x.patch\n").contains("line 2"));
        assert!(error("a.patch b.patch\n").contains("line 1: `b.patch` follows"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "([-+!# \t]|[a-z./]{1,5}|\n|.){0,60}") {
            let _ = text.parse::<Series>();
        }
    }
}
