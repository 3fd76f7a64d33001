//! Fixes that move things between headers and the file, or change which parts of headers are read.

use super::tests::{Known, in_order};
use super::tests_headers::{Fix, PATH, lacks};
use super::*;

#[test]
fn what_moves_from_a_private_header_to_a_public_one_is_written() {
    let moved = "struct moved { int a; };\nextern int helper(struct moved *m);\n";
    let public = "#pragma once\nstruct there { int a; };\nextern int both(int n);\n";
    let private = "#pragma once\n#include <linux/k.h>\n";
    let source = "#include \"own.h\"\nint target(struct moved *m) { return helper(m) + both(m->a); }\n";
    let fix = Fix::new(&[
        (PATH, public, &format!("{public}{moved}")),
        (
            "own.h",
            &format!("#pragma once\nextern int both(int n);\n#include <linux/k.h>\n{moved}"),
            private,
        ),
        ("a.c", source, source),
    ]);
    let known = Known::default().object(&["target"]).exports(&["both", "helper"]);
    let (x, check) = extract_and_check(&fix.request(&["target"]), &known).unwrap();
    assert!(check.ok, "{check:#?}\n{}", x.source);
    lacks(&x, &["extern int both"]);
    in_order(
        &x.source,
        &["#include <linux/k.h>", "struct moved { int a; };", "extern int helper"],
    );
    assert!(x.warnings.is_empty(), "{:?}", x.warnings);
}

#[test]
fn headers_behind_a_changed_macro_are_read_as_the_kernel_was() {
    let (before, after) = ("#define SIZE 4\n", "#define SIZE 8\n");
    let later = "#ifndef _L_H\n#define _L_H\nstruct later { char name[SIZE]; int last; };\n#endif\n";
    let source = "#include <linux/k.h>\n#include <linux/l.h>\nint target(struct later *l)\n{\n\t\
                  _Static_assert(sizeof(l->name) == 4, \"the kernel's layout\");\n\t_Static_assert(SIZE == 8, \"the fix\");\n\treturn l->last;\n}\n";
    let guard = |text: &str| format!("#ifndef _K_H\n#define _K_H\n{text}#endif\n");
    let fix = Fix::new(&[
        (PATH, &guard(before), &guard(after)),
        ("include/linux/l.h", later, later),
        ("a.c", source, source),
    ]);
    let x = fix.extract();
    in_order(
        &x.source,
        &[
            "#include <linux/k.h>",
            "#pragma push_macro(\"SIZE\")",
            "#define SIZE 8",
            "#pragma pop_macro(\"SIZE\")",
            "#include <linux/l.h>",
            "#define SIZE 8",
        ],
    );
}

/// As [`Fix::outcome`], with symbols of the object.
fn outcome(fix: &Fix, object: &[&'static str], exports: &[&'static str]) -> (Extraction, CompileCheck) {
    super::tests::require_tools();
    let known = Known::default().object(object).exports(exports);
    let (x, check) = extract_and_check(&fix.request(&["target"]), &known).unwrap();
    assert_eq!(x.form, Form::Sliced, "{:#?}\n{check:#?}\n{}", x.warnings, x.source);
    (x, check)
}

