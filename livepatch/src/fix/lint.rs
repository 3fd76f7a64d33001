//! What makes a livepatch of a fix hard, said before anything is built on it. It warns; a person decides.

mod finding;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::functions::{Change, ChangedFunction, ChangedThing, Changes, Made, Thing, compare};
use super::outline::Outline;
use super::patch::{FilePatch, Patch};
use crate::names::TreePath;
pub use finding::{Finding, Severity, Topic};

/// Findings of one patch.
const MAX_FINDINGS: usize = 1000;

/// Words of functions that have run when a livepatch is loaded.
pub(super) const RUN_ONCE: [&str; 7] = [
    "__init",
    "__exit",
    "__meminit",
    "__cpuinit",
    "__net_init",
    "__net_exit",
    "__initfunc",
];
/// Words of functions that exist within their callers alone.
pub(super) const ALWAYS_INLINE: [&str; 2] = ["__always_inline", "nokprobe_inline"];
/// Words of functions that most likely do.
pub(super) const INLINE: [&str; 3] = ["inline", "__inline", "__inline__"];

/// What is known of one file of a patch.
#[derive(Clone, Debug)]
pub struct FileFacts {
    /// Which of the patch's files, from 0.
    pub index: usize,
    /// The codestream's text before the patch.
    pub old: Option<String>,
    /// The text after it.
    pub new: Option<String>,
}

/// A fix's files, compared, and what a person should know of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    pub files: Vec<FileReview>,
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReview {
    pub path: TreePath,
    /// `None`: not a C file, or neither version is at hand.
    pub changes: Option<Changes>,
}

/// Compares what a patch does to each file, and lints it. `old` gives a file's text before the patch, as the codestream has
/// it; what does not fit is named, and the rest compared.
pub fn review(patch: &Patch, old: &dyn Fn(&TreePath) -> Option<String>) -> Review {
    let facts = patch.files.iter().enumerate().map(|(index, file)| FileFacts {
        index,
        old: file.old.as_ref().and_then(old),
        new: None,
    });
    review_files(patch, &facts.collect::<Vec<_>>())
}

/// Like [`review`], with the texts that are at hand: of each file the old, the new, both or neither.
pub fn review_files(patch: &Patch, facts: &[FileFacts]) -> Review {
    let mut lint = Lint::default();
    for fact in facts {
        let Some(file) = patch.files.get(fact.index) else {
            continue;
        };
        lint.file(file, fact);
    }
    lint.review
}

#[derive(Default)]
struct Lint {
    review: Review,
    said: BTreeSet<(String, Topic, String)>,
}

impl Lint {
    fn say(&mut self, severity: Severity, topic: Topic, place: (&TreePath, usize), symbol: &str, text: String) {
        let key = (place.0.to_string(), topic, format!("{symbol}:{}", place.1));
        if self.review.findings.len() < MAX_FINDINGS && self.said.insert(key) {
            self.review.findings.push(Finding {
                severity,
                topic,
                file: place.0.to_string(),
                line: place.1,
                symbol: symbol.to_owned(),
                text,
            });
        }
    }

    fn file(&mut self, file: &FilePatch, fact: &FileFacts) {
        let Some(path) = file.path() else { return };
        self.kind_of_file(file, path);
        let changes = self.versions(file, fact, path).and_then(|(old, new)| {
            if !path.as_str().ends_with(".c") && !path.as_str().ends_with(".h") {
                return None;
            }
            match compare(&old, &new) {
                Ok(changes) => {
                    self.compared(path, &changes, &new);
                    Some(changes)
                }
                Err(why) => {
                    let text = format!("can't be compared: {why}; name its functions by hand");
                    self.say(Severity::Warning, Topic::Unread, (path, 0), "", text);
                    None
                }
            }
        });
        self.review.files.push(FileReview {
            path: path.clone(),
            changes,
        });
    }

