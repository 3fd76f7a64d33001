//! The files that accompany an extracted source.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::names::LivepatchName;
use crate::report::TargetExtraction;

/// `patched_funcs.csv`: a line for each replaced function, `<object> <function> <replacement>`, without a header. The
/// object is the name the kernel knows it by.
pub fn patched_funcs(targets: &[TargetExtraction]) -> String {
    let mut out = String::new();
    for target in targets {
        for patched in &target.patched {
            // Writing to a String can't fail.
            let _ = writeln!(
                out,
                "{} {} {}",
                target.object.kernel_name(),
                patched.function,
                patched.replacement
            );
        }
    }
    out
}

/// The header that names the replacements, for whoever reviews or registers them. Types are left to the source.
pub fn header(name: &LivepatchName, targets: &[TargetExtraction]) -> String {
    let guard = format!("_LIVEPATCH_{}_H", name.as_identifier().to_uppercase());
    let mut out = format!("#ifndef {guard}\n#define {guard}\n");
    for target in targets {
        let _ = write!(out, "\n/* {} */\n", target.file);
        for patched in &target.patched {
            let _ = writeln!(out, "{}", patched.prototype);
        }
    }
    let _ = write!(out, "\n#endif /* {guard} */\n");
    out
}

/// `externalized.json`: object -> symbol -> the pointer variable that must hold its address before the first call.
pub fn externalized(targets: &[TargetExtraction]) -> String {
    let mut objects: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for symbol in targets.iter().flat_map(|t| &t.externalized) {
        objects
            .entry(symbol.object.as_str())
            .or_default()
            .insert(&symbol.symbol, &symbol.variable);
    }
    // Maps of strings always serialise.
    let mut text = serde_json::to_string_pretty(&objects).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ObjectName;
    use crate::report::{CompileCheck, ExternalizedSymbol, PatchedFunction};

    fn target() -> TargetExtraction {
        TargetExtraction {
            file: "sound/core/pcm.c".parse().unwrap(),
            object: "snd-pcm".parse().unwrap(),
            source_artifact: "sound/core/pcm.c".into(),
            patched: vec![PatchedFunction {
                function: "f".parse().unwrap(),
                replacement: "klpp_f".parse().unwrap(),
                prototype: "int klpp_f(void);".into(),
                sympos: 0,
            }],
            externalized: vec![ExternalizedSymbol {
                symbol: "g".into(),
                object: ObjectName::vmlinux(),
                variable: "klpe_g".into(),
                sympos: 0,
            }],
            warnings: vec![],
            compile: CompileCheck::default(),
            tool_ms: 0,
        }
    }

    #[test]
    fn files_are_as_documented() {
        assert_eq!(patched_funcs(&[target()]), "snd_pcm f klpp_f\n");
        assert_eq!(
            externalized(&[target()]),
            "{\n  \"vmlinux\": {\n    \"g\": \"klpe_g\"\n  }\n}\n"
        );
        insta::assert_snapshot!(header(&"bsc1-x".parse().unwrap(), &[target()]), @r"
        #ifndef _LIVEPATCH_BSC1_X_H
        #define _LIVEPATCH_BSC1_X_H

        /* sound/core/pcm.c */
        int klpp_f(void);

        #endif /* _LIVEPATCH_BSC1_X_H */
        ");
    }
}
