//! What a C file defines at its top level, as far as telling namesakes apart needs it.
//!
//! This is no parser: it walks the text's tokens at the top level, and takes a name before `(…) {` for a function and one
//! before `=`, `[` or `;` for data. A name too many or too few costs a bit of certainty, nothing else.

use std::collections::HashMap;

/// The names a file defines.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// Whether each is `static`.
    names: HashMap<String, bool>,
}

/// Kinds of entry points that the SYSCALL_DEFINE macros make of one name (include/linux/syscalls.h and the
/// architectures' asm/syscall_wrapper.h).
const SYSCALL_PREFIXES: [&str; 8] = [
    "__do_sys_",
    "__se_sys_",
    "__do_compat_sys_",
    "__se_compat_sys_",
    "__x64_sys_",
    "__ia32_sys_",
    "__arm64_sys_",
    "__s390x_sys_",
];

impl Definitions {
    pub(super) fn of(source: &str) -> Self {
        let mut scan = Scan::default();
        let mut rest = source.as_bytes();
        let mut line_start = true;
        while let [byte, tail @ ..] = rest {
            match byte {
                b'\n' => line_start = true,
                b' ' | b'\t' | b'\r' => {}
                b'#' if line_start => {
                    rest = after_directive(rest);
                    continue;
                }
                b'/' if tail.first() == Some(&b'*') => {
                    rest = after(&tail[1..], b"*/");
                    continue;
                }
                b'/' if tail.first() == Some(&b'/') => {
                    rest = &rest[rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())..];
                    continue;
                }
                b'"' | b'\'' => {
                    rest = after_literal(tail, *byte);
                    line_start = false;
                    continue;
                }
                b if b.is_ascii_alphabetic() || *b == b'_' => {
                    let len = rest
                        .iter()
                        .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_')
                        .count();
                    scan.word(&rest[..len]);
                    rest = &rest[len..];
                    line_start = false;
                    continue;
                }
                // Each branch of an #if may open a brace of its own; kernel code closes functions at the first column.
                b'}' if line_start && source.len() > rest.len() && at_column_one(source.as_bytes(), rest.len()) => {
                    scan.close_all();
                    line_start = false;
                }
                other => {
                    scan.punctuation(*other);
                    line_start = false;
                }
            }
            rest = tail;
        }
        Self { names: scan.found }
    }

    /// Whether the name is defined `static`; `None`: it is not defined here.
    pub(super) fn is_static(&self, name: &str) -> Option<bool> {
        self.names.get(name).copied()
    }
}

fn at_column_one(source: &[u8], left: usize) -> bool {
    source
        .get((source.len() - left).wrapping_sub(1))
        .is_none_or(|before| *before == b'\n')
}

fn after<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    let at = text.windows(end.len()).position(|window| window == end);
    at.map_or(&[], |at| &text[at + end.len()..])
}

fn after_literal(mut text: &[u8], quote: u8) -> &[u8] {
    loop {
        match text {
            [b'\\', _, rest @ ..] => text = rest,
            [b, rest @ ..] if *b == quote || *b == b'\n' => return rest,
            [_, rest @ ..] => text = rest,
            [] => return text,
        }
    }
}

/// A directive ends with its line, unless that ends with a backslash.
fn after_directive(mut text: &[u8]) -> &[u8] {
    loop {
        let Some(end) = text.iter().position(|b| *b == b'\n') else {
            return &[];
        };
        let goes_on = text[..end].ends_with(b"\\") || text[..end].ends_with(b"\\\r");
        text = &text[end + 1..];
        if !goes_on {
            return text;
        }
    }
}

/// Where the walk is, and what it has seen of the statement it is in.
#[derive(Default)]
struct Scan {
    found: HashMap<String, bool>,
    braces: usize,
    brackets: usize,
    statement: Statement,
}

#[derive(Default)]
struct Statement {
    last_word: Option<String>,
    /// Words before an opening bracket: one of them is the function's name, the others are attributes.
    called: Vec<String>,
    is_static: bool,
    /// It declares what is elsewhere, or a type.
    only_declares: bool,
    initialized: bool,
    is_function: bool,
    syscall: bool,
}

