//! Tells what a top-level piece defines, from its tokens outside of brackets.

use super::{Definition, ItemKind};
use crate::fix::tokens::Tokens;

/// What a piece's first brace opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Braced {
    /// A function's body: the piece ends with it.
    Body,
    /// Members or values: a `;` follows.
    Other,
}

/// One definition in a piece.
pub(super) struct Found {
    pub kind: ItemKind,
    pub name: String,
    pub words: Vec<String>,
}

/// A token outside of brackets, or a bracket with all that is in it.
#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Word(&'a str),
    /// Its inside, as places in the list of the piece's tokens.
    Group(char, usize, usize),
    Other(char),
}

/// Words that say nothing about a type.
const STORAGE: &[&str] = &[
    "static",
    "extern",
    "inline",
    "__inline",
    "__inline__",
    "__always_inline",
    "noinline",
    "noinline_for_stack",
    "notrace",
    "noinstr",
    "asmlinkage",
    "__visible",
    "asmlinkage_visible",
    "__init",
    "__exit",
    "__cold",
    "__sched",
    "__ref",
    "__weak",
    "__used",
    "__maybe_unused",
    "__latent_entropy",
    "nokprobe_inline",
    "__cpuidle",
    "__bpf_kfunc",
    "__kprobes",
    "__meminit",
    "__cpuinit",
    "const",
    "volatile",
    "register",
    "INDIRECT_CALLABLE_SCOPE",
    "__net_init",
    "__net_exit",
    "__noreturn",
    "notrace_cpuidle",
    "__must_check",
    "__pure",
    "__lsm_ro_hook",
    "__read_mostly",
    "__ro_after_init",
    "fastcall",
];

const TYPE_WORDS: &[&str] = &[
    "void",
    "char",
    "short",
    "int",
    "long",
    "float",
    "double",
    "signed",
    "unsigned",
    "bool",
    "_Bool",
    "__signed__",
    "struct",
    "union",
    "enum",
    "typeof",
    "__typeof__",
];

const AGGREGATES: &[&str] = &["struct", "union", "enum"];

fn parts<'a>(tokens: &Tokens<'a>, list: &[usize]) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut open: Vec<(char, usize)> = Vec::new();
    for (place, at) in list.iter().enumerate() {
        match tokens.punct(*at) {
            c @ ('(' | '[' | '{') => open.push((c, place + 1)),
            c @ (')' | ']' | '}') => {
                let opener = match c {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                // What was left open inside ends with it.
                let Some(depth) = open.iter().rposition(|(open, _)| *open == opener) else {
                    continue;
                };
                let (_, start) = open[depth];
                open.truncate(depth);
                if open.is_empty() {
                    parts.push(Part::Group(opener, start, place));
                }
            }
            c if open.is_empty() => parts.push(match tokens.word(*at) {
                Some(word) => Part::Word(word),
                None => Part::Other(c),
            }),
            _ => {}
        }
    }
    if let Some((opener, start)) = open.first() {
        parts.push(Part::Group(*opener, *start, list.len()));
    }
    parts
}

/// A function's name and how it is written.
struct Named<'a> {
    name: &'a str,
    definition: Definition,
}

/// What the brace after `list` opens.
pub(super) fn braced(tokens: &Tokens<'_>, list: &[usize]) -> Braced {
    let parts = parts(tokens, list);
    let value = parts.iter().any(|part| matches!(part, Part::Other('=')));
    let typedef = matches!(parts.first(), Some(Part::Word("typedef")));
    if value || typedef || named(tokens, list, &parts).is_none() {
        Braced::Other
    } else {
        Braced::Body
    }
}

/// Whether the piece from `start` to the bracket at `end` is a macro's use that no `;` follows, such as `EXPORT_SYMBOL(x)`.
pub(super) fn is_whole_use(tokens: &Tokens<'_>, start: usize, end: usize) -> bool {
    let loud = |word: &str| word.len() > 1 && !word.bytes().any(|b| b.is_ascii_lowercase());
    tokens.word(start).is_some_and(loud)
        && tokens.begins_line(start)
        && tokens.punct(start + 1) == '('
        && tokens.begins_line(end + 1)
        && tokens.word(end + 1).is_some_and(|next| !next.starts_with("__"))
}

