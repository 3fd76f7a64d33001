//! A livepatch as a folder of SUSE's kernel livepatches: each source with what resolves its symbols, and one `init` and
//! `cleanup` of the folder's name, which the kernel's one livepatch module calls.
//!
//! What that module offers is fact, not ours to choose: `../kallsyms_relocs.h` with `struct klp_kallsyms_reloc` (name,
//! pointer, object, position) and the functions that resolve a table of them; in kernels with klp-convert, `KLP_RELOC_SYMBOL`
//! of `<linux/livepatch.h>`.

mod kallsyms;
mod reloc;

use std::fmt::Write as _;

use super::condition::enabled;
use super::input::{Flavour, LivepatchOutput, SourceFile};
use super::{header, notice, stem};
use crate::names::identifier_like;

/// Names that a file's `init` and `cleanup` begin with.
fn prefix(output: &LivepatchOutput<'_>, file: &SourceFile) -> String {
    identifier_like(&stem(output, file))
}

fn joint(output: &LivepatchOutput<'_>) -> String {
    format!("livepatch_{}", output.name.as_identifier())
}

/// What a file's resolving needs of its livepatch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setup {
    Nothing,
    Init,
    InitAndCleanup,
}

fn setup(output: &LivepatchOutput<'_>, file: &SourceFile) -> Setup {
    match output.flavour {
        Flavour::SuseKallsyms { .. } if file.externalized.is_empty() => Setup::Nothing,
        Flavour::SuseKallsyms { .. } if file.in_module() == Some(false) => Setup::Init,
        Flavour::SuseKallsyms { .. } => Setup::InitAndCleanup,
        Flavour::SuseReloc | Flavour::Upstream => Setup::Nothing,
    }
}

/// One source file.
pub fn source(output: &LivepatchOutput<'_>, file: &SourceFile) -> String {
    let guard = file.guard(&output.archs);
    let mut out = notice::notice(output, &stem(output, file));
    out.push('\n');
    if let Some(config) = guard {
        let _ = writeln!(out, "#if {}\n", enabled(config));
        if file.in_module() == Some(true) {
            let _ = writeln!(
                out,
                "#if !IS_MODULE({config})\n#error \"This livepatch is made for {config}=m\"\n#endif\n"
            );
        }
    }
    out.push_str(&header::include(output));
    let _ = writeln!(out, "\n{}", without_orders(&file.source).trim_end());
    if !file.externalized.is_empty() {
        out.push('\n');
        out.push_str(&match output.flavour {
            Flavour::SuseKallsyms { module_mutex } => kallsyms::resolution(file, &prefix(output, file), module_mutex),
            Flavour::SuseReloc | Flavour::Upstream => reloc::resolution(file),
        });
    }
    if let Some(config) = guard {
        let _ = writeln!(out, "\n#endif /* {} */", enabled(config));
    }
    out
}

/// The source without the relocations that whoever extracted it ordered for its own architecture: [`reloc`] orders them
/// for all.
fn without_orders(source: &str) -> &str {
    const ORDERS: &str = "\n#include <linux/livepatch.h>\n#ifndef KLP_RELOC_SYMBOL\n";
    source.split_once(ORDERS).map_or(source, |(code, _)| code)
}

/// The declarations of `init` and `cleanup` in the header, of the whole and of each file.
pub fn declared(output: &LivepatchOutput<'_>) -> String {
    let whole = joint(output);
    let mut out = String::new();
    if let [only] = output.files.as_slice() {
        out.push_str(&declared_one(output, only, &whole));
        return out;
    }
    match joint_setup(output) {
        Setup::Nothing => out.push_str(&stubs(&whole)),
        setup => out.push_str(&declare(&whole, setup)),
    }
    for file in &output.files {
        if setup(output, file) != Setup::Nothing {
            out.push_str(&declared_one(output, file, &prefix(output, file)));
        }
    }
    out
}

fn joint_setup(output: &LivepatchOutput<'_>) -> Setup {
    let setups: Vec<Setup> = output.files.iter().map(|f| setup(output, f)).collect();
    if setups.contains(&Setup::InitAndCleanup) {
        Setup::InitAndCleanup
    } else if setups.contains(&Setup::Init) {
        Setup::Init
    } else {
        Setup::Nothing
    }
}

fn declared_one(output: &LivepatchOutput<'_>, file: &SourceFile, prefix: &str) -> String {
    let setup = setup(output, file);
    match file.guard(&output.archs) {
        _ if setup == Setup::Nothing => stubs(prefix),
        Some(config) => format!(
            "#if {0}\n{1}#else /* !{0} */\n{2}#endif /* {0} */\n\n",
            enabled(config),
            declare(prefix, setup).trim_end_matches('\n').to_owned() + "\n",
            stubs(prefix).trim_end_matches('\n').to_owned() + "\n"
        ),
        None => declare(prefix, setup),
    }
}

fn declare(prefix: &str, setup: Setup) -> String {
    let cleanup = match setup {
        Setup::InitAndCleanup => format!("void {prefix}_cleanup(void);"),
        Setup::Init | Setup::Nothing => format!("static inline void {prefix}_cleanup(void) {{}}"),
    };
    format!("int {prefix}_init(void);\n{cleanup}\n\n")
}

fn stubs(prefix: &str) -> String {
    format!("static inline int {prefix}_init(void) {{ return 0; }}\nstatic inline void {prefix}_cleanup(void) {{}}\n\n")
}

/// `livepatch_<name>.c` of several files; none if there is nothing to set up.
pub fn joining(output: &LivepatchOutput<'_>) -> Option<String> {
    let joint_setup = joint_setup(output);
    if output.files.len() < 2 || joint_setup == Setup::Nothing {
        return None;
    }
    let whole = joint(output);
    let parts: Vec<String> = output
        .files
        .iter()
        .filter(|f| setup(output, f) != Setup::Nothing)
        .map(|f| prefix(output, f))
        .collect();
    let mut out = notice::notice(output, &whole);
    let _ = write!(
        out,
        "\n#include \"{}\"\n\nint {whole}_init(void)\n{{\n\tint err;\n\n",
        header::name(output)
    );
    for (i, part) in parts.iter().enumerate() {
        let _ = writeln!(out, "\terr = {part}_init();\n\tif (err)");
        let _ = match i.checked_sub(1) {
            None => writeln!(out, "\t\treturn err;"),
            Some(former) => writeln!(out, "\t\tgoto undo_{};", parts[former]),
        };
    }
    out.push_str("\treturn 0;\n");
    for part in parts.iter().rev().skip(1) {
        let _ = write!(out, "\nundo_{part}:\n\t{part}_cleanup();");
    }
    if parts.len() > 1 {
        out.push_str("\n\treturn err;\n");
    }
    out.push_str("}\n");
    if joint_setup == Setup::InitAndCleanup {
        let _ = write!(out, "\nvoid {whole}_cleanup(void)\n{{\n");
        for part in parts.iter().rev() {
            let _ = writeln!(out, "\t{part}_cleanup();");
        }
        out.push_str("}\n");
    }
    Some(out)
}
