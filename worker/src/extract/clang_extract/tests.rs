//! Tests of what is decided about clang-extract, on texts written for them.

use klp_livepatch::Arch;
use proptest::prelude::*;

use super::outputs::{Symbol, list};
use super::*;
use crate::extract::CompileCommand;

fn invocation(ibt: bool, manner: usize) -> Vec<String> {
    let request = Request {
        arch: klp_livepatch::Arch::X86_64,
        file: "drivers/demo/a.c".into(),
        functions: vec!["demo_open".into(), "demo_close".into()],
        object: "demo-core".into(),
        src_dir: "/k/src".into(),
        obj_dir: "/k/obj".into(),
        command: CompileCommand {
            compiler: "gcc-12".into(),
            args: [
                "-DMODULE",
                "-fconserve-stack",
                "-c",
                "-o",
                "a.o",
                "/k/src/drivers/demo/a.c",
            ]
            .map(str::to_owned)
            .to_vec(),
            directory: "/k/obj".into(),
        },
        scratch: "/s".into(),
        avoid: Vec::new(),
        unpatched: None,
    };
    let inputs = Inputs {
        symvers: "/k/obj/Module.symvers".into(),
        symbols: "/k/modules/demo-core.ko".into(),
        arch: Arch::X86_64,
        ibt,
    };
    let files = Prepared {
        dir: "/s/tool".into(),
        symbol_file: "/s/tool/demo_core.ko".into(),
        ipa_clones: "/s/tool/own".into(),
    };
    let program = "/opt/bin/clang-extract".into();
    let run = ClangExtract { program }.invocation(&request, &inputs, &files, &BTreeSet::new(), manner);
    assert_eq!(run.dir, Path::new("/k/obj"));
    run.args.into_iter().filter_map(|a| a.into_string().ok()).collect()
}

#[test]
fn it_is_called_like_a_compiler_with_its_own_definitions() {
    let args = invocation(false, 0);
    assert_eq!(args[..2], ["-DMODULE", "/k/src/drivers/demo/a.c"]);
    for there in [
        "-DCE_DEBUGINFO_PATH=/s/tool/demo_core.ko",
        "-DCE_SYMVERS_PATH=/k/obj/Module.symvers",
        "-DCE_IPACLONES_PATH=/s/tool/own",
        "-DCE_OUTPUT_FILE=/s/tool/livepatch.c",
        "-DCE_OUTPUT_FUNCTION_PROTOTYPE_HEADER=/s/tool/proto.h",
        "-DCE_DSC_OUTPUT=/s/tool/lp.dsc",
        "-DCE_EXTRACT_FUNCTIONS=demo_open,demo_close",
        "-DCE_KEEP_INCLUDES",
        "-DCE_RENAME_SYMBOLS",
        "-DCE_LATE_EXTERNALIZE",
    ] {
        assert!(args.iter().any(|a| a == there), "{there} in {args:?}");
    }
    assert!(!args.iter().any(|a| a == "-D__USE_IBT__"));
    assert!(invocation(true, 0).iter().any(|a| a == "-D__USE_IBT__"));
}

#[test]
fn what_fails_is_asked_for_in_other_ways() {
    let late = |manner| invocation(false, manner).iter().any(|a| a == "-DCE_LATE_EXTERNALIZE");
    let blind = |manner| {
        invocation(false, manner)
            .iter()
            .any(|a| a == "-DCE_IGNORE_CLANG_ERRORS")
    };
    assert_eq!([0, 1, 2].map(late), [true, false, false]);
    assert_eq!([0, 1, 2].map(blind), [false, false, true]);
}

#[test]
fn what_it_says_of_failures_is_understood() {
    let tool = ClangExtract {
        program: "clang-extract".into(),
    };
    let absent = "error: clang-extract: Requested symbol not found: demo_gone\n";
    assert_eq!(tool.missing(absent), Some("demo_gone"));
    let said =
        "a.h:1:2: warning: odd\na.c:3:4: error: use of undeclared identifier 'klpe_f'\n  more\n2 errors generated.\n";
    assert_eq!(tool.missing(said), None);
    assert_eq!(
        tool.last_words(said),
        "a.c:3:4: error: use of undeclared identifier 'klpe_f'"
    );
    assert_eq!(tool.last_words("\n"), "it said nothing");
}

#[test]
fn clangs_own_types_become_cs() {
    let raw = "static void (*klpe_log)(const char *, struct __va_list_tag *);\n";
    let text = as_declared(raw);
    assert_eq!(text, "static void (*klpe_log)(const char *, va_list );\n");
    assert_eq!(as_declared("struct va_list_tag *a;"), "struct va_list_tag *a;");
}

#[test]
fn its_list_is_read_whole() {
    let text = "LIVEPATH_CONTAINER\n@/s/tool/demo_core.ko\ndemo_open:klpp_demo_open\ncaller:klpp_caller\n\
                #demo_lock:klpe_demo_lock:demo_core\n#%per:klpe_per\n#printk_deferred:klpe_printk_deferred";
    let found = list(text).unwrap();
    let pair = |a: &str| (a.to_owned(), format!("klpp_{a}"));
    assert_eq!(found.functions, [pair("demo_open"), pair("caller")]);
    let symbol = |name: &str, object: Option<&str>| Symbol {
        symbol: name.into(),
        variable: format!("klpe_{name}"),
        object: object.map(str::to_owned),
    };
    assert_eq!(
        found.symbols,
        [
            symbol("demo_lock", Some("demo_core")),
            symbol("per", None),
            symbol("printk_deferred", None)
        ]
    );
}

#[test]
fn what_is_no_list_is_an_error_that_shows_it() {
    assert!(list("").is_err());
    assert!(list("f:g\n").unwrap_err().contains("f:g"));
    for bad in ["f", "f:g:h", "#f", "#f:g:h:i", "#f:g:../h", "f;x:g"] {
        let error = list(&format!("LIVEPATH_CONTAINER\n@x\n{bad}\n")).unwrap_err();
        assert!(error.contains("line 3"), "{error}");
    }
}

proptest! {
    #[test]
    fn lists_of_anything_are_read_or_refused(text in any::<String>()) {
        let _ = list(&text);
    }

    #[test]
    fn lists_of_nearly_the_right_words_are_read_or_refused(body in "[#%:@a-z\n_]{0,60}") {
        let _ = list(&format!("LIVEPATH_CONTAINER\n@x\n{body}"));
    }

    #[test]
    fn headers_of_anything_have_prototypes_or_none(text in "(static|klpp_f|int|[(){};*, \n]|__attribute__){0,30}") {
        let header = Text::new(&text);
        for item in header.functions("klpp_f") {
            let _ = item.prototype();
        }
    }
}
