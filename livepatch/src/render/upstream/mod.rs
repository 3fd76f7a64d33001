//! A livepatch as a module of its own: the sources, each with a table of the symbols that it can't link to; one file that
//! fills the tables and registers the functions; and a makefile. It loads on kernels since 5.1.
//!
//! Symbols are looked up in a callback before each object is patched, so that a module's are found whenever it is loaded,
//! and a livepatch that lacks one does not patch. The lookup counts namesakes as the kernel's own does.

mod module;

use std::fmt::Write as _;

pub use module::module;

use super::condition::{enabled, split, under};
use super::input::{LivepatchOutput, Provider, SourceFile};
use super::{header, notice, stem};
use crate::names::identifier_like;
use crate::report::ExternalizedSymbol;

/// How long the kernel lets a module's name be.
const MODULE_NAME: usize = 55;

const SYMBOL_TYPE: &str = "/* A symbol that no module can link to, and the pointer that a source reaches it by. */\n\
    struct livepatch_symbol {\n\
    \tconst char *name;\n\
    \tconst char *object;\t\t/* NULL: vmlinux */\n\
    \tunsigned long position;\t\t/* among the object's symbols of this name, from 1; 0: the only one */\n\
    \tvoid **pointer;\n\
    \tunsigned long found;\t\t/* how many of this name there are */\n\
    };\n\n";

/// The module's name: `klp_` and the livepatch's, cut to what the kernel takes.
pub fn module_name(output: &LivepatchOutput<'_>) -> String {
    let mut name = format!("klp_{}", output.name.as_identifier());
    name.truncate(MODULE_NAME);
    name
}

fn table(output: &LivepatchOutput<'_>, file: &SourceFile) -> String {
    format!("{}_symbols", identifier_like(&stem(output, file)))
}

/// The header's own part: the tables.
pub fn declared(output: &LivepatchOutput<'_>) -> String {
    let mut out = String::new();
    for file in output.files.iter().filter(|f| !f.externalized.is_empty()) {
        if out.is_empty() {
            out.push_str(SYMBOL_TYPE);
        }
        let _ = writeln!(out, "extern struct livepatch_symbol {}[];", table(output, file));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// One source file.
pub fn source(output: &LivepatchOutput<'_>, file: &SourceFile) -> String {
    let guard = file.guard(&output.archs).map(enabled);
    let mut out = notice::notice(output, &stem(output, file));
    if let Some(guard) = &guard {
        let _ = writeln!(out, "\n#if {guard}");
    }
    let _ = write!(out, "\n{}\n{}\n", header::include(output), file.source.trim_end());
    if !file.externalized.is_empty() {
        let _ = write!(
            out,
            "\n/* Looked up before the functions above are called. */\nstruct livepatch_symbol {}[] = {{\n",
            table(output, file)
        );
        for symbol in &file.externalized {
            for (provider, condition) in split(file.providers(symbol)) {
                out.push_str(&under(condition.as_deref(), &entry(symbol, &provider)));
            }
        }
        out.push_str("\t{ }\n};\n");
    }
    if let Some(guard) = &guard {
        let _ = writeln!(out, "\n#endif /* {guard} */");
    }
    out
}

fn entry(symbol: &ExternalizedSymbol, provider: &Provider) -> String {
    let object = if provider.object.is_vmlinux() {
        "NULL".to_owned()
    } else {
        format!("\"{}\"", provider.object)
    };
    format!(
        "\t{{ \"{}\", {object}, {}, (void **)&{} }},\n",
        symbol.symbol, provider.sympos, symbol.variable
    )
}

/// The makefile: `make KDIR=…` makes the module for that kernel, the running one without.
pub fn makefile(output: &LivepatchOutput<'_>) -> String {
    let module = module_name(output);
    let mut objects = vec![format!("livepatch_{}.o", output.name)];
    objects.extend(output.files.iter().map(|f| format!("{}.o", stem(output, f))));
    let mut out = format!("obj-m := {module}.o\n{module}-y := {}\n", objects.join(" \\\n\t"));
    // Private headers are included by their path from the kernel's root.
    out.push_str("\nccflags-y += -iquote $(srctree)\n");
    for file in output.files.iter().filter(|f| !f.flags.is_empty()) {
        let _ = writeln!(out, "CFLAGS_{}.o += {}", stem(output, file), file.flags.join(" "));
    }
    out.push_str("\nKDIR ?= /lib/modules/$(shell uname -r)/build\n\n");
    out.push_str("modules clean:\n\t$(MAKE) -C $(KDIR) M=$(CURDIR) $@\n\n.PHONY: modules clean\n");
    out
}