#[test]
fn an_inline_function_that_becomes_the_files_own_gets_another_name() {
    let before = "#pragma once\nstruct k { int a; };\nstatic inline int moved(struct k *k) { return k->a; }\n\
                  static inline int user(struct k *k) { return moved(k) + 1; }\n";
    let after = "#pragma once\nstruct k { int a; };\nint moved(struct k *k);\n\
                 static inline int user(struct k *k) { return moved(k) + 1; }\n";
    let was = "#include <linux/k.h>\nint target(struct k *k) { return user(k) + moved(k); }\n";
    let is = "#include <linux/k.h>\nint target(struct k *k) { return user(k) + moved(k); }\n\
              int moved(struct k *k) { return k ? k->a : 0; }\n";
    let fix = Fix::new(&[(PATH, before, after), ("a.c", was, is)]);
    // Also where the compiler left an object's copy of it: that is the code without the fix.
    for object in [&["target"][..], &["target", "moved"]] {
        let (x, check) = outcome(&fix, object, &[]);
        assert!(check.ok, "{check:#?}\n{}", x.source);
        in_order(
            &x.source,
            &[
                "int klpr_moved(struct k *k);",
                "klpr_user(struct k *k) { return klpr_moved(k) + 1; }",
                "int klpp_target(struct k *k) { return klpr_user(k) + klpr_moved(k); }",
                "int klpr_moved(struct k *k) { return k ? k->a : 0; }",
            ],
        );
        assert!(x.externalized.is_empty() && x.warnings.is_empty(), "{x:#?}");
    }
}

#[test]
fn what_moves_from_a_public_header_into_the_file_or_a_private_header_is_no_second_one() {
    let moved = "struct k { int a; };\nenum e { E = 4 };\ntypedef struct { int b; } k_t;\n\
                 static const int table[2] = { 1, 2 };\nstatic inline int moved(struct k *k) { return k->a; }\n";
    let before = format!("#pragma once\n{moved}#define M 1\n");
    let after = "#pragma once\n#include <linux/more.h>\n";
    let body = "int target(struct k *k, k_t *b) { return moved(k) + M + E + b->b + table[1]; }\n";
    let with = |text: &str| format!("#include <linux/k.h>\n{text}{body}");
    let fixed = moved.replace("return k->a", "return k ? k->a : 0") + "#define M 2\n";
    let more = "#pragma once\n";
    let into_file = Fix::new(&[
        (PATH, &before, after),
        ("include/linux/more.h", more, more),
        ("a.c", &with(""), &with(&fixed)),
    ]);
    let into_header = Fix::new(&[
        (PATH, &before, after),
        ("include/linux/more.h", more, more),
        ("own.h", "", &format!("#pragma once\n{fixed}")),
        ("a.c", &with(""), &with("#include \"own.h\"\n")),
    ]);
    for fix in [into_file, into_header] {
        let (x, check) = outcome(&fix, &["target", "moved", "table"], &[]);
        assert!(check.ok, "{check:#?}\n{}", x.source);
        in_order(
            &x.source,
            &[
                "#include <linux/k.h>",
                "static const int klpr_table[2]",
                "static inline int klpr_moved(struct k *k) { return k ? k->a : 0; }",
                "#define M 2",
                "return klpr_moved(k) + M + E + b->b + klpr_table[1];",
            ],
        );
        lacks(&x, &["struct k {", "enum e", "typedef", "klpe_"]);
        assert!(x.warnings.is_empty(), "{:#?}", x.warnings);
    }
}

#[test]
fn what_moves_and_changes_its_layout_or_values_is_told() {
    let before = "#pragma once\nstruct k { int a; };\nenum e { E = 4 };\n";
    let was = "#include <linux/k.h>\nint target(struct k *k) { return k->a + E; }\n";
    let is = was.replace("int target", "struct k { long a; };\nenum e { E = 5 };\nint target");
    let fix = Fix::new(&[(PATH, before, "#pragma once\n"), ("a.c", was, &is)]);
    let (x, check) = extract_and_check(&fix.request(&["target"]), &Known::default().object(&["target"])).unwrap();
    assert!(!check.ok, "{}", x.source);
    assert!(check.errors.iter().any(|e| e.contains("struct k")), "{check:#?}");
    assert!(check.errors.iter().any(|e| e.contains("'E'")), "{check:#?}");
    let told = x
        .warnings
        .iter()
        .any(|w| w.starts_with("a.c:2: struct k has another layout"));
    assert!(told, "{:#?}", x.warnings);
}