/// Whether these are the head and the first parameter of a definition in the style before 1989.
pub(super) fn old_style(tokens: &Tokens<'_>, list: &[usize]) -> bool {
    let parts = parts(tokens, list);
    let Some(at) = parts.iter().position(|part| matches!(part, Part::Group('(', ..))) else {
        return false;
    };
    let Part::Group(_, start, end) = parts[at] else {
        return false;
    };
    let names_only = list[start..end]
        .iter()
        .all(|at| tokens.word(*at).is_some() || tokens.punct(*at) == ',');
    let typed = at >= 2 && matches!(parts[at - 1], Part::Word(_));
    names_only && typed && matches!(parts.get(at + 1), Some(Part::Word(_))) && parts.len() >= at + 3
}

/// The function that a head names, if it is a function's.
fn named<'a>(tokens: &Tokens<'a>, list: &[usize], parts: &[Part<'a>]) -> Option<Named<'a>> {
    let mut by_macro = None;
    let mut unsure = None;
    // Where the words that belong to the next candidate begin.
    let mut since = 0;
    for (at, part) in parts.iter().enumerate() {
        let Part::Group('(', start, end) = *part else { continue };
        let inside = &list[start..end];
        if let Some(name) = nested_name(tokens, inside, parts.get(at + 1)) {
            return Some(plain(name));
        }
        let Some(Part::Word(word)) = at.checked_sub(1).map(|before| parts[before]) else {
            continue;
        };
        if word.starts_with("__attribute") || word == "asm" || word == "__asm__" || TYPE_WORDS.contains(&word) {
            continue;
        }
        if defines(word).is_some() {
            return made_by_macro(tokens, word, inside);
        }
        let before = &parts[since..at - 1];
        let mut others = before.iter().filter_map(|part| match part {
            Part::Word(word) => Some(*word),
            _ => None,
        });
        let typed = before.iter().any(|part| matches!(part, Part::Other('*')))
            || others.clone().any(|word| !STORAGE.contains(&word));
        let loud = !word.bytes().any(|b| b.is_ascii_lowercase());
        let wrapped = !typed || (loud && others.all(|word| STORAGE.contains(&word) || word.starts_with("__")));
        if wrapped {
            // Only the first can be the definition; a later one is an attribute, or the true function after a macro's use.
            if since == 0 {
                by_macro = Some((word, inside));
            }
            since = at + 1;
        } else if is_parameters(tokens, inside) {
            return Some(plain(word));
        } else if unsure.is_none() {
            unsure = Some(word);
        }
    }
    if let Some((by, inside)) = by_macro {
        return made_by_macro(tokens, by, inside);
    }
    // Parameters that look like none: a macro's, or names only, as before 1989.
    let aggregate = parts
        .iter()
        .any(|part| matches!(part, Part::Word(word) if AGGREGATES.contains(word)));
    let ends_in_word = matches!(parts.last(), Some(Part::Word(_)));
    unsure.filter(|_| !(aggregate && ends_in_word)).map(plain)
}

fn plain(name: &str) -> Named<'_> {
    Named {
        name,
        definition: Definition::Plain,
    }
}

fn made_by_macro<'a>(tokens: &Tokens<'a>, by: &str, inside: &[usize]) -> Option<Named<'a>> {
    // Data for each CPU has its type first.
    let skipped = usize::from(by.contains("PER_CPU"));
    let mut arguments = inside.split(|at| tokens.punct(*at) == ',').skip(skipped);
    let name = arguments.next()?.first().and_then(|at| tokens.word(*at))?;
    let definition = defines(by).unwrap_or_else(|| Definition::Macro { by: by.to_owned() });
    Some(Named { name, definition })
}

/// What a known macro with a number of parameters in its name defines.
fn defines(by: &str) -> Option<Definition> {
    match by.strip_suffix(|c: char| c.is_ascii_digit())? {
        "SYSCALL_DEFINE" | "SYSCALL32_DEFINE" => Some(Definition::Syscall { compat: false }),
        "COMPAT_SYSCALL_DEFINE" => Some(Definition::Syscall { compat: true }),
        // A function of just that name.
        "BPF_CALL_" => Some(Definition::Plain),
        _ => None,
    }
}

