//! Makes a text of klp-ccp or clang-extract one that compiles, and that says nothing of the machine it was made on.
//!
//! Both write the paths of the tree into it, and both leave what only made sense while they parsed: definitions that come
//! from the command line, headers that every file gets without asking, sections that `klpe_` pointers must not be in, and
//! second declarations of those pointers that contradict the first.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use super::Request;
use super::declarations::{Item, Text};
use super::native::lexer;

/// What the build or the tool's caller defines for each file, and what clashes with the compiler's own.
const NOT_OURS: [&str; 9] = [
    "__KERNEL__",
    "MODULE",
    "__has_attribute",
    "__seg_gs",
    "__seg_fs",
    "__SIZEOF_POINTER__",
    "__SIZEOF_LONG_LONG__",
    "__auto_type",
    "CC_USING_FENTRY",
];

/// Headers that make tracepoints and register them. They are the kernel's, and must not be there once more.
const MAKE_TRACEPOINTS: [&str; 4] = [
    "<trace/define_trace.h>",
    "<trace/trace_events.h>",
    "<trace/perf.h>",
    "<trace/bpf_probe.h>",
];

/// Where static calls are declared, below the source folder.
const STATIC_CALL_TYPES: &str = "include/linux/static_call_types.h";

/// Put functions and data where the kernel frees them after it has started.
const DISCARDED: [&str; 6] = ["__init", "__exit", "__initdata", "__exitdata", "__initconst", "__ref"];

/// Attributes of a function or variable that its pointer can't or must not have.
const NOT_A_POINTERS: [&str; 6] = [
    "section",
    "always_inline",
    "gnu_inline",
    "noinline",
    "no_instrument_function",
    "cold",
];

/// Words that stand for such attributes.
const FUNCTIONS_ONLY: [&str; 10] = [
    "inline",
    "__inline",
    "__inline__",
    "__always_inline",
    "noinline",
    "noinline_for_stack",
    "notrace",
    "__cold",
    "__sched",
    "__read_mostly",
];

/// Ask a static key by a jump that is patched when the key changes, which needs an address the linker knows.
const PATCHED_BRANCHES: [&str; 4] = [
    "static_key_false",
    "static_key_true",
    "static_branch_likely",
    "static_branch_unlikely",
];

/// Names of variables that only tell the linker of an object file to keep a symbol (`__ADDRESSABLE`). Their initialiser is no
/// constant once the symbol is behind a pointer.
const ADDRESSABLE: &str = "__UNIQUE_ID___addressable_";

/// Asks it at run time.
const PLAIN_BRANCH: &str = "static_key_enabled";

/// Where the text came from.
pub struct Origin<'a> {
    pub src_dir: &'a Path,
    pub obj_dir: &'a Path,
    /// Folders of headers, in the order they are searched; absolute.
    include_dirs: Vec<PathBuf>,
    /// Headers that the command line includes in front of each file; absolute.
    forced: Vec<PathBuf>,
    /// The file is built into vmlinux: headers must show what they show to built-in code.
    builtin: bool,
    /// The kernel has static calls.
    static_calls: bool,
    /// What messages of the file begin with.
    module_name: Option<&'a str>,
}

