//! Whole extractions of small sources, parsed by the real libclang and compiled by the real compiler.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use klp_livepatch::Arch;

use super::*;
use crate::extract::{CompileCommand, Externalized};
use crate::symbols::Export;

/// The symbols of a made-up kernel.
#[derive(Default)]
pub(super) struct Known {
    exported: HashMap<&'static str, Export>,
    object: HashSet<&'static str>,
    vmlinux: HashSet<&'static str>,
}

impl Known {
    pub(super) fn exports(mut self, names: &[&'static str]) -> Self {
        for name in names {
            self.exported.insert(
                name,
                Export {
                    module: "vmlinux".into(),
                    gpl: true,
                    namespace: String::new(),
                },
            );
        }
        self
    }

    pub(super) fn object(mut self, names: &[&'static str]) -> Self {
        self.object.extend(names);
        self
    }

    pub(super) fn vmlinux(mut self, names: &[&'static str]) -> Self {
        self.vmlinux.extend(names);
        self
    }
}

impl Symbols for Known {
    fn exported(&self, name: &str) -> Option<&Export> {
        self.exported.get(name)
    }

    fn in_object(&self, name: &str) -> bool {
        self.object.contains(name)
    }

    fn in_vmlinux(&self, name: &str) -> bool {
        self.vmlinux.contains(name)
    }

    fn variants(&self, names: &BTreeSet<String>) -> Vec<String> {
        let mut all: Vec<String> = self
            .object
            .iter()
            .filter(|s| s.split_once('.').is_some_and(|(base, _)| names.contains(base)))
            .map(|s| (*s).to_owned())
            .collect();
        all.sort();
        all
    }
}

pub(super) struct Case {
    pub(super) dir: tempfile::TempDir,
}

impl Case {
    /// Lays out a tree: paths from the source directory, and their texts.
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for d in ["src/include/linux", "obj", "scratch"] {
            fs::create_dir_all(dir.path().join(d)).unwrap();
        }
        for (path, text) in files {
            let path = dir.path().join("src").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { dir }
    }

    pub(super) fn request(&self, file: &str, functions: &[&str]) -> Request {
        let src = self.dir.path().join("src");
        let (include, source) = (
            src.join("include").display().to_string(),
            src.join(file).display().to_string(),
        );
        let args = [
            "-nostdinc",
            "-I",
            &include,
            "-std=gnu11",
            "-O2",
            "-DMODULE",
            "-DKBUILD_MODNAME=\"demo\"",
            "-c",
            "-o",
            "x.o",
            &source,
        ];
        Request {
            arch: Arch::host().unwrap(),
            file: file.into(),
            functions: functions.iter().map(|f| (*f).to_owned()).collect(),
            object: "demo".into(),
            command: CompileCommand {
                compiler: "gcc".into(),
                args: args.map(str::to_owned).to_vec(),
                directory: self.dir.path().join("obj"),
            },
            src_dir: src,
            obj_dir: self.dir.path().join("obj"),
            scratch: self.dir.path().join("scratch"),
            avoid: Vec::new(),
            unpatched: None,
        }
    }

    /// Extracts, and insists that the readable form compiles with nothing unresolved.
    fn extract(&self, file: &str, functions: &[&str], known: &Known) -> Extraction {
        require_tools();
        let (extraction, check) = extract_and_check(&self.request(file, functions), known).unwrap();
        assert!(check.ok, "{check:#?}\n{}", extraction.source);
        assert_eq!(
            extraction.form,
            Form::Sliced,
            "{:?}\n{}",
            extraction.warnings,
            extraction.source
        );
        assert!(
            !extraction.source.contains(&*self.dir.path().to_string_lossy()),
            "no machine path may be in the output"
        );
        extraction
    }
}

pub(super) fn require_tools() {
    let gcc = std::process::Command::new("gcc").arg("--version").output().is_ok();
    let clang = Library::load().map(|_| ());
    assert!(
        gcc && clang.is_ok(),
        "these tests need gcc (found: {gcc}) and libclang ({clang:?}); install gcc and libclang1-19"
    );
}

fn external(symbol: &str, object: &str) -> Externalized {
    Externalized {
        symbol: symbol.into(),
        object: object.into(),
        variable: format!("klpe_{symbol}"),
    }
}

/// Each needle occurs, in this order.
pub(super) fn in_order(text: &str, needles: &[&str]) {
    let mut from = 0;
    for n in needles {
        let at = text[from..]
            .find(n)
            .unwrap_or_else(|| panic!("{n:?} is missing (or too early) in:\n{text}"));
        from += at + n.len();
    }
}

#[test]
fn only_the_closure_is_kept_and_each_symbol_gets_its_due() {
    let case = Case::new(&[
        (
            "include/linux/k.h",
            "#pragma once\nextern int exported_fn(int); extern int hidden_fn(int); extern int hidden_var;\n",
        ),
        (
            "drivers/demo/a.c",
            r#"#include <linux/k.h>
#define USED 3
#define UNUSED 4
struct unused { int a; };
struct item { int n; struct other *next; };
static int counter;
static const int table[2] = { 1, USED };
static struct item *never(void) { return 0; }
static int inlined(struct item *i) { return i->n + table[1]; }
static int __attribute__((noinline)) kept(struct item *i) { return i->n; }
static int later(int);
int target(struct item *i);
static inline int target_caller(struct item *i) { return target(i); }
int target(struct item *i)
{
	if (!i->n)
		return later(exported_fn(hidden_fn(1)) + hidden_var);
	counter++;
	return inlined(i) + kept(i) + USED;
}
static int later(int x) { struct item i = { x, 0 }; return target(&i) + target_caller(&i); }
"#,
        ),
    ]);
    // `later`, `inlined` and `target_caller` left no symbol: the compiler inlined them.
    let known = Known::default()
        .exports(&["exported_fn"])
        .object(&["counter", "kept", "target", "table"])
        .vmlinux(&["hidden_fn", "hidden_var"]);
    let x = case.extract("drivers/demo/a.c", &["target"], &known);
    let s = &x.source;
    in_order(
        s,
        &[
            "#include <linux/k.h>",
            "/* drivers/demo/a.c:2 */\n#define USED 3",
            "struct item {",
            "static typeof(const int[2]) *klpe_table;",
            "static int inlined(struct item *i) { return i->n + (*klpe_table)[1]; }",
            "static int later(int);",
            "int klpp_target(struct item *i);",
            "static int *klpe_counter;",
            "static typeof(hidden_fn) *klpe_hidden_fn;",
            "static typeof(hidden_var) *klpe_hidden_var;",
            "static int (*klpe_kept)(struct item *i);",
            "/* drivers/demo/a.c:14 */\nint klpp_target(struct item *i)",
            "return later(exported_fn((*klpe_hidden_fn)(1)) + (*klpe_hidden_var));",
            "(*klpe_counter)++;",
            "return inlined(i) + (*klpe_kept)(i) + USED;",
            "return klpp_target(&i) + target_caller(&i);",
        ],
    );
    for gone in ["UNUSED", "struct unused", "never", "noinline"] {
        assert!(!s.contains(gone), "{gone} is not needed:\n{s}");
    }
    assert_eq!(
        x.externalized,
        [
            external("counter", "demo"),
            external("hidden_fn", "vmlinux"),
            external("hidden_var", "vmlinux"),
            external("kept", "demo"),
            external("table", "demo")
        ]
    );
    assert_eq!(x.patched[0].prototype, "int klpp_target(struct item *i);");
    assert_eq!(s.matches("klpe_kept)(struct item").count(), 1, "declared once");
}

#[test]
fn private_headers_are_sliced_and_public_ones_stay_included() {
    let case = Case::new(&[
        (
            "include/linux/a.h",
            "#pragma once\n#ifdef WANT_A\n#define A 1\n#endif\nstruct pub { int x; };\n",
        ),
        ("include/linux/b.h", "#pragma once\n#define pr(x) (x PREFIX)\n"),
        (
            "fs/demo/demo.h",
            "#ifndef DEMO_H\n#define DEMO_H\n#define WANT_A\n#include <linux/a.h>\n#include \"deep/more.h\"\nstruct priv { struct pub p; more_t m; };\nstruct unneeded { int q; };\nint helper(struct priv *);\n#define GET(p) ((p)->p.x + A)\n#endif\n",
        ),
        (
            "fs/demo/deep/more.h",
            "typedef struct more { int v; } more_t;\nstatic inline int more_value(more_t *m) { return m->v; }\n",
        ),
        (
            "fs/demo/a.c",
            "#include \"demo.h\"\n#include \"./demo.h\"\n#include <linux/b.h>\n#define PREFIX + 1\nstatic int f(struct priv *p) { return pr(GET(p)) + helper(p) + more_value(&p->m); }\nint caller(struct priv *p) { return f(p); }\n",
        ),
    ]);
    let known = Known::default().object(&["helper", "f", "caller", "more_value"]);
    let x = case.extract("fs/demo/a.c", &["f"], &known);
    in_order(
        &x.source,
        &[
            "#define WANT_A",
            "#include <linux/a.h>",
            "/* fs/demo/deep/more.h:1 */\ntypedef struct more",
            "static inline int more_value(more_t *m)",
            "/* fs/demo/demo.h:6 */\nstruct priv {",
            "#define GET(p)",
            "#include <linux/b.h>",
            "#define PREFIX + 1",
            "int klpp_f(struct priv *p) { return pr(GET(p)) + (*klpe_helper)(p) + more_value(&p->m); }",
        ],
    );
    assert!(
        !x.source.contains("unneeded") && !x.source.contains("DEMO_H") && !x.source.contains("demo.h\""),
        "{}",
        x.source
    );
    // `f` is static: the replacement must be seen by the livepatch's table.
    assert!(!x.source.contains("static int klpp_f"));
}

#[test]
fn macros_keep_their_order_and_untaken_branches_go() {
    let case = Case::new(&[(
        "a.c",
        "#define V 1\nenum e { E1 = V };\n#undef V\n#define V 2\n#ifdef NOT_SET\nint target(void) { return broken; }\n#else\nint target(void)\n{\n\tint v = E1;\n#ifdef NOT_SET\n\tv = missing;\n#elif 1\n\tv += V;\n#else\n\tv = missing;\n#endif\n#define LOCAL(x) ((x) + 1)\n\treturn LOCAL(v);\n#undef LOCAL\n}\n#endif\n",
    )]);
    let x = case.extract("a.c", &["target"], &Known::default().object(&["target"]));
    in_order(
        &x.source,
        &[
            "#define V 1",
            "enum e",
            "#undef V",
            "#define V 2",
            "int klpp_target(void)",
            "v += V;",
            "#define LOCAL(x)",
            "return LOCAL(v);",
            "#undef LOCAL",
        ],
    );
    assert!(
        !x.source.contains("missing") && !x.source.contains("broken") && !x.source.contains("#if"),
        "{}",
        x.source
    );
}

#[test]
fn a_use_hidden_in_a_macro_is_expanded_and_one_in_an_argument_is_not() {
    let case = Case::new(&[
        (
            "include/linux/h.h",
            "#pragma once\nextern int hidden(int); extern struct s { int hidden; } obj;\n#define CALLS_HIDDEN(x) (hidden(x) + (x))\n#define ARG(x) ((x) + 1)\n#define THIRD(p) hidden_##p\nextern int hidden_three;\n",
        ),
        (
            "a.c",
            "#include <linux/h.h>\n#define OWN(x) hidden(x)\nint target(int a)\n{\n\ta = CALLS_HIDDEN(a + obj.hidden);\n\ta += ARG(hidden(a));\n\ta += THIRD(three);\n\treturn OWN(a);\n}\n",
        ),
    ]);
    let known = Known::default().object(&["target", "hidden", "obj", "hidden_three"]);
    let x = case.extract("a.c", &["target"], &known);
    in_order(
        &x.source,
        &[
            "#define OWN(x) (*klpe_hidden)(x)",
            "a = ((*klpe_hidden)(a + (*klpe_obj).hidden) + (a + (*klpe_obj).hidden));",
            "a += ARG((*klpe_hidden)(a));",
            "a += (*klpe_hidden_three);",
            "return OWN(a);",
        ],
    );
    assert_eq!(x.expanded, ["a.c:3 CALLS_HIDDEN", "a.c:3 THIRD"]);
}

#[test]
fn a_header_inline_that_reaches_a_hidden_symbol_is_copied() {
    let case = Case::new(&[
        (
            "include/linux/h.h",
            "#pragma once\nextern int hidden(int);\nstatic inline int inner(int x) { return hidden(x); }\nstatic inline int outer(int x)\n{\n\treturn inner(x) + 1;\n}\nstatic inline int plain(int x) { return x; }\n",
        ),
        ("include/linux/z.h", "struct z { int a; };\n"),
        (
            "a.c",
            "#include <linux/h.h>\n#include <linux/z.h>\nint target(struct z *z) { return outer(z->a) + plain(1); }\n",
        ),
    ]);
    let x = case.extract("a.c", &["target"], &Known::default().object(&["target", "hidden"]));
    in_order(
        &x.source,
        &[
            "#include <linux/h.h>",
            "static typeof(hidden) *klpe_hidden;",
            "/* include/linux/h.h:3 */\nstatic inline int klpr_inner(int x) { return (*klpe_hidden)(x); }",
            "static inline int klpr_outer(int x)",
            "return klpr_inner(x) + 1;",
            "#include <linux/z.h>",
            "return klpr_outer(z->a) + plain(1);",
        ],
    );
    assert!(!x.source.contains("klpr_plain"));
}

#[test]
fn what_the_patched_module_exports_is_not_linked_to() {
    let source =
        "int shared(int x) { return x + 1; }\nint helper(int x);\nint f(int x) { return shared(x) + helper(x); }\n";
    let case = Case::new(&[("drivers/demo.c", source)]);
    let mut known = Known::default()
        .exports(&["shared", "helper"])
        .object(&["shared", "f"])
        .vmlinux(&["helper"]);
    if let Some(export) = known.exported.get_mut("shared") {
        export.module = "demo".into();
    }
    let extraction = case.extract("drivers/demo.c", &["f"], &known);
    assert_eq!(extraction.externalized, [external("shared", "demo")]);
    assert_eq!(extraction.dependencies, []);
}

#[test]
fn statics_inside_functions() {
    let case = Case::new(&[(
        "a.c",
        "static int cb(void) { return 1; }\nint target(int n)\n{\n\tstatic int calls;\n\tstatic const char name[] = \"x\";\n\tstatic const struct { int (*fn)(void); } ops[] = { { cb } };\n\tcalls++;\n\treturn ops[n].fn() + name[0] + calls;\n}\n",
    )]);
    let x = case.extract("a.c", &["target"], &Known::default().object(&["target", "cb"]));
    in_order(
        &x.source,
        &[
            "static int calls;",
            "static const char name[]",
            "\tconst struct { int (*fn)(void); } ops[] = { { (*klpe_cb) } };",
        ],
    );
    assert!(
        x.warnings.iter().any(|w| w.contains("a.c:4") && w.contains("calls")),
        "{:?}",
        x.warnings
    );
    assert!(
        !x.warnings.iter().any(|w| w.contains("name is copied")),
        "{:?}",
        x.warnings
    );
}

#[test]
fn a_constant_that_points_at_hidden_functions_is_the_kernels_own() {
    let case = Case::new(&[(
        "a.c",
        "struct ops { int (*fn)(void); };\nstatic int cb(void) { return 1; }\nconst struct ops *target(void)\n{\n\tstatic const struct ops ops = { cb };\n\treturn &ops;\n}\n",
    )]);
    let x = case.extract("a.c", &["target"], &Known::default().object(&["target", "cb", "ops.0"]));
    in_order(
        &x.source,
        &[
            "static const struct ops *klpe_target_ops;",
            "return &(*klpe_target_ops);",
        ],
    );
    assert_eq!(x.externalized.len(), 1, "{:?}", x.externalized);
}

#[test]
fn a_static_inside_a_function_stays_the_kernels_if_its_symbol_is_sure() {
    let case = Case::new(&[
        (
            "include/linux/m.h",
            "#pragma once\nstruct lock { int v; };\n#define DEFINE_LOCK(n) struct lock n = { 1 }\n",
        ),
        (
            "a.c",
            "#include <linux/m.h>\nstruct box { int n; };\nint target(int n)\n{\n\tint x = 0;\n\tstatic struct box calls = { 4 };\n\tstatic DEFINE_LOCK(mine);\n\tstatic int twice;\n\tcalls.n++;\n\ttwice++;\n\treturn n + calls.n + mine.v + x + twice;\n}\nstatic int cloned(int a) { return a; }\nint user(void) { return cloned(target(1)); }\n",
        ),
    ]);
    let known = Known::default().object(&[
        "target",
        "user",
        "calls.3",
        "mine.12",
        "twice.1",
        "twice.2",
        "cloned.isra.0",
    ]);
    let x = case.extract("a.c", &["target", "user"], &known);
    in_order(
        &x.source,
        &[
            "struct box { int n; };",
            "static struct box *klpe_target_calls;",
            "static struct lock *klpe_target_mine;",
            "int x = 0;",
            "static int twice;",
            "(*klpe_target_calls).n++;",
            "(*klpe_target_mine).v + x + twice",
        ],
    );
    assert!(!x.source.contains("DEFINE_LOCK"), "{}", x.source);
    assert_eq!(
        x.externalized,
        [
            Externalized {
                symbol: "calls.3".into(),
                object: "demo".into(),
                variable: "klpe_target_calls".into()
            },
            Externalized {
                symbol: "mine.12".into(),
                object: "demo".into(),
                variable: "klpe_target_mine".into()
            }
        ]
    );
    assert!(
        x.warnings.iter().any(|w| w.contains("twice is copied")),
        "{:?}",
        x.warnings
    );
    assert!(
        x.warnings
            .iter()
            .any(|w| w.contains("cloned is copied") && w.contains("cloned.isra.0")),
        "{:?}",
        x.warnings
    );
}

/// The shape of the kernel's tracepoints, static keys and static calls, in small.
const TRACE_H: &str = r#"#pragma once
#define NULL ((void *)0)
#define unlikely(x) (x)
#define bool _Bool
#define false 0
struct static_key { int enabled; };
struct tracepoint { struct static_key key; };
extern int static_key_count(struct static_key *);
#define static_key_enabled(k) (static_key_count(k) > 0)
static inline __attribute__((always_inline)) bool arch_static_branch(struct static_key *k, bool b) { asm goto("1: .pushsection x; .quad %c0; .popsection" : : "i"(k) : : out); return b; out: return !b; }
#define static_branch_unlikely(k) arch_static_branch(k, false)
static inline void preempt_disable_notrace(void) {}
static inline void preempt_enable_notrace(void) {}
#define TRACE_EVENT(name, proto, args) \
	extern struct tracepoint __tracepoint_##name; extern int __traceiter_##name(void *, proto); \
	static inline void trace_##name(proto) { if (arch_static_branch(&__tracepoint_##name.key, false)) __traceiter_##name(NULL, args); } \
	static inline bool trace_##name##_enabled(void) { return arch_static_branch(&__tracepoint_##name.key, false); }
#define PARAMS(...) __VA_ARGS__
"#;

#[test]
fn tracepoints_and_static_keys_that_cannot_be_linked_are_tested_at_run_time() {
    let case = Case::new(&[
        ("include/linux/tp.h", TRACE_H),
        (
            "include/linux/ev.h",
            "#pragma once\n#include <linux/tp.h>\nTRACE_EVENT(pub, PARAMS(int a, int b), PARAMS(a, b))\nTRACE_EVENT(linkable, PARAMS(int a), PARAMS(a))\n",
        ),
        (
            "mine.h",
            "#include <linux/tp.h>\nstruct mine { int x; };\nTRACE_EVENT(own, PARAMS(struct mine *m), PARAMS(m))\n",
        ),
        (
            "a.c",
            "#include <linux/ev.h>\n#include \"mine.h\"\nstatic struct static_key key;\nint target(struct mine *m)\n{\n\ttrace_pub(1, 2);\n\ttrace_linkable(3);\n\ttrace_own(m);\n\tif (trace_pub_enabled())\n\t\treturn 2;\n\tif (static_branch_unlikely(&key))\n\t\treturn m->x;\n\treturn 0;\n}\n",
        ),
    ]);
    let known = Known::default()
        .exports(&["static_key_count", "__tracepoint_linkable", "__traceiter_linkable"])
        .object(&[
            "target",
            "key",
            "__tracepoint_pub",
            "__traceiter_pub",
            "__tracepoint_own",
            "__traceiter_own",
        ]);
    let x = case.extract("a.c", &["target"], &known);
    in_order(
        &x.source,
        &[
            "#include <linux/ev.h>",
            "static typeof(__tracepoint_pub) *klpe___tracepoint_pub;",
            "static inline void klpr_trace_pub(int a, int b)",
            "static_key_enabled(&(*klpe___tracepoint_pub).key)",
            "(*klpe___traceiter_pub)(NULL, a, b);",
            "struct mine { int x; };",
            "static inline void klpr_trace_own(struct mine *m)",
            "klpr_trace_pub(1, 2);\n\ttrace_linkable(3);\n\tklpr_trace_own(m);\n\tif (klpr_trace_pub_enabled())",
            "if (static_key_enabled(&(*klpe_key)))",
        ],
    );
}

#[test]
fn a_function_made_by_a_macro_is_taken_from_the_expansion() {
    let case = Case::new(&[
        (
            "include/linux/sys.h",
            "#pragma once\n#define DEFINE_CALL(name, type, arg) \\\n\tlong __x64_##name(long); static inline long __do_##name(type arg); \\\n\tlong __x64_##name(long a) { return __do_##name((type)a); } \\\n\tstatic inline long __do_##name(type arg)\n#define DEFINE_PAIR(n) static int n##_get(void) { return 1; } static int n##_put(void) { return 2; }\n",
        ),
        (
            "a.c",
            "#include <linux/sys.h>\nstatic int state;\nDEFINE_PAIR(box)\nint user(void) { return box_get() + box_put(); }\nDEFINE_CALL(demo, int, arg)\n{\n\tstate = arg;\n\treturn box_get();\n}\n",
        ),
    ]);
    let known = Known::default().object(&["__x64_demo", "state", "user"]);
    let x = case.extract("a.c", &["__x64_demo"], &known);
    in_order(
        &x.source,
        &[
            "static int box_get(void)",
            "long klpp___x64_demo(long a)",
            "static inline long __do_demo(int arg)",
            "(*klpe_state) = arg;",
        ],
    );
    assert!(!x.source.contains("box_put"), "{}", x.source);
}

#[test]
fn lists_included_in_a_declaration_and_storage_hidden_in_a_macro() {
    let case = Case::new(&[
        (
            "include/linux/e.h",
            "#pragma once\n#define STATIC static __attribute__((noinline))\n",
        ),
        ("list.h", "ENTRY(one)\nENTRY(two)\n"),
        (
            "a.c",
            "#include <linux/e.h>\n#define ENTRY(n) N_##n,\nenum n {\n#include \"list.h\"\n\tN_LAST,\n};\n#undef ENTRY\nSTATIC int target(int a) { return a + N_two; }\nint user(void) { return target(1); }\n",
        ),
    ]);
    let x = case.extract("a.c", &["target"], &Known::default().object(&["target"]));
    in_order(
        &x.source,
        &[
            "#define ENTRY(n)",
            "enum n {\nENTRY(one)\nENTRY(two)",
            "int klpp_target(int a)",
        ],
    );
}

#[test]
fn structures_named_before_they_are_defined_are_declared_first() {
    let case = Case::new(&[(
        "a.c",
        "struct a;\nint proto(struct a *);\nstruct late { int x; };\nstruct a { struct late l; struct never *p; };\nint target(struct a *a) { return proto(a) + a->l.x; }\nint proto(struct a *a) { return target(a); }\n",
    )]);
    let x = case.extract(
        "a.c",
        &["target", "proto"],
        &Known::default().object(&["target", "proto"]),
    );
    in_order(
        &x.source,
        &[
            "struct a;",
            "int klpp_proto(struct a *);",
            "struct late",
            "struct a {",
            "klpp_proto(a) + a->l.x",
            "return klpp_target(a);",
        ],
    );
}

#[test]
fn what_fails_names_the_function_and_the_next_step() {
    require_tools();
    let case = Case::new(&[(
        "a.c",
        "int snd_attach(void) { return 0; }\nextern int gone(void);\nint uses_gone(void) { return gone(); }\n",
    )]);
    let known = Known::default().object(&["snd_attach", "uses_gone"]);
    let error = extract_and_check(&case.request("a.c", &["snd_atach"]), &known)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a.c does not define snd_atach (it has snd_attach)"),
        "{error}"
    );
    // A symbol nobody has is a finding of the check, never plain success.
    let (_, check) = extract_and_check(&case.request("a.c", &["uses_gone"]), &known).unwrap();
    assert!(!check.ok);
    assert_eq!(check.unresolved, ["gone"]);
}

#[test]
fn what_the_kernels_flags_make_an_error_fails_the_check() {
    require_tools();
    let case = Case::new(&[("a.c", "int target(void) { return undeclared(); }\n")]);
    let mut request = case.request("a.c", &["target"]);
    request
        .command
        .args
        .insert(0, "-Werror=implicit-function-declaration".into());
    // Linkable, so that only the compiler can tell.
    let known = Known::default().exports(&["undeclared"]).object(&["target"]);
    let (_, check) = extract_and_check(&request, &known).unwrap();
    assert!(!check.ok && check.errors[0].contains("undeclared"), "{check:?}");
}

#[test]
fn the_output_is_the_same_every_time() {
    let case = Case::new(&[(
        "a.c",
        "static int a1, b1, c1;\nint target(void) { return a1 + b1 + c1; }\n",
    )]);
    let known = Known::default().object(&["target", "a1", "b1", "c1"]);
    let first = case.extract("a.c", &["target"], &known);
    let second = case.extract("a.c", &["target"], &known);
    assert_eq!(first.source, second.source);
}

#[test]
fn a_missing_compiler_is_named() {
    require_tools();
    let case = Case::new(&[("a.c", "int target(void) { return 0; }\n")]);
    let mut request = case.request("a.c", &["target"]);
    request.command.compiler = "gcc-of-another-age".into();
    let error = extract_and_check(&request, &Known::default().object(&["target"]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("gcc-of-another-age can't be started"), "{error}");
    assert!(Path::new(&request.src_dir).exists());
}

#[test]
fn what_is_to_be_avoided_is_copied_if_its_definition_is_there() {
    let case = Case::new(&[
        (
            "include/linux/k.h",
            "#pragma once\nextern int elsewhere(int);\nextern int shared(int);\n",
        ),
        (
            "drivers/demo/a.c",
            r#"#include <linux/k.h>
static int counter;
static const int table[2] = { 1, 2 };
static int __attribute__((noinline)) deeper(int x) { return x + table[x & 1]; }
static int __attribute__((noinline)) helper(int x) { static int last; last = x; return deeper(x) + counter; }
int shared(int x) { return helper(x); }
int target(int x) { return helper(x) + shared(x) + elsewhere(x) + counter + deeper(x); }
"#,
        ),
    ]);
    let known = Known::default()
        .object(&["counter", "table", "deeper", "helper", "shared", "target", "last.0"])
        .vmlinux(&["elsewhere"]);
    let externals = |x: &Extraction| x.externalized.iter().map(|e| e.symbol.clone()).collect::<Vec<_>>();
    let plain = case.extract("drivers/demo/a.c", &["target"], &known);
    assert_eq!(
        externals(&plain),
        ["counter", "deeper", "elsewhere", "helper", "shared"]
    );

    let avoid = ["helper", "shared", "elsewhere", "counter", "nowhere"];
    let mut request = case.request("drivers/demo/a.c", &["target"]);
    request.avoid = avoid.map(str::to_owned).into();
    let (x, check) = extract_and_check(&request, &known).unwrap();
    assert!(check.ok, "{check:#?}\n{}", x.source);
    // What a copy needs is reached as before; its own static stays the kernel's.
    assert_eq!(externals(&x), ["counter", "deeper", "elsewhere", "last.0"]);
    in_order(
        &x.source,
        &[
            "helper(int x) {",
            "return (*klpe_deeper)(x) + (*klpe_counter); }",
            "int shared(int x) { return helper(x); }",
            "int klpp_target(int x) { return helper(x) + shared(x) + (*klpe_elsewhere)(x)",
        ],
    );
    assert_eq!(x.warnings.len(), 2, "{:?}", x.warnings);
    assert!(
        x.warnings[0].contains("counter") && x.warnings[0].contains("value of its own"),
        "{:?}",
        x.warnings
    );
    assert!(
        x.warnings[1].contains("elsewhere") && x.warnings[1].contains("does not define it"),
        "{:?}",
        x.warnings
    );
}

#[test]
fn a_constant_is_copied_too_unless_it_needs_addresses_of_others() {
    let case = Case::new(&[(
        "drivers/demo/a.c",
        "static const int table[2] = { 1, 2 };\nstatic const int *const ends[2] = { &table[0], 0 };\n\
         int target(int x) { return table[x & 1] + *ends[x & 1]; }\n",
    )]);
    let known = Known::default().object(&["ends", "table", "target"]);
    let extract = |avoid: &[&str]| {
        let mut request = case.request("drivers/demo/a.c", &["target"]);
        request.avoid = avoid.iter().map(|a| (*a).to_owned()).collect();
        let (x, check) = extract_and_check(&request, &known).unwrap();
        assert!(check.ok, "{check:#?}\n{x:#?}");
        x
    };
    let x = extract(&["ends"]);
    assert_eq!(x.externalized.len(), 2, "{x:#?}");
    assert!(x.warnings[0].contains("addresses in it"), "{:?}", x.warnings);
    let x = extract(&["ends", "table"]);
    assert!(x.externalized.is_empty() && x.warnings.is_empty(), "{x:#?}");
    assert!(
        x.source.contains("static const int table[2] = { 1, 2 };"),
        "{}",
        x.source
    );
}
