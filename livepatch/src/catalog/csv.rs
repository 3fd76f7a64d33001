//! Reads SUSE klp-build's `supported.csv`: plain commas, no quotes, five columns under a fixed header.
//!
//! - `Update ID`: `SLE15-SP6-RT_Update_2` is codestream `15.6rtu2`, `MICRO-6-0_Update_1` is `6.0u1`.
//! - `Maintenance Project`: the build project, with `/` and the update's id for those that have one.
//! - `Kernel version`: the version, a dot, and a build counter, which is no part of what anything else is named by. Micro's
//!   real-time kernels have `-rt` in their name from update 5 on.
//! - `Supported until`: a day, or words such as `only LTSS supported`.
//! - `LTSS until`: a day that counts instead of the former, or nothing.
//!
//! Architectures are those the product has.

use super::{Catalog, CatalogError, Entry, default_archs, parse_project};
use crate::date::Date;
use crate::names::{KernelVersion, quoted};
use crate::suse::SuseName;

const COLUMNS: [&str; 5] = [
    "Update ID",
    "Maintenance Project",
    "Kernel version",
    "Supported until",
    "LTSS until",
];
const ONLY_LTSS: &str = "only LTSS supported";

pub(super) fn is_csv(text: &str) -> bool {
    strip_mark(text).starts_with("Update ID,")
}

/// Without the mark some editors put at the start of UTF-8 files.
fn strip_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

pub(super) fn parse(text: &str) -> Result<Catalog, CatalogError> {
    let mut lines = strip_mark(text).lines().zip(1..);
    let header = lines.next().map_or("", |(line, _)| line.trim_end());
    if !header.split(',').eq(COLUMNS) {
        let message = format!("{} is not the header {}", quoted(header), COLUMNS.join(","));
        return Err(CatalogError::new(1, "", message));
    }
    let mut catalog = Catalog::default();
    for (row, line) in lines.filter(|(row, _)| !row.trim().is_empty()) {
        let entry = parse_row(row, line)?;
        catalog.add(line, COLUMNS[0], entry)?;
    }
    Ok(catalog)
}

fn parse_row(row: &str, line: usize) -> Result<Entry, CatalogError> {
    let cells: Vec<&str> = row.splitn(6, ',').map(str::trim).collect();
    let &[update, project, kernel, supported, ltss] = cells.as_slice() else {
        let count = row.split(',').count();
        return Err(CatalogError::new(line, "", format!("{count} columns; it must be 5")));
    };
    let wrong = |column: usize, message: String| CatalogError::new(line, COLUMNS[column], message);
    let name = SuseName::parse_product(update).ok_or_else(|| {
        let example = "it must be like SLE15-SP6-RT_Update_2 or MICRO-6-0_Update_1";
        wrong(0, format!("{} is no product's update; {example}", quoted(update)))
    })?;
    let codestream = name.codestream();
    let (project, patchid) = parse_project(project).map_err(|e| wrong(1, e))?;
    let kernel = parse_kernel(kernel, name).map_err(|e| wrong(2, e))?;
    let eol = match (ltss, supported) {
        ("", "" | ONLY_LTSS) => None,
        ("", day) => Some(parse_day(day).map_err(|e| wrong(3, e))?),
        (day, _) => Some(parse_day(day).map_err(|e| wrong(4, e))?),
    };
    Ok(Entry {
        archs: default_archs(&codestream).unwrap_or_default(),
        codestream,
        kernel,
        project,
        patchid,
        eol,
    })
}

fn parse_day(text: &str) -> Result<Date, String> {
    text.parse().map_err(|e| format!("{e}"))
}

