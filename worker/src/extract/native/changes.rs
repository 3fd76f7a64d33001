//! What a fix changes in the headers a file reads: the difference of two surveys, one of the sources as they are and one of
//! them patched. A livepatch is compiled with the kernel's own headers, so whatever is told here must come with its source.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Where something is, in the patched sources; in the unpatched ones if only those have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    pub label: String,
    pub line: usize,
    pub start: usize,
    pub end: usize,
    /// In a header that a livepatch includes rather than slices.
    pub public: bool,
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.label, self.line)
    }
}

/// Something that was found, with all that tells it from another of its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub text: String,
    pub spot: Spot,
}

/// A type's layout (none for enumerations and types that are only named).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundType {
    pub layout: Option<String>,
    /// It is more than named.
    pub whole: bool,
    /// An enumeration's constants.
    pub values: String,
    pub spot: Spot,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundConstant {
    pub value: i64,
    pub spot: Spot,
    /// The enumeration's tag, if it has one.
    pub of: Option<String>,
    /// Where that starts.
    pub of_start: usize,
}

/// What one parse of a file has, by name.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Functions' and variables' definitions in headers that differ.
    pub definitions: BTreeMap<String, Found>,
    /// Functions and variables that headers declare, with their types.
    pub declarations: BTreeMap<String, Found>,
    /// By how they are written: `struct x`, `x_t`.
    pub types: BTreeMap<String, FoundType>,
    pub constants: BTreeMap<String, FoundConstant>,
    /// In the order of their definitions.
    pub macros: BTreeMap<String, Vec<Found>>,
    /// The names in each macro's text.
    pub mentions: BTreeMap<String, BTreeSet<String>>,
    /// What each header that differs includes.
    pub includes: BTreeMap<String, BTreeSet<String>>,
}

impl Survey {
    /// A type's first definition counts, or what first names it.
    pub fn add_type(&mut self, name: String, found: FoundType) {
        let known = self.types.get(&name);
        if known.is_none_or(|known| found.whole && !known.whole) {
            self.types.insert(name, found);
        }
    }
}

/// Something to write into a source behind the header's inclusion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Macro {
        name: String,
        start: usize,
        end: usize,
        /// The kernel's header has another of this name.
        replaces: bool,
    },
    /// What no macro is any more.
    Gone { name: String },
    /// A constant of an enumeration that the kernel's header has without it, or with another value.
    Constant {
        name: String,
        value: i64,
        start: usize,
        end: usize,
    },
    /// A type or a declaration the kernel's header has not got.
    Declared { start: usize },
}

impl Piece {
    pub fn start(&self) -> usize {
        match self {
            Self::Macro { start, .. } | Self::Constant { start, .. } | Self::Declared { start } => *start,
            Self::Gone { .. } => 0,
        }
    }
}

/// A definition that is new or has another text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub spot: Spot,
    pub new: bool,
}

/// A constant that has another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renumbered {
    pub before: i64,
    pub after: i64,
    pub spot: Spot,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Headers whose texts differ, new ones among them.
    pub headers: BTreeSet<String>,
    pub new_headers: BTreeSet<String>,
    /// What each of them includes in the kernel's tree.
    pub included_before: BTreeMap<String, BTreeSet<String>>,
    pub definitions: BTreeMap<String, Definition>,
    /// New and changed macros; `true`: new.
    pub macros: BTreeMap<String, (bool, Spot)>,
    pub constants: BTreeMap<String, Renumbered>,
    /// New types, constants and declarations.
    pub added: BTreeMap<String, Spot>,
    /// Types with another layout.
    pub layouts: BTreeMap<String, Spot>,
    /// Functions and variables declared with another type.
    pub declarations: BTreeMap<String, Spot>,
    /// Functions and variables that the kernel's public headers define and the fix's do not; where they were.
    pub left: BTreeMap<String, Spot>,
    /// Types that the fix takes out of public headers, and that are the same where it puts them.
    pub types_left: BTreeSet<String>,
    /// By header, in the order of their text.
    pub pieces: BTreeMap<String, Vec<Piece>>,
    /// Macros that lead to changed ones or to changed constants, with the names they mention on the way.
    pub leads: BTreeMap<String, BTreeSet<String>>,
}

impl Changes {
    /// What two surveys differ in. `headers`: those whose texts differ; `new`: those of them that the kernel's tree has not.
    pub fn between(before: Survey, after: &Survey, headers: BTreeSet<String>, new: BTreeSet<String>) -> Self {
        let mut changes = Self {
            headers,
            new_headers: new,
            ..Self::default()
        };
        changes.types(&before, after);
        changes.constants(&before, after);
        changes.macros(&before, after);
        changes.functions(&before, after);
        changes.lead(after);
        changes.included_before = before.includes;
        for pieces in changes.pieces.values_mut() {
            pieces.sort_by_key(Piece::start);
        }
        changes
    }