/// The name in `(*name(parameters))(...)`, a function that returns a pointer to one, or in `(name)(parameters)`.
fn nested_name<'a>(tokens: &Tokens<'a>, inside: &[usize], next: Option<&Part<'_>>) -> Option<&'a str> {
    if !matches!(next, Some(Part::Group('(' | '[', ..))) {
        return None;
    }
    if let [only] = inside {
        return tokens
            .word(*only)
            .filter(|word| !TYPE_WORDS.contains(word) && matches!(next, Some(Part::Group('(', ..))));
    }
    if inside.first().is_none_or(|at| tokens.punct(*at) != '*') {
        return None;
    }
    let parts = parts(tokens, inside);
    parts.windows(2).find_map(|pair| match pair {
        [Part::Word(name), Part::Group('(', ..)] => Some(*name),
        _ => None,
    })
}

/// Whether a bracket holds parameters, not an attribute's or a macro's arguments.
fn is_parameters(tokens: &Tokens<'_>, inside: &[usize]) -> bool {
    let parts = parts(tokens, inside);
    if parts.is_empty() {
        return true;
    }
    parts.split(|part| matches!(part, Part::Other(','))).any(|one| {
        let (mut words, mut type_word, mut stars) = (0, false, 0);
        for part in one {
            match part {
                Part::Word(word) => {
                    words += 1;
                    type_word |= TYPE_WORDS.contains(word);
                }
                Part::Other('*') if words > 0 => stars += 1,
                Part::Group('(' | '[', ..) => {}
                _ => return false,
            }
        }
        words >= 2 || type_word || (words == 1 && stars > 0)
    })
}

/// What a whole piece defines; `body` is where a function's body begins.
pub(super) fn classify(tokens: &Tokens<'_>, list: &[usize], body: Option<usize>) -> Vec<Found> {
    let one = |kind, name: &str| {
        vec![Found {
            kind,
            name: name.to_owned(),
            words: Vec::new(),
        }]
    };
    if let Some(body) = body {
        let head: Vec<usize> = list.iter().copied().filter(|at| *at < body).collect();
        let parts = parts(tokens, &head);
        let Some(Named { name, definition }) = named(tokens, &head, &parts) else {
            return one(ItemKind::Other, "");
        };
        let words = parts.iter().filter_map(|part| match part {
            Part::Word(word) if *word != name => Some((*word).to_owned()),
            _ => None,
        });
        return vec![Found {
            kind: ItemKind::Function(definition),
            name: name.to_owned(),
            words: words.collect(),
        }];
    }
    let all = parts(tokens, list);
    let first = match all.first() {
        Some(Part::Word(word)) => *word,
        _ => return one(ItemKind::Other, ""),
    };
    if matches!(first, "asm" | "__asm__" | "asm_volatile_goto") {
        return one(ItemKind::Asm, "");
    }
    let mut found = Vec::new();
    if let Some((kind, tag, after)) = aggregate(tokens, list, &all) {
        let is_typedef = first == "typedef";
        if !tag.is_empty() || !is_typedef {
            found.extend(one(kind, &tag));
        }
        let rest = &all[after..];
        if rest
            .iter()
            .any(|part| matches!(part, Part::Word(word) if !word.starts_with("__")))
        {
            let kind = if is_typedef {
                ItemKind::Typedef
            } else {
                ItemKind::Variable
            };
            found.extend(
                declared(tokens, list, rest)
                    .into_iter()
                    .flat_map(|name| one(kind.clone(), &name)),
            );
        }
        return found;
    }
    if first == "typedef" {
        let names = declared(tokens, list, &all[1..]);
        return names
            .into_iter()
            .flat_map(|name| one(ItemKind::Typedef, &name))
            .collect();
    }
    let value = all.iter().position(|part| matches!(part, Part::Other('=')));
    let head = &all[..value.unwrap_or(all.len())];
    if value.is_none()
        && let Some(Named { name, definition }) = named(tokens, list, head)
    {
        return match definition {
            Definition::Plain if !head.iter().any(|part| matches!(part, Part::Group('{', ..))) => {
                one(ItemKind::Prototype, name)
            }
            Definition::Macro { by } => one(ItemKind::MacroUse { of: by }, name),
            _ => one(ItemKind::Other, name),
        };
    }
    if let Some((of, name)) = macro_use(tokens, list, head) {
        return one(ItemKind::MacroUse { of }, &name);
    }
    let names = declared(tokens, list, &all);
    if names.is_empty() {
        return one(ItemKind::Other, "");
    }
    names
        .into_iter()
        .flat_map(|name| one(ItemKind::Variable, &name))
        .collect()
}

