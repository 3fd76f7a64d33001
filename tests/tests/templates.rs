//! Rendered livepatches on a real kernel: each template's files are built by that kernel's own kbuild, SUSE's within
//! stand-ins of what their livepatch module offers. One is loaded, in a virtual machine, where that is asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use klp_livepatch::names::{Cve, LivepatchName, ObjectName};
use klp_livepatch::render::{self, ArchFacts, Author, Flavour, LivepatchOutput, SourceFile};
use klp_livepatch::report::{ExternalizedSymbol, PatchedFunction};
use klp_livepatch::{Arch, patched_funcs};
use klp_tests::{Machine, trees};
use klp_worker::extract::{Job, native};
use klp_worker::trees::{Tree, TreeStore};
use object::{Object, ObjectSection, ObjectSymbol};

const KALLSYMS: Flavour = Flavour::SuseKallsyms { module_mutex: false };
const MUTEX: Flavour = Flavour::SuseKallsyms { module_mutex: true };

/// A file that patches a module, with symbols of the module itself.
const PCM: (&str, &str, &str, &[&str]) = (
    "sound/core/pcm.c",
    "CONFIG_SND_PCM",
    "snd-pcm",
    &["snd_pcm_dev_register", "snd_pcm_proc_read", "snd_pcm_attach_substream"],
);
/// Code that is built in.
const CMDLINE: (&str, &str, &str, &[&str]) = ("fs/proc/cmdline.c", "CONFIG_PROC_FS", "vmlinux", &["cmdline_proc_show"]);

fn newest_tree() -> Option<Tree> {
    let mut all = TreeStore::open(&trees()?).expect("trees").list().trees;
    all.retain(|tree| tree.platform.codestream.as_str().starts_with("debian12-6.1."));
    Some(all.pop().expect("a tree of 6.1"))
}

/// The farm's own extraction of a file.
fn extracted(tree: &Tree, (file, config, object, functions): (&str, &str, &str, &[&str])) -> SourceFile {
    let scratch = tempfile::tempdir().expect("temporary folder");
    let functions = functions.iter().map(|f| (*f).to_owned()).collect();
    let job = Job::for_tree(tree, file, functions, object, scratch.path()).expect("job");
    let symbols = job.symbols().expect("symbols");
    let request = job.into_request().expect("request");
    let (extraction, check) = native::extract_and_check(&request, &symbols).expect("extraction");
    assert!(check.ok, "{file}: {check:?}");
    let patched = extraction.patched.iter().map(|p| PatchedFunction {
        function: p.function.parse().expect("function"),
        replacement: p.replacement.parse().expect("function"),
        prototype: p.prototype.clone(),
        sympos: 0,
    });
    let externalized = extraction.externalized.iter().map(|e| ExternalizedSymbol {
        symbol: e.symbol.clone(),
        object: e.object.parse().expect("object"),
        variable: e.variable.clone(),
        sympos: 0,
    });
    let facts = ArchFacts {
        object: object.parse().expect("object"),
        functions: BTreeMap::new(),
        symbols: BTreeMap::new(),
    };
    SourceFile {
        file: file.parse().expect("path"),
        config: config.parse().expect("config"),
        source: extraction.source,
        patched: patched.collect(),
        externalized: externalized.collect(),
        flags: Vec::new(),
        platforms: BTreeMap::from([(Arch::X86_64, facts)]),
    }
}

fn render(flavour: Flavour, archs: &[Arch], files: Vec<SourceFile>) -> BTreeMap<String, String> {
    let name: LivepatchName = "bsc1197597".parse().expect("name");
    let cve: Cve = "2022-1048".parse().expect("CVE");
    let author = Author {
        name: "Ada \"A\" Example".into(),
        mail: "ada@example.org".into(),
        company: String::new(),
        licence: Author::LICENCE.into(),
    };
    let output = LivepatchOutput {
        name: &name,
        cve: Some(&cve),
        flavour,
        author: &author,
        year: 2026,
        archs: archs.iter().copied().collect(),
        files,
    };
    render::livepatch(&output).expect("rendered")
}

fn write(dir: &Path, files: &BTreeMap<String, String>) {
    fs::create_dir_all(dir).expect("folder");
    for (name, text) in files {
        fs::write(dir.join(name), text).expect("written");
    }
}

/// What kbuild made in a folder of modules, and what it said.
struct Built {
    dir: tempfile::TempDir,
    said: String,
}

