//! Tests of what is decided about klp-ccp, on texts written for them.

use klp_livepatch::Arch;
use proptest::prelude::*;

use super::outputs::{External as Listed, externals, patched, warnings};
use super::*;
use crate::extract::CompileCommand;

fn request() -> Request {
    Request {
        arch: klp_livepatch::Arch::X86_64,
        file: "drivers/demo/a-b.c".into(),
        functions: vec!["demo_open".into(), "demo_close".into()],
        object: "demo-core".into(),
        src_dir: "/k/src".into(),
        obj_dir: "/k/obj".into(),
        command: CompileCommand {
            compiler: "gcc-12".into(),
            args: [
                "-Wp,-MMD,drivers/demo/.a-b.o.d",
                "-nostdinc",
                "-I/k/src/include",
                "-include",
                "/k/src/include/linux/kconfig.h",
                "-D__KERNEL__",
                "-DMODULE",
                "-DKBUILD_MODNAME=\"demo_core\"",
                "-Wall",
                "-std=gnu11",
                "-mno-sse",
                "-mindirect-branch-cs-prefix",
                "-ftrivial-auto-var-init=zero",
                "-O2",
                "-c",
                "-o",
                "drivers/demo/a-b.o",
                "/k/src/drivers/demo/a-b.c",
            ]
            .map(str::to_owned)
            .to_vec(),
            directory: "/k/obj".into(),
        },
        scratch: "/s".into(),
        avoid: Vec::new(),
        unpatched: None,
    }
}

fn inputs(ibt: bool) -> Inputs {
    Inputs {
        symvers: "/k/obj/Module.symvers".into(),
        symbols: "/k/modules/demo-core.ko".into(),
        arch: Arch::X86_64,
        ibt,
    }
}

fn files() -> Prepared {
    Prepared {
        dir: "/s/tool".into(),
        symbol_file: "/s/tool/demo_core.ko".into(),
        ipa_clones: "/s/tool/own.000i.ipa-clones".into(),
    }
}

fn invocation(ibt: bool, avoid: &[&str]) -> Invocation {
    let ccp = Ccp {
        program: "/opt/bin/klp-ccp".into(),
        policy: Some("/opt/policy".into()),
    };
    ccp.invocation(
        &request(),
        &inputs(ibt),
        &files(),
        &avoid.iter().copied().collect::<BTreeSet<_>>(),
        0,
    )
}

fn variable<'i>(run: &'i Invocation, name: &str) -> Option<&'i str> {
    run.env
        .iter()
        .find(|(n, _)| *n == name)
        .and_then(|(_, value)| value.to_str())
}

#[test]
fn it_is_called_as_its_policy_wants_it() {
    let run = invocation(false, &["tiny_helper"]);
    let args: Vec<&str> = run.args.iter().filter_map(|a| a.to_str()).collect();
    assert_eq!(
        args[..8],
        [
            "-P",
            "suse.KlpPolicy",
            "--compiler=x86_64-gcc-9.1.0",
            "-i",
            "demo_open,demo_close",
            "-o",
            "/s/tool/livepatch.c",
            "--"
        ]
    );
    assert_eq!(args[8], "-nostdinc", "the arguments have no compiler among them");
    for kept in ["-I/k/src/include", "-DKBUILD_MODNAME=\"demo_core\"", "-mno-sse"] {
        assert!(args.contains(&kept), "{kept}");
    }
    for unknown in [
        "-mindirect-branch-cs-prefix",
        "-ftrivial-auto-var-init=zero",
        "-Wp,-MMD,drivers/demo/.a-b.o.d",
    ] {
        assert!(!args.contains(&unknown), "{unknown}");
    }
    let (size, unset) = (
        args.iter().position(|a| *a == "-D__SIZEOF_POINTER__=8"),
        args.iter().position(|a| *a == "-U__SIZEOF_POINTER__"),
    );
    assert!(unset.is_some() && unset < size, "its own definition goes first");
    assert_eq!(run.dir, Path::new("/k/obj"));
    assert_eq!(variable(&run, "KCP_PATCHED_OBJ"), Some("/s/tool/demo_core.ko"));
    assert_eq!(variable(&run, "KCP_WORK_DIR"), Some("/s/tool"));
    assert_eq!(variable(&run, "KCP_RENAME_PREFIX"), Some("klp"));
    assert_eq!(variable(&run, "KLP_CCP_PYTHONPOLICY_PATH"), Some("/opt/policy"));
    let never: Vec<&str> = variable(&run, "KCP_EXT_BLACKLIST").unwrap().split(',').collect();
    assert_eq!(never.len(), NEVER_EXTERNAL.len() + 1);
    assert!(never.contains(&"tiny_helper") && never.contains(&"lock_acquire"));
}