    /// Both versions, one made from the other where it must be.
    fn versions(&mut self, file: &FilePatch, fact: &FileFacts, path: &TreePath) -> Option<(String, String)> {
        match (&fact.old, &fact.new) {
            (Some(old), Some(new)) => Some((old.clone(), new.clone())),
            (None, Some(new)) => Some((file.reversed().apply(new).text, new.clone())),
            (Some(old), None) => {
                let applied = file.apply(old);
                for missed in &applied.missed {
                    let Some(hunk) = file.hunks.get(missed.hunk) else {
                        continue;
                    };
                    let (severity, text) = if missed.already {
                        (Severity::Note, "its result is there already".to_owned())
                    } else {
                        let what = "the lines it changes are not there as the patch has them; find the patch that made them so, and add it before this one";
                        (Severity::Warning, what.to_owned())
                    };
                    let text = format!("hunk {} (line {} of the patch): {text}", missed.hunk + 1, hunk.line);
                    self.say(severity, Topic::Prerequisite, (path, hunk.line), "", text);
                }
                Some((old.clone(), applied.text))
            }
            (None, None) if file.old.is_none() => Some((String::new(), file.apply("").text)),
            (None, None) => {
                let text = "the file is not there before the patch; find the patch that adds or renames it, or leave this one out";
                self.say(Severity::Warning, Topic::Prerequisite, (path, 0), "", text.to_owned());
                None
            }
        }
    }

    fn kind_of_file(&mut self, file: &FilePatch, path: &TreePath) {
        let name = path.as_str().rsplit('/').next().unwrap_or_default();
        let mut say = |severity, topic, text: &str| self.say(severity, topic, (path, 0), "", text.to_owned());
        if file.binary {
            say(
                Severity::Warning,
                Topic::Files,
                "is not text; a livepatch can't bring it, so see whether the fix needs it",
            );
        }
        match (&file.old, &file.new) {
            (None, _) => say(
                Severity::Warning,
                Topic::Files,
                "is a new file; what is called in it must go into the livepatch by hand",
            ),
            (_, None) => say(
                Severity::Warning,
                Topic::Files,
                "is removed; its code stays in the running kernel, so make what calls it stop",
            ),
            (Some(old), Some(new)) if old != new => {
                let text = format!("was {old} before; codestreams without the rename need the old name");
                say(Severity::Warning, Topic::Files, &text);
            }
            _ => {}
        }
        if name.starts_with("Kconfig") || name.starts_with("Makefile") || name.starts_with("Kbuild") {
            say(
                Severity::Warning,
                Topic::Build,
                "changes how the kernel is built, which a livepatch can't; see what it switches and do that in code",
            );
        } else if name.ends_with(".S") || name.ends_with(".s") {
            say(
                Severity::Warning,
                Topic::Assembly,
                "is assembly, which can't be traced and so not replaced; fix it at a C function that leads there",
            );
        } else if name.ends_with(".rs") {
            say(
                Severity::Warning,
                Topic::Files,
                "is Rust, which can't be extracted; write its replacement by hand",
            );
        }
    }

    fn compared(&mut self, path: &TreePath, changes: &Changes, new: &str) {
        let header = path.as_str().ends_with(".h");
        for thing in &changes.things {
            self.thing(path, thing, header);
        }
        let outline = Outline::new(new).ok();
        for function in &changes.functions {
            self.function(path, function, header);
            if let Some(outline) = &outline {
                self.body(path, function, outline);
            }
        }
    }

