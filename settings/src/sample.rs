//! Sample files, in which every setting is there but commented out: `#key = value` with its default, `# key = value` with
//! an example where there is none. What tests hold against the settings.

/// The sample with its defaults set.
pub fn with_defaults(sample: &str) -> String {
    uncomment(sample, |line| line.strip_prefix('#'))
}

/// The sample with everything set, the examples included.
pub fn with_everything(sample: &str) -> String {
    uncomment(sample, |line| {
        let line = line.strip_prefix('#')?;
        Some(line.strip_prefix(' ').unwrap_or(line))
    })
}

fn uncomment<'a>(sample: &'a str, strip: impl Fn(&'a str) -> Option<&'a str>) -> String {
    let lines = sample
        .lines()
        .map(|line| strip(line).filter(|bare| is_setting(bare)).unwrap_or(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn is_setting(line: &str) -> bool {
    let is_key = |key: &str| {
        let key = key.trim_matches('"');
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    match (line.split_once(" = "), line.strip_prefix('[')) {
        (_, Some(table)) => table.strip_suffix(']').is_some_and(is_key),
        (Some((key, _)), None) => is_key(key),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "# What it does, as in a = 1. Default: 1.\n#a = 1\n\n# b = \"x\"\n#[t]\n# \"15.8\" = \"y\"\n";

    #[test]
    fn settings_are_told_from_words() {
        assert_eq!(
            with_defaults(SAMPLE),
            "# What it does, as in a = 1. Default: 1.\na = 1\n\n# b = \"x\"\n[t]\n# \"15.8\" = \"y\"\n"
        );
        assert_eq!(
            with_everything(SAMPLE),
            "# What it does, as in a = 1. Default: 1.\na = 1\n\nb = \"x\"\n[t]\n\"15.8\" = \"y\"\n"
        );
    }
}
