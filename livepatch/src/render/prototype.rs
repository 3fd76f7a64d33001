//! Declarations of the replacements that anybody can include, though their types may be known to the kernel's source only.

use std::collections::BTreeSet;

use crate::report::PatchedFunction;

/// Words a declaration may hold that need nothing declared.
const KEYWORDS: [&str; 10] = [
    "void", "char", "short", "int", "long", "signed", "unsigned", "float", "double", "_Bool",
];

/// Words that may stand before, after or among them.
const QUALIFIERS: [&str; 5] = ["const", "volatile", "restrict", "inline", "extern"];

/// Types that `<linux/types.h>` declares.
const TYPES: [&str; 62] = [
    "__be16",
    "__be32",
    "__be64",
    "__le16",
    "__le32",
    "__le64",
    "__poll_t",
    "__s16",
    "__s32",
    "__s64",
    "__s8",
    "__sum16",
    "__u16",
    "__u32",
    "__u64",
    "__u8",
    "__wsum",
    "atomic64_t",
    "atomic_t",
    "blkcnt_t",
    "bool",
    "clockid_t",
    "dev_t",
    "dma_addr_t",
    "fmode_t",
    "gfp_t",
    "gid_t",
    "int16_t",
    "int32_t",
    "int64_t",
    "int8_t",
    "ino_t",
    "irq_hw_number_t",
    "key_t",
    "loff_t",
    "mode_t",
    "nlink_t",
    "off_t",
    "pgoff_t",
    "phys_addr_t",
    "pid_t",
    "ptrdiff_t",
    "resource_size_t",
    "s16",
    "s32",
    "s64",
    "s8",
    "sector_t",
    "size_t",
    "slab_flags_t",
    "ssize_t",
    "timer_t",
    "u16",
    "u32",
    "u64",
    "u8",
    "uid_t",
    "uint16_t",
    "uint32_t",
    "uint64_t",
    "uint8_t",
    "umode_t",
];

/// What to declare: tags to name beforehand, and the declarations, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Declarations {
    /// `struct snd_pcm`, `enum x`.
    pub tags: BTreeSet<String>,
    pub prototypes: BTreeSet<String>,
    /// Declared without their types, which only their own sources know.
    pub opaque: BTreeSet<String>,
}

pub fn declarations<'a>(patched: impl IntoIterator<Item = &'a PatchedFunction>) -> Declarations {
    let mut all = Declarations::default();
    for function in patched {
        let replacement = function.replacement.as_str();
        match tags(&function.prototype, replacement) {
            Some(tags) => {
                all.tags.extend(tags);
                all.prototypes.insert(function.prototype.clone());
            }
            None => drop(all.opaque.insert(format!("void {replacement}(void);"))),
        }
    }
    all
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(char),
}

/// The tags a prototype uses; `None` if it is none of a plain kind, or uses a type that must be declared elsewhere.
fn tags(prototype: &str, function: &str) -> Option<BTreeSet<String>> {
    let tokens = tokens(prototype)?;
    let mut tags = BTreeSet::new();
    // Whether the declaration at hand has a type, and a name.
    let (mut typed, mut named) = (false, false);
    let mut functions = 0;
    let mut rest = tokens.iter().copied().peekable();
    while let Some(token) = rest.next() {
        match token {
            Token::Word("struct" | "union" | "enum") => {
                let Token::Word(kind) = token else { return None };
                let Some(Token::Word(tag)) = rest.next() else {
                    return None;
                };
                tags.insert(format!("{kind} {tag}"));
                typed = true;
            }
            Token::Word(word) if KEYWORDS.contains(&word) => typed = true,
            Token::Word(word) if QUALIFIERS.contains(&word) => {}
            Token::Word(word) if word == function && typed && !named => {
                functions += 1;
                named = true;
            }
            Token::Word(word) if !typed && TYPES.contains(&word) => typed = true,
            Token::Word(word) if typed && !named && word.starts_with(|c: char| !c.is_ascii_digit()) => named = true,
            Token::Word(word) if named && word.bytes().all(|b| b.is_ascii_digit()) => {}
            Token::Word(_) => return None,
            // A pointer to a function keeps the type that stands before it; a list of parameters starts anew.
            Token::Sign('(') if rest.peek() == Some(&Token::Sign('*')) => {}
            Token::Sign('(' | ',') => (typed, named) = (false, false),
            Token::Sign(_) => {}
        }
    }
    let ends =
        tokens.last() == Some(&Token::Sign(';')) && tokens.iter().filter(|t| **t == Token::Sign(';')).count() == 1;
    (functions == 1 && ends).then_some(tags)
}

/// `None` if there is anything that a prototype has not.
fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        if word > 0 {
            tokens.push(Token::Word(&rest[..word]));
            rest = &rest[word..];
            continue;
        }
        match c {
            ' ' => {}
            '(' | ')' | '[' | ']' | ',' | '*' | ';' | '.' => tokens.push(Token::Sign(c)),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(prototype: &str) -> Option<Vec<String>> {
        tags(prototype, "klpp_f").map(|tags| tags.into_iter().collect())
    }

    #[test]
    fn types_of_the_source_alone_are_found_out() {
        assert_eq!(known("int klpp_f(void);"), Some(vec![]));
        assert_eq!(
            known("struct a *klpp_f(const struct b **x, enum c, u32 n, unsigned long v[4], ...);"),
            Some(vec!["enum c".into(), "struct a".into(), "struct b".into()])
        );
        assert_eq!(
            known("int klpp_f(int (*act)(struct d *, void *), const u8 *const p, size_t);"),
            Some(vec!["struct d".into()])
        );
        for other in [
            "snd_pcm_uframes_t klpp_f(void);",
            "int klpp_f(netdev_tx_t x);",
            "int klpp_f(int x, pte_t *);",
            "int klpp_f(int x[MAX]);",
            "typeof(x) klpp_f(void);",
            "int klpp_g(void);",
            "int klpp_f(void)",
            "int klpp_f(void); int x;",
            "int klpp_f(void);\n#error",
            "int klpp_f(void) /* */;",
            "",
        ] {
            assert_eq!(known(other), None, "{other}");
        }
    }
}