    fn piece(&mut self, spot: &Spot, piece: Piece) {
        if spot.public {
            self.pieces.entry(spot.label.clone()).or_default().push(piece);
        }
    }

    fn add(&mut self, name: &str, spot: &Spot) {
        if self.headers.contains(&spot.label) {
            self.added.insert(name.to_owned(), spot.clone());
            self.piece(spot, Piece::Declared { start: spot.start });
        }
    }

    /// Whether this is in a header that a source includes as the kernel has it.
    fn is_kernels(&self, spot: &Spot) -> bool {
        spot.public && !self.new_headers.contains(&spot.label)
    }

    fn types(&mut self, before: &Survey, after: &Survey) {
        for (name, now) in &after.types {
            match before.types.get(name) {
                Some(was) if was.whole && now.whole => {
                    if was.layout != now.layout {
                        self.layouts.insert(name.clone(), now.spot.clone());
                    } else if was.values == now.values && was.spot.public && !self.is_kernels(&now.spot) {
                        self.types_left.insert(name.clone());
                    }
                    if now.spot.public && !was.spot.public {
                        self.add(name, &now.spot);
                    }
                }
                Some(was) if (was.whole || !now.whole) && (was.spot.public || !now.spot.public) => {}
                _ => self.add(name, &now.spot),
            }
        }
    }

    fn constants(&mut self, before: &Survey, after: &Survey) {
        let known = |name: &String| before.constants.contains_key(name);
        // An enumeration without a tag is new if all in it is.
        let mut old: BTreeSet<(&str, usize)> = BTreeSet::new();
        for (name, now) in &after.constants {
            if known(name) {
                old.insert((&now.spot.label, now.of_start));
            }
        }
        let mut whole = BTreeSet::new();
        for (name, now) in &after.constants {
            let spot = &now.spot;
            let piece = Piece::Constant {
                name: name.clone(),
                value: now.value,
                start: spot.start,
                end: spot.end,
            };
            match before.constants.get(name) {
                Some(was) if was.value != now.value => {
                    let (before, after) = (was.value, now.value);
                    let spot = spot.clone();
                    self.piece(&spot, piece);
                    self.constants.insert(name.clone(), Renumbered { before, after, spot });
                }
                Some(_) => {}
                None if now.of.as_ref().is_some_and(|of| self.added.contains_key(of)) => {}
                None if now.of.is_none() && !old.contains(&(spot.label.as_str(), now.of_start)) => {
                    self.added.insert(name.clone(), spot.clone());
                    if whole.insert((&spot.label, now.of_start)) {
                        self.piece(spot, Piece::Declared { start: now.of_start });
                    }
                }
                None => {
                    self.added.insert(name.clone(), spot.clone());
                    self.piece(spot, piece);
                }
            }
        }
    }

    fn macros(&mut self, before: &Survey, after: &Survey) {
        let texts = |found: &[Found]| found.iter().map(|f| f.text.clone()).collect::<Vec<_>>();
        let touched = |found: &[Found]| found.iter().any(|f| self.headers.contains(&f.spot.label));
        let names: BTreeSet<&String> = before
            .macros
            .iter()
            .chain(&after.macros)
            .filter(|(_, found)| touched(found))
            .map(|(name, _)| name)
            .collect();
        for name in names {
            let was = before.macros.get(name).map_or(&[][..], Vec::as_slice);
            let now = after.macros.get(name).map_or(&[][..], Vec::as_slice);
            if texts(was) == texts(now) {
                continue;
            }
            let Some(last) = now.last() else {
                if let Some(spot) = was.last().map(|f| f.spot.clone()) {
                    self.piece(&spot, Piece::Gone { name: name.clone() });
                }
                continue;
            };
            self.macros.insert(name.clone(), (was.is_empty(), last.spot.clone()));
            // `#define X X` stands beside an enumeration's constant of this name, which is written in its place.
            if last.text == format!("{name} {name}") {
                continue;
            }
            let Spot { start, end, .. } = last.spot;
            let piece = Piece::Macro {
                name: name.clone(),
                start,
                end,
                replaces: !was.is_empty(),
            };
            self.piece(&last.spot, piece);
        }
    }

    fn functions(&mut self, before: &Survey, after: &Survey) {
        for (name, was) in before.definitions.iter().filter(|(_, was)| was.spot.public) {
            let now = after.definitions.get(name);
            if now.is_none_or(|now| !self.is_kernels(&now.spot)) {
                self.left.insert(name.clone(), was.spot.clone());
            }
        }
        for (name, now) in &after.definitions {
            let was = before.definitions.get(name);
            if was.is_none_or(|was| was.text != now.text) {
                let new = was.is_none() && !before.declarations.contains_key(name);
                let spot = now.spot.clone();
                self.definitions.insert(name.clone(), Definition { spot, new });
            }
        }
        for (name, now) in &after.declarations {
            let was = before.declarations.get(name);
            match was {
                Some(was) if was.text != now.text && !after.definitions.contains_key(name) => {
                    self.declarations.insert(name.clone(), now.spot.clone());
                }
                Some(was) if was.spot.public || !now.spot.public => {}
                _ if before.definitions.contains_key(name) || after.definitions.contains_key(name) => {}
                _ => self.add(name, &now.spot),
            }
        }
    }

