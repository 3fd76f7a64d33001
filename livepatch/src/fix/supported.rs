//! Reads `supported.conf` of SUSE's kernel-source repository: which modules are supported.
//!
//! A line holds a marker or none, then a module's path without `.ko`, or a folder's with `/*`. The longest match decides. `-` in
//! front means unsupported, `+external` supported by somebody else, `+base` supported, `+name-kmp` in a package of its own.

use serde::{Deserialize, Serialize};

/// Bytes of the file.
const MAX_SUPPORTED: usize = 4 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Support {
    Supported,
    /// In a package of its own, and so perhaps not on the machine.
    Kmp {
        package: String,
    },
    Unsupported {
        marker: String,
    },
    /// No line is about it.
    Unlisted,
    /// A marker that is not known, or lines that contradict each other.
    Unclear {
        why: String,
    },
}

impl Support {
    /// False only if it is certain.
    pub fn may_be_supported(&self) -> bool {
        !matches!(self, Support::Unsupported { .. })
    }
}

/// What the file's text says of a module such as `net/sched/sch_taprio`.
pub fn support(text: &str, module: &str) -> Support {
    if text.len() > MAX_SUPPORTED {
        return Support::Unclear {
            why: format!("supported.conf has more than {} MiB", MAX_SUPPORTED >> 20),
        };
    }
    let mut at = Some(module.to_owned());
    let mut folder = module;
    while let Some(pattern) = at {
        let found: Vec<(usize, &str)> = text
            .lines()
            .enumerate()
            .filter_map(|(n, line)| Some((n + 1, marker(line, &pattern)?)))
            .collect();
        match found[..] {
            [] => {}
            [(line, one)] => return meaning(one, line),
            [(line, first), ref rest @ ..] if rest.iter().all(|(_, other)| *other == first) => {
                return meaning(first, line);
            }
            [(line, _), (other, _), ..] => {
                return Support::Unclear {
                    why: format!("supported.conf, lines {line} and {other}: {pattern} has two markers"),
                };
            }
        }
        at = folder.rsplit_once('/').map(|(above, _)| {
            folder = above;
            format!("{above}/*")
        });
    }
    Support::Unlisted
}

/// The marker of a line about exactly this pattern, empty if it has none.
fn marker<'l>(line: &'l str, pattern: &str) -> Option<&'l str> {
    let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
    let (first, second) = (words.next()?, words.next());
    let (marker, path) = match second {
        Some(path) if first.starts_with(['+', '-']) => (first, path),
        None => ("", first),
        Some(_) => return None,
    };
    (path == pattern && words.next().is_none()).then_some(marker)
}

fn meaning(marker: &str, line: usize) -> Support {
    match marker {
        "" | "+base" => Support::Supported,
        "+external" => Support::Unsupported {
            marker: marker.to_owned(),
        },
        _ if marker.starts_with('-') => Support::Unsupported {
            marker: marker.to_owned(),
        },
        _ => match marker.strip_prefix('+').filter(|package| package.ends_with("-kmp")) {
            Some(package) => Support::Kmp {
                package: package.to_owned(),
            },
            None => Support::Unclear {
                why: format!(
                    "supported.conf, line {line}: marker {} is not known",
                    crate::names::quoted(marker)
                ),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_match_decides() {
        let text = "\
# modules
-\tdrivers/net/wireless/*
\tdrivers/net/wireless/mac80211_hwsim  # for tests
+external\tnet/tipc/tipc
+base\tnet/ipset/ip_set
+gfs2-kmp fs/gfs2/gfs2
-!optional drivers/a/b
+odd drivers/c/d
drivers/e/f
- drivers/e/f
";
        let of = |module| support(text, module);
        let unsupported = |marker: &str| Support::Unsupported { marker: marker.into() };
        assert_eq!(of("drivers/net/wireless/ath/ath12k/ath12k"), unsupported("-"));
        assert_eq!(of("drivers/net/wireless/mac80211_hwsim"), Support::Supported);
        assert_eq!(of("net/tipc/tipc"), unsupported("+external"));
        assert_eq!(of("net/ipset/ip_set"), Support::Supported);
        assert_eq!(
            of("fs/gfs2/gfs2"),
            Support::Kmp {
                package: "gfs2-kmp".into()
            }
        );
        assert_eq!(of("drivers/a/b"), unsupported("-!optional"));
        assert!(matches!(of("drivers/c/d"), Support::Unclear { .. }));
        assert!(matches!(of("drivers/e/f"), Support::Unclear { .. }));
        assert_eq!(of("fs/other"), Support::Unlisted);
    }
}
