//! What orders the relocations by which a kernel with indirect branch tracking resolves externalized symbols.
//!
//! klp-convert (SUSE's kernels have it, as scripts/livepatch) makes a `.klp.rela` section of each undefined symbol that is
//! named `.klp.sym.rela.OBJECT.PROVIDER.SYMBOL.POSITION`; KLP_RELOC_SYMBOL of their linux/livepatch.h names one so. klp-ccp
//! leaves these declarations to its caller, clang-extract appends some of its own.

use std::fmt::Write as _;

use super::Extraction;

/// Where clang-extract's begin.
const THEIRS: &str = "#define KLP_RELOC_SYMBOL_POS(";

/// Position 0: the name is unique in its object. How it begins is how klp-livepatch's templates know where a source's own
/// code ends.
const MACRO: &str = "\
#include <linux/livepatch.h>
#ifndef KLP_RELOC_SYMBOL
#define KLP_RELOC_SYMBOL(object, provider, symbol) \\
\tasm(\"\\\".klp.sym.rela.\" #object \".\" #provider \".\" #symbol \".0\\\"\")
#endif

";

/// Appends them for the symbols that the source uses by their own names. `object`: the patched one.
pub fn append(extraction: &mut Extraction, object: &str) {
    let kernel_name = |name: &str| name.replace('-', "_");
    let source = &mut extraction.source;
    if let Some(at) = source.find(THEIRS) {
        source.truncate(at);
    }
    let mut orders = String::new();
    for e in extraction.externalized.iter().filter(|e| e.variable == e.symbol) {
        let (object, provider, symbol) = (kernel_name(object), kernel_name(&e.object), &e.symbol);
        // Writing to a String can't fail.
        let _ = writeln!(
            orders,
            "extern typeof({symbol}) {symbol}\n\tKLP_RELOC_SYMBOL({object}, {provider}, {symbol});"
        );
    }
    source.truncate(source.trim_end().len());
    source.push('\n');
    if !orders.is_empty() {
        source.push('\n');
        source.push_str(MACRO);
        source.push_str(&orders);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::{Externalized, Form};

    fn extraction(source: &str) -> Extraction {
        let external = |symbol: &str, object: &str, variable: &str| Externalized {
            symbol: symbol.into(),
            object: object.into(),
            variable: variable.into(),
        };
        Extraction {
            source: source.into(),
            externalized: vec![
                external("hidden", "demo-core", "hidden"),
                external("pointed", "vmlinux", "klpe_pointed"),
            ],
            patched: Vec::new(),
            warnings: Vec::new(),
            expanded: Vec::new(),
            dependencies: Vec::new(),
            form: Form::External,
            command: Vec::new(),
        }
    }

    #[test]
    fn each_symbol_is_ordered_once_whoever_wrote_the_source() {
        let theirs = format!("int a;\n\n{THEIRS}A, B, C, D) x\nextern int hidden(int);\n");
        for source in ["int a;\n", &theirs] {
            let mut extraction = extraction(source);
            append(&mut extraction, "demo-core");
            let expected = format!(
                "int a;\n\n{MACRO}extern typeof(hidden) hidden\n\tKLP_RELOC_SYMBOL(demo_core, demo_core, hidden);\n"
            );
            assert_eq!(extraction.source, expected);
        }
    }

    #[test]
    fn without_such_symbols_nothing_is_added() {
        let mut extraction = extraction("int a;\n\n");
        extraction.externalized.remove(0);
        append(&mut extraction, "demo-core");
        assert_eq!(extraction.source, "int a;\n");
    }
}