fn parse_kernel(text: &str, name: SuseName) -> Result<KernelVersion, String> {
    let version = match text.rsplit_once('.') {
        Some((version, counter)) if !counter.is_empty() && counter.bytes().all(|b| b.is_ascii_digit()) => version,
        _ => text,
    };
    let parsed = if name.is_micro() && name.rt && name.update >= 5 {
        format!("{version}-rt").parse()
    } else {
        version.parse()
    };
    parsed.map_err(|e: crate::names::InvalidName| e.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Arch;
    use crate::date::tests::any_date;
    use crate::suse::tests::any_name;

    const HEADER: &str = "Update ID,Maintenance Project,Kernel version,Supported until,LTSS until\n";

    fn read(rows: &str) -> Result<Catalog, CatalogError> {
        Catalog::parse(&format!("{HEADER}{rows}"))
    }

    fn one(row: &str) -> Entry {
        let catalog = read(row).unwrap();
        assert_eq!(catalog.len(), 1);
        catalog.entries().next().unwrap().clone()
    }

    #[test]
    fn a_row_becomes_an_entry() {
        let entry = one("SLE15-SP6_Update_16,SUSE:Maintenance:41020,6.4.0-150600.23.73.1,2025-12-31,2026-11-15\r\n");
        assert_eq!(entry.codestream.as_str(), "15.6u16");
        assert_eq!(entry.kernel.as_str(), "6.4.0-150600.23.73");
        assert_eq!(
            (entry.project.as_str(), entry.patchid.as_str()),
            ("SUSE:Maintenance:41020", "")
        );
        assert_eq!(entry.eol.unwrap().to_string(), "2026-11-15", "LTSS counts");
        assert_eq!(entry.archs.len(), 3);
    }

    #[test]
    fn support_is_what_the_row_says() {
        let eol = |cells: &str| {
            one(&format!("SLE15-SP4_Update_32,P,5.14.21-1.1,{cells}\n"))
                .eol
                .map(|d| d.to_string())
        };
        assert_eq!(eol("2025-12-31,").as_deref(), Some("2025-12-31"));
        assert_eq!(eol("only LTSS supported,2025-11-08").as_deref(), Some("2025-11-08"));
        assert_eq!(eol("only LTSS supported,"), None);
        assert_eq!(eol(","), None);
    }

    #[test]
    fn micro_rows_have_an_update_id_and_their_rt_kernels_a_suffix() {
        let micro = |row: &str| {
            let entry = one(&format!(
                "{row},SUSE:SLFO:Kernel:1.0:Build/patchinfo.20250214.9,6.4.0-25.1,2026-04-27,\n"
            ));
            (entry.codestream.to_string(), entry.kernel.to_string(), entry.patchid)
        };
        let id = "patchinfo.20250214.9".to_owned();
        let expected = |name: &str, kernel: &str| (name.to_owned(), kernel.to_owned(), id.clone());
        assert_eq!(micro("MICRO-6-0-RT_Update_4"), expected("6.0rtu4", "6.4.0-25"));
        assert_eq!(micro("MICRO-6-0-RT_Update_5"), expected("6.0rtu5", "6.4.0-25-rt"));
        assert_eq!(micro("MICRO-6-0_Update_5"), expected("6.0u5", "6.4.0-25"));
        assert_eq!(micro("SLE15-SP7-RT_Update_6"), expected("15.7rtu6", "6.4.0-25"));
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_column() {
        let good = "SLE15-SP6_Update_16,SUSE:Maintenance:41020,6.4.0-150600.23.73.1,2025-12-31,2026-11-15";
        let told = |from: &str, to: &str| {
            read(&format!("{good}\n\n{}\n", good.replace(from, to)))
                .unwrap_err()
                .to_string()
        };
        let sp7 = "SLE15-SP7";
        for (from, to, place) in [
            ("x", "x", "line 4, Update ID: 15.6u16 is there a second time"),
            ("SLE15-SP6_", "SLES15_", "line 4, Update ID: `SLES15_Update_16`"),
            ("SLE15-SP6", "\u{7}", "line 4, Update ID: `\\u{7}_Update_16`"),
            ("41020", "41 020", "line 4, Maintenance Project"),
            ("6.4.0-150600.23.73.1", "../x", "line 4, Kernel version"),
            ("6.4.0-150600.23.73.1", "", "line 4, Kernel version"),
            ("2026-11-15", "2026-11-31", "line 4, LTSS until"),
            (",2026-11-15", ",", "line 4, Update ID"),
            ("2025-12-31,2026-11-15", "soon,", "line 4, Supported until"),
            (",2026-11-15", "", "line 4: 4 columns"),
            (",2026-11-15", ",2026-11-15,,", "line 4: 7 columns"),
        ] {
            let told = told(from, to);
            assert!(told.starts_with(place), "{told}");
        }
        assert!(read(&format!("{good}\n{}", good.replace("SLE15-SP6", sp7))).is_ok());
        let error = Catalog::parse("Update ID,Kernel version\n").unwrap_err();
        assert!(error.to_string().starts_with("line 1: "), "{error}");
    }

    #[test]
    fn rows_are_bounded() {
        let rows = |n: usize| {
            (0..n)
                .map(|i| format!("SLE15-SP6_Update_{i},P,6.4.0-1.1,,\n"))
                .collect::<String>()
        };
        assert_eq!(read(&rows(10_000)).unwrap().len(), 10_000);
        let error = read(&rows(10_001)).unwrap_err().to_string();
        assert!(error.starts_with("line 10002, Update ID: more than 10000"), "{error}");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            name in any_name(),
            version in "[1-9][.][0-9]{1,2}[.]0-[0-9]{1,6}([.][0-9]{1,2}){0,3}",
            counter in 0u32..30,
            project in "[A-Za-z][A-Za-z0-9:._-]{0,20}",
            patchid in "(patchinfo[.][0-9]{1,9})?",
            eol in proptest::option::of(any_date()),
            other in any_date(),
            ltss: bool,
        ) {
            let slash = if patchid.is_empty() { "" } else { "/" };
            let day = eol.map(|d| d.to_string()).unwrap_or_default();
            let days = match (ltss, eol) {
                (true, Some(_)) => format!("{other},{day}"),
                (true, None) => format!("{ONLY_LTSS},"),
                (false, _) => format!("{day},"),
            };
            let row = format!("{},{project}{slash}{patchid},{version}.{counter},{days}\n", name.product());
            let entry = one(&row);
            prop_assert_eq!(&entry.codestream, &name.codestream());
            let suffix = if name.is_micro() && name.rt && name.update >= 5 { "-rt" } else { "" };
            prop_assert_eq!(entry.kernel.as_str(), format!("{version}{suffix}"));
            prop_assert_eq!((&entry.project, &entry.patchid), (&project, &patchid));
            prop_assert_eq!(entry.eol, eol);
            prop_assert!(entry.archs.contains(&Arch::X86_64));
        }

        #[test]
        fn no_text_makes_it_panic(rows in "([A-Z0-9-]{0,6}(_Update_)?[0-9]{0,3},?|[,\n\"é]|.){0,30}") {
            let _ = read(&rows);
        }
    }
}
