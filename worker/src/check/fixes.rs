//! What a livepatch's fixes make of a kernel's files, for a person to know before anything is built on it: each file as the
//! tree has it is held against its patched copy.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use klp_livepatch::fix::judge::{FixedFile, judge};
use klp_livepatch::fix::lint::{Finding, Severity, Topic};
use klp_livepatch::spec::Target;
use tokio_util::sync::CancellationToken;

/// Bytes of one version of a file that are compared, and of all files together.
const MAX_TEXT: u64 = 8 << 20;
const MAX_TEXTS: u64 = 64 << 20;
/// Characters of a finding's text and symbol: a hostile source may have names of any length.
const MAX_SHOWN: usize = 600;

/// What is to be known of the files, warnings first. `before` and `after` are folders that have them by their paths; a file
/// that one of them has not was added or removed.
///
/// # Errors
/// A file can't be read.
pub fn findings(
    before: &Path,
    after: &Path,
    files: impl IntoIterator<Item = impl AsRef<str>>,
    targets: &[Target],
    cancel: &CancellationToken,
) -> io::Result<Vec<Finding>> {
    let mut found = Vec::new();
    let mut room = MAX_TEXTS;
    for file in files {
        let file = file.as_ref();
        // Nobody waits any more.
        if cancel.is_cancelled() {
            break;
        }
        match (
            text(before, file, &mut room)?,
            text(after, file, &mut room)?,
            file.parse(),
        ) {
            (Text::TooLong, ..) | (_, Text::TooLong, _) => {
                found.push(unread(file, "is too long, alone or with the others, to be compared"))
            }
            (_, _, Err(_)) => found.push(unread(
                file,
                "has a name that no C file of a kernel has, so it is not compared",
            )),
            (Text::Is(old), Text::Is(new), Ok(path)) => found.extend(judge(FixedFile { path, old, new }, targets)),
        }
    }
    for finding in &mut found {
        shorten(&mut finding.text);
        shorten(&mut finding.symbol);
    }
    found.sort_by_key(|finding| Reverse(finding.severity));
    Ok(found)
}

enum Text {
    /// `None`: there is no such file.
    Is(Option<String>),
    TooLong,
}

fn text(folder: &Path, file: &str, room: &mut u64) -> io::Result<Text> {
    let path = folder.join(file);
    let told = |e: io::Error| io::Error::new(e.kind(), format!("can't read {}: {e}", path.display()));
    let open = match File::open(&path) {
        Ok(open) => open,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Text::Is(None)),
        Err(e) => return Err(told(e)),
    };
    let most = MAX_TEXT.min(*room);
    let mut bytes = Vec::new();
    open.take(most + 1).read_to_end(&mut bytes).map_err(told)?;
    let length = bytes.len() as u64;
    if length > most {
        return Ok(Text::TooLong);
    }
    *room -= length;
    Ok(Text::Is(Some(String::from_utf8_lossy(&bytes).into_owned())))
}

fn unread(file: &str, why: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        topic: Topic::Unread,
        file: file.to_owned(),
        line: 0,
        symbol: String::new(),
        text: format!("{why}; read by eye what the fixes change there"),
    }
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MAX_SHOWN) {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(files: &[(&str, Option<&str>, Option<&str>)]) -> Vec<String> {
        let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, old, new) in files {
            for (folder, text) in [(&before, old), (&after, new)] {
                let path = folder.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                if let Some(text) = text {
                    std::fs::write(path, text).unwrap();
                }
            }
        }
        let names = files.iter().map(|(name, ..)| *name);
        let cancel = CancellationToken::new();
        let found = findings(before.path(), after.path(), names, &[], &cancel).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn warnings_come_first_and_what_is_gone_is_no_error() {
        let said = said(&[
            (
                "a/a.c",
                Some("int f(void) { return 1; }\n"),
                Some("int f(void) { return g(1); }\nint g(int x) { return x; }\nint v;\n"),
            ),
            ("b/b.c", None, Some("int f(void) { return 1; }\n")),
            ("c/c.c", Some("int f(void) { return 1; }\n"), None),
        ]);
        assert_eq!(said.len(), 5, "{said:#?}");
        assert!(
            said[0].starts_with("warning: a/a.c:1: the fix changes f(), which is no target"),
            "{said:#?}"
        );
        assert!(said[1].starts_with("warning: b/b.c: is a new file"), "{said:#?}");
        assert!(said[2].starts_with("warning: c/c.c: is removed"), "{said:#?}");
        assert!(
            said[3].starts_with("note: ") && said[4].starts_with("note: "),
            "{said:#?}"
        );
    }

    #[test]
    fn what_is_too_much_is_told_and_not_read() {
        let long = "int a;\n".repeat((MAX_TEXT / 7 + 1) as usize);
        let at_most = &long[..MAX_TEXT as usize];
        let whole: Vec<String> = (0..MAX_TEXTS / MAX_TEXT).map(|i| format!("d/{i}.txt")).collect();
        let mut files = vec![("a.c", Some(&*long), Some("int b;\n"))];
        files.extend(whole.iter().map(|name| (&**name, Some(at_most), None)));
        files.push(("z.c", Some("int a;\n"), Some("int b;\n")));
        let said = said(&files);
        let unread: Vec<&String> = said.iter().filter(|text| text.contains("[unread]")).collect();
        // The first is too long; what is left after it and seven more is no room for the eighth.
        assert_eq!(unread.len(), 2, "{said:#?}");
        assert!(unread[0].starts_with("warning: a.c: is too long"), "{unread:#?}");
        assert!(unread[1].starts_with("warning: d/7.txt: is too long"), "{unread:#?}");
        assert!(said.iter().any(|text| text.starts_with("warning: z.c:1:")), "{said:#?}");
    }

    #[test]
    fn names_of_any_length_are_shortened() {
        let old = format!("struct {} {{ int a; }};\n", "s".repeat(5_000));
        let said = said(&[("a.c", Some(&old), Some(&old.replace("int a", "long a")))]);
        assert!(said[0].contains('…') && said[0].len() < MAX_SHOWN + 100, "{said:#?}");
    }
}
