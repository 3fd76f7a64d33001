//! Our own catalog, for the kernels of any distribution:
//!
//! ```toml
//! [[codestream]]
//! name = "debian12-6.1.0-50"
//! kernel = "6.1.0-50"                   # the version that folders are named by, without the flavour
//! archs = ["x86_64", "aarch64"]         # may be left out where a SUSE name says it
//! eol = 2028-06-30                      # the last day of support; left out: unknown
//! project = "SUSE:Maintenance:41020"    # where it was built, with /patchinfo.1 if it has one; may be left out
//! ```
//!
//! Nothing else is allowed, so that a slip of the fingers is not taken for something unsaid.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::ops::Range;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use super::{Catalog, CatalogError, Entry, default_archs, parse_project};
use crate::Arch;
use crate::date::Date;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    codestream: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: Spanned<String>,
    kernel: Spanned<String>,
    archs: Option<Spanned<Vec<String>>>,
    eol: Option<Spanned<Datetime>>,
    project: Option<Spanned<String>>,
}

pub(super) fn parse(text: &str) -> Result<Catalog, CatalogError> {
    let lines = Lines::of(text);
    let file: File = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(0, |span| lines.number(&span));
        let place = line.checked_sub(1).and_then(|above| text.lines().nth(above));
        let key = place.and_then(key_of).unwrap_or_default();
        // It may repeat what the file says, however long.
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let message: String = e.message().chars().take(200).map(printable).collect();
        CatalogError::new(line, key, message)
    })?;
    let mut catalog = Catalog::default();
    for row in &file.codestream {
        let entry = parse_row(row, &lines)?;
        catalog.add(lines.number(&row.name.span()), "name", entry)?;
    }
    Ok(catalog)
}

/// The key a line sets, if it is one that may be shown.
fn key_of(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim();
    let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    (plain && key.len() <= 40).then_some(key)
}

fn parse_row(row: &Row, lines: &Lines) -> Result<Entry, CatalogError> {
    let codestream = parse_text(&row.name, "name", lines)?;
    let archs = match &row.archs {
        None => default_archs(&codestream).ok_or_else(|| {
            let message = format!("{codestream} needs `archs`: its name doesn't tell them");
            CatalogError::new(lines.number(&row.name.span()), "", message)
        })?,
        Some(archs) => parse_archs(archs, lines)?,
    };
    let project = row.project.as_ref();
    let (project, patchid) = parse_project(project.map_or("", |p| p.get_ref().as_str()))
        .map_err(|e| CatalogError::new(project.map_or(0, |p| lines.number(&p.span())), "project", e))?;
    let eol = row.eol.as_ref().map(|eol| parse_eol(eol, lines)).transpose()?;
    Ok(Entry {
        codestream,
        kernel: parse_text(&row.kernel, "kernel", lines)?,
        project,
        patchid,
        eol,
        archs,
    })
}

fn parse_text<T: FromStr<Err: Display>>(text: &Spanned<String>, field: &str, lines: &Lines) -> Result<T, CatalogError> {
    let parsed = text.get_ref().parse();
    parsed.map_err(|e| CatalogError::new(lines.number(&text.span()), field, e))
}

fn parse_archs(archs: &Spanned<Vec<String>>, lines: &Lines) -> Result<BTreeSet<Arch>, CatalogError> {
    let wrong = |message: String| CatalogError::new(lines.number(&archs.span()), "archs", message);
    let names = archs.get_ref();
    let parsed: Result<BTreeSet<Arch>, _> = names.iter().map(|name| name.parse()).collect();
    let parsed = parsed.map_err(|e: crate::arch::UnknownArch| wrong(e.to_string()))?;
    if parsed.is_empty() {
        return Err(wrong("none; name at least one".to_owned()));
    }
    if parsed.len() < names.len() {
        return Err(wrong("one is named twice".to_owned()));
    }
    Ok(parsed)
}

fn parse_eol(eol: &Spanned<Datetime>, lines: &Lines) -> Result<Date, CatalogError> {
    let date = match eol.get_ref() {
        Datetime {
            date: Some(date),
            time: None,
            offset: None,
        } => Date::new(date.year, date.month, date.day),
        _ => None,
    };
    date.ok_or_else(|| {
        let message = "it must be a day alone, like 2026-11-15";
        CatalogError::new(lines.number(&eol.span()), "eol", message)
    })
}

