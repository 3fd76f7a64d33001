//! What a patch may have the compiler read. A patch is foreign, the compiler runs on this host, and its errors show lines
//! of what it read: so an added line may not name a file outside the source.
//!
//! This judges lines as they stand. What the preprocessor can put together from several is refused as far as it needs a
//! directive that no kernel patch has; a host with files that must not be read should keep them from the worker's user.

/// Why an added line is refused, if it is. `file` is the file it is added to.
pub(super) fn refuse(file: &str, line: &[u8]) -> Result<(), String> {
    let line = String::from_utf8_lossy(line);
    if line.contains(".incbin") {
        return Err(format!("it adds .incbin to {file}, which is not allowed"));
    }
    let mut start = Some(&*line);
    while let Some(text) = start {
        directive(file, text)?;
        // What follows a comment may be a directive too.
        start = text.split_once("*/").map(|(_, rest)| rest);
    }
    Ok(())
}

fn directive(file: &str, text: &str) -> Result<(), String> {
    let text = text.trim_start();
    let Some(rest) = text.strip_prefix('#').or_else(|| text.strip_prefix("%:")) else {
        return Ok(());
    };
    let rest = rest.trim_start();
    if rest.starts_with("/*") {
        return Err(format!(
            "it adds a directive with a comment in it to {file}, which is not allowed"
        ));
    }
    let end = rest
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    let (word, what) = rest.split_at(end);
    if what.starts_with('\\') {
        return Err(format!(
            "it adds a directive that is split in two lines to {file}, which is not allowed"
        ));
    }
    if !matches!(word, "include" | "include_next" | "import" | "embed") {
        return Ok(());
    }
    let what = what.trim_start();
    let (name, climbs) = match what.strip_prefix('"') {
        // From the file's own folder.
        Some(name) => (name.split('"').next(), file.matches('/').count()),
        // From a folder of headers, at least one below the root.
        None => (what.strip_prefix('<').and_then(|name| name.split('>').next()), 1),
    };
    let Some(name) = name else {
        return Err(format!(
            "it adds an #{word} of something else than a file's name to {file}, which is not allowed"
        ));
    };
    match name.starts_with('/') || highest(name) > climbs {
        true => Err(format!(
            "it has {file} include {name}, which is not below the source folder"
        )),
        false => Ok(()),
    }
}

/// How far above its start a path leads on its way.
fn highest(path: &str) -> usize {
    let (mut depth, mut highest) = (0_isize, 0);
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        highest = highest.min(depth);
    }
    highest.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_the_source_is_not_included() {
        for line in [
            "#include \"/etc/passwd\"",
            "  # \tinclude </etc/passwd>",
            "#include \"../../../etc/passwd\"",
            "#include \"x/../../../../etc/passwd\"",
            "#include <../../etc/passwd>",
            "/* */ #include \"/etc/passwd\"",
            "end */ /* more */ #include_next \"/etc/passwd\"",
            "%:include \"/etc/passwd\"",
            "#/**/include \"/etc/passwd\"",
            "# include\\",
            "#inc\\",
            "#include \\",
            "#include FILE",
            "#embed \"/etc/passwd\"",
            "asm(\".incbin \\\"/etc/passwd\\\"\");",
        ] {
            assert!(refuse("net/core/x.c", line.as_bytes()).is_err(), "{line}");
        }
        for line in [
            "#include <linux/types.h>",
            "#include \"../../include/x.h\"",
            "#include <../drivers/x.h>",
            "#define INCLUDE \"/etc/passwd\"",
            "#ifdef X /* include */",
            "\tchar *name = \"#include /etc/passwd\";",
            "",
            "#",
        ] {
            assert_eq!(refuse("net/core/x.c", line.as_bytes()), Ok(()), "{line}");
        }
    }
}