#[test]
fn a_function_that_moves_where_the_source_does_not_reach_is_told() {
    let before =
        "#pragma once\nstatic inline int gone(int n) { return n; }\nstatic inline int unused(int n) { return n; }\n";
    let after = "#pragma once\nint gone(int n);\nint unused(int n);\n";
    let source = "#include <linux/k.h>\nint target(int n) { return gone(n); }\n";
    let fix = Fix::new(&[(PATH, before, after), ("a.c", source, source)]);
    for object in [&["target"][..], &["target", "gone"]] {
        let (x, check) = outcome(&fix, object, &[]);
        assert!(check.ok, "{check:#?}\n{}", x.source);
        lacks(&x, &["klpe_"]);
        let told = |what: &str| x.warnings.iter().any(|w| w.starts_with(what));
        assert!(told("include/linux/k.h:2: the fix takes gone out"), "{:#?}", x.warnings);
        assert_eq!(x.warnings.len(), 1, "{:#?}", x.warnings);
    }
}

#[test]
fn a_header_that_is_included_for_the_first_time_is_known_by_what_it_was() {
    let before = "#pragma once\n#define STEP 3\n#define SAME 1\nstruct k { int a; };\nenum kind { A, B };\n\
                  typedef int k_t;\nextern int g(int n);\nstatic inline int same(int n) { return n; }\n\
                  static inline int f(int n) { return n; }\n";
    let after = before
        .replace("f(int n) { return n; }", "f(int n) { return -n; }")
        .replace("STEP 3", "STEP 4");
    let was = "#include <linux/other.h>\nint target(int n) { return n; }\n";
    let is = "#include <linux/other.h>\n#include <linux/k.h>\nint target(int n)\n{\n\tstruct k k = { same(n) + B };\n\n\
              \treturn f(k.a) + g(STEP) + SAME;\n}\n";
    let other = "#pragma once\n";
    let fix = Fix::new(&[
        (PATH, before, &after),
        ("include/linux/other.h", other, other),
        ("a.c", was, is),
    ]);
    let (x, check) = outcome(&fix, &["target"], &["g"]);
    assert!(check.ok, "{check:#?}\n{}", x.source);
    in_order(
        &x.source,
        &[
            "#include <linux/k.h>",
            "#undef STEP\n#define STEP 4",
            "klpr_f(int n) { return -n; }",
            "{ same(n) + B }",
            "return klpr_f(k.a) + g(STEP) + SAME;",
        ],
    );
    lacks(
        &x,
        &["klpr_same", "struct k {", "enum kind", "define SAME", "extern int g"],
    );
    assert!(x.warnings.is_empty(), "{:#?}", x.warnings);
    let told = header_changes(&fix.request(&["target"])).unwrap();
    assert_eq!(told.len(), 2, "{told:#?}");
}

#[test]
fn what_an_unchanged_header_makes_of_a_changed_macro_is_seen() {
    let guard = |text: &str| format!("#ifndef _K_H\n#define _K_H\n{text}#endif\n");
    let (before, after) = (guard("#define CAREFUL 0\n"), guard("#define CAREFUL 1\n"));
    let later = "#ifndef _L_H\n#define _L_H\n#if CAREFUL\n#define LATER 2\n\
                 static inline int later(int n) { return n > 0 ? n : 0; }\nstruct later { int a; int b; };\n\
                 struct fresh { int a; };\n#else\n#define LATER 1\n\
                 static inline int later(int n) { return n; }\nstruct later { int a; };\n#endif\n\
                 static inline int same(int n) { return n; }\n\
                 static inline int inside(int n)\n{\n#if CAREFUL\n\tn++;\n#endif\n\treturn n;\n}\n#endif\n";
    let source = "#include <linux/k.h>\n#include <linux/l.h>\nint target(struct later *l)\n{\n\tstruct fresh f = { LATER };\n\n\
                  \treturn later(l->a) + inside(1) + same(f.a);\n}\n";
    let fix = Fix::new(&[
        (PATH, &before, &after),
        ("include/linux/l.h", later, later),
        ("a.c", source, source),
    ]);
    let (x, check) = outcome(&fix, &["target"], &[]);
    assert!(check.ok, "{check:#?}\n{}", x.source);
    in_order(
        &x.source,
        &[
            "#include <linux/l.h>",
            "#undef LATER\n#define LATER 2",
            "struct fresh { int a; };",
            "klpr_later(int n) { return n > 0 ? n : 0; }",
            "klpr_inside(int n)\n{\n\tn++;\n\treturn n;\n}",
            "return klpr_later(l->a) + klpr_inside(1) + same(f.a);",
        ],
    );
    let told = x
        .warnings
        .iter()
        .filter(|w| w.contains("struct later has another layout"));
    assert_eq!((told.count(), x.warnings.len()), (1, 1), "{:#?}", x.warnings);
}

