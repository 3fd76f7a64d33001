//! Entry points for `fuzz/`: what reads compile commands and the outputs of tools. Nothing else uses them.

use std::collections::BTreeSet;
use std::path::Path;

use super::cleanup::{self, Origin};
use super::declarations::Text;
use super::external::{is_identifier, is_module_name, object_named, pointers};
use super::{CompileCommand, Externalized, Request, ccp, clang_extract, command, words};

fn request() -> Request {
    let args = [
        "-I/k/src/include",
        "-I",
        "./generated",
        "-include",
        "/k/src/include/linux/kconfig.h",
    ];
    Request {
        arch: klp_livepatch::Arch::X86_64,
        file: "drivers/demo/a.c".into(),
        functions: vec!["f".into()],
        object: "demo-core".into(),
        src_dir: "/k/src".into(),
        obj_dir: "/k/obj".into(),
        command: CompileCommand {
            compiler: "gcc".into(),
            args: args.map(str::to_owned).to_vec(),
            directory: "/k/obj".into(),
        },
        scratch: "/s".into(),
        avoid: Vec::new(),
        unpatched: None,
    }
}

/// klp-ccp's lists, what it says, and its source.
///
/// # Panics
/// If a name that can't be one is let through.
pub fn ccp(text: &str) {
    if let Ok(externals) = ccp::outputs::externals(text) {
        for external in externals {
            assert!(is_identifier(&external.symbol) && is_module_name(&external.object));
        }
    }
    if let Ok(names) = ccp::outputs::patched(text) {
        assert!(names.is_sorted() && names.iter().all(|name| is_identifier(name)));
    }
    ccp::outputs::warnings(text);
    let (source, ..) = ccp::replacements(text, &["f".into(), "g".into()], &["f".into(), "h".into()]);
    assert!(source.len() <= text.len());
}

/// clang-extract's list, its prototypes and what it says.
///
/// # Panics
/// If a name that can't be one is let through.
pub fn clang_extract(text: &str) {
    let request = request();
    if let Ok(list) = clang_extract::outputs::list(text) {
        for (function, replacement) in list.functions {
            assert!(is_identifier(&function) && is_identifier(&replacement));
        }
        for symbol in list.symbols {
            assert!(is_identifier(&symbol.symbol) && is_identifier(&symbol.variable));
            let object = object_named(symbol.object.as_deref().unwrap_or("vmlinux"), &request);
            assert!(is_module_name(&object));
        }
    }
    for item in Text::new(text).items() {
        if let Some(prototype) = item.prototype() {
            assert!(prototype.ends_with(';'));
        }
        let _ = (
            item.function(),
            item.pointer(),
            item.is_definition(),
            item.binding().count(),
        );
    }
}

/// A tool's source, to be cleaned up.
///
/// # Panics
/// If paths of the tree or runs of empty lines are left.
pub fn cleanup(text: &str) {
    let request = request();
    let externalized = ["klpe_f", "klpe_key"].map(|variable| Externalized {
        symbol: variable.trim_start_matches("klpe_").into(),
        object: "vmlinux".into(),
        variable: variable.into(),
    });
    let clean = cleanup::clean(text, &Origin::of(&request), &pointers(&externalized));
    assert!(!clean.contains("\n\n\n") && (clean.is_empty() || clean.ends_with('\n')));
    cleanup::clean(&clean, &Origin::of(&request), &BTreeSet::new());
}

/// What `make -sn` prints, and a compilation database.
///
/// # Panics
/// If words that were split don't stay split, or a command is not the one that was asked for.
pub fn compile_command(text: &str) {
    if let Some(found) = command::command_in(text, "gcc", "a/b.o", "a/b.c", Path::new("/o")) {
        assert!(found.args.last().is_some_and(|last| last.ends_with("a/b.c")));
        assert!(found.args.windows(2).any(|pair| pair == ["-o", "a/b.o"]));
        found.define("KBUILD_MODNAME");
    }
    for argv in words::commands(text).into_iter().flatten() {
        let quoted: Vec<String> = argv.iter().map(|w| format!("'{}'", w.replace('\'', r"'\''"))).collect();
        assert_eq!(words::split(&quoted.join(" ")), Ok(argv));
    }
    let _ = command::command_in_database(text.as_bytes(), "compile_commands.json", Path::new("/s/b.c"));
}
