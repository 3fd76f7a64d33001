//! `missing_syms`: externalized symbols that some architecture lacks and that can't be copied instead.

use std::collections::BTreeMap;

use crate::names::{FunctionName, ObjectName};
use crate::{Arch, Codestream};

/// Longest accepted file, in bytes.
const MAX_FILE: usize = 4 << 20;

/// Architecture -> object -> codestream -> symbols.
pub type MissingSymbols = BTreeMap<Arch, BTreeMap<ObjectName, BTreeMap<Codestream, Vec<FunctionName>>>>;

/// # Errors
/// What is wrong, with line and column.
pub fn parse(text: &str) -> Result<MissingSymbols, String> {
    if text.len() > MAX_FILE {
        return Err(format!("{} bytes long; at most {MAX_FILE}", text.len()));
    }
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// As klp-build writes it, without a final newline.
pub fn print(missing: &MissingSymbols) -> String {
    super::export::print(&serde_json::json!(missing))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_as_klp_build_writes_it() {
        let text = "{
    \"s390x\": {
        \"vmlinux\": {
            \"15.6u9\": [
                \"__SCT__might_resched\"
            ],
            \"15.6u10\": []
        }
    }
}";
        assert_eq!(print(&parse(text).unwrap()), text);
        assert_eq!(print(&parse("{}").unwrap()), "{}");
        let error = parse("{\"s390x\": {\"../x\": {}}}").unwrap_err();
        assert!(error.contains("`../x`") && error.contains("line 1"), "{error}");
        assert!(parse("{\"vax\": {}}").unwrap_err().contains("vax"));
    }

    proptest! {
        #[test]
        fn what_was_printed_is_read(
            all in proptest::collection::vec((
                proptest::sample::select(Arch::ALL.to_vec()),
                "[a-z][a-z0-9-]{0,5}",
                "1[56][.][0-9](rt)?u[0-9]{1,3}",
                proptest::collection::vec("[a-z_][a-z0-9_]{0,9}", 0..3),
            ), 0..5),
        ) {
            let mut missing = MissingSymbols::new();
            for (arch, object, codestream, symbols) in all {
                let objects = missing.entry(arch).or_default();
                let codestreams = objects.entry(object.parse().unwrap()).or_default();
                let symbols = symbols.iter().map(|s| s.parse().unwrap()).collect();
                codestreams.insert(codestream.parse().unwrap(), symbols);
            }
            prop_assert_eq!(parse(&print(&missing)).unwrap(), missing);
        }
    }
}
