//! Heads as kernels have them, and texts that are none.

use proptest::prelude::*;

use super::*;

fn outline(text: &str) -> Vec<(ItemKind, String)> {
    let outline = Outline::new(text).unwrap();
    outline.items.into_iter().map(|item| (item.kind, item.name)).collect()
}

fn functions(text: &str) -> Vec<String> {
    Outline::new(text)
        .unwrap()
        .functions()
        .map(|item| item.name.clone())
        .collect()
}

fn data(text: &str) -> Vec<(ItemKind, String)> {
    outline(text)
        .into_iter()
        .filter(|(kind, _)| !matches!(kind, ItemKind::Function(_)))
        .collect()
}

#[test]
fn plain_and_attributed_functions() {
    for (text, name) in [
        ("static int f(int a)\n{ return a; }", "f"),
        ("struct s *f(void) { }", "f"),
        ("int f() { }", "f"),
        (
            "static __always_inline __printf(1, 2) int f(const char *fmt, ...) { }",
            "f",
        ),
        ("static void f(struct rq *rq)\n\t__must_hold(rq->lock)\n{\n}", "f"),
        ("static void f(struct rq *rq) __must_hold(x) __releases(RCU)\n{\n}", "f"),
        ("static int __init __attribute__((cold)) f(void) { }", "f"),
        ("__acquires(&t->lock) struct x *f(struct t *t) { }", "f"),
        (
            "static int f(int (*cb)(int, void *), void *data) { return cb(1, data); }",
            "f",
        ),
        ("static void (*f(int sig, void (*h)(int)))(int) { return h; }", "f"),
        ("handler_t (*f(int sig))(int) { return 0; }", "f"),
        ("static int __section(\".x\") f(void) { }", "f"),
        ("int (f)(int a) { return a; }", "f"),
        ("__u32 f(u8 x[4]) { return 1; }", "f"),
        ("u64 f(THE_ARGS) { return 1; }", "f"),
        ("int f(a, b)\n\tint a;\n\tchar *b;\n{ return a; }", "f"),
        ("BPF_CALL_2(f, struct sk_buff *, skb, u32, x)\n{ return 0; }", "f"),
        ("INDIRECT_CALLABLE_SCOPE struct sk_buff *f(struct sk_buff *s) { }", "f"),
        ("static int f(int x __maybe_unused, typeof(y) z) { }", "f"),
        ("typeof(x) f(int a) { }", "f"),
        ("EXPORT_SYMBOL(a)\nstatic int f(int x) { }", "f"),
        ("module_param(a, int, 0644)\nstatic int f(int x) { }", "f"),
    ] {
        assert_eq!(functions(text), [name], "{text}");
    }
}

#[test]
fn syscalls_and_macros_that_define_functions() {
    let text = "SYSCALL_DEFINE2(toy, int, a, void __user *, p)\n{ return 0; }\n\
        COMPAT_SYSCALL_DEFINE1(toy, int, a) { return 0; }\n\
        #ifdef A\nSYSCALL_DEFINE1(other, int, a)\n#else\nSYSCALL_DEFINE1(other, long, a)\n#endif\n{ return 0; }\n\
        A_LIST(a, b)\n#define X\nA_LIST_xxx\nBPF_CALL_1(f, int, a) { return 1; }\n\
        static DEFINE_HANDLER(on_toy)\n{ return 1; }\n\
        DEFINE_IDTENTRY(exc_toy)\n{ }\n";
    let by = |by: &str| ItemKind::Function(Definition::Macro { by: by.into() });
    assert_eq!(
        outline(text),
        [
            (ItemKind::Function(Definition::Syscall { compat: false }), "toy".into()),
            (ItemKind::Function(Definition::Syscall { compat: true }), "toy".into()),
            (
                ItemKind::Function(Definition::Syscall { compat: false }),
                "other".into()
            ),
            (ItemKind::Function(Definition::Plain), "f".into()),
            (by("DEFINE_HANDLER"), "on_toy".into()),
            (by("DEFINE_IDTENTRY"), "exc_toy".into()),
        ]
    );
}