pub(super) fn print(catalog: &Catalog) -> String {
    let mut out = String::new();
    for entry in catalog.entries() {
        let archs: Vec<String> = entry.archs.iter().map(|arch| format!("\"{arch}\"")).collect();
        // Writing to a String can't fail. None of the texts can hold a quote or a backslash.
        let _ = write!(
            out,
            "[[codestream]]\nname = \"{}\"\nkernel = \"{}\"\narchs = [{}]\n",
            entry.codestream,
            entry.kernel,
            archs.join(", ")
        );
        if let Some(eol) = entry.eol {
            let _ = writeln!(out, "eol = {eol}");
        }
        if !entry.project.is_empty() {
            let slash = if entry.patchid.is_empty() { "" } else { "/" };
            let _ = writeln!(out, "project = \"{}{slash}{}\"", entry.project, entry.patchid);
        }
        out.push('\n');
    }
    // One blank line between tables, none after the last.
    out.pop();
    out
}

/// Where each line begins, to tell a place's line without counting from the start each time.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(after).collect())
    }

    /// From 1.
    fn number(&self, span: &Range<usize>) -> usize {
        self.0.partition_point(|start| *start <= span.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::date::tests::any_date;
    use crate::suse::tests::any_name;

    const GOOD: &str = "[[codestream]]
name = \"debian12-6.1.0-50\"
kernel = \"6.1.0-50\"
archs = [\"x86_64\", \"aarch64\"]
eol = 2028-06-30

# SUSE's names say what they run on.
[[codestream]]
name = \"15.6rtu2\"
kernel = \"6.4.0-150600.10.5\"
project = \"SUSE:Maintenance:41020\"
";

    #[test]
    fn tables_become_entries() {
        let catalog = Catalog::parse(GOOD).unwrap();
        let names: Vec<_> = catalog.entries().map(|e| e.codestream.as_str()).collect();
        assert_eq!(names, ["15.6rtu2", "debian12-6.1.0-50"]);
        let debian = catalog.get(&"debian12-6.1.0-50".parse().unwrap()).unwrap();
        assert_eq!(debian.archs, BTreeSet::from([Arch::X86_64, Arch::Aarch64]));
        assert_eq!(debian.eol, Date::new(2028, 6, 30));
        let suse = catalog.get(&"15.6rtu2".parse().unwrap()).unwrap();
        assert_eq!(suse.archs, BTreeSet::from([Arch::X86_64]));
        assert_eq!((suse.eol, suse.project.as_str()), (None, "SUSE:Maintenance:41020"));
        assert!(Catalog::parse("").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (from, to, told) in [
            (
                "debian12-6.1.0-50",
                "15.6rtu2",
                "line 9, name: 15.6rtu2 is there a second time",
            ),
            ("15.6rtu2", "../x", "line 9, name: codestream name `../x`"),
            (
                "\"15.6rtu2\"",
                "5",
                "line 9, name: invalid type: integer `5`, expected a string",
            ),
            ("15.6rtu2", "ubuntu", "line 9: ubuntu needs `archs`"),
            (
                "6.1.0-50\"\narchs",
                "a/b\"\narchs",
                "line 3, kernel: kernel version `a/b`",
            ),
            ("aarch64", "vax", "line 4, archs: unknown architecture `vax`"),
            ("aarch64", "x86_64", "line 4, archs: one is named twice"),
            ("\"x86_64\", \"aarch64\"", "", "line 4, archs: none"),
            (
                "2028-06-30",
                "2028-06-30T10:00:00Z",
                "line 5, eol: it must be a day alone",
            ),
            ("2028-06-30", "\"2028-06-30\"", "line 5, eol: invalid type: string"),
            ("eol", "eos", "line 5, eos: unknown field `eos`, expected one of"),
            ("SUSE:Maintenance:41020", "a b", "line 11, project: project `a b`"),
            ("kernel = \"6.4.0-150600.10.5\"\n", "", "line 8: missing field `kernel`"),
            (
                "[[codestream]]\nname = \"15",
                "[[codestreams]]\nname = \"15",
                "line 8: unknown field `codestreams`",
            ),
        ] {
            let error = Catalog::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
        }
    }

    prop_compose! {
        fn any_entry()(
            suse in any_name(),
            other in "[a-z][a-z0-9.+_-]{0,20}",
            is_suse: bool,
            kernel in "[0-9][0-9a-z.+_-]{0,20}",
            project in "([A-Za-z][A-Za-z0-9:._-]{0,20}(/patchinfo[.][0-9]{1,5})?)?",
            eol in proptest::option::of(any_date()),
            archs in proptest::sample::subsequence(Arch::ALL.to_vec(), 1..=4),
        ) -> Entry {
            let (project, patchid) = parse_project(&project).unwrap();
            Entry {
                codestream: if is_suse { suse.codestream() } else { other.parse().unwrap() },
                kernel: kernel.parse().unwrap(),
                project,
                patchid,
                eol,
                archs: archs.into_iter().collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_printed_is_read(entries in proptest::collection::vec(any_entry(), 0..6)) {
            let catalog = Catalog(entries.into_iter().map(|e| (e.codestream.clone(), e)).collect());
            prop_assert_eq!(Catalog::parse(&catalog.to_toml()).unwrap(), catalog);
        }
    }
}
