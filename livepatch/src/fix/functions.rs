//! What differs between two versions of a C file: the functions, and whatever else, by name.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize};

use super::outline::{Definition, Item, ItemKind, Outline, OutlineError};
use super::syscalls::{self, Role, Symbol};
use crate::Arch;

/// How many users all changed things of a file are told with.
const MAX_USERS: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Added,
    Changed,
    Removed,
}

/// How a function came to be defined; see [`Definition`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Made {
    Plain,
    Syscall { compat: bool },
    Macro { by: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFunction {
    /// As it stands in the source; a system call's is the macro's first argument.
    pub name: String,
    pub made: Made,
    pub change: Change,
    /// Parameters, result or attributes changed, or the `#if`s around it.
    pub head: bool,
    /// `static`, `__init`, `notrace` and the like, from the newer version.
    pub words: Vec<String>,
    /// In the new version, or the old if it is gone.
    pub line: usize,
}

impl ChangedFunction {
    /// What a livepatch has to replace on an architecture.
    pub fn symbols(&self, arch: Arch) -> Vec<Symbol> {
        let one = |role| {
            vec![Symbol {
                name: self.name.clone(),
                role,
            }]
        };
        match &self.made {
            Made::Plain => one(Role::Entry),
            Made::Syscall { compat } => syscalls::symbols(&self.name, *compat, arch),
            Made::Macro { .. } => one(Role::Unsure),
        }
    }

    pub fn has_word(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }
}

/// What was changed that is no function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thing {
    Struct,
    Union,
    Enum,
    Typedef,
    Variable,
    Macro,
    MacroUse,
    Prototype,
    Include,
    Asm,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedThing {
    pub thing: Thing,
    /// Empty where it has none.
    pub name: String,
    /// The macro that is used, for [`Thing::MacroUse`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
    pub change: Change,
    pub line: usize,
    /// The file's functions that mention it: they behave differently though their own text is the same.
    pub used_by: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    pub functions: Vec<ChangedFunction>,
    pub things: Vec<ChangedThing>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.things.is_empty()
    }
}

type Key<'i> = (&'i str, &'i str, String);

/// Compares two versions of a file. Comments, spaces and the order of definitions make no difference.
///
/// # Errors
/// If one of them is beyond the parser's limits.
pub fn compare(old: &str, new: &str) -> Result<Changes, OutlineError> {
    let (old, new) = (Outline::new(old)?, Outline::new(new)?);
    let (mut before, mut after) = (by_key(&old), by_key(&new));
    let keys: BTreeSet<Key<'_>> = before.keys().chain(after.keys()).cloned().collect();
    let mut changes = Changes::default();
    for key in keys {
        let (mut a, mut b) = (
            before.remove(&key).unwrap_or_default(),
            after.remove(&key).unwrap_or_default(),
        );
        leave_out_equals(&mut a, &old, &mut b, &new);
        let pairs = a.len().min(b.len());
        for (x, y) in a.iter().zip(&b) {
            let head = x.condition != y.condition || !old.same_text(&x.head, &new, &y.head);
            add(&mut changes, y, Change::Changed, head);
        }
        for x in &a[pairs..] {
            add(&mut changes, x, Change::Removed, true);
        }
        for y in &b[pairs..] {
            add(&mut changes, y, Change::Added, true);
        }
    }
    let (before, after) = (users(&old), users(&new));
    let mut room = MAX_USERS;
    for thing in &mut changes.things {
        if matches!(thing.thing, Thing::Include | Thing::Other | Thing::Asm) || thing.name.is_empty() {
            continue;
        }
        let users = if thing.change == Change::Removed {
            &before
        } else {
            &after
        };
        let users = users.get(thing.name.as_str()).map_or(&[][..], Vec::as_slice);
        thing.used_by = users.iter().take(room).map(|item| item.name.clone()).collect();
        room -= thing.used_by.len();
    }
    changes.functions.sort_by_key(|f| f.line);
    changes.things.sort_by_key(|t| t.line);
    Ok(changes)
}