#[test]
fn branches_may_open_a_block_each() {
    let text = "\
int a(int x)
{
#ifdef CONFIG_A
	if (x) {
#else
	if (!x) {
#endif
		x++;
	}
	return x;
}
#ifdef CONFIG_B
int b(int x)
{
#else
int b(long x)
{
#endif
	return (int)x;
}
int c(void)
{
#if 0
	return 1; }
#elif 1
	return 2; }
#else
	foo((; it's
	return 3; }
#endif
int d(void) { return 4; }
static int e
#ifdef CONFIG_E
	= 1;
#else
	= 2;
#endif
int f(void) { return 5; }
";
    assert_eq!(functions(text), ["a", "b", "c", "d", "f"]);
}

#[test]
fn a_lost_bracket_costs_one_function() {
    let text = "int a(int x)\n{\n\tif (x) {\n\tOPEN(\n}\nint b(void)\n{\n}\n";
    assert_eq!(functions(text), ["a", "b"]);
}

#[test]
fn types_and_data() {
    use ItemKind::*;
    let text = "\
#include <linux/toy.h>
#define TOY(x) ((x) + 1)
struct __aligned(8) s { int a; };
union u { int a; } __packed;
enum { FIRST, SECOND };
enum e { THIRD = 3 };
typedef int (*cb_t)(int);
typedef struct { int a; } t_t;
static const struct ops ops = { .a = f, };
static int x __read_mostly = 5, *y;
int (*hook)(int, void *);
static DEFINE_SPINLOCK(lock);
static DEFINE_PER_CPU(struct x, each);
EXPORT_SYMBOL_GPL(f);
struct s2 { int a; } v[] = { { 1 } };
int proto(int a, void *b) __cold;
extern char name[];
asm(\".globl x\");
";
    let of = |of: &str| MacroUse { of: of.into() };
    let want = [
        (Include, "<linux/toy.h>"),
        (Macro, "TOY"),
        (Struct, "s"),
        (Union, "u"),
        (Enum, "FIRST"),
        (Enum, "e"),
        (Typedef, "cb_t"),
        (Typedef, "t_t"),
        (Variable, "ops"),
        (Variable, "x"),
        (Variable, "y"),
        (Variable, "hook"),
        (of("DEFINE_SPINLOCK"), "lock"),
        (of("DEFINE_PER_CPU"), "each"),
        (of("EXPORT_SYMBOL_GPL"), "f"),
        (Struct, "s2"),
        (Variable, "v"),
        (Prototype, "proto"),
        (Variable, "name"),
        (Asm, ""),
    ];
    let want: Vec<_> = want.into_iter().map(|(kind, name)| (kind, name.to_owned())).collect();
    assert_eq!(data(text), want);
}

#[test]
fn lines_and_words_are_told() {
    let outline = Outline::new("\n\nstatic __always_inline\nint f(void)\n{\n}\n").unwrap();
    assert_eq!(outline.items[0].lines, (3, 6));
    assert_eq!(outline.items[0].words, ["static", "__always_inline", "int"]);
}

#[test]
fn nesting_is_bounded() {
    assert!(Outline::new(&"(".repeat(10_000)).is_err());
    assert!(Outline::new(&"#if 1\n".repeat(10_000)).is_err());
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "(static |int |struct |f|[(){};=,*#\\\\'\"]|#if x\n|#else\n|#endif\n|/\\*|\\*/|\n|é|.){0,80}") {
        let _ = Outline::new(&text);
    }

    #[test]
    fn every_function_is_found_among_others(names in prop::collection::vec("[a-z]{3,8}_x", 1..8), shape in prop::collection::vec(0_usize..6, 8)) {
        let heads = [
            "static int NAME(int a)", "void NAME(void (*cb)(int))", "struct x *NAME(struct y *p) __must_hold(p->l)",
            "static void (*NAME(int a))(int)", "SYSCALL_DEFINE1(NAME, int, a)", "__printf(1, 2) void NAME(const char *s, ...)",
        ];
        let text: String = names.iter().zip(&shape).map(|(name, shape)| heads[*shape].replace("NAME", name) + "\n{\n\tif (x) { y(); }\n}\n").collect();
        prop_assert_eq!(functions(&text), names);
    }
}
