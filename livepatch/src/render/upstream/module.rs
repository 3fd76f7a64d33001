//! `livepatch_<name>.c` of a module of its own: what it replaces, told to the kernel.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::condition::{both, enabled, split, under};
use super::super::functions::{Replaced, replaced};
use super::super::input::LivepatchOutput;
use super::super::{header, notice};
use super::table;
use crate::names::ObjectName;

/// Finds symbols in the order and by the rules of the kernel's own livepatching.
const LOOK_UP: &str = include_str!("symbols.c");

const HEADERS: &str = "#include <linux/kallsyms.h>\n#include <linux/kernel.h>\n#include <linux/kprobes.h>\n\
    #include <linux/livepatch.h>\n#include <linux/module.h>\n#include <linux/rcupdate.h>\n#include <linux/string.h>\n";

const NEEDS_LIVEPATCH: &str =
    "#ifndef CONFIG_LIVEPATCH\n#error \"This kernel is built without CONFIG_LIVEPATCH\"\n#endif\n";
const NEEDS_KPROBES: &str =
    "#ifndef CONFIG_KPROBES\n#error \"Symbols can't be looked up in a kernel without CONFIG_KPROBES\"\n#endif\n";

/// Calls through pointers must land on a mark that such kernels take from most of their functions.
const INDIRECT: &str = "#ifdef CONFIG_X86_KERNEL_IBT\n\
    \tif (boot_cpu_has(X86_FEATURE_IBT)) {\n\
    \t\tpr_err(\"indirect branch tracking forbids calls of looked-up functions; boot with ibt=off\\n\");\n\
    \t\treturn -EOPNOTSUPP;\n\
    \t}\n\
    #endif\n";

/// The file that joins the sources.
pub fn module(output: &LivepatchOutput<'_>) -> String {
    let looks_up = output.files.iter().any(|f| !f.externalized.is_empty());
    let mut out = notice::notice(output, &format!("livepatch_{}", output.name));
    out.push_str("\n#define pr_fmt(fmt) KBUILD_MODNAME \": \" fmt\n\n");
    out.push_str(NEEDS_LIVEPATCH);
    if looks_up {
        out.push_str(NEEDS_KPROBES);
    }
    out.push('\n');
    out.push_str(if looks_up {
        HEADERS
    } else {
        "#include <linux/livepatch.h>\n#include <linux/module.h>\n"
    });
    let _ = writeln!(out, "\n#include \"{}\"\n", header::name(output));
    if looks_up {
        out.push_str(&sources(output));
        let _ = writeln!(out, "\n{LOOK_UP}");
    }
    out.push_str(&objects(&replaced(&output.files, &output.archs), looks_up));
    let _ = write!(
        out,
        "\nstatic struct klp_patch patch = {{\n\t.mod = THIS_MODULE,\n\t.objs = objects,\n}};\n\n\
         static int __init livepatch_init(void)\n{{\n{}\treturn klp_enable_patch(&patch);\n}}\n\n\
         /* The kernel lets it go only when it is disabled. */\n\
         static void __exit livepatch_exit(void)\n{{\n}}\n\n\
         module_init(livepatch_init);\nmodule_exit(livepatch_exit);\n",
        if looks_up { INDIRECT } else { "" }
    );
    let what = match output.cve {
        Some(cve) => format!("Livepatch for CVE-{cve}"),
        None => format!("Livepatch {}", output.name),
    };
    let _ = write!(
        out,
        "MODULE_LICENSE(\"GPL\");\nMODULE_INFO(livepatch, \"Y\");\nMODULE_AUTHOR({});\nMODULE_DESCRIPTION({});\n",
        notice::literal(&output.author.address()),
        notice::literal(&what)
    );
    out
}

/// The table of each source that has one, with the object that the source patches.
fn sources(output: &LivepatchOutput<'_>) -> String {
    let mut out = String::from(
        "/* The symbols that each source needs, and the object that it patches. */\n\
         static const struct {\n\tconst char *object;\t\t/* NULL: vmlinux */\n\tstruct livepatch_symbol *symbols;\n} sources[] = {\n",
    );
    for file in output.files.iter().filter(|f| !f.externalized.is_empty()) {
        let objects = file
            .platforms
            .iter()
            .map(|(arch, facts)| (*arch, facts.object.as_loaded()));
        for (object, condition) in split(objects.collect()) {
            let condition = both(condition, file.guard(&output.archs).map(enabled));
            let entry = format!("\t{{ {}, {} }},\n", object_literal(&object), table(output, file));
            out.push_str(&under(condition.as_deref(), &entry));
        }
    }
    out.push_str("};\n");
    out
}

fn object_literal(object: &ObjectName) -> String {
    if object.is_vmlinux() {
        "NULL".to_owned()
    } else {
        format!("\"{object}\"")
    }
}

/// The functions of each object, and the objects.
fn objects(replaced: &[Replaced], looks_up: bool) -> String {
    let mut objects: BTreeMap<&ObjectName, Vec<&Replaced>> = BTreeMap::new();
    for function in replaced {
        objects.entry(&function.object).or_default().push(function);
    }
    let mut out = String::new();
    let mut list = String::from("static struct klp_object objects[] = {\n");
    for (object, functions) in objects {
        // What is there under some condition only makes no object elsewhere.
        let condition = any(functions.iter().map(|f| f.condition.as_deref()));
        let condition = condition.as_deref();
        let array = format!("{}_functions", crate::names::identifier_like(object.as_str()));
        let mut text = format!("static struct klp_func {array}[] = {{\n");
        for function in functions {
            let own = function.condition.as_deref().filter(|c| Some(*c) != condition);
            text.push_str(&under(own, &entry(function)));
        }
        text.push_str("\t{ }\n};\n");
        let _ = writeln!(out, "{}", under(condition, &text));
        let mut text = String::from("\t{\n");
        if !object.is_vmlinux() {
            let _ = writeln!(text, "\t\t.name = \"{object}\",");
        }
        let _ = writeln!(text, "\t\t.funcs = {array},");
        if looks_up {
            text.push_str("\t\t.callbacks.pre_patch = before_patching,\n");
        }
        text.push_str("\t},\n");
        list.push_str(&under(condition, &text));
    }
    list.push_str("\t{ }\n};\n");
    out + &list
}

fn entry(function: &Replaced) -> String {
    let mut text = format!(
        "\t{{\n\t\t.old_name = \"{}\",\n\t\t.new_func = {},\n",
        function.function, function.replacement
    );
    if function.sympos > 0 {
        let _ = writeln!(text, "\t\t.old_sympos = {},", function.sympos);
    }
    text.push_str("\t},\n");
    text
}

/// The condition that one of them holds; none if one always does.
fn any<'a>(conditions: impl Iterator<Item = Option<&'a str>>) -> Option<String> {
    let mut all: Vec<&str> = Vec::new();
    for condition in conditions {
        let condition = condition?;
        if !all.contains(&condition) {
            all.push(condition);
        }
    }
    match all.as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        _ => Some(all.iter().map(|c| format!("({c})")).collect::<Vec<_>>().join(" || ")),
    }
}
