//! The catalog: which codestreams are supported, on which kernels and architectures, and until when.
//!
//! It is read from SUSE klp-build's `supported.csv` (`catalog/csv.rs`) or from a TOML file of our own (`catalog/toml.rs`),
//! which can name any distribution's kernels. Both are foreign texts: sizes are bounded, and what is wrong is told with its
//! line and field.

mod csv;
mod toml;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::date::Date;
use crate::names::{KernelVersion, quoted};
use crate::suse::SuseName;
use crate::{Arch, Codestream};

/// Longest accepted file, in bytes.
pub const MAX_FILE: usize = 4 << 20;
pub const MAX_CODESTREAMS: usize = 10_000;

/// Days before the end of support from which on a person is warned.
pub const WARN_DAYS: u32 = 30;

/// The supported codestreams, in natural order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog(BTreeMap<Codestream, Entry>);

/// One supported codestream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub codestream: Codestream,
    pub kernel: KernelVersion,
    /// Where the kernel was built, for those who have build projects, such as `SUSE:Maintenance:41020`; else empty.
    pub project: String,
    /// The project's id of the update, such as `patchinfo.ga`; else empty. Never without a project.
    pub patchid: String,
    /// The last day of support; `None` if the catalog doesn't say.
    pub eol: Option<Date>,
    /// At least one.
    pub archs: BTreeSet<Arch>,
}

/// How long a codestream is still supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Days left; 0 on the last day.
    Ends {
        days: u32,
    },
    /// Days since the last one.
    Ended {
        days: u32,
    },
    Unknown,
}

impl Support {
    pub fn on(today: Date, eol: Option<Date>) -> Self {
        let Some(eol) = eol else {
            return Self::Unknown;
        };
        // The calendar has fewer days than 32 bits can count.
        let days = u32::try_from(eol.days_since(today).unsigned_abs()).unwrap_or(u32::MAX);
        if eol >= today {
            Self::Ends { days }
        } else {
            Self::Ended { days }
        }
    }

    /// Whether a person should be warned before they work for this codestream.
    pub fn warns(self) -> bool {
        match self {
            Self::Ends { days } => days <= WARN_DAYS,
            Self::Ended { .. } => true,
            Self::Unknown => false,
        }
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Ends { days: 0 } => "ends today".to_owned(),
            Self::Ends { days: 1 } => "ends tomorrow".to_owned(),
            Self::Ends { days } => format!("ends in {days} days"),
            Self::Ended { days: 1 } => "ended yesterday".to_owned(),
            Self::Ended { days } => format!("ended {days} days ago"),
            Self::Unknown => "unknown".to_owned(),
        };
        f.pad(&text)
    }
}

/// What is wrong with a catalog, and where.
#[derive(Clone, Debug, PartialEq, Eq, ::thiserror::Error)]
pub struct CatalogError {
    /// From 1; 0 for the file as a whole.
    pub line: usize,
    /// The column's or key's name; empty where the message says it.
    pub field: String,
    pub message: String,
}

impl CatalogError {
    fn new(line: usize, field: &str, message: impl fmt::Display) -> Self {
        let (field, message) = (field.to_owned(), message.to_string());
        Self { line, field, message }
    }
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.field.as_str()) {
            (0, "") => {}
            (0, field) => write!(f, "{field}: ")?,
            (line, "") => write!(f, "line {line}: ")?,
            (line, field) => write!(f, "line {line}, {field}: ")?,
        }
        f.write_str(&self.message)
    }
}

impl Catalog {
    /// Reads either format: a file that begins with supported.csv's header, or a TOML file.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and field.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        if text.len() > MAX_FILE {
            let message = format!("the catalog is {} bytes long; at most {MAX_FILE}", text.len());
            return Err(CatalogError::new(0, "", message));
        }
        if csv::is_csv(text) {
            csv::parse(text)
        } else {
            toml::parse(text)
        }
    }

    /// The catalog as a TOML file that [`Catalog::parse`] reads back.
    pub fn to_toml(&self) -> String {
        toml::print(self)
    }

    pub fn get(&self, codestream: &Codestream) -> Option<&Entry> {
        self.0.get(codestream)
    }

    /// In natural order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.values()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what line `line` says.
    fn add(&mut self, line: usize, field: &str, entry: Entry) -> Result<(), CatalogError> {
        let name = entry.codestream.clone();
        if self.len() >= MAX_CODESTREAMS {
            let message = format!("more than {MAX_CODESTREAMS} codestreams");
            return Err(CatalogError::new(line, field, message));
        }
        if self.0.insert(name.clone(), entry).is_some() {
            return Err(CatalogError::new(line, field, format!("{name} is there a second time")));
        }
        Ok(())
    }
}

/// Splits `project[/patchid]`.
fn parse_project(text: &str) -> Result<(String, String), String> {
    let (project, patchid) = text.split_once('/').unwrap_or((text, ""));
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric() || b":._-+".contains(&b));
    if text.len() > 256 {
        return Err(format!("project is {} bytes long; at most 256", text.len()));
    }
    if !plain(project) || !plain(patchid) {
        return Err(format!(
            "project {} is not like SUSE:Maintenance:41020, nor like project/patchinfo.1",
            quoted(text)
        ));
    }
    if text.contains('/') && (project.is_empty() || patchid.is_empty()) {
        return Err(format!("project {} has nothing on one side of its slash", quoted(text)));
    }
    Ok((project.to_owned(), patchid.to_owned()))
}

/// The architectures of a codestream for which none are given.
fn default_archs(codestream: &Codestream) -> Option<BTreeSet<Arch>> {
    SuseName::of(codestream).map(SuseName::default_archs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::date::tests::any_date;

    fn date(s: &str) -> Date {
        s.parse().unwrap()
    }

    #[test]
    fn people_are_warned_in_the_last_thirty_days_and_ever_after() {
        let support = |today: &str| Support::on(date(today), Some(date("2026-11-15")));
        assert_eq!(support("2026-10-15"), Support::Ends { days: 31 });
        assert!(!support("2026-10-15").warns());
        assert!(support("2026-10-16").warns());
        assert_eq!(support("2026-11-15"), Support::Ends { days: 0 });
        assert_eq!(support("2026-11-16"), Support::Ended { days: 1 });
        assert!(support("2030-01-01").warns());
        assert!(!Support::on(date("2026-11-15"), None).warns());
        let told = ["2026-10-15", "2026-11-14", "2026-11-15", "2026-11-16", "2026-12-15"];
        assert_eq!(
            told.map(|day| support(day).to_string()),
            [
                "ends in 31 days",
                "ends tomorrow",
                "ends today",
                "ended yesterday",
                "ended 30 days ago"
            ]
        );
    }

    #[test]
    fn a_huge_file_is_not_read() {
        let error = Catalog::parse(&" ".repeat(MAX_FILE + 1)).unwrap_err();
        assert!(error.to_string().contains("at most 4194304"), "{error}");
    }

    #[test]
    fn projects_hold_no_surprises() {
        for bad in ["a b", "a\"b", "a/b/c", "/x", "a/", "é", "a\\"] {
            assert!(parse_project(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_project("").unwrap(), (String::new(), String::new()));
    }

    proptest! {
        #[test]
        fn the_days_told_are_the_days_between(today in any_date(), eol in any_date()) {
            let days = i64::from(match Support::on(today, Some(eol)) {
                Support::Ends { days } => i32::try_from(days).unwrap(),
                Support::Ended { days } => -i32::try_from(days).unwrap(),
                Support::Unknown => unreachable!(),
            });
            prop_assert_eq!(today.unix_days() + days, eol.unix_days());
        }
    }
}