    fn thing(&mut self, path: &TreePath, changed: &ChangedThing, header: bool) {
        let ChangedThing { name, of, .. } = changed;
        let verb = verb(changed.change);
        let users = match changed.used_by.as_slice() {
            [] if header => "every file that includes it".to_owned(),
            [] => "no function of this file by name".to_owned(),
            users => shortened(users),
        };
        let added = changed.change == Change::Added;
        let (severity, topic, text) = match changed.thing {
            Thing::Struct | Thing::Union if added => (
                Severity::Note,
                Topic::Layout,
                format!("type {name} is added; it comes along with what uses it"),
            ),
            Thing::Struct | Thing::Union => (
                Severity::Warning,
                Topic::Layout,
                format!(
                    "the layout of {name} {verb}, but objects of the old layout are in use; keep it and put what is new into shadow variables"
                ),
            ),
            Thing::Enum | Thing::Typedef => (
                if added { Severity::Note } else { Severity::Warning },
                Topic::Layout,
                format!(
                    "type {name} {verb}; running code keeps the old meaning: see whether values cross between old and new code (used by {users})"
                ),
            ),
            Thing::Variable if added => (
                Severity::Note,
                Topic::Data,
                format!(
                    "variable {name} is added; it is the livepatch's own, and starts anew with each livepatch (used by {users})"
                ),
            ),
            Thing::Variable => (
                Severity::Warning,
                Topic::Data,
                format!(
                    "variable {name} {verb}, but its memory is that of the running kernel; change its value when the livepatch is loaded, or patch what reads it: {users}"
                ),
            ),
            Thing::Macro => (
                if added { Severity::Note } else { Severity::Warning },
                Topic::Macro,
                format!("macro {name} {verb}; what uses it changes without a change of its own: patch {users} too"),
            ),
            Thing::MacroUse => Self::macro_use(name, of, verb, &users),
            Thing::Prototype | Thing::Include => (
                Severity::Note,
                Topic::Header,
                format!("declaration {name} {verb}; the livepatch's source may need it spelled out"),
            ),
            Thing::Asm => (
                Severity::Warning,
                Topic::Assembly,
                format!("assembly outside functions {verb}, which can't be replaced"),
            ),
            Thing::Other => (
                Severity::Warning,
                Topic::Unread,
                format!("something that is not understood here {verb} ({name}); read it by eye"),
            ),
        };
        self.say(severity, topic, (path, changed.line), name, text);
    }

    fn macro_use(name: &str, of: &str, verb: &str, users: &str) -> (Severity, Topic, String) {
        let of_static_key = of.contains("STATIC_KEY") || of.contains("STATIC_CALL");
        let topic = if of_static_key {
            Topic::StaticKey
        } else if of.contains("PER_CPU") {
            Topic::PerCpu
        } else if of.contains("TRACE") || of.contains("DECLARE_EVENT") || of.contains("DEFINE_EVENT") {
            Topic::Tracepoint
        } else if of.starts_with("EXPORT_") || of.starts_with("MODULE_") {
            let text = format!("{of}({name}) {verb}; a livepatch changes no exports and no module's information");
            return (Severity::Note, Topic::Data, text);
        } else if of.contains("initcall") || matches!(of, "module_init" | "module_exit") {
            let text = format!(
                "{of}({name}) {verb}; it has run already: do by hand, when the livepatch is loaded, what it would do"
            );
            return (Severity::Warning, Topic::Init, text);
        } else {
            Topic::Data
        };
        let text = format!(
            "{of}({name}) {verb}; it makes data or code that a livepatch can't change in place: see what it makes, and who uses it: {users}"
        );
        (Severity::Warning, topic, text)
    }

