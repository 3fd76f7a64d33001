//! Words that depend on a count.

/// A count with its noun: `1 source`, `12 sources`, `0 sources`.
pub fn amount(n: impl TryInto<u64>, one: &str, many: &str) -> String {
    // What no 64 bits hold is never counted here.
    let n = n.try_into().unwrap_or(u64::MAX);
    format!("{n} {}", if n == 1 { one } else { many })
}

/// The pairs of a livepatch's selection.
pub fn platforms(n: usize) -> String {
    amount(n, "codestream x architecture", "codestreams x architectures")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(amount(1_u32, "source", "sources"), "1 source");
        assert_eq!(
            [platforms(0), platforms(1), platforms(2)].map(|text| text.contains("codestreams")),
            [true, false, true]
        );
    }
}