impl Built {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Runs `make` and expects it to succeed without a warning of ours.
fn make(mut command: Command, dir: tempfile::TempDir) -> Built {
    let output = command.stdin(Stdio::null()).output().expect("make");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("warning:"), "{said}");
    Built { dir, said }
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

fn build_upstream(tree: &Tree, files: &BTreeMap<String, String>) -> Built {
    let dir = tempfile::tempdir().expect("temporary folder");
    write(dir.path(), files);
    // As a person would, but for the variables that the tree was configured with.
    let mut command = Command::new("make");
    command
        .current_dir(dir.path())
        .arg(format!("KDIR={}", tree.obj.display()))
        .args(tree.make_args(dir.path()))
        .env("LC_ALL", "C");
    make(command, dir)
}

/// The strings of a module's `.modinfo`.
fn modinfo(module: &Path) -> Vec<String> {
    let bytes = fs::read(module).expect("module");
    let file = object::File::parse(&*bytes).expect("ELF");
    let section = file.section_by_name(".modinfo").expect(".modinfo");
    let data = section.data().expect("data");
    data.split(|b| *b == 0)
        .map(|s| String::from_utf8_lossy(s).into_owned())
        .collect()
}

fn symbols(object: &Path, undefined: bool) -> Vec<String> {
    let bytes = fs::read(object).expect("object");
    let file = object::File::parse(&*bytes).expect("ELF");
    let all = file.symbols().filter(|s| s.is_undefined() == undefined);
    all.filter_map(|s| s.name().ok().map(str::to_owned)).collect()
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
        ("both, under module_mutex", MUTEX, &guarded[..], two()),
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

#[test]
fn an_upstream_livepatch_is_a_whole_module() {
    let Some(tree) = newest_tree() else { return };
    let files = vec![extracted(&tree, PCM), extracted(&tree, CMDLINE)];
    let rendered = render(Flavour::Upstream, &[Arch::X86_64], files.clone());
    let built = build_upstream(&tree, &rendered);
    let module = built.file("klp_bsc1197597.ko");
    let info = modinfo(&module);
    assert!(info.iter().any(|i| i == "livepatch=Y"), "{info:?}");
    assert!(info.iter().any(|i| i == "license=GPL"), "{info:?}");
    assert!(
        info.iter().any(|i| i == "author=Ada \"A\" Example <ada@example.org>"),
        "{info:?}"
    );
    assert!(
        info.iter().any(|i| i == "description=Livepatch for CVE-2022-1048"),
        "{info:?}"
    );
    assert!(!built.said.contains("undefined!"), "{}", built.said);
    // One without hidden symbols looks nothing up.
    let mut alone = extracted(
        &tree,
        (
            "sound/core/pcm.c",
            "CONFIG_SND_PCM",
            "snd-pcm",
            &["snd_pcm_attach_substream"],
        ),
    );
    assert!(alone.externalized.is_empty());
    let rendered = render(Flavour::Upstream, &[Arch::X86_64], vec![alone.clone()]);
    let undefined = symbols(&build_upstream(&tree, &rendered).file("klp_bsc1197597.ko"), true);
    assert!(!undefined.iter().any(|s| s == "register_kprobe"), "{undefined:?}");
    // A type that only the source knows.
    let prototype = "unknown_t klpp_snd_pcm_attach_substream(struct snd_pcm *pcm);";
    prototype.clone_into(&mut alone.patched[0].prototype);
    build_upstream(&tree, &render(Flavour::Upstream, &[Arch::X86_64], vec![alone]));
}

/// Loaded into its kernel, the livepatch replaces what it should, with the symbols that it looked up, also in a module that
/// comes and goes; disabled, it leaves the kernel as it was.
#[test]
fn an_upstream_livepatch_loads_works_and_goes() {
    let Some(tree) = newest_tree() else { return };
    let Some(mut machine) = Machine::wanted(&tree.dir.join("boot/vmlinuz")) else {
        return;
    };
    let (pcm, mut cmdline) = (extracted(&tree, PCM), extracted(&tree, CMDLINE));
    let source = cmdline
        .source
        .replace("seq_putc(m, '\\n');", "seq_puts(m, \" livepatched\\n\");");
    assert_ne!(source, cmdline.source);
    cmdline.source = source;
    let built = build_upstream(&tree, &render(Flavour::Upstream, &[Arch::X86_64], vec![pcm, cmdline]));
    machine.file("lp.ko", &fs::read(built.file("klp_bsc1197597.ko")).expect("module"));
    let modules = tree.modules().expect("modules");
    for name in ["soundcore", "snd", "snd-timer", "snd-pcm", "snd-dummy"] {
        let path = modules.find(name).expect("module");
        machine.file(&format!("{name}.ko"), &fs::read(path).expect("module"));
    }
    let said = machine.run(
        r#"
L=/sys/kernel/livepatch/klp_bsc1197597
# Until its transition is over, at most half a minute.
settle() { for i in $(seq 300); do [ "$(cat $L/transition 2>/dev/null)" = 1 ] || break; usleep 100000; done; }
insmod /soundcore.ko; insmod /snd.ko; insmod /snd-timer.ko; insmod /snd-pcm.ko
echo "BEFORE $(cat /proc/cmdline)"
insmod /lp.ko && settle && echo "ENABLED $(cat $L/enabled) TRANSITION $(cat $L/transition)"
echo "AFTER $(cat /proc/cmdline)"
# The replaced function puts the card's device on the module's own list; another reads it from there.
insmod /snd-dummy.ko; echo "LIST $(cat /proc/asound/pcm)"
rmmod snd-dummy; rmmod snd-pcm && insmod /snd-pcm.ko && insmod /snd-dummy.ko; echo "AGAIN $(cat /proc/asound/pcm)"
echo 0 > $L/enabled; settle; usleep 500000
[ -e $L ] || echo GONE
echo "RESTORED $(cat /proc/cmdline)"
rmmod klp_bsc1197597 && echo REMOVED
dmesg | grep -E "WARNING|BUG:|Oops|refusing" | sed 's/^/BAD /'
"#,
    );
    let line = |word: &str| {
        let found = said.lines().find_map(|line| line.trim().strip_prefix(word));
        found.unwrap_or_else(|| panic!("no {word}: {said}")).trim()
    };
    assert_eq!(line("ENABLED"), "1 TRANSITION 0");
    assert!(!line("BEFORE").ends_with(" livepatched"), "{said}");
    assert!(line("AFTER").ends_with(" livepatched"), "{said}");
    assert!(line("LIST").contains("Dummy PCM"), "{said}");
    assert!(line("AGAIN").contains("Dummy PCM"), "{said}");
    assert_eq!(line("RESTORED"), line("BEFORE"));
    line("GONE");
    line("REMOVED");
    assert!(!said.contains("BAD "), "{said}");
}