impl Scan {
    fn word(&mut self, word: &[u8]) {
        if self.braces > 0 {
            return;
        }
        let word = String::from_utf8_lossy(word).into_owned();
        let statement = &mut self.statement;
        if self.brackets > 0 {
            if statement.syscall {
                statement.syscall = false;
                statement
                    .called
                    .extend(SYSCALL_PREFIXES.iter().map(|prefix| format!("{prefix}{word}")));
            }
            return;
        }
        match word.as_str() {
            "static" | "STATIC" => statement.is_static = true,
            "extern" | "typedef" => statement.only_declares = true,
            _ => {}
        }
        statement.last_word = Some(word);
    }

    fn punctuation(&mut self, c: u8) {
        match c {
            b'{' => {
                if self.braces == 0 && self.brackets == 0 && !self.statement.initialized {
                    self.define_functions();
                }
                self.braces += 1;
            }
            b'}' => {
                self.braces = self.braces.saturating_sub(1);
                if self.braces == 0 && self.statement.is_function {
                    self.statement = Statement::default();
                } else if self.braces == 0 && !self.statement.initialized {
                    self.statement.last_word = None;
                }
            }
            _ if self.braces > 0 => {}
            b'(' => {
                if self.brackets == 0
                    && let Some(word) = self.statement.last_word.take()
                {
                    self.statement.syscall = word.contains("SYSCALL_DEFINE");
                    self.statement.called.push(word);
                }
                self.brackets += 1;
            }
            b')' => self.brackets = self.brackets.saturating_sub(1),
            _ if self.brackets > 0 => {}
            b'=' | b'[' | b',' => self.define_data(c == b'='),
            b';' => {
                self.define_data(false);
                self.statement = Statement::default();
            }
            _ => self.statement.last_word = None,
        }
    }

    fn close_all(&mut self) {
        let of_initializer = self.statement.initialized;
        (self.braces, self.brackets) = (0, 0);
        if !of_initializer {
            self.statement = Statement::default();
        }
    }

    fn define_functions(&mut self) {
        let is_static = self.statement.is_static;
        self.statement.is_function = !self.statement.called.is_empty();
        for name in std::mem::take(&mut self.statement.called) {
            self.found.insert(name, is_static);
        }
    }

    fn define_data(&mut self, initialized: bool) {
        let statement = &mut self.statement;
        if let Some(name) = statement.last_word.take()
            && !statement.only_declares
            && !statement.initialized
        {
            self.found.entry(name).or_insert(statement.is_static);
        }
        statement.initialized |= initialized;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn definitions_are_told_from_declarations_and_uses() {
        let source = r#"
/* static int not_this(void) { } */
#define NOR(x) \
    static int this(x) { }
#include <linux/x.h>
extern int elsewhere;
int declared(int a);
static int table[] = { one, two(3), };
static struct ops my_ops = {
	.open = my_open,
};
int counter;
static DEFINE_MUTEX(lock);
static inline int __must_check helper(int a, int (*f)(int)) { return f(a); }
static noinline int
second(void)
	__must_hold(x)
{
	if (a) { call(b); }
	return '}' + "}"[0];
}
#ifdef A
int both(int a)
{
#else
int both(int a, int b)
{
#endif
	return 1;
}
STATIC int last(void)
{
}
SYSCALL_DEFINE2(openat, int, fd)
{
}
struct tag { int member; };
static void on_one_line(void) {} int behind_it(void) {}
static struct tag { int member; } tagged = { 1 };
"#;
        let found = Definitions::of(source);
        for name in ["helper", "second", "last", "table", "my_ops", "on_one_line", "tagged"] {
            assert_eq!(found.is_static(name), Some(true), "{name}");
        }
        for name in ["both", "counter", "behind_it", "__do_sys_openat", "__x64_sys_openat"] {
            assert_eq!(found.is_static(name), Some(false), "{name}: {found:?}");
        }
        for name in [
            "not_this",
            "this",
            "elsewhere",
            "declared",
            "my_open",
            "call",
            "two",
            "member",
            "f",
            "a",
        ] {
            assert_eq!(found.is_static(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_walked_to_its_end(text in "[ab_\\n #{}()\"'/*\\\\=;,\\[é]{0,80}") {
            Definitions::of(&text);
        }
    }
}