/// Takes from both what has the same text under the same conditions in each, one for one.
fn leave_out_equals(a: &mut Vec<&Item>, old: &Outline<'_>, b: &mut Vec<&Item>, new: &Outline<'_>) {
    let hasher = RandomState::new();
    let hash = |outline: &Outline<'_>, item: &Item| {
        let texts = item.tokens.clone().map(|at| outline.tokens.text(at));
        hasher.hash_one((item.condition, texts.collect::<Vec<_>>()))
    };
    let mut places: HashMap<u64, VecDeque<usize>> = HashMap::new();
    for (at, y) in b.iter().enumerate() {
        places.entry(hash(new, y)).or_default().push_back(at);
    }
    let mut taken = vec![false; b.len()];
    a.retain(|x| {
        let same = |y: &Item| x.condition == y.condition && old.same_text(&x.tokens, new, &y.tokens);
        let Some(places) = places.get_mut(&hash(old, x)) else {
            return true;
        };
        match places.front() {
            Some(at) if same(b[*at]) => {
                taken[*at] = true;
                places.pop_front();
                false
            }
            _ => true,
        }
    });
    let mut taken = taken.into_iter();
    b.retain(|_| taken.next() != Some(true));
}

/// The functions that mention each word.
fn users<'o>(outline: &'o Outline<'_>) -> HashMap<&'o str, Vec<&'o Item>> {
    let mut users: HashMap<&str, Vec<&Item>> = HashMap::new();
    for item in outline.functions() {
        let words: BTreeSet<&str> = outline.words(item).map(|(word, _)| word).collect();
        for word in words {
            users.entry(word).or_default().push(item);
        }
    }
    users
}

fn by_key<'o>(outline: &'o Outline<'_>) -> BTreeMap<Key<'o>, Vec<&'o Item>> {
    let mut map: BTreeMap<Key<'_>, Vec<&Item>> = BTreeMap::new();
    for item in &outline.items {
        map.entry(key(item)).or_default().push(item);
    }
    map
}

/// Items of one key are versions of one thing. A function stays the same one when a macro comes to define it.
fn key(item: &Item) -> Key<'_> {
    let (kind, detail) = match &item.kind {
        ItemKind::Function(Definition::Syscall { compat: true }) => ("compat syscall", String::new()),
        ItemKind::Function(Definition::Syscall { compat: false }) => ("syscall", String::new()),
        ItemKind::Function(_) => ("function", String::new()),
        ItemKind::MacroUse { of } => ("use", of.clone()),
        other => (thing(other).0, String::new()),
    };
    (kind, &item.name, detail)
}

fn thing(kind: &ItemKind) -> (&'static str, Thing) {
    match kind {
        ItemKind::Struct => ("struct", Thing::Struct),
        ItemKind::Union => ("union", Thing::Union),
        ItemKind::Enum => ("enum", Thing::Enum),
        ItemKind::Typedef => ("typedef", Thing::Typedef),
        ItemKind::Variable => ("variable", Thing::Variable),
        ItemKind::Macro => ("macro", Thing::Macro),
        ItemKind::MacroUse { .. } => ("use", Thing::MacroUse),
        ItemKind::Prototype => ("prototype", Thing::Prototype),
        ItemKind::Include => ("include", Thing::Include),
        ItemKind::Asm => ("asm", Thing::Asm),
        ItemKind::Other | ItemKind::Function(_) => ("other", Thing::Other),
    }
}

