//! The comment at the head of each C file: what it fixes, whose it is, and under which licence.

use super::input::LivepatchOutput;

/// `file` is the file's name without `.c`.
pub fn notice(output: &LivepatchOutput<'_>, file: &str) -> String {
    let author = output.author;
    let holder = if author.company.is_empty() {
        &author.name
    } else {
        &author.company
    };
    let mut lines = vec![file.to_owned(), String::new()];
    if let Some(fixes) = fixes(output) {
        lines.extend([fixes, String::new()]);
    }
    lines.push(format!("Copyright (c) {} {holder}", output.year));
    lines.push(format!("Author: {}", author.address()));
    lines.push(String::new());
    lines.push("Made from source code of the Linux kernel, whose authors hold the copyright of it.".to_owned());
    if !author.licence.trim().is_empty() {
        lines.push(String::new());
        lines.extend(author.licence.trim_end().lines().map(str::to_owned));
    }
    let lines = lines
        .iter()
        .map(|line| format!(" * {}", comment_safe(line)).trim_end().to_owned() + "\n");
    format!("/*\n{} */\n", lines.collect::<String>())
}

/// `Fix for CVE-2022-1048, bsc#1197597`.
fn fixes(output: &LivepatchOutput<'_>) -> Option<String> {
    let cve = output.cve.map(|cve| format!("CVE-{cve}"));
    let bug = bug(output.name.as_str());
    let what: Vec<String> = cve.into_iter().chain(bug).collect();
    (!what.is_empty()).then(|| format!("Fix for {}", what.join(", ")))
}

/// The bug that a livepatch is named after: `bsc#1197597` of `bsc1197597`.
pub fn bug(name: &str) -> Option<String> {
    let number = name.strip_prefix("bsc")?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| format!("bsc#{number}"))
}

/// Text that ends no comment and breaks no line.
fn comment_safe(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    plain.replace("*/", "* /").replace("/*", "/ *")
}

/// Text as a C string literal, with its quotes.
pub fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars().filter(|c| !c.is_control()) {
        // `??` could begin a trigraph.
        if "\"\\?".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_configured_stays_in_its_place() {
        assert_eq!(comment_safe("a */ b\r"), "a * / b");
        assert_eq!(literal("A \"B\" \\ C\n"), "\"A \\\"B\\\" \\\\ C\"");
        assert_eq!(bug("bsc1197597").as_deref(), Some("bsc#1197597"));
        assert_eq!(bug("bsc12x"), None);
        assert_eq!(bug("sound_lp"), None);
    }
}
