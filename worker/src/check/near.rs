//! Names that somebody may have meant.

use strsim::levenshtein as distance;

/// As many as are suggested.
const SUGGESTIONS: usize = 3;

/// Up to three names that are a slip of the finger away from `wanted`, or hold it, the likeliest first.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    // A short name allows for one slip, a long one for three.
    let allowed = (wanted.len() / 5).clamp(1, 3);
    let mut scored: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let slips = (name.len().abs_diff(wanted.len()) <= allowed).then(|| distance(wanted, name));
            match slips {
                Some(slips) if slips <= allowed => Some((slips, name)),
                _ if wanted.len() >= 5 && name.contains(wanted) => Some((allowed + 1 + name.len(), name)),
                _ => None,
            }
        })
        .collect();
    scored.sort_unstable();
    scored.dedup();
    scored.truncate(SUGGESTIONS);
    scored.into_iter().map(|(_, name)| name.to_owned()).collect()
}

/// `a, b or c`
pub(super) fn or_list(names: &[String]) -> String {
    list(names, " or ")
}

/// `a, b and c`
pub(super) fn and_list(names: &[String]) -> String {
    list(names, " and ")
}

fn list(names: &[String], last: &str) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., end] => format!("{}{last}{end}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "ab"), 2);
        let names = ["SND_PCM", "SND_PCM_OSS", "SND", "USB", "SND_TIMER"];
        assert_eq!(nearest("SND_PCN", names.into_iter()), ["SND_PCM"]);
        assert_eq!(nearest("SND_P", names.into_iter()), ["SND_PCM", "SND_PCM_OSS"]);
        assert!(nearest("X", names.into_iter()).is_empty());
        assert!(nearest("BLUETOOTH", names.into_iter()).is_empty());
    }

    #[test]
    fn lists_read_like_a_sentence() {
        let names = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(or_list(&names), "a, b or c");
        assert_eq!(and_list(&names[..2]), "a and b");
        assert_eq!(or_list(&names[..1]), "a");
    }
}
