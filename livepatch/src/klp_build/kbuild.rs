//! `Kbuild.inc`: compiler flags of a livepatch's sources, which SUSE's build appends to the common makefile.
//!
//! Each object has two lines, as older kernels' kbuild looks flags up by the object's name and newer ones by its path:
//! `CFLAGS_x.o += -Werror` and `CFLAGS_<livepatch>/x.o += -Werror`.

use crate::names::{LivepatchName, quoted};

/// Longest accepted file, in bytes.
const MAX_FILE: usize = 1 << 20;

/// The flags of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFlags {
    /// Its file name, without a folder: `bsc1_net_core_sock.o`.
    pub object: String,
    /// Separated by blanks.
    pub flags: String,
}

/// The file for sources `x.c`, in the order given; other files have no flags.
pub fn print(livepatch: &LivepatchName, files: &[String]) -> String {
    let objects = files.iter().filter_map(|file| file.strip_suffix(".c"));
    objects
        .map(|object| format!("CFLAGS_{object}.o += -Werror\nCFLAGS_{livepatch}/{object}.o += -Werror\n"))
        .collect()
}

/// Each object once, in the file's order. Blank lines and comments are skipped.
///
/// # Errors
/// The first line that is of another form, or says something else of an object than a line before.
pub fn parse(livepatch: &LivepatchName, text: &str) -> Result<Vec<ObjectFlags>, String> {
    if text.len() > MAX_FILE {
        return Err(format!("{} bytes long; at most {MAX_FILE}", text.len()));
    }
    let mut all: Vec<ObjectFlags> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let found = parse_line(livepatch, line).ok_or_else(|| {
            let form = format!("CFLAGS_x.o += -Werror or CFLAGS_{livepatch}/x.o += -Werror");
            format!("line {number}: {} is not like {form}", quoted(line))
        })?;
        match all.iter().find(|flags| flags.object == found.object) {
            None => all.push(found),
            Some(before) if *before == found => {}
            Some(_) => {
                let object = quoted(&found.object);
                return Err(format!("line {number}: other flags for {object} than before"));
            }
        }
    }
    Ok(all)
}

fn parse_line(livepatch: &LivepatchName, line: &str) -> Option<ObjectFlags> {
    let (object, flags) = line.strip_prefix("CFLAGS_")?.split_once("+=")?;
    let object = object.trim_end();
    let own = |path: &str| {
        path.strip_prefix(livepatch.as_str())?
            .strip_prefix('/')
            .map(str::to_owned)
    };
    let object = own(object).unwrap_or_else(|| object.to_owned());
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"_-.+,".contains(&c);
    let named = object
        .strip_suffix(".o")
        .is_some_and(|stem| !stem.is_empty() && stem.bytes().all(plain));
    let flags = flags.split_whitespace().collect::<Vec<_>>().join(" ");
    (named && !flags.is_empty()).then_some(ObjectFlags { object, flags })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lp() -> LivepatchName {
        "bsc1".parse().unwrap()
    }

    #[test]
    fn both_spellings_are_one_object() {
        let files = ["livepatch_bsc1.c".to_owned(), "livepatch_bsc1.h".to_owned()];
        let text = print(&lp(), &files);
        assert_eq!(
            text,
            "CFLAGS_livepatch_bsc1.o += -Werror\nCFLAGS_bsc1/livepatch_bsc1.o += -Werror\n"
        );
        let read = parse(&lp(), &format!("\n# flags\n{text}")).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(
            (read[0].object.as_str(), read[0].flags.as_str()),
            ("livepatch_bsc1.o", "-Werror")
        );
    }

    #[test]
    fn other_lines_are_told() {
        for bad in [
            "obj-m += x.o",
            "CFLAGS_x.o = -Werror",
            "CFLAGS_bsc2/x.o += -W",
            "CFLAGS_x.o +=",
            "CFLAGS_.o += -W",
        ] {
            let error = parse(&lp(), &format!("\n{bad}")).unwrap_err();
            assert!(error.starts_with("line 2: "), "{error}");
        }
        let error = parse(&lp(), "CFLAGS_x.o += -W\nCFLAGS_bsc1/x.o += -Werror").unwrap_err();
        assert_eq!(error, "line 2: other flags for `x.o` than before");
    }

    proptest! {
        #[test]
        fn what_was_printed_is_read(stems in proptest::collection::btree_set("[a-z0-9][a-z0-9_-]{0,12}", 0..6)) {
            let files: Vec<String> = stems.iter().map(|stem| format!("{stem}.c")).collect();
            let read = parse(&lp(), &print(&lp(), &files)).unwrap();
            let objects: Vec<_> = read.into_iter().map(|flags| flags.object).collect();
            prop_assert_eq!(objects, stems.iter().map(|stem| format!("{stem}.o")).collect::<Vec<_>>());
        }
    }
}