    /// Follows mentions backwards, from what changed to the macros that come to it.
    fn lead(&mut self, after: &Survey) {
        let mut by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, words) in &after.mentions {
            for word in words {
                by.entry(word).or_default().push(name);
            }
        }
        let start: BTreeSet<&str> = self.names().collect();
        let mut seen = start.clone();
        let mut queue: VecDeque<&str> = start.into_iter().collect();
        let mut leads: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        while let Some(word) = queue.pop_front() {
            for name in by.get(word).into_iter().flatten() {
                leads.entry((*name).to_owned()).or_default().insert(word.to_owned());
                if seen.insert(name) {
                    queue.push_back(name);
                }
            }
        }
        self.leads = leads;
    }

    /// The names that plain text, macros' included, must find with what the fix makes of them.
    fn names(&self) -> impl Iterator<Item = &str> {
        let pieces = self.pieces.values().flatten().filter_map(|piece| match piece {
            Piece::Macro { name, .. } | Piece::Constant { name, .. } | Piece::Gone { name } => Some(name.as_str()),
            Piece::Declared { .. } => None,
        });
        let macros = self.macros.iter().filter(|(_, (_, spot))| spot.public).map(|(n, _)| n);
        pieces.chain(macros.map(String::as_str))
    }

    /// Whether a name in a header's text means, or comes to, something else with the fix.
    pub fn touches(&self, word: &str) -> bool {
        self.macros.get(word).is_some_and(|(_, spot)| spot.public)
            || self.constants.get(word).is_some_and(|c| c.spot.public)
            || self.leads.contains_key(word)
    }

    /// Each change, for a source that another tool made.
    pub fn told(&self) -> Vec<Told> {
        let mut all = Vec::new();
        let mut tell = |spot: &Spot, name: &str, what: &str, shared: bool| {
            let text = format!("{spot}: {name} {what}");
            let header = spot.label.clone();
            all.push(Told { header, text, shared });
        };
        for (name, d) in &self.definitions {
            tell(
                &d.spot,
                name,
                if d.new { "is new" } else { "has another definition" },
                false,
            );
        }
        for (name, (new, spot)) in &self.macros {
            tell(
                spot,
                name,
                if *new { "is a new macro" } else { "is another macro" },
                false,
            );
        }
        for (name, c) in &self.constants {
            tell(&c.spot, name, &format!("is {} instead of {}", c.after, c.before), true);
        }
        for (name, spot) in &self.added {
            tell(spot, name, "is new", false);
        }
        for (name, spot) in &self.declarations {
            tell(spot, name, "is declared otherwise", true);
        }
        for (name, spot) in &self.layouts {
            tell(spot, name, "has another layout", true);
        }
        for (name, spot) in &self.left {
            tell(spot, name, "is defined here no more", false);
        }
        all
    }
}

/// A change in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub header: String,
    pub text: String,
    /// The running kernel goes by what was there before, wherever the source has it from.
    pub shared: bool,
}

/// Said of a type with another layout that a source uses.
pub fn another_layout(name: &str, spot: &Spot) -> String {
    let compiled = match spot.public {
        true => "the livepatch is compiled with the kernel's, without what the fix adds",
        false => {
            "the livepatch is compiled with the fix's, and finds members of the kernel's objects in the wrong place"
        }
    };
    format!(
        "{spot}: {name} has another layout with the fix, and the running kernel's objects keep theirs: {compiled}. Leave the \
         type as it is, and keep what is added in shadow variables (klp_shadow_alloc)"
    )
}

/// Said of a function or variable that is declared otherwise and that a source uses or replaces.
pub fn declared_otherwise(name: &str, spot: &Spot) -> String {
    format!(
        "{spot}: the fix declares {name} otherwise, and the running kernel uses it as it was: keep its interface, and give \
         what changes a name of its own"
    )
}

/// Said of a function or variable that the fix moves out of a header and into no text of the source.
pub fn left_behind(name: &str, spot: &Spot) -> String {
    format!(
        "{spot}: the fix takes {name} out of this header, and the livepatch uses what the kernel's own has: if that is to change, \
         define {name} under another name in the file"
    )
}

/// Said of a constant with another value that a source uses.
pub fn renumbered(name: &str, constant: &Renumbered) -> String {
    let Renumbered { before, after, spot } = constant;
    format!(
        "{spot}: {name} is {after} with the fix and in the livepatch, {before} in the running kernel: see that no such value \
         or size is shared between them"
    )
}

#[cfg(test)]
mod tests;
