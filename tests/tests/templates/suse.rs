//! Folders of SUSE's kernel livepatches, built as their one module does, with stand-ins of what that offers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use klp_livepatch::names::ObjectName;
use klp_livepatch::render::Flavour;
use klp_livepatch::{Arch, patched_funcs};
use klp_worker::trees::Tree;

use super::{Built, CMDLINE, PCM, elsewhere_built_in, extracted, make, newest_tree, render, symbols, write};

const KALLSYMS: Flavour = Flavour::SuseKallsyms { module_mutex: false };
const MUTEX: Flavour = Flavour::SuseKallsyms { module_mutex: true };

/// What SUSE's one livepatch module offers to its folders, in interface only. In kernels that have klp-convert,
/// `<linux/livepatch.h>` has the macros.
const KALLSYMS_RELOCS_H: &str = r#"
#include <linux/module.h>
#include <linux/mutex.h>
struct klp_kallsyms_reloc {
	const char *symname;
	void **addr;
	const char *objname;
	unsigned long sympos;
};
int klp_kallsyms_relocs_init(void);
int klp_resolve_kallsyms_relocs(struct klp_kallsyms_reloc *relocs, unsigned long count);
int __klp_resolve_kallsyms_relocs(struct klp_kallsyms_reloc *relocs, unsigned long count);
extern struct module *(*klpe_find_module)(const char *name);
extern struct mutex module_mutex;
#define find_module(name) (*klpe_find_module)(name)
"#;
const RELOC_SYMBOL_H: &str = r##"
#define KLP_RELOC_SYMBOL_POS(patched, provider, symbol, position) \
	asm("\".klp.sym.rela." #patched "." #provider "." #symbol "," #position "\"")
#define KLP_RELOC_SYMBOL(patched, provider, symbol) KLP_RELOC_SYMBOL_POS(patched, provider, symbol, 0)
"##;

/// The file that includes each folder's header and registers its functions, as their build makes it of the CSV.
fn livepatch_main(csv: &str) -> String {
    let mut functions = String::new();
    for line in patched_funcs::parse(csv).expect("patched_funcs.csv") {
        let entry = format!(
            "\t{{ .old_name = \"{}\", .new_func = {}, .old_sympos = {} }},\n",
            line.function, line.replacement, line.sympos
        );
        match line.condition {
            Some(condition) => functions.push_str(&format!("#if {condition}\n{entry}#endif\n")),
            None => functions.push_str(&entry),
        }
    }
    format!(
        r#"
#include <linux/livepatch.h>
#include "kallsyms_relocs.h"
#include "bsc1197597/livepatch_bsc1197597.h"

DEFINE_MUTEX(module_mutex);
struct module *(*klpe_find_module)(const char *name);
int klp_kallsyms_relocs_init(void) {{ return 0; }}
int klp_resolve_kallsyms_relocs(struct klp_kallsyms_reloc *relocs, unsigned long count) {{ return 0; }}
int __klp_resolve_kallsyms_relocs(struct klp_kallsyms_reloc *relocs, unsigned long count) {{ return 0; }}

struct klp_func functions[] = {{
{functions}	{{ }}
}};

static int __init livepatch_init(void)
{{
	return livepatch_bsc1197597_init();
}}
static void __exit livepatch_exit(void)
{{
	livepatch_bsc1197597_cleanup();
}}
module_init(livepatch_init);
module_exit(livepatch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
"#
    )
}

/// Builds a folder of SUSE's livepatches as their module does.
fn build_suse(tree: &Tree, files: &BTreeMap<String, String>, more: &[&str]) -> Built {
    let dir = tempfile::tempdir().expect("temporary folder");
    let top = dir.path();
    write(&top.join("bsc1197597"), files);
    fs::write(top.join("kallsyms_relocs.h"), KALLSYMS_RELOCS_H).expect("written");
    fs::write(top.join("reloc_symbol.h"), RELOC_SYMBOL_H).expect("written");
    fs::write(
        top.join("livepatch_main.c"),
        livepatch_main(&files["patched_funcs.csv"]),
    )
    .expect("written");
    let objects: Vec<String> = files
        .keys()
        .filter_map(|name| name.strip_suffix(".c"))
        .map(|stem| format!("bsc1197597/{stem}.o"))
        .collect();
    let makefile = format!(
        "obj-m := livepatch_test.o\nlivepatch_test-y := livepatch_main.o {}\nccflags-y += -include {}/reloc_symbol.h\n{}",
        objects.join(" "),
        top.display(),
        files["Kbuild.inc"]
    );
    fs::write(top.join("Kbuild"), makefile).expect("written");
    let mut command = kbuild(tree, top);
    command.args(more).arg("modules");
    make(command, dir)
}

/// kbuild's call for a folder of modules.
fn kbuild(tree: &Tree, dir: &Path) -> Command {
    let mut command = Command::new("make");
    command
        .arg("-C")
        .arg(&tree.obj)
        .args(tree.make_args(dir))
        .arg(format!("M={}", dir.display()))
        .env("LC_ALL", "C");
    command
}

fn objects_of(csv: &str) -> Vec<ObjectName> {
    patched_funcs::parse(csv)
        .expect("CSV")
        .into_iter()
        .map(|line| line.object)
        .collect()
}

#[test]
fn suse_folders_build_into_a_module() {
    let Some(tree) = newest_tree() else { return };
    let (pcm, cmdline) = (extracted(&tree, PCM), extracted(&tree, CMDLINE));
    assert!(!pcm.externalized.is_empty() && !cmdline.externalized.is_empty());
    let everywhere = [Arch::X86_64];
    // Not on all architectures: under its CONFIG.
    let guarded = [Arch::X86_64, Arch::S390x];
    let two = || vec![pcm.clone(), cmdline.clone()];
    for (what, flavour, archs, files) in [
        ("a module", KALLSYMS, &everywhere[..], vec![pcm.clone()]),
        ("vmlinux", KALLSYMS, &everywhere[..], vec![cmdline.clone()]),
        ("both under CONFIGs", KALLSYMS, &guarded[..], two()),
        (
            "a module here, built in elsewhere",
            MUTEX,
            &guarded[..],
            vec![elsewhere_built_in(pcm.clone()), cmdline.clone()],
        ),
    ] {
        let rendered = render(flavour, archs, files.clone());
        let built = build_suse(&tree, &rendered, &[]);
        let module = built.file("livepatch_test.ko");
        assert!(module.is_file(), "{what}: {}", built.said);
        let defined = symbols(&module, false);
        for function in files.iter().flat_map(|f| &f.patched) {
            assert!(
                defined.contains(&function.replacement.to_string()),
                "{what}: {function:?}"
            );
        }
    }
    let objects = objects_of(&render(KALLSYMS, &guarded, two())["patched_funcs.csv"]);
    assert_eq!(objects[0].as_str(), "snd_pcm");
    assert_eq!(objects[3].as_str(), "vmlinux");
}

/// What klp-convert would find: each symbol under its own name, and reached without a pointer in between.
#[test]
fn relocated_symbols_have_the_names_that_klp_convert_reads() {
    let Some(tree) = newest_tree() else { return };
    let (pcm, cmdline) = (extracted(&tree, PCM), extracted(&tree, CMDLINE));
    let files = vec![pcm.clone(), cmdline];
    let rendered = render(Flavour::SuseReloc, &[Arch::X86_64, Arch::S390x], files);
    // modpost complains about klp-convert's names, and must about nothing else.
    let built = build_suse(&tree, &rendered, &["KBUILD_MODPOST_WARN=1"]);
    let left: Vec<&str> = built.said.lines().filter(|line| line.contains("undefined!")).collect();
    assert!(left.iter().all(|line| line.contains("\".klp.sym.rela.")), "{left:?}");
    let object = built.file("bsc1197597/bsc1197597_sound_core_pcm.o");
    let undefined = symbols(&object, true);
    for symbol in &pcm.externalized {
        let name = format!(
            ".klp.sym.rela.snd_pcm.{}.{},0",
            symbol.object.kernel_name(),
            symbol.symbol
        );
        assert!(undefined.contains(&name), "{name} in {undefined:?}");
        assert!(!undefined.contains(&symbol.symbol), "{}", symbol.symbol);
    }
    // Calls are direct: none of the pointers is left.
    let defined = symbols(&object, false);
    assert!(!defined.iter().any(|name| name.starts_with("klpe_")), "{defined:?}");
    let undefined = symbols(&built.file("bsc1197597/bsc1197597_fs_proc_cmdline.o"), true);
    assert!(
        undefined.contains(&".klp.sym.rela.vmlinux.vmlinux.saved_command_line,0".to_owned()),
        "{undefined:?}"
    );
}