    fn function(&mut self, path: &TreePath, function: &ChangedFunction, header: bool) {
        let ChangedFunction { name, change, line, .. } = function;
        let place = (path, *line);
        if header {
            let text = format!(
                "{name} is in a header and {}; it is compiled into every file that includes this one: patch the functions that call it",
                verb(*change)
            );
            self.say(Severity::Warning, Topic::Header, place, name, text);
        }
        if *change == Change::Removed {
            let text = format!("{name} is removed; it stays in the running kernel: patch what calls it");
            self.say(Severity::Note, Topic::Signature, place, name, text);
            return;
        }
        match &function.made {
            Made::Plain => {}
            Made::Syscall { .. } => {
                let text = format!(
                    "{name} is a system call: its inner functions are inlined into its entries (on x86_64, __x64_sys_{name}), which are what is replaced, one for each ABI"
                );
                self.say(Severity::Note, Topic::Syscall, place, name, text);
            }
            Made::Macro { by } => {
                let text = format!(
                    "{by}({name}) defines a function whose symbol is not known here; look it up and name it by hand"
                );
                self.say(Severity::Warning, Topic::Unread, place, name, text);
            }
        }
        if *change == Change::Added {
            return;
        }
        for word in &function.words {
            match word.as_str() {
                word if RUN_ONCE.contains(&word) => {
                    let text = format!(
                        "{name} is {word}: it has run and may be gone, so it can't be replaced; do by hand what it would have done"
                    );
                    self.say(Severity::Warning, Topic::Init, place, name, text);
                }
                "notrace" | "noinstr" | "__cpuidle" | "__naked" | "__no_fentry" | "__noinstr_section" => {
                    let text =
                        format!("{name} is {word}: it has no place where a tracer can step in, so patch what calls it");
                    self.say(Severity::Warning, Topic::Untraceable, place, name, text);
                }
                word if ALWAYS_INLINE.contains(&word) => {
                    let text = format!("{name} is {word}: it exists only within its callers, so patch these");
                    self.say(Severity::Warning, Topic::Untraceable, place, name, text);
                }
                word if INLINE.contains(&word) && !header => {
                    let text =
                        format!("{name} is {word}: most likely it exists only within its callers, so patch these too");
                    self.say(Severity::Note, Topic::Untraceable, place, name, text);
                }
                _ => {}
            }
        }
        if function.head {
            let text = format!(
                "the head of {name} changed (parameters, result, attributes or the #if around it); old callers keep calling it the old way: patch all of them together"
            );
            self.say(Severity::Warning, Topic::Signature, place, name, text);
        }
    }

    /// What a changed function's text holds that livepatches trip over.
    fn body(&mut self, path: &TreePath, function: &ChangedFunction, outline: &Outline<'_>) {
        let item = outline.functions().find(|item| {
            item.name == function.name && item.lines.0 == function.line && function.change != Change::Removed
        });
        let Some(item) = item else { return };
        let name = &function.name;
        let mut thread = None;
        for (word, at) in outline.words(item) {
            let line = outline.line(at);
            let found = match word {
                "asm" | "__asm__" | "asm_volatile_goto" => Some((
                    Severity::Note,
                    Topic::Assembly,
                    "holds inline assembly; alternatives and jumps in it need care in a livepatch",
                )),
                "static_branch_likely"
                | "static_branch_unlikely"
                | "static_key_false"
                | "static_key_true"
                | "static_call"
                | "static_call_cond" => Some((
                    Severity::Note,
                    Topic::StaticKey,
                    "asks a static key or makes a static call; in a livepatch a module's key is asked at run time",
                )),
                "DEFINE_PER_CPU" | "this_cpu_ptr" | "per_cpu_ptr" | "per_cpu" | "raw_cpu_ptr" | "get_cpu_var" => {
                    Some((
                        Severity::Note,
                        Topic::PerCpu,
                        "reaches per-CPU data; it must be reached by the kernel's own symbol",
                    ))
                }
                word if word.starts_with("trace_") && outline.is_call(at) => Some((
                    Severity::Note,
                    Topic::Tracepoint,
                    "may call a tracepoint, whose key and code must be generated anew in a livepatch",
                )),
                "kthread_should_stop" | "kthread_freezable_should_stop" => {
                    thread = thread.or(Some(line));
                    None
                }
                _ => None,
            };
            if let Some((severity, topic, text)) = found {
                self.say(severity, topic, (path, line), name, format!("{name} {text}"));
            }
        }
        if let Some(line) = thread {
            let text = format!(
                "{name} is a kernel thread's loop; while it runs, its thread stays in the old code: the new one is used by threads started later"
            );
            self.say(Severity::Warning, Topic::EndlessLoop, (path, line), name, text);
        }
    }
}

fn verb(change: Change) -> &'static str {
    match change {
        Change::Added => "is added",
        Change::Changed => "changed",
        Change::Removed => "is removed",
    }
}

fn shortened(names: &[String]) -> String {
    match names {
        [first, second, third, fourth, rest @ ..] if rest.len() > 1 => {
            format!("{first}, {second}, {third}, {fourth} and {} more", rest.len())
        }
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests;
