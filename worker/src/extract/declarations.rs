//! What a tool's C text declares at file scope: enough of the grammar to find replacements and pointers by name, and to
//! change their declarations without touching anything else.

use std::ops::Range;

use super::native::lexer::{self, Kind, Token, closing};

/// What is written in front of a function without being part of its type.
const SPECIFIERS: [&str; 12] = [
    "static",
    "extern",
    "inline",
    "__inline",
    "__inline__",
    "__always_inline",
    "noinline",
    "__init",
    "__exit",
    "asmlinkage",
    "__visible",
    "notrace",
];

/// A C text and its items at file scope.
pub struct Text<'t> {
    pub text: &'t str,
    tokens: Vec<Token>,
    items: Vec<Range<usize>>,
}

/// A directive, a declaration or a definition.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    pub text: &'a str,
    tokens: &'a [Token],
}

impl<'t> Text<'t> {
    pub fn new(text: &'t str) -> Self {
        let tokens = lexer::tokens(text);
        let items = split(text, &tokens);
        Self { text, tokens, items }
    }

    pub fn items(&self) -> impl Iterator<Item = Item<'_>> {
        self.items.iter().map(|range| Item {
            text: self.text,
            tokens: &self.tokens[range.clone()],
        })
    }

    /// The uses of these names with something in brackets behind, as the name's place and the words in the brackets.
    pub fn calls<'s>(&'s self, names: &'s [&str]) -> impl Iterator<Item = (Range<usize>, Vec<&'s str>)> {
        let (text, tokens) = (self.text, &self.tokens[..]);
        tokens.iter().enumerate().filter_map(move |(at, name)| {
            let called = name.kind == Kind::Ident
                && names.contains(&name.text(text))
                && tokens.get(at + 1).is_some_and(|t| t.text(text) == "(")
                // `struct static_key (*pointer);` declares one.
                && at.checked_sub(1).is_none_or(|b| tokens[b].text(text) != "struct");
            let end = closing(tokens, text, at + 1).filter(|_| called)?;
            let words = tokens[at + 2..end].iter().filter(|t| t.kind == Kind::Ident);
            Some((name.start..name.end, words.map(|t| t.text(text)).collect()))
        })
    }

    /// The statements and declarations without blocks in them, wherever they stand, that have a word with this beginning.
    pub fn statements<'s>(&'s self, beginning: &'s str) -> impl Iterator<Item = Range<usize>> + 's {
        let (text, tokens) = (self.text, &self.tokens[..]);
        let ends = |t: &Token| matches!(t.text(text), ";" | "{" | "}") || t.kind == Kind::Directive;
        let named = move |t: &Token| t.kind == Kind::Ident && t.text(text).starts_with(beginning);
        // Each once, or a text of nothing but such words would be gone through for each of them.
        let mut next = 0;
        tokens
            .iter()
            .enumerate()
            .filter(move |(_, t)| ends(t))
            .filter_map(move |(end, last)| {
                let start = std::mem::replace(&mut next, end + 1);
                let all = &tokens[start..end];
                (last.text(text) == ";" && all.iter().any(named)).then(|| tokens[start].start..last.end)
            })
    }

    /// The items that declare or define this function.
    pub fn functions<'s>(&'s self, name: &'s str) -> impl Iterator<Item = Item<'s>> {
        self.items().filter(move |item| item.function() == Some(name))
    }
}

/// Where items end: at a directive's end, a semicolon outside brackets, and a function body's closing brace.
fn split(text: &str, tokens: &[Token]) -> Vec<Range<usize>> {
    let mut items = Vec::new();
    let (mut start, mut at) = (0, 0);
    // Since the item's start: an argument list, and an initialiser.
    let (mut called, mut assigned) = (false, false);
    while let Some(token) = tokens.get(at) {
        let mut end = None;
        match (token.kind, token.text(text)) {
            // One within a declaration stays part of it, or half a declaration would be an item.
            (Kind::Directive, _) if at == start => end = Some(at),
            (_, ";") => end = Some(at),
            (_, "=") => assigned = true,
            (_, "(" | "[" | "{") => {
                let body = token.text(text) == "{" && called && !assigned;
                called |= token.text(text) == "(" && !follows_attribute(text, tokens, at);
                at = closing(tokens, text, at).unwrap_or(tokens.len() - 1);
                if body {
                    end = Some(at);
                }
            }
            _ => {}
        }
        if let Some(end) = end {
            items.push(start..end + 1);
            (start, called, assigned) = (end + 1, false, false);
            at = end;
        }
        at += 1;
    }
    if start < tokens.len() {
        items.push(start..tokens.len());
    }
    items
}

