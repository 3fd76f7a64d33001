//! Changes to text at the level of tokens: renaming in expanded text, splitting declarations, tests of static keys.

use std::collections::{BTreeMap, BTreeSet};

use super::files::SourceFile;
use super::lexer::{Kind, Token, closing, tokens};

/// Replaces names in text that came out of the preprocessor; members, tags and labels of the same name are left alone.
pub fn rename(text: &str, renames: &BTreeMap<String, String>) -> String {
    let all = tokens(text);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (i, t) in all.iter().enumerate() {
        if t.kind != Kind::Ident {
            continue;
        }
        let Some(to) = renames.get(t.text(text)) else { continue };
        let before = i.checked_sub(1).map_or("", |p| all[p].text(text));
        if matches!(before, "." | "->" | "struct" | "union" | "enum" | "goto") {
            continue;
        }
        out.push_str(&text[done..t.start]);
        out.push_str(to);
        done = t.end;
    }
    out.push_str(&text[done..]);
    out
}

/// The top-level declarations of expanded text.
pub fn split(text: &str) -> Vec<&str> {
    let all = tokens(text);
    let mut out = Vec::new();
    let (mut start, mut i) = (0, 0);
    // Whether the declaration so far has a declarator's parentheses, and an initialiser.
    let (mut parens, mut init) = (false, false);
    while i < all.len() {
        match all[i].text(text) {
            "(" => {
                let word = i.checked_sub(1).map_or("", |p| all[p].text(text));
                parens |= !matches!(
                    word,
                    "__attribute__" | "__attribute" | "typeof" | "__typeof__" | "_Alignas" | "asm" | "__asm__"
                );
                i = closing(&all, text, i).unwrap_or(all.len());
            }
            "=" => init = true,
            "{" => {
                let close = closing(&all, text, i).unwrap_or(all.len() - 1);
                if parens && !init {
                    out.push(text[start..all[close].end].trim());
                    start = all[close].end;
                    (parens, init) = (false, false);
                }
                i = close;
            }
            ";" => {
                out.push(text[start..all[i].end].trim());
                start = all[i].end;
                (parens, init) = (false, false);
            }
            _ => {}
        }
        i += 1;
    }
    if !text[start..].trim().is_empty() {
        out.push(text[start..].trim());
    }
    out.retain(|d| *d != ";");
    out
}

/// The names a declaration may declare: identifiers outside brackets, before its initialiser.
pub fn declared(text: &str) -> BTreeSet<&str> {
    let all = tokens(text);
    let mut names = BTreeSet::new();
    let mut i = 0;
    while i < all.len() {
        match all[i].text(text) {
            "(" | "[" | "{" => i = closing(&all, text, i).unwrap_or(all.len()),
            "=" => break,
            word if all[i].kind == Kind::Ident => {
                names.insert(word);
            }
            _ => {}
        }
        i += 1;
    }
    names
}

/// Takes `static` and `inline` off a function's declaration.
pub fn expose(text: &str) -> String {
    let all = tokens(text);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for t in &all {
        match t.text(text) {
            "(" => {
                // Attributes come in parentheses before the name; the first other parenthesis is the parameter list.
                let head = text[..t.start].trim_end();
                if !head.ends_with("__attribute__") && !head.ends_with('(') {
                    break;
                }
            }
            "static" | "inline" | "__inline" | "__inline__" => {
                out.push_str(&text[done..t.start]);
                done = t.end;
            }
            _ => {}
        }
    }
    out.push_str(&text[done..]);
    without_always_inline(out.trim_start())
}

fn without_always_inline(text: &str) -> String {
    let mut out = text.to_owned();
    for a in [
        "__attribute__((__always_inline__))",
        "__attribute__((always_inline))",
        "__attribute__((__gnu_inline__))",
    ] {
        out = out.replacen(a, "", 1);
    }
    out
}

/// The range of the declaration statement around a place in a function's body, if it is `static` and declares one thing only.
pub fn statement(file: &SourceFile, at: usize) -> Option<(usize, usize)> {
    let (text, all) = (file.text(), file.tokens());
    let here = all.partition_point(|t| t.end <= at);
    let mut depth = 0i32;
    let mut start = here;
    while start > 0 {
        match all[start - 1].text(text) {
            "}" | ")" => depth += 1,
            "{" | "(" if depth == 0 => break,
            "{" | "(" => depth -= 1,
            ";" if depth == 0 => break,
            _ if all[start - 1].kind == Kind::Directive => return None,
            _ => {}
        }
        // The end of a block in front of the declaration, not of a structure in it.
        if all[start - 1].text(text) == "}" && depth == 1 && all.get(start).is_some_and(|t| t.text(text) == "static") {
            break;
        }
        start -= 1;
    }
    (all.get(start)?.text(text) == "static").then_some(())?;
    let mut i = start;
    loop {
        match all.get(i)?.text(text) {
            "(" | "[" | "{" => i = closing(all, text, i)?,
            "," => return None,
            ";" => return Some((all[start].start, all[i].end)),
            _ => {}
        }
        i += 1;
    }
}