impl<'a> Origin<'a> {
    pub fn of(request: &'a Request) -> Self {
        let directory = &request.command.directory;
        let absolute = |path: &str| plain(&directory.join(path));
        let (mut include_dirs, mut forced) = (Vec::new(), Vec::new());
        let mut args = request.command.args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "-I" | "-isystem" | "-idirafter" => include_dirs.extend(args.next().map(|a| absolute(a))),
                "-include" | "-imacros" => forced.extend(args.next().map(|a| absolute(a))),
                "-iquote" => drop(args.next()),
                _ => include_dirs.extend(arg.strip_prefix("-I").map(absolute)),
            }
        }
        Self {
            src_dir: &request.src_dir,
            obj_dir: &request.obj_dir,
            include_dirs,
            forced,
            builtin: !request.command.is_module(),
            static_calls: request.src_dir.join(STATIC_CALL_TYPES).is_file(),
            module_name: request.command.define("KBUILD_MODNAME"),
        }
    }

    /// What must come first, for a source that is compiled as part of a module of another name.
    fn preamble(&self) -> String {
        let mut out = String::new();
        if self.builtin && self.static_calls {
            // Read as a module does, it has static calls, those in headers too, go through the trampoline alone.
            out.push_str("#include <linux/static_call_types.h>\n");
        }
        if self.builtin {
            out.push_str("#undef MODULE\n");
        }
        if let Some(name) = self.module_name {
            out.push_str(&format!("#undef KBUILD_MODNAME\n#define KBUILD_MODNAME {name}\n"));
        }
        out
    }

    /// What an `#include` of an absolute path becomes; `None`: it goes.
    fn include(&self, path: &Path) -> Option<String> {
        let path = plain(path);
        if self.forced.contains(&path) {
            return None;
        }
        // The innermost folder, or `include/linux/x.h` would be found as `linux/x.h` by one and as `x.h` by another.
        let in_folder = self.include_dirs.iter().filter_map(|dir| path.strip_prefix(dir).ok());
        let shortest = in_folder.min_by_key(|rest| rest.components().count());
        let public = |rest: &Path| rest.components().count() > 1;
        match shortest.filter(|rest| public(rest)) {
            Some(rest) => Some(format!("#include <{}>", rest.display())),
            None => {
                let own = path
                    .strip_prefix(self.src_dir)
                    .or_else(|_| path.strip_prefix(self.obj_dir));
                own.ok().map(|rest| format!("#include \"{}\"", rest.display()))
            }
        }
    }

    /// The text with paths into the tree relative to its source or object folder.
    fn without_paths(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for dir in [self.src_dir, self.obj_dir] {
            let dir = dir.to_string_lossy();
            if dir.len() > 1 {
                text = text.replace(&format!("{dir}/"), "");
            }
        }
        text
    }
}

/// A path without `.` and, as far as no link is involved, `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if out.file_name().is_some() => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// The cleaned text. `pointers`: the variables that hold externalized symbols' addresses.
pub fn clean(raw: &str, origin: &Origin<'_>, pointers: &BTreeSet<&str>) -> String {
    let text = Text::new(raw);
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut declared: BTreeSet<&str> = BTreeSet::new();
    let has_static: BTreeSet<&str> = text
        .items()
        .filter(|i| i.is_static())
        .filter_map(Item::pointer)
        .collect();
    for item in text.items() {
        if item.is_directive() {
            edits.extend(directive(item, origin).map(|new| (item.range(), new)));
            continue;
        }
        let cut = |range: Range<usize>| (range, String::new());
        if let Some(pointer) = item.pointer().filter(|name| pointers.contains(name)) {
            let second = !declared.insert(pointer);
            if second || (has_static.contains(pointer) && !item.is_static()) {
                edits.push(cut(item.range()));
                // What is dropped declares nothing: the one to keep may come later.
                if !second {
                    declared.remove(pointer);
                }
                continue;
            }
            edits.extend(item.attributes(&NOT_A_POINTERS).map(cut));
            let of_functions = item.head_words().filter(|(word, _)| FUNCTIONS_ONLY.contains(word));
            edits.extend(of_functions.map(|(_, range)| cut(range)));
        }
        edits.extend(
            item.head_words()
                .filter(|(word, _)| DISCARDED.contains(word))
                .map(|(_, range)| cut(range)),
        );
    }
    for (place, words) in text.calls(&PATCHED_BRANCHES) {
        if words.iter().any(|word| pointers.contains(word)) {
            edits.push((place, PLAIN_BRANCH.to_owned()));
        }
    }
    edits.extend(text.statements(ADDRESSABLE).filter_map(|place| {
        let behind_pointer = pointers.iter().any(|pointer| raw[place.clone()].contains(pointer));
        behind_pointer.then_some((place, String::new()))
    }));
    let body = origin.without_paths(&edited(raw, edits));
    origin.preamble() + &squeeze(&body)
}

/// What a directive becomes, if it doesn't stay.
fn directive(item: Item<'_>, origin: &Origin<'_>) -> Option<String> {
    let text = item.shown();
    let (keyword, end) = lexer::directive(text);
    let rest = text[end.min(text.len())..].trim();
    match keyword {
        "define" | "undef" => {
            let name = rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next()?;
            let dropped = NOT_OURS.contains(&name) || name.starts_with("KBUILD_");
            dropped.then(String::new)
        }
        "include" if MAKE_TRACEPOINTS.contains(&rest) => Some(String::new()),
        "include" => {
            let path = rest.strip_prefix('"')?.split('"').next()?;
            path.starts_with('/')
                .then(|| origin.include(Path::new(path)).unwrap_or_default())
        }
        _ => None,
    }
}

