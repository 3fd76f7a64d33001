//! Fixes that change headers, on small sources: what of the change must be in the source, compiled with the headers as they were.

use std::fs;

use super::tests::{Case, Known, in_order, require_tools};
use super::*;
use crate::extract::{Unpatched, changed_headers};

pub(super) const PATH: &str = "include/linux/k.h";

/// A tree and the same tree with a fix.
pub(super) struct Fix {
    pub(super) case: Case,
}

impl Fix {
    /// `files`: path, text, patched text; one that is empty is not there.
    pub(super) fn new(files: &[(&str, &str, &str)]) -> Self {
        let there = |text: &&str| !text.is_empty();
        let patched: Vec<(&str, &str)> = files
            .iter()
            .map(|f| (f.0, f.2))
            .filter(|(_, text)| there(text))
            .collect();
        let case = Case::new(&patched);
        for (path, text, _) in files.iter().filter(|f| there(&f.1)) {
            let path = case.dir.path().join("orig").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { case }
    }

    /// One public header, and a source that is not changed.
    pub(super) fn of_header(before: &str, after: &str, source: &str) -> Self {
        let guard = |text: &str| format!("#ifndef _K_H\n#define _K_H\n{text}\n#endif\n");
        Self::new(&[(PATH, &guard(before), &guard(after)), ("a.c", source, source)])
    }

    pub(super) fn request(&self, functions: &[&str]) -> Request {
        self.request_of("a.c", functions)
    }

    fn request_of(&self, file: &str, functions: &[&str]) -> Request {
        let mut request = self.case.request(file, functions);
        let src_dir = self.case.dir.path().join("orig");
        let mut command = request.command.clone();
        let (from, to) = (request.src_dir.display().to_string(), src_dir.display().to_string());
        for arg in &mut command.args {
            *arg = arg.replace(&from, &to);
        }
        command.args.insert(0, "-Werror=implicit-function-declaration".into());
        request.command.args = command.args.iter().map(|arg| arg.replace(&to, &from)).collect();
        request.unpatched = Some(Unpatched { src_dir, command });
        request
    }

    /// What is extracted, and whether it compiles; `target` is the function.
    pub(super) fn outcome(&self) -> (Extraction, CompileCheck) {
        require_tools();
        extract_and_check(&self.request(&["target"]), &Known::default().object(&["target"])).unwrap()
    }

    /// As [`Self::outcome`], of what must compile in its best form.
    pub(super) fn extract(&self) -> Extraction {
        let (extraction, check) = self.outcome();
        assert!(check.ok, "{check:#?}\n{extraction:#?}\n{}", extraction.source);
        assert_eq!(extraction.form, Form::Sliced, "{:?}", extraction.warnings);
        extraction
    }
}

pub(super) fn lacks(x: &Extraction, words: &[&str]) {
    for word in words {
        assert!(!x.source.contains(word), "{word} in\n{}", x.source);
    }
}

#[test]
fn a_changed_inline_function_is_copied_with_those_that_call_it() {
    let before = "static inline int limit(int n) { return n > 9 ? 9 : n; }\n\
                  static inline int same(int n) { return n; }\n\
                  static inline int outer(int n) { return limit(n) + same(n); }\n\
                  #define LIMIT(n) limit(n)\n";
    let after = before
        .replace("n > 9 ? 9", "n > 7 ? 7")
        .replace("{ return n; }", "{ /* same */\n\treturn n; }");
    let source = "#include <linux/k.h>\nint target(int n) { return outer(n) + same(n) + LIMIT(n); }\n";
    let x = Fix::of_header(before, &after, source).extract();
    in_order(
        &x.source,
        &[
            "#include <linux/k.h>",
            "static inline int klpr_limit(int n) { return n > 7 ? 7 : n; }",
            "static inline int klpr_outer(int n) { return klpr_limit(n) + same(n); }",
            "return klpr_outer(n) + same(n) + klpr_limit(n);",
        ],
    );
    lacks(&x, &["klpr_same"]);
    assert!(x.warnings.is_empty(), "{:?}", x.warnings);
}

#[test]
fn without_a_change_that_means_anything_nothing_is_copied() {
    let before = "#define STEP 3\nstruct s { union { int a; long b; }; struct { int c; } d; };\nstatic inline int f(struct s *s) { return s->a + STEP; }\nextern int g(int a);\n";
    let after = "/* more */\n#define STEP   3 /* steps */\nstruct s {\n\tunion {\n\t\tint a; /* first */\n\t\tlong b;\n\t};\n\tstruct { int c; } d;\n};\n\
                 static inline int f(struct s *s)\n{\n#ifdef NEVER\n\treturn 1;\n#else\n\treturn s->a + STEP;\n#endif\n}\nextern int g(int b);\n";
    let source = "#include <linux/k.h>\nint target(struct s *s) { return f(s) + STEP; }\n";
    let x = Fix::of_header(before, after, source).extract();
    lacks(&x, &["klpr_", "#define STEP", "#undef STEP"]);
    assert!(x.warnings.is_empty(), "{:?}", x.warnings);
}

#[test]
fn macros_are_defined_anew_where_the_text_comes_to_them() {
    let before = "#define STEP 3\n#define UNUSED 1\n#define TWICE(n) ((n) * STEP)\n#define OLD(n) (n)\n\
                  static inline int f(int n) { return TWICE(n); }\n\
                  static inline int plain(int n) { return n; }\n";
    let after = "#define STEP 4\n#define UNUSED 2\n#define TWICE(n) ((n) * STEP)\n#define MORE(n) \\\n\t((n) + STEP)\n\
                 extern int OLD(int n);\n\
                 static inline int f(int n) { return TWICE(n); }\n\
                 static inline int plain(int n) { return n; }\n";
    let source = "#include <linux/k.h>\nint target(int n) { return f(n) + TWICE(n) + MORE(n) + plain(n) + OLD(n); }\n";
    let fix = Fix::of_header(before, after, source);
    let known = Known::default().object(&["target"]).exports(&["OLD"]);
    let (x, check) = extract_and_check(&fix.request(&["target"]), &known).unwrap();
    assert!(check.ok, "{check:#?}\n{}", x.source);
    in_order(
        &x.source,
        &[
            "#undef STEP\n#define STEP 4",
            "klpr_f(int n) { return TWICE(n); }",
            "int klpp_target",
        ],
    );
    in_order(&x.source, &["#define MORE(n) \\\n\t((n) + STEP)", "int klpp_target"]);
    in_order(
        &x.source,
        &["#include <linux/k.h>", "#undef OLD", "extern int OLD(int n);"],
    );
    lacks(&x, &["UNUSED", "#undef MORE", "klpr_plain", "#define TWICE"]);
}

#[test]
fn what_is_new_is_written_with_what_it_needs_itself() {
    let before = "struct known { int a; };\nenum kind { KIND_A, KIND_B };\n";
    let after = "struct known { int a; };\nenum kind { KIND_A, KIND_B,\n#define KIND_C KIND_C\n\tKIND_C };\n#define SLOTS 4\n\
                 typedef unsigned long word_t;\nstruct not_needed { int x; };\n\
                 enum { ALONE = 40, TOGETHER };\nenum state { STATE_ON = 7 };\nstruct later;\n\
                 struct pair { word_t words[SLOTS]; enum state state; struct known known; };\n\
                 extern int told(struct pair *pair, struct later *later);\n\
                 static const int table[2] = { SLOTS, 6 };\n\
                 static inline int sum(struct pair *pair) { return pair->words[0] + pair->state + table[1]; }\n";
    let source = "#include <linux/k.h>\nint target(struct known *k)\n{\n\tstruct pair pair = { .known = *k };\n\
                  \treturn sum(&pair) + told(&pair, 0) + KIND_C + ALONE + TOGETHER + STATE_ON;\n}\n";
    let fix = Fix::of_header(before, after, source);
    let known = Known::default().object(&["target"]).exports(&["told"]);
    let (x, check) = extract_and_check(&fix.request(&["target"]), &known).unwrap();
    assert!(check.ok, "{check:#?}\n{}", x.source);
    in_order(
        &x.source,
        &[
            "#include <linux/k.h>",
            "#define KIND_C (2)",
            "#define SLOTS 4",
            "typedef unsigned long word_t;",
            "enum { ALONE = 40, TOGETHER };",
            "enum state { STATE_ON = 7 };",
            "struct pair {",
            "extern int told(struct pair *pair, struct later *later);",
            "static const int klpr_table[2]",
            "klpr_sum(struct pair *pair) { return pair->words[0] + pair->state + klpr_table[1]; }",
            "return klpr_sum(&pair) + told(&pair, 0) + KIND_C",
        ],
    );
    lacks(
        &x,
        &[
            "not_needed",
            "struct known {",
            "enum kind {",
            "#define STATE_ON",
            "#define KIND_C KIND_C",
        ],
    );
}

#[test]
fn a_constant_with_another_value_is_told_and_written() {
    let before = "enum kind { KIND_A, KIND_MAX };\nstatic inline int last(void) { return KIND_MAX - 1; }\n";
    let after = before.replace("KIND_A,", "KIND_A, KIND_B,");
    let source = "#include <linux/k.h>\nint target(void) { return last(); }\n";
    let x = Fix::of_header(before, &after, source).extract();
    in_order(
        &x.source,
        &["#define KIND_MAX (2)", "klpr_last(void) { return KIND_MAX - 1; }"],
    );
    lacks(&x, &["KIND_B"]);
    assert_eq!(x.warnings.len(), 1, "{:?}", x.warnings);
    assert!(
        x.warnings[0].contains("include/linux/k.h:3: KIND_MAX is 2")
            && x.warnings[0].contains("1 in the running kernel"),
        "{:?}",
        x.warnings
    );
}

#[test]
fn another_layout_is_told_whether_it_compiles_or_not() {
    let before = "#define ROOM 2\nstruct s; struct s { int a; };\nstruct unused { int a; };\nstruct room { char c[ROOM]; };\n\
                  typedef struct { int v; } v_t;\n";
    let after = before
        .replace("s { int a; ", "s { int a; int more; ")
        .replace("unused { int a;", "unused { long a;")
        .replace("ROOM 2", "ROOM 3")
        .replace("int v;", "long v;");
    let source = |member: &str| {
        format!(
            "#include <linux/k.h>\nint target(struct s *s, struct room *r, v_t *v) {{ return s->{member} + r->c[1] + v->v; }}\n"
        )
    };
    for (member, compiles) in [("a", true), ("more", false)] {
        let (x, check) = Fix::of_header(before, &after, &source(member)).outcome();
        assert_eq!(check.ok, compiles, "{check:?}\n{}", x.source);
        let told = |what: &str| {
            let found = x.warnings.iter().find(|w| w.contains(what));
            found.is_some_and(|w| w.contains("another layout") && w.contains("klp_shadow_alloc"))
        };
        assert!(told("include/linux/k.h:4: struct s"), "{:?}", x.warnings);
        assert!(told("struct room") && told("v_t"), "{:?}", x.warnings);
        assert!(!told("struct unused"), "{:?}", x.warnings);
    }
}

#[test]
fn the_files_own_types_are_looked_at_too() {
    let before = "struct own { int a; };\nstruct other { int b; };\nint target(struct own *own, struct other *o) { return own->a + o->b; }\n";
    let after = before.replace("{ int a; }", "{ long first; int a; }");
    let x = Fix::new(&[("a.c", before, &after)]).extract();
    assert_eq!(x.warnings.len(), 1, "{:?}", x.warnings);
    assert!(
        x.warnings[0].starts_with("a.c:1: struct own has another layout") && x.warnings[0].contains("wrong place"),
        "{:?}",
        x.warnings
    );
}

#[test]
fn another_declaration_is_told() {
    let before = "extern int target(int a);\nextern int helper(int a);\nextern int unused(int a);\n";
    let after = "extern int target(int a, int b);\nextern int helper(long a);\nextern long unused(int a);\n";
    let source = "#include <linux/k.h>\nint target(int a, int b) { return helper(a) + b; }\n";
    let fix = Fix::new(&[(PATH, before, after), ("a.c", "", source)]);
    // The file as it was.
    fs::write(
        fix.case.dir.path().join("orig/a.c"),
        "#include <linux/k.h>\nint target(int a) { return helper(a); }\n",
    )
    .unwrap();
    let known = Known::default().object(&["target"]).exports(&["helper"]);
    let (x, _) = extract_and_check(&fix.request(&["target"]), &known).unwrap();
    for name in ["target", "helper"] {
        let words = format!("the fix declares {name} otherwise");
        assert!(x.warnings.iter().any(|w| w.contains(&words)), "{:?}", x.warnings);
    }
    assert!(!x.warnings.iter().any(|w| w.contains("unused")), "{:?}", x.warnings);
}

#[test]
fn a_header_that_a_header_brings_is_looked_at_where_it_is_brought() {
    let outer = "#pragma once\n#include <linux/k.h>\nstatic inline int outer(int n) { return inner(n); }\n";
    let before = "#pragma once\nstatic inline int inner(int n) { return n; }\n";
    let after = "#pragma once\n#include <linux/more.h>\n#include <linux/fresh.h>\n#define ADD 2\n\
                 static inline int inner(int n) { return n + ADD + more(n) + FRESH; }\n";
    let more = "#pragma once\nstatic inline int more(int n) { return n; }\n";
    let fresh = "#pragma once\n#define FRESH 8\nstruct fresh { int f; };\nstruct idle { int f; };\n";
    let last = "#pragma once\nstruct idle;\nstruct last { struct idle *idle; };\n";
    let source = "#include <linux/first.h>\n#include <linux/outer.h>\n#include <linux/fresh.h>\n#include <linux/last.h>\n\
                  int target(struct first *f) { struct fresh new = { f->a }; return outer(new.f); }\n";
    let first = "#pragma once\nstruct first { int a; };\n";
    let fix = Fix::new(&[
        ("include/linux/first.h", first, first),
        ("include/linux/last.h", last, last),
        ("include/linux/outer.h", outer, outer),
        ("include/linux/more.h", more, more),
        ("include/linux/fresh.h", "", fresh),
        (PATH, before, after),
        ("a.c", "int target;\n", source),
    ]);
    let x = fix.extract();
    in_order(
        &x.source,
        &[
            "#include <linux/outer.h>",
            "#include <linux/more.h>",
            "#define FRESH 8",
            "struct fresh { int f; };",
            "#define ADD 2",
            "klpr_inner(int n) { return n + ADD + more(n) + FRESH; }",
            "klpr_outer(int n) { return klpr_inner(n); }",
        ],
    );
    lacks(&x, &["fresh.h>", "struct idle"]);
}

#[test]
fn a_new_header_of_the_files_own_inclusion_is_sliced() {
    let fresh = "#pragma once\n#include <linux/base.h>\n#define FRESH 8\nstruct fresh { int f; };\nstruct idle { int f; };\n\
                 static inline int fresh(struct fresh *f) { return f->f + base(FRESH); }\n";
    let base = "#pragma once\nstatic inline int base(int n) { return n; }\n";
    let source = "#include <linux/fresh.h>\nint target(int n) { struct fresh f = { n }; return fresh(&f); }\n";
    let x = Fix::new(&[
        ("include/linux/fresh.h", "", fresh),
        ("include/linux/base.h", base, base),
        ("a.c", "int target;\n", source),
    ])
    .extract();
    in_order(
        &x.source,
        &[
            "#include <linux/base.h>",
            "#define FRESH 8",
            "static inline int fresh(struct fresh *f)",
        ],
    );
    lacks(&x, &["fresh.h>", "struct idle"]);
}

#[test]
fn patched_private_headers_are_sliced_in_every_form() {
    let local = "#pragma once\n#include \"deep.h\"\nstatic inline int local(int n) { return deep(n); }\n";
    let before = "#pragma once\nstatic inline int deep(int n) { return n; }\n";
    let after = before.replace("return n;", "return n + 5;");
    let other = "#pragma once\nstatic inline int other(int n) { return n; }\n";
    let source = "#include \"local.h\"\n#include \"other.h\"\nint target(int n) { return local(n) + other(n); }\n";
    let fix = Fix::new(&[
        ("drivers/local.h", local, local),
        ("drivers/deep.h", before, &after),
        ("drivers/other.h", other, other),
        ("drivers/a.c", source, source),
    ]);
    require_tools();
    let request = fix.request_of("drivers/a.c", &["target"]);
    let library = Library::load().unwrap();
    let tu = parse(&library, &request).unwrap();
    let changes = survey::changes(&library, &request, &tu).unwrap();
    let known = Known::default().object(&["target"]);
    let (x, _) = slice(
        &tu,
        &changes,
        &request,
        &known,
        Private::Include,
        &BTreeSet::new(),
        false,
    )
    .unwrap();
    let check = compile_check::check(&request, &known, &x).unwrap();
    assert!(check.ok, "{check:?}");
    in_order(
        &x.source,
        &[
            "static inline int deep(int n) { return n + 5; }",
            "static inline int local(int n)",
            "#include \"drivers/other.h\"",
        ],
    );
    lacks(&x, &["local.h\"", "deep.h\""]);
}

#[test]
fn of_other_tools_sources_each_change_is_told() {
    require_tools();
    let before = "#define STEP 3\nenum kind { A, B };\nstruct s { int a; };\nstruct same { int a; };\n\
                  static inline int f(int n) { return n; }\nextern int g(int n);\nextern int h(int n);\n";
    let after = before
        .replace("extern int h(int n);", "static inline int h(int n) { return n; }")
        .replace("STEP 3", "STEP 4\n#define MORE 1")
        .replace("{ A, B }", "{ A, C, B }")
        .replace("s { int a; }", "s { long a; }; struct fresh { int a; }")
        .replace("return n;", "return -n;")
        .replace("g(int n)", "g(long n)");
    let source = "#include <linux/k.h>\n#include \"own.h\"\nint target(int n) { return f(n) + OWN; }\n";
    let fix = Fix::new(&[
        (PATH, before, &after),
        ("own.h", "#define OWN 1\n", "#define OWN 2\n"),
        ("include/linux/unread.h", "#define UNREAD 1\n", "#define UNREAD 2\n"),
        ("a.c", source, source),
    ]);
    let request = fix.request(&["target"]);
    let warnings = changed_headers::warnings(&request, "#include <linux/k.h>\n#include \"own.h\"\n").unwrap();
    for what in [
        "include/linux/k.h:6: f has another definition",
        "include/linux/k.h:8: h has another definition",
        "include/linux/k.h:1: STEP is another macro",
        "include/linux/k.h:2: MORE is a new macro",
        "own.h:1: OWN is another macro",
        "include/linux/k.h:3: B is 2 instead of 1",
        "include/linux/k.h:3: C is new",
        "include/linux/k.h:4: struct fresh is new",
        "include/linux/k.h:7: g is declared otherwise",
        "include/linux/k.h:4: struct s has another layout",
    ] {
        let told = warnings.iter().find(|w| w.starts_with(what));
        assert!(
            told.is_some_and(|w| w.contains("--type native")),
            "{what}: {warnings:#?}"
        );
    }
    assert_eq!(warnings.len(), 10, "{warnings:#?}");
    // A source that has the headers' text, not the headers: what the kernel shares is told, and that it is another's.
    let warnings = changed_headers::warnings(&request, "int x;\n").unwrap();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    for what in [
        "B is 2 instead of 1",
        "g is declared otherwise",
        "struct s has another layout",
    ] {
        let told = warnings.iter().find(|w| w.contains(what));
        assert!(
            told.is_some_and(|w| w.contains("the running kernel as it was")),
            "{warnings:#?}"
        );
    }
    // Of a source that can't be read nothing is left out.
    let warnings = changed_headers::warnings(&request, "#include <linux/nowhere.h>\n").unwrap();
    assert_eq!(warnings.len(), 10, "{warnings:#?}");
    // Without libclang.
    assert_eq!(changed_headers::differing(&request).unwrap(), [PATH, "own.h"]);
    let unfixed = Request {
        unpatched: None,
        ..request
    };
    assert!(changed_headers::warnings(&unfixed, "").unwrap().is_empty());
}

#[test]
fn headers_that_the_command_line_includes_come_first() {
    let before = "#pragma once\n#define STEP 1\nstatic inline int f(int n) { return n; }\n";
    let after = "#pragma once\n#define STEP 2\nenum { NEW = 9,\n#define NEW NEW\n};\n\
                 static inline int f(int n) { return n + STEP + NEW; }\n";
    let other = "#pragma once\nstatic inline int g(int n) { return f(n); }\n";
    let source = "#include <linux/g.h>\nint target(int n) { return g(n); }\n";
    let fix = Fix::new(&[
        (PATH, before, after),
        ("include/linux/g.h", other, other),
        ("a.c", source, source),
    ]);
    let mut request = fix.request(&["target"]);
    let with = |command: &mut crate::extract::CompileCommand, dir: &Path| {
        let header = dir.join(PATH).display().to_string();
        command.args.splice(0..0, ["-include".to_owned(), header]);
    };
    with(&mut request.command, &request.src_dir.clone());
    let unpatched = request.unpatched.as_mut().unwrap();
    with(&mut unpatched.command, &unpatched.src_dir.clone());
    let (x, check) = extract_and_check(&request, &Known::default().object(&["target"])).unwrap();
    assert!(check.ok, "{check:#?}\n{}", x.source);
    in_order(
        &x.source,
        &[
            "#undef STEP\n#define STEP 2",
            "enum { NEW = 9,",
            "klpr_f(int n) { return n + STEP + NEW; }",
            "#include <linux/g.h>",
            "klpr_g(int n) { return klpr_f(n); }",
        ],
    );
}

#[test]
fn names_that_hide_in_a_headers_macros_are_followed() {
    let before = "enum { FIRST = 1 };\n#define STEP 3\n#define ALL(n) ((n) + DEEP(n))\n#define DEEP(n) ((n) * STEP)\n\
                  static inline int f(int n) { return ALL(n); }\n";
    let after = before.replace("STEP 3", "STEP 4");
    let source = "#include <linux/k.h>\nint target(int n) { return ALL(n); }\nint user(int n) { return f(n); }\n";
    let fix = Fix::of_header(before, &after, source);
    let x = fix.extract();
    in_order(&x.source, &["#undef STEP\n#define STEP 4", "return ALL(n);"]);
    lacks(&x, &["klpr_f", "#define ALL", "#define DEEP"]);
    let known = Known::default().object(&["user"]);
    let (x, check) = extract_and_check(&fix.request(&["user"]), &known).unwrap();
    assert!(check.ok, "{check:#?}\n{}", x.source);
    in_order(
        &x.source,
        &["#undef STEP\n#define STEP 4", "klpr_f(int n) { return ALL(n); }"],
    );
}