#[test]
fn indirect_branch_tracking_asks_for_relocations() {
    assert_eq!(variable(&invocation(false, &[]), "KCP_KLP_CONVERT_EXTS"), Some("0"));
    assert_eq!(variable(&invocation(true, &[]), "KCP_KLP_CONVERT_EXTS"), Some("1"));
}

#[test]
fn the_lists_are_read_to_their_last_line() {
    let found =
        externals("KALLSYMS demo_lock demo_lock demo_core\n\nEXPORT kfree kfree vmlinux\nKLP_CONVERT f f vmlinux")
            .unwrap();
    let listed = |method, symbol: &str, variable: &str, object: &str| Listed {
        method,
        symbol: symbol.into(),
        variable: variable.into(),
        object: object.into(),
    };
    assert_eq!(
        found,
        [
            listed(Method::Kallsyms, "demo_lock", "klpe_demo_lock", "demo_core"),
            listed(Method::Export, "kfree", "kfree", "vmlinux"),
            listed(Method::KlpConvert, "f", "f", "vmlinux"),
        ]
    );
    let named = externals("KALLSYMS a klpe_a0 vmlinux\n").unwrap();
    assert_eq!(named[0].variable, "klpe_a0");
    assert_eq!(patched("b\na\nb").unwrap(), ["a", "b"]);
    assert_eq!(patched("").unwrap(), [""; 0]);
}

#[test]
fn an_odd_line_is_an_error_that_shows_it() {
    for bad in [
        "KALLSYMS a a",
        "KALLSYMS a a m extra",
        "GUESS a a m",
        "KALLSYMS a;b a m",
        "KALLSYMS a a ../m",
    ] {
        let error = externals(&format!("EXPORT k k vmlinux\n{bad}\n")).unwrap_err();
        assert!(error.contains("line 2"), "{error}");
    }
    assert!(patched("f g\n").is_err());
}

#[test]
fn its_warnings_become_advice_once_each() {
    let said = "warning: optimized function \"demo_read.constprop.0\" in callgraph\nnoise\n\
                warning: optimized function \"demo_read.constprop.0\" in callgraph\n\
                warning: \"demo_seek\" symbol found in ELF but IPA says removed.\n\
                a.c:3:1: warning: conflicting definitions for symbol \"reset\" found in ELF\n";
    let found = warnings(said);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("all callers of demo_read") && found[0].contains("demo_read.constprop.0"));
    assert!(found[1].contains("demo_seek"));
    assert!(found[2].contains("sympos"));
}

#[test]
fn replacements_become_global_and_are_declared() {
    let source = "static int klpp_demo_open(int a);\nstatic inline int klpp_demo_open(int a)\n{\n\treturn a;\n}\n\
                  static void klpr_x(void)\n{\n}\n";
    let named = ["demo_open".to_owned(), "gone".to_owned(), "caller".to_owned()];
    let (text, patched, warnings) = replacements(source, &named[..2], &named[..1]);
    assert!(
        text.starts_with("int klpp_demo_open(int a);\nint klpp_demo_open(int a)\n{"),
        "{text}"
    );
    assert!(text.contains("static void klpr_x"), "only replacements change");
    assert_eq!(patched.len(), 1);
    assert_eq!(patched[0].prototype, "int klpp_demo_open(int a);");
    assert!(warnings.iter().any(|w| w.contains("klpp_gone")), "{warnings:?}");
    assert!(
        warnings.iter().any(|w| w.starts_with("gone is patched too")),
        "{warnings:?}"
    );
    let (_, _, warnings) = replacements(source, &[], &named[..1]);
    assert!(warnings[0].contains("inlined everywhere"), "{warnings:?}");
}

proptest! {
    #[test]
    fn lists_of_anything_are_read_or_refused(text in any::<String>()) {
        let _ = (externals(&text), patched(&text), warnings(&text));
    }

    #[test]
    fn lists_of_nearly_the_right_words_are_read_or_refused(text in "((KALLSYMS|EXPORT|x|[a-z_.]{1,4}|[ \"\n]|optimized function \"|\" in callgraph){0,3}){0,12}") {
        let _ = (externals(&text), patched(&text), warnings(&text));
    }

    #[test]
    fn what_was_listed_is_read_back(symbols in prop::collection::vec("[a-z_][a-z0-9_]{0,9}", 0..9), newline in any::<bool>()) {
        let mut text: String = symbols.iter().map(|s| format!("EXPORT {s} {s} vmlinux\n")).collect();
        if !newline {
            text.pop();
        }
        let read: Vec<String> = externals(&text).unwrap().into_iter().map(|e| e.symbol).collect();
        prop_assert_eq!(read, symbols);
    }
}