/// `struct tag { ... }` in a piece: what it is, its tag (an enum without one is named by its first value), and what follows.
fn aggregate(tokens: &Tokens<'_>, list: &[usize], all: &[Part<'_>]) -> Option<(ItemKind, String, usize)> {
    let at = all
        .iter()
        .take_while(|part| !matches!(part, Part::Other('=')))
        .position(|part| matches!(part, Part::Word(word) if AGGREGATES.contains(word)))?;
    let brace = all[at..]
        .iter()
        .take_while(|part| !matches!(part, Part::Other('=' | ',')))
        .position(|part| matches!(part, Part::Group('{', ..)))?;
    let kind = match all[at] {
        Part::Word("struct") => ItemKind::Struct,
        Part::Word("union") => ItemKind::Union,
        _ => ItemKind::Enum,
    };
    let tag = all[at + 1..at + brace].iter().rev().find_map(|part| match part {
        Part::Word(word) if !word.starts_with("__") => Some((*word).to_owned()),
        _ => None,
    });
    let first_value = || match all[at + brace] {
        Part::Group(_, start, end) if kind == ItemKind::Enum => list[start..end]
            .iter()
            .find_map(|at| tokens.word(*at))
            .map(str::to_owned),
        _ => None,
    };
    let tag = tag.or_else(first_value).unwrap_or_default();
    Some((kind, tag, at + brace + 1))
}

/// `DEFINE_MUTEX(x)`, perhaps behind `static`.
fn macro_use(tokens: &Tokens<'_>, list: &[usize], head: &[Part<'_>]) -> Option<(String, String)> {
    let at = head
        .iter()
        .position(|part| !matches!(part, Part::Word(word) if STORAGE.contains(word)))?;
    let (Part::Word(of), Some(Part::Group('(', start, end))) = (head[at], head.get(at + 1)) else {
        return None;
    };
    let pointer = list.get(*start).is_some_and(|at| tokens.punct(*at) == '*');
    if TYPE_WORDS.contains(&of) || (pointer && matches!(head.get(at + 2), Some(Part::Group('(', ..)))) {
        return None;
    }
    let first: String = list[*start..*end]
        .iter()
        .take_while(|at| tokens.punct(**at) != ',')
        .map(|at| tokens.text(*at))
        .collect();
    Some((of.to_owned(), first.chars().take(100).collect()))
}

/// The names a declaration declares.
fn declared(tokens: &Tokens<'_>, list: &[usize], parts: &[Part<'_>]) -> Vec<String> {
    let one = |parts: &[Part<'_>]| -> Option<String> {
        let head = parts.iter().take_while(|part| !matches!(part, Part::Other('=' | ':')));
        let words: Vec<&str> = head
            .clone()
            .filter_map(|part| match part {
                Part::Word(word) if !TYPE_WORDS.contains(word) && !STORAGE.contains(word) => Some(*word),
                _ => None,
            })
            .collect();
        // A pointer to a function has its name in the first bracket.
        let pointer = head.clone().find_map(|part| match part {
            Part::Group('(', start, end) if tokens.punct(*list.get(*start)?) == '*' => {
                list[*start..*end].iter().rev().find_map(|at| tokens.word(*at))
            }
            _ => None,
        });
        pointer
            .or_else(|| words.iter().rev().find(|word| !word.starts_with("__")).copied())
            .or(words.last().copied())
            .map(str::to_owned)
    };
    let parts = parts.strip_suffix(&[Part::Other(';')][..]).unwrap_or(parts);
    parts
        .split(|part| matches!(part, Part::Other(',')))
        .filter_map(one)
        .collect()
}

impl PartialEq for Part<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Part::Word(a), Part::Word(b)) => a == b,
            (Part::Other(a), Part::Other(b)) => a == b,
            (Part::Group(a, b, c), Part::Group(d, e, f)) => (a, b, c) == (d, e, f),
            _ => false,
        }
    }
}