fn add(changes: &mut Changes, item: &Item, change: Change, head: bool) {
    let ItemKind::Function(definition) = &item.kind else {
        let of = match &item.kind {
            ItemKind::MacroUse { of } => of.clone(),
            _ => String::new(),
        };
        changes.things.push(ChangedThing {
            thing: thing(&item.kind).1,
            name: item.name.clone(),
            of,
            change,
            line: item.lines.0,
            used_by: Vec::new(),
        });
        return;
    };
    changes.functions.push(ChangedFunction {
        name: item.name.clone(),
        made: match definition {
            Definition::Plain => Made::Plain,
            Definition::Syscall { compat } => Made::Syscall { compat: *compat },
            Definition::Macro { by } => Made::Macro { by: by.clone() },
        },
        change,
        head,
        words: item.words.clone(),
        line: item.lines.0,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(changes: &Changes) -> Vec<(&str, Change)> {
        changes.functions.iter().map(|f| (f.name.as_str(), f.change)).collect()
    }

    #[test]
    fn only_what_changed_is_named() {
        let old = "int a(void) { return 1; }\nint b(void) { return 2; }\nint gone(void) { return 0; }\n";
        let new = "/* moved */\nint b(void)\n{\n\treturn 3; /* fixed */\n}\nint a(void) { return 1; }\nint fresh(void) { return 0; }\n";
        let changes = compare(old, new).unwrap();
        assert_eq!(
            names(&changes),
            [
                ("b", Change::Changed),
                ("gone", Change::Removed),
                ("fresh", Change::Added)
            ]
        );
        assert!(!changes.functions[0].head);
    }

    #[test]
    fn a_system_call_is_named_with_its_entries() {
        let old = "SYSCALL_DEFINE2(foo, int, a, int, b)\n{\n\treturn a;\n}\n";
        let changes = compare(old, &old.replace("return a", "return a + b")).unwrap();
        assert_eq!(changes.functions[0].name, "foo");
        assert_eq!(changes.functions[0].symbols(Arch::X86_64)[0].name, "__x64_sys_foo");
        assert_eq!(changes.functions[0].symbols(Arch::Aarch64)[0].name, "__arm64_sys_foo");
    }

    #[test]
    fn data_changes_are_told_with_their_users() {
        let old = "#define LIMIT 8\nstatic const int sizes[] = { 1, 2 };\nint f(int x) { return x < LIMIT ? sizes[x] : 0; }\nint g(void) { return 1; }\n";
        let new = old.replace("LIMIT 8", "LIMIT 2").replace("{ 1, 2 }", "{ 1, 3 }");
        let changes = compare(old, &new).unwrap();
        assert_eq!(changes.functions, []);
        let things: Vec<_> = changes
            .things
            .iter()
            .map(|t| (t.thing, t.name.as_str(), &t.used_by[..]))
            .collect();
        let users = ["f".to_owned()];
        assert_eq!(
            things,
            [
                (Thing::Macro, "LIMIT", &users[..]),
                (Thing::Variable, "sizes", &users[..])
            ]
        );
    }

    #[test]
    fn conditions_count() {
        let old = "int f(void) { return 1; }\n";
        let new = "#ifdef CONFIG_X\nint f(void) { return 1; }\n#endif\n";
        let changes = compare(old, new).unwrap();
        assert_eq!(names(&changes), [("f", Change::Changed)]);
        assert!(changes.functions[0].head);
    }

    #[test]
    fn attributes_behind_the_parameters_are_the_head() {
        let old = "static void f(struct rq *rq)\n\t__must_hold(rq->lock)\n{\n\tx();\n}\n";
        let changes = compare(old, &old.replace("x()", "y()")).unwrap();
        assert_eq!(names(&changes), [("f", Change::Changed)]);
        assert!(!changes.functions[0].head);
        let changes = compare(old, &old.replace("rq->lock", "lock")).unwrap();
        assert!(changes.functions[0].head);
    }

    #[test]
    fn equal_lines_are_matched_one_for_one_however_many_there_are() {
        let many = |n| "static int a;\n".repeat(n);
        let functions: String = (0..2_000)
            .map(|n| format!("int f{n}(void) {{ return a; }}\n"))
            .collect();
        let old = many(50_000) + &functions;
        let changes = compare(&old, &(many(50_001) + &functions)).unwrap();
        assert_eq!((changes.functions.len(), changes.things.len()), (0, 1));
        assert_eq!(changes.things[0].used_by.len(), 2_000);
        // The product of both is not listed.
        let changes = compare("", &old).unwrap();
        let listed: usize = changes.things.iter().map(|t| t.used_by.len()).sum();
        assert_eq!((changes.things.len(), listed), (50_000, MAX_USERS));
    }
}