/// The text with some places replaced; of overlapping ones the first counts.
pub fn edited(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (range, new) in edits {
        if range.start < at {
            continue;
        }
        out.push_str(&text[at..range.start]);
        out.push_str(&new);
        // The blank behind a word that goes is its own.
        let blank = new.is_empty() && text[range.end..].starts_with(' ');
        at = range.end + usize::from(blank);
    }
    out.push_str(&text[at..]);
    out
}

/// At most one empty line in a row, none at the start, and a newline at the end.
fn squeeze(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = true;
    for line in text.lines() {
        let line = line.trim_end();
        if line.is_empty() && empty {
            continue;
        }
        empty = line.is_empty();
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::extract::CompileCommand;

    fn request() -> Request {
        let args = [
            "-nostdinc",
            "-I/k/src/arch/x86/include",
            "-I./arch/x86/include/generated",
            "-I",
            "/k/src/include",
            "-I/k/src/drivers/demo",
            "-include",
            "/k/src/include/linux/kconfig.h",
            "-DMODULE",
        ];
        Request {
            arch: klp_livepatch::Arch::X86_64,
            file: "drivers/demo/a.c".into(),
            functions: Vec::new(),
            object: "demo".into(),
            src_dir: "/k/src".into(),
            obj_dir: "/k/obj".into(),
            command: CompileCommand {
                compiler: "gcc".into(),
                args: args.map(str::to_owned).to_vec(),
                directory: "/k/obj".into(),
            },
            scratch: "/s".into(),
            avoid: Vec::new(),
            unpatched: None,
        }
    }

    fn cleaned(raw: &str, pointers: &[&str]) -> String {
        let request = request();
        clean(raw, &Origin::of(&request), &pointers.iter().copied().collect())
    }

    #[test]
    fn what_the_command_line_gives_is_not_given_twice() {
        let raw = "#define __KERNEL__ 1\n#define MODULE 1\n#define __has_attribute(x) 0\n#undef __SIZEOF_POINTER__\n\
                   #define __SIZEOF_POINTER__ 8\n#define KBUILD_MODNAME \"demo\"\n#define __auto_type int\n\
                   #include \"/k/src/include/linux/kconfig.h\"\n#define MODULES_DEMO 1\n#define pr_fmt(x) x\n";
        assert_eq!(cleaned(raw, &[]), "#define MODULES_DEMO 1\n#define pr_fmt(x) x\n");
    }

    #[test]
    fn built_in_code_and_its_messages_stay_what_they_are() {
        let mut request = request();
        request.command.args.retain(|a| a != "-DMODULE");
        request.command.args.push("-DKBUILD_MODNAME=\"demo\"".into());
        let mut origin = Origin::of(&request);
        let head = "#undef MODULE\n#undef KBUILD_MODNAME\n#define KBUILD_MODNAME \"demo\"\n";
        let raw = "#define KBUILD_MODNAME \"demo\"\nint a;\n";
        assert_eq!(clean(raw, &origin, &BTreeSet::new()), format!("{head}int a;\n"));
        origin.static_calls = true;
        let calls = "#include <linux/static_call_types.h>\n";
        assert_eq!(clean(raw, &origin, &BTreeSet::new()), format!("{calls}{head}int a;\n"));
    }

    #[test]
    fn headers_are_included_as_their_users_do() {
        let raw = "#include \"/k/src/include/linux/list.h\"\n#include \"/k/obj/arch/x86/include/generated/asm/x.h\"\n\
                   #include \"/k/src/arch/x86/include/asm/../asm/io.h\"\n#include \"/k/src/drivers/demo/demo.h\"\n\
                   #include \"/k/src/drivers/demo.h\"\n#include <linux/fs.h>\n#include \"near.h\"\n";
        assert_eq!(
            cleaned(raw, &[]),
            "#include <linux/list.h>\n#include <asm/x.h>\n#include <asm/io.h>\n#include \"drivers/demo/demo.h\"\n\
             #include \"drivers/demo.h\"\n#include <linux/fs.h>\n#include \"near.h\"\n"
        );
    }

    #[test]
    fn no_tracepoints_are_made() {
        let raw = "#define CREATE_TRACE_POINTS\n#include <trace/define_trace.h>\n#include <trace/perf.h>\n#include <trace/events/a.h>\n";
        assert_eq!(
            cleaned(raw, &[]),
            "#define CREATE_TRACE_POINTS\n\n#include <trace/events/a.h>\n"
        );
    }

    #[test]
    fn no_path_of_the_machine_is_left() {
        let raw = "/* klp-ccp: from /k/src/drivers/demo/a.c */\n\n\n\n\nchar *f = \"/k/src/drivers/demo/a.c\";\n";
        assert_eq!(
            cleaned(raw, &[]),
            "/* klp-ccp: from drivers/demo/a.c */\n\nchar *f = \"drivers/demo/a.c\";\n"
        );
    }

    #[test]
    fn a_pointer_is_declared_once_and_as_what_it_is() {
        let raw = "extern int (*klpe_f)(int);\nint (*klpe_f)(int x);\nstatic int (*klpe_f)(int);\nstatic int (*klpe_f)(int a);\n\
                   static __attribute__((section(\".data..percpu\" \"\"))) __typeof__(int) (*klpe_count);\n\
                   static inline __attribute__((__gnu_inline__)) int *(*klpe_g)(void) __attribute__((__noreturn__));\n\
                   int (*klpe_mine)(int) = 0;\nint (*ops)(void);\nint (*ops)(void);\n";
        assert_eq!(
            cleaned(raw, &["klpe_f", "klpe_count", "klpe_g"]),
            "\nstatic int (*klpe_f)(int);\n\nstatic __typeof__(int) (*klpe_count);\n\
             static int *(*klpe_g)(void) __attribute__((__noreturn__));\n\
             int (*klpe_mine)(int) = 0;\nint (*ops)(void);\nint (*ops)(void);\n"
                .trim_start()
        );
    }

    #[test]
    fn a_key_behind_a_pointer_is_asked_at_run_time() {
        let raw = "static struct static_key_false (*klpe_key);\nint f(void)\n{\n\tif (static_key_false(&(*klpe_key).key) || static_branch_unlikely(&own))\n\t\treturn 1;\n\
                   \treturn static_branch_likely(&(*klpe_key));\n}\n";
        assert_eq!(
            cleaned(raw, &["klpe_key"]),
            "static struct static_key_false (*klpe_key);\nint f(void)\n{\n\tif (static_key_enabled(&(*klpe_key).key) || static_branch_unlikely(&own))\n\t\treturn 1;\n\
             \treturn static_key_enabled(&(*klpe_key));\n}\n"
        );
    }

    #[test]
    fn a_mark_for_the_linker_is_no_use_behind_a_pointer() {
        let mark = |symbol: &str| {
            format!("static void *__attribute__((__used__)) __UNIQUE_ID___addressable_{symbol}7 = (void *)&({symbol});")
        };
        let raw = format!(
            "void f(void) {{ do {{ {} {} g(); }} while (0); }}\n",
            mark("*klpe_key"),
            mark("own")
        );
        assert_eq!(
            cleaned(&raw.replace("able_*klpe", "able_klpe"), &["klpe_key"]),
            format!("void f(void) {{ do {{ {} g(); }} while (0); }}\n", mark("own"))
        );
    }

    #[test]
    fn marks_of_discarded_sections_go_but_not_from_names_or_bodies() {
        let raw = "static int __init klpp_f(void)\n{\n\tint __init = 1;\n\treturn __init;\n}\n\
                   static int __initdata_like;\nstatic int table[] __initdata = { 1 };\n";
        assert_eq!(
            cleaned(raw, &[]),
            "static int klpp_f(void)\n{\n\tint __init = 1;\n\treturn __init;\n}\n\
             static int __initdata_like;\nstatic int table[] = { 1 };\n"
        );
    }

    proptest! {
        #[test]
        fn any_text_can_be_cleaned(text in any::<String>()) {
            cleaned(&text, &["klpe_f"]);
        }

        #[test]
        fn nearly_c_can_be_cleaned_and_is_clean_then(text in "(#define MODULE 1|#include \"/k/src/|static |int |[(*){};=\n\"]|klpe_f|__init |section|__attribute__\\(\\(){0,25}") {
            let once = cleaned(&text, &["klpe_f"]);
            prop_assert!(!once.contains("\n\n\n"));
        }
    }
}