#[test]
fn a_macro_that_the_file_itself_defines_for_a_header_stays() {
    let header = "#pragma once\n#define STEP 1\n#ifdef CAREFUL\nstatic inline int f(int n) { return n > 0 ? n : 0; }\n\
                  #else\nstatic inline int f(int n) { return n; }\n#endif\n";
    let was = "#include <linux/k.h>\nint target(int n) { return f(n); }\n";
    let is = format!("#define CAREFUL\n{was}");
    for after in [header.to_owned(), header.replace("STEP 1", "STEP 2")] {
        let x = Fix::new(&[(PATH, header, &after), ("a.c", was, &is)]).extract();
        in_order(&x.source, &["#define CAREFUL", "#include <linux/k.h>", "return f(n);"]);
        assert!(x.warnings.is_empty(), "{:#?}", x.warnings);
    }
}

#[test]
fn a_structure_without_a_tag_is_known_by_each_of_its_typedefs() {
    let before = "typedef struct { int v; } v_t, *v_p;\ntypedef union { int v; } u_t, two_t[2];\n\
                  typedef struct { int v; } *only_p;\nextern struct { int v; } var;\n\
                  typedef enum { E } e_t, *e_p;\n";
    let after = before
        .replace("int v;", "int v; long more;")
        .replace("{ E }", "{ E, F }")
        + "typedef struct { int n; } n_t, *n_p;\n";
    let of = |source: &str| {
        let fix = Fix::of_header(before, &after, &format!("#include <linux/k.h>\n{source}\n"));
        outcome(&fix, &["target"], &["var"])
    };
    for (source, told) in [
        ("int target(v_t *v) { return v->v; }", ":3: v_t has another layout"),
        ("int target(v_p v) { return v->v; }", ":3: v_t has another layout"),
        ("int target(two_t u) { return u[1].v; }", ":4: u_t has another layout"),
        ("int target(only_p v) { return v->v; }", ":5: only_p has another layout"),
        (
            "struct own { v_p v; };\nint target(struct own *own) { return own->v->v; }",
            ":3: v_t has another layout",
        ),
        (
            "int target(void) { return var.v; }",
            ":6: the fix declares var otherwise",
        ),
    ] {
        let (x, check) = of(source);
        assert!(check.ok, "{check:#?}\n{}", x.source);
        assert_eq!(
            x.warnings.iter().filter(|w| w.contains(told)).count(),
            1,
            "{told}: {:#?}",
            x.warnings
        );
        assert!(
            !x.warnings.iter().any(|w| w.contains("struct v_t")),
            "{:#?}",
            x.warnings
        );
    }
    for source in [
        "int target(e_p e) { return *e; }",
        "int target(int n) { n_t v = { n }; n_p p = &v; return p->n; }",
        "int target(n_p p) { return p->n; }",
    ] {
        let (x, check) = of(source);
        assert!(check.ok, "{check:#?}\n{}", x.source);
        assert!(x.warnings.is_empty(), "{:#?}", x.warnings);
        assert!(x.source.matches("typedef").count() <= 1, "{}", x.source);
    }
}