fn follows_attribute(text: &str, tokens: &[Token], open: usize) -> bool {
    let before = open.checked_sub(1).and_then(|i| tokens.get(i));
    before.is_some_and(|t| {
        matches!(
            t.text(text),
            "__attribute__" | "__attribute" | "typeof" | "__typeof__" | "__typeof" | "_Alignas" | "__declspec"
        )
    })
}

impl<'a> Item<'a> {
    /// The bytes it takes in the text.
    pub fn range(self) -> Range<usize> {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => 0..0,
        }
    }

    pub fn shown(self) -> &'a str {
        &self.text[self.range()]
    }

    pub fn is_directive(self) -> bool {
        self.tokens.first().is_some_and(|t| t.kind == Kind::Directive)
    }

    /// The words outside of brackets, up to a body or an initialiser, and their places.
    pub fn head_words(self) -> impl Iterator<Item = (&'a str, Range<usize>)> {
        self.head()
            .filter(|t| t.kind == Kind::Ident)
            .map(move |t| (t.text(self.text), t.start..t.end))
    }

    /// Where its attributes are that have one of these words.
    pub fn attributes(self, words: &[&str]) -> impl Iterator<Item = Range<usize>> {
        let (text, tokens) = (self.text, self.tokens);
        self.outside().filter_map(move |(at, token)| {
            if !token.text(text).starts_with("__attribute") {
                return None;
            }
            let end = closing(tokens, text, at + 1)?;
            let named = tokens[at..end].iter().any(|t| {
                let word = t.text(text);
                words.iter().any(|w| word.trim_matches('_') == *w)
            });
            named.then(|| token.start..tokens[end].end)
        })
    }

    /// Whether it says `static` in front of what it declares.
    pub fn is_static(self) -> bool {
        self.head().any(|t| t.text(self.text) == "static")
    }

    /// The tokens outside of brackets, up to a body or an initialiser.
    fn head(self) -> impl Iterator<Item = &'a Token> {
        self.outside().map(|(_, token)| token)
    }

    fn outside(self) -> impl Iterator<Item = (usize, &'a Token)> {
        let (text, tokens) = (self.text, self.tokens);
        let mut at = 0;
        std::iter::from_fn(move || {
            let (here, token) = (at, tokens.get(at)?);
            at = match token.text(text) {
                "{" | "=" => return None,
                "(" | "[" => closing(tokens, text, at).unwrap_or(tokens.len()),
                _ => at + 1,
            };
            Some((here, token))
        })
    }

    /// The function it declares or defines: the name in front of the first argument list.
    pub fn function(self) -> Option<&'a str> {
        let (name, _) = self.arguments()?;
        Some(self.tokens[name].text(self.text))
    }

    pub fn is_definition(self) -> bool {
        self.tokens.last().is_some_and(|t| t.text(self.text) == "}")
    }

    /// Where its function's name is, and the bracket behind the arguments.
    fn arguments(self) -> Option<(usize, usize)> {
        let open = self.outside().find(|(i, token)| {
            let named = i.checked_sub(1).is_some_and(|b| self.tokens[b].kind == Kind::Ident);
            let pointer = self.tokens.get(i + 1).is_some_and(|t| t.text(self.text) == "*");
            token.text(self.text) == "("
                && named
                && !follows_attribute(self.text, self.tokens, *i)
                // `int (*f)(void)`; but `f(*p)` is none at file scope.
                && !pointer
        })?;
        Some((open.0 - 1, closing(self.tokens, self.text, open.0)?))
    }

    /// The pointer it declares, as in `static int (*klpe_f)(void);`.
    pub fn pointer(self) -> Option<&'a str> {
        let open = self.outside().find(|(i, token)| {
            token.text(self.text) == "(" && self.tokens.get(i + 1).is_some_and(|t| t.text(self.text) == "*")
        })?;
        self.tokens[open.0..]
            .iter()
            .find(|t| t.kind == Kind::Ident && !matches!(t.text(self.text), "const" | "volatile"))
            .map(|t| t.text(self.text))
    }

    /// A declaration of its function for others to use, in one line.
    pub fn prototype(self) -> Option<String> {
        let (_, end) = self.arguments()?;
        let mut out = String::new();
        let mut at = 0;
        while at <= end {
            let word = self.tokens[at].text(self.text);
            if word.starts_with("__attribute") {
                at = closing(self.tokens, self.text, at + 1)? + 1;
                continue;
            }
            if !SPECIFIERS.contains(&word) {
                // Blanks are kept where the text has some, but for those that a dropped word leaves.
                let before = at.checked_sub(1).map_or(self.tokens[at].start, |b| self.tokens[b].end);
                if !out.is_empty() && before < self.tokens[at].start {
                    out.push(' ');
                }
                out.push_str(word);
            }
            at += 1;
        }
        out.push(';');
        Some(out)
    }

    /// Where its words are that bind the function to this file: `static` and what makes it inline.
    pub fn binding(self) -> impl Iterator<Item = Range<usize>> {
        self.head().filter_map(move |t| {
            let word = t.text(self.text);
            (word == "static" || word.contains("inline") && word != "noinline").then_some(t.start..t.end)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOURCE: &str = "/* from a.c */\n#include <linux/a.h>\nstruct s { int a; } __attribute__((packed));\n\
        static int klpp_f(struct s *s, int (*cb)(int));\nstatic int (*klpe_g)(struct s *);\nextern int (*klpe_g)(struct s *);\n\
        static struct s table[] = { { klpp_f(1) } };\n\
        static noinline int\nklpp_f(struct s  *s, int (*cb)(int))\n{\n\tif (s) { klpp_h(s); }\n\treturn (*klpe_g)(s);\n}\n\
        static __always_inline __attribute__((cold)) void h(void) { }\nint last";

    fn shown<'a>(items: impl Iterator<Item = Item<'a>>) -> Vec<&'a str> {
        items.map(|i| i.shown().lines().next().unwrap_or_default()).collect()
    }

    #[test]
    fn items_end_where_declarations_do() {
        let text = Text::new(SOURCE);
        assert_eq!(
            shown(text.items()),
            [
                "#include <linux/a.h>",
                "struct s { int a; } __attribute__((packed));",
                "static int klpp_f(struct s *s, int (*cb)(int));",
                "static int (*klpe_g)(struct s *);",
                "extern int (*klpe_g)(struct s *);",
                "static struct s table[] = { { klpp_f(1) } };",
                "static noinline int",
                "static __always_inline __attribute__((cold)) void h(void) { }",
                "int last",
            ]
        );
    }

    #[test]
    fn functions_and_pointers_are_told_apart() {
        let text = Text::new(SOURCE);
        let f: Vec<Item> = text.functions("klpp_f").collect();
        assert_eq!(f.iter().map(|i| i.is_definition()).collect::<Vec<_>>(), [false, true]);
        assert_eq!(text.functions("klpp_h").count(), 0, "a call declares nothing");
        let pointers: Vec<&str> = text.items().filter_map(Item::pointer).collect();
        assert_eq!(pointers, ["klpe_g", "klpe_g"]);
        assert_eq!(
            text.items().filter(|i| i.pointer().is_some() && i.is_static()).count(),
            1
        );
    }

    #[test]
    fn a_prototype_is_what_others_may_call() {
        let text = Text::new(SOURCE);
        let of = |name: &str| text.functions(name).last().and_then(Item::prototype);
        assert_eq!(
            of("klpp_f").as_deref(),
            Some("int klpp_f(struct s *s, int (*cb)(int));")
        );
        assert_eq!(of("h").as_deref(), Some("void h(void);"));
        let h = text.functions("h").next().map(|i| i.binding().count());
        assert_eq!(h, Some(2), "static and __always_inline");
    }

    proptest! {
        #[test]
        fn any_text_is_split_without_losing_a_token(text in "[ab(){};=*#\\[\\]\n\"'/ ]{0,60}") {
            let split = Text::new(&text);
            let counted: usize = split.items().map(|i| i.tokens.len()).sum();
            prop_assert_eq!(counted, split.tokens.len());
            for item in split.items() {
                let _ = (item.function(), item.pointer(), item.prototype(), item.binding().count(), item.shown());
            }
        }

        #[test]
        fn any_characters_are_taken(text in any::<String>()) {
            for item in Text::new(&text).items() {
                let _ = (item.prototype(), item.shown());
            }
        }
    }
}
