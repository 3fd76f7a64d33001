//! `livepatch_<name>.h`: what whoever registers the functions includes.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::condition::enabled;
use super::input::{Flavour, LivepatchOutput, SourceFile};
use super::prototype::declarations;
use super::suse;
use super::upstream;

/// The macro that a source defines to see no declarations that only stand in for its own.
pub fn source_macro(output: &LivepatchOutput<'_>) -> String {
    format!("LIVEPATCH_{}_SOURCE", output.name.as_identifier().to_uppercase())
}

/// What a source puts before everything else.
pub fn include(output: &LivepatchOutput<'_>) -> String {
    let all = declarations(output.files.iter().flat_map(|f| &f.patched));
    let define = if all.opaque.is_empty() {
        String::new()
    } else {
        format!("#define {}\n", source_macro(output))
    };
    format!("{define}#include \"{}\"\n", name(output))
}

pub fn name(output: &LivepatchOutput<'_>) -> String {
    format!("livepatch_{}.h", output.name)
}

pub fn header(output: &LivepatchOutput<'_>) -> String {
    let guard = format!("_LIVEPATCH_{}_H", output.name.as_identifier().to_uppercase());
    let mut out = format!("#ifndef {guard}\n#define {guard}\n\n#include <linux/types.h>\n\n");
    match output.flavour {
        Flavour::Upstream => out.push_str(&upstream::declared(output)),
        _ => out.push_str(&suse::declared(output)),
    }
    let all = declarations(output.files.iter().flat_map(|f| &f.patched));
    for tag in &all.tags {
        let _ = writeln!(out, "{tag};");
    }
    if !all.tags.is_empty() {
        out.push('\n');
    }
    // Under each CONFIG, the functions that are there with it alone.
    let configs: BTreeSet<_> = output.files.iter().map(|f| f.guard(&output.archs)).collect();
    for config in configs {
        let files = output.files.iter().filter(|f| f.guard(&output.archs) == config);
        let text = prototypes(output, files);
        match config {
            Some(config) => {
                let _ = writeln!(out, "#if {0}\n{text}#endif /* {0} */\n", enabled(config));
            }
            None => {
                let _ = writeln!(out, "{text}");
            }
        }
    }
    let _ = writeln!(out, "#endif /* {guard} */");
    out
}

fn prototypes<'a>(output: &LivepatchOutput<'_>, files: impl Iterator<Item = &'a SourceFile>) -> String {
    let declared = declarations(files.flat_map(|f| &f.patched));
    let mut out = String::new();
    for prototype in &declared.prototypes {
        let _ = writeln!(out, "{prototype}");
    }
    if !declared.opaque.is_empty() {
        let own = source_macro(output);
        let _ = writeln!(
            out,
            "#ifndef {own}\n/* Their types are their sources' own; here they are addresses. */"
        );
        for opaque in &declared.opaque {
            let _ = writeln!(out, "{opaque}");
        }
        let _ = writeln!(out, "#endif /* {own} */");
    }
    out
}
