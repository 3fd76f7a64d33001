//! Fixes that are hard in one way each.

use proptest::prelude::*;

use super::*;

/// A patch of whole files, and what the lint says of it: topic, severity, symbol.
fn lint(path: &str, old: &str, new: &str) -> Vec<(Topic, Severity, String)> {
    let patch = diff(path, old, new);
    let review = review(&patch, &|_| Some(old.to_owned()));
    let said = review.findings.into_iter();
    said.map(|f| (f.topic, f.severity, f.symbol)).collect()
}

fn diff(path: &str, old: &str, new: &str) -> Patch {
    let lines = |sign: char, text: &str| text.lines().map(|line| format!("{sign}{line}\n")).collect::<String>();
    let (before, after) = (old.lines().count(), new.lines().count());
    let text = format!(
        "--- a/{path}\n+++ b/{path}\n@@ -1,{before} +1,{after} @@\n{}{}",
        lines('-', old),
        lines('+', new)
    );
    text.parse().unwrap()
}

const PLAIN: &str = "static int f(int a)\n{\n\treturn a;\n}\n";

#[test]
fn a_plain_fix_has_no_findings() {
    assert_eq!(lint("fs/toy.c", PLAIN, &PLAIN.replace("return a", "return a + 1")), []);
}

#[test]
fn each_hard_thing_is_named() {
    use Severity::{Note, Warning};
    let old = "\
struct s { int a; };
static int table[] = { 1, 2 };
#define LIMIT 8
DEFINE_STATIC_KEY_FALSE(key);
static DEFINE_PER_CPU(int, count);
static int __init start(void) { return 1; }
static void noinstr enter(void) { x(1); }
static __always_inline int quick(void) { return 1; }
static int thread(void *p) { while (!kthread_should_stop()) work(1); return 0; }
static int asks(void) { return 1; }
SYSCALL_DEFINE1(toy, int, a) { return a; }
int head(int a) { return a; }
";
    let new = old
        .replace("int a; };", "int a, b; };")
        .replace("{ 1, 2 }", "{ 1, 3 }")
        .replace("LIMIT 8", "LIMIT 4")
        .replace("KEY_FALSE(key)", "KEY_FALSE(other)")
        .replace("(int, count)", "(long, count)")
        .replace("start(void) { return 1", "start(void) { return 2")
        .replace("x(1)", "x(2)")
        .replace("quick(void) { return 1", "quick(void) { return 2")
        .replace("work(1)", "work(2)")
        .replace(
            "asks(void) { return 1",
            "asks(void) { asm(\"nop\"); trace_toy(1); return static_branch_unlikely(&key) + *this_cpu_ptr(&n)",
        )
        .replace("{ return a; }\nint", "{ return a + 1; }\nint")
        .replace("head(int a)", "head(long a)");
    let said = lint("fs/toy.c", old, &new);
    for (topic, severity, symbol) in [
        (Topic::Layout, Warning, "s"),
        (Topic::Data, Warning, "table"),
        (Topic::Macro, Warning, "LIMIT"),
        (Topic::StaticKey, Warning, "key"),
        (Topic::StaticKey, Warning, "other"),
        (Topic::PerCpu, Warning, "count"),
        (Topic::Init, Warning, "start"),
        (Topic::Untraceable, Warning, "enter"),
        (Topic::Untraceable, Warning, "quick"),
        (Topic::EndlessLoop, Warning, "thread"),
        (Topic::Assembly, Note, "asks"),
        (Topic::Tracepoint, Note, "asks"),
        (Topic::StaticKey, Note, "asks"),
        (Topic::PerCpu, Note, "asks"),
        (Topic::Syscall, Note, "toy"),
        (Topic::Signature, Warning, "head"),
    ] {
        assert!(
            said.contains(&(topic, severity, symbol.to_owned())),
            "{topic:?} {symbol}: {said:?}"
        );
    }
}

#[test]
fn headers_and_files_that_are_no_code() {
    let inline = "static inline int f(int a)\n{\n\treturn a;\n}\n";
    let said = lint("include/net/toy.h", inline, &inline.replace("return a", "return 2"));
    assert!(
        said.contains(&(Topic::Header, Severity::Warning, "f".into())),
        "{said:?}"
    );
    for (path, topic) in [
        ("fs/Kconfig", Topic::Build),
        ("fs/Makefile", Topic::Build),
        ("arch/x86/entry/entry_64.S", Topic::Assembly),
    ] {
        assert_eq!(lint(path, "a\n", "b\n")[0].0, topic, "{path}");
    }
}

#[test]
fn hunks_that_do_not_fit_are_named_with_their_line() {
    let patch = diff("fs/toy.c", PLAIN, &PLAIN.replace("return a", "return 2"));
    let other = review(&patch, &|_| Some("int other;\n".to_owned()));
    assert_eq!(
        (other.findings[0].topic, other.findings[0].line),
        (Topic::Prerequisite, 3)
    );
    assert!(
        other.findings[0]
            .to_string()
            .starts_with("warning: fs/toy.c:3: hunk 1 (line 3 of the patch)")
    );
    let absent = review(&patch, &|_| None);
    assert!(absent.findings[0].text.contains("not there before the patch"));
    let done = review(&patch, &|_| Some(PLAIN.replace("return a", "return 2")));
    assert_eq!(done.findings[0].severity, Severity::Note);
}

#[test]
fn the_old_version_is_made_from_the_new_one() {
    let new = PLAIN.replace("return a", "return 2");
    let patch = diff("fs/toy.c", PLAIN, &new);
    let facts = FileFacts {
        index: 0,
        old: None,
        new: Some(new),
    };
    let review = review_files(&patch, &[facts]);
    assert_eq!(review.files[0].changes.as_ref().unwrap().functions[0].name, "f");
    assert_eq!(review.findings, []);
}

proptest! {
    #[test]
    fn no_pair_of_texts_is_too_much(old in "(int |f|\\(|\\)|\\{|\\}|;|=|struct s|#if a\n|#endif\n|\n| ){0,40}", new in "(int |f|\\(|\\)|\\{|\\}|;|=|\n| ){0,40}") {
        let _ = lint("a/b.c", &format!("{old}\n"), &format!("{new}\n"));
    }
}