/// Tests of static keys compile to jumps that need the key's address when linking. Those of a `klpe_` key become tests of its
/// count at run time. Returns the text and whether it needs [`BRANCH_HELPER`].
pub fn run_time_keys(text: &str) -> (String, bool) {
    let all = tokens(text);
    let mut out = String::with_capacity(text.len());
    let (mut done, mut helper) = (0, false);
    for (i, t) in all.iter().enumerate() {
        let word = t.text(text);
        let to = match word {
            "static_branch_likely"
            | "static_branch_unlikely"
            | "static_key_false"
            | "static_key_true"
            | "static_branch_maybe" => "static_key_enabled",
            "arch_static_branch" | "arch_static_branch_jump" => "klpr_static_branch",
            _ => continue,
        };
        if t.start < done || all.get(i + 1).is_none_or(|n| n.text(text) != "(") {
            continue;
        }
        let Some(close) = closing(&all, text, i + 1) else {
            continue;
        };
        if !reaches_pointer(&all[i + 1..close], text) {
            continue;
        }
        out.push_str(&text[done..t.start]);
        out.push_str(to);
        done = t.end;
        helper |= to == "klpr_static_branch";
        if word == "static_branch_maybe"
            && let Some(comma) = all[i + 1..close].iter().find(|t| t.text(text) == ",")
        {
            out.push('(');
            done = comma.end;
        }
    }
    out.push_str(&text[done..]);
    (out, helper)
}

/// Drops the variables by which static calls keep their keys alive where the key is behind a pointer: an address known only at
/// run time can't initialise them, and nothing needs them.
pub fn without_addressable(text: &str) -> String {
    let all = tokens(text);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (i, t) in all.iter().enumerate() {
        if t.kind != Kind::Ident || t.start < done || !t.text(text).starts_with("__UNIQUE_ID___addressable_") {
            continue;
        }
        let start = all[..i]
            .iter()
            .rposition(|t| matches!(t.text(text), ";" | "{" | "}"))
            .map_or(0, |p| p + 1);
        let Some(end) = all[i..].iter().position(|t| t.text(text) == ";").map(|n| i + n) else {
            continue;
        };
        if all[start].start >= done && reaches_pointer(&all[start..end], text) {
            out.push_str(&text[done..all[start].start]);
            done = all[end].end;
        }
    }
    out.push_str(&text[done..]);
    out
}

fn reaches_pointer(inside: &[Token], text: &str) -> bool {
    inside
        .iter()
        .any(|t| t.kind == Kind::Ident && t.text(text).starts_with("klpe_"))
}

/// What a jump on a static key yields, worked out at run time.
pub const BRANCH_HELPER: &str = "static inline bool klpr_static_branch(struct static_key *key, bool branch)\n{\n\treturn (static_key_count(key) > 0) ^ branch;\n}";

/// What an empty static call does.
pub const NOP_HELPER: &str = "static void klpr_static_call_nop(void)\n{\n}";

/// `static_call(x)` of a key that is external: through the key's function pointer.
pub fn static_call(raw: &str, renames: &BTreeMap<String, String>, nop: &mut bool) -> Option<String> {
    let (word, rest) = raw.split_once('(')?;
    let name = rest.trim_end().strip_suffix(')')?.trim();
    let through = |to: &str| format!("(&{to})");
    let trampoline = format!("__SCT__{name}");
    let to = renames.get(&trampoline).cloned().unwrap_or(trampoline);
    match word.trim() {
        "static_call" | "static_call_mod" => Some(through(&to)),
        "static_call_cond" => {
            *nop = true;
            Some(format!(
                "(klpe___SCK__{name}->func ? (&{to}) : (typeof(&{to}))klpr_static_call_nop)"
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_tags_keep_their_names() {
        let map = BTreeMap::from([("f".to_owned(), "(*klpe_f)".to_owned())]);
        assert_eq!(
            rename("f(a->f, b.f, struct f *p, \"f\")", &map),
            "(*klpe_f)(a->f, b.f, struct f *p, \"f\")"
        );
    }

    #[test]
    fn declarations_are_split_at_their_ends() {
        let text = "static int f(int a); struct s { int x; } v = { 1 }; __attribute__((unused)) static inline int f(int a) { if (a) { return 1; } return 2; } int g;";
        let parts = split(text);
        assert_eq!(parts.len(), 4, "{parts:?}");
        assert!(parts[1].ends_with("{ 1 };") && declared(parts[1]).contains("v"));
        assert!(parts[2].ends_with("return 2; }") && declared(parts[2]).contains("f"));
        assert!(!expose(parts[2]).contains("static") && !expose(parts[2]).contains("inline int"));
    }

    #[test]
    fn only_keys_behind_pointers_are_tested_at_run_time() {
        let (text, helper) = run_time_keys(
            "if (static_branch_unlikely(&(*klpe_k)) && static_branch_unlikely(&k)) x = arch_static_branch(&(*klpe_k).key, false);",
        );
        assert_eq!(
            text,
            "if (static_key_enabled(&(*klpe_k)) && static_branch_unlikely(&k)) x = klpr_static_branch(&(*klpe_k).key, false);"
        );
        assert!(helper);
    }
}
