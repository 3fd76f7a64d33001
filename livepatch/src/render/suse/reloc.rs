//! Symbols of kernels with klp-convert: each is declared under a name that klp-convert makes a relocation of, which the
//! kernel applies when the patched object is loaded.

use super::super::condition::{split, under};
use super::super::input::SourceFile;
use crate::names::{FunctionName, ObjectName, identifier_like};
use crate::report::ExternalizedSymbol;

/// What follows the code.
pub fn resolution(file: &SourceFile) -> String {
    let mut out = String::from("#include <linux/livepatch.h>\n\n");
    for symbol in &file.externalized {
        let providers = file.providers(symbol);
        let places = providers.into_iter().map(|(arch, provider)| {
            let patched = file.platforms[&arch].object.as_loaded();
            (arch, (patched, provider.object, provider.sympos))
        });
        for ((patched, provider, sympos), condition) in split(places.collect()) {
            let relocation = relocation(symbol, &patched, &provider, sympos);
            out.push_str(&under(condition.as_deref(), &declaration(symbol, &relocation)));
        }
    }
    out
}

fn relocation(symbol: &ExternalizedSymbol, patched: &ObjectName, provider: &ObjectName, sympos: u32) -> String {
    let name = &symbol.symbol;
    match sympos {
        0 => format!("KLP_RELOC_SYMBOL({patched}, {provider}, {name});"),
        n => format!("KLP_RELOC_SYMBOL_POS({patched}, {provider}, {name}, {n});"),
    }
}

fn declaration(symbol: &ExternalizedSymbol, relocation: &str) -> String {
    let variable = &symbol.variable;
    if *variable == symbol.symbol {
        return wrapped(&format!("extern typeof({variable}) {variable}"), relocation);
    }
    // The source uses a pointer. It gets its value here and is never written, so that the compiler puts what it points to
    // where it is used, and calls stay direct: indirect branch tracking forbids others.
    let target = match symbol.symbol.parse::<FunctionName>() {
        Ok(name) => format!("klpt_{name}"),
        Err(_) => format!("klpt_{}", identifier_like(&symbol.symbol)),
    };
    let external = wrapped(&format!("extern typeof(*{variable}) {target}"), relocation);
    format!("{external}static typeof({variable}) {variable} = &{target};\n")
}

/// In one line if it is not too long.
fn wrapped(head: &str, relocation: &str) -> String {
    let between = if head.len() + relocation.len() < 80 {
        " "
    } else {
        "\n\t"
    };
    format!("{head}{between}{relocation}\n")
}
