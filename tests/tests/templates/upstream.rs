//! Livepatches as modules of their own: built by their makefile, and loaded into the kernel that they are for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use klp_livepatch::Arch;
use klp_livepatch::names::{FunctionName, ObjectName};
use klp_livepatch::render::{ArchFacts, Flavour, SourceFile};
use klp_livepatch::report::{ExternalizedSymbol, PatchedFunction};
use klp_tests::Machine;
use klp_worker::trees::Tree;
use object::{Object, ObjectSection};

use super::{Built, CMDLINE, PCM, elsewhere_built_in, extracted, make, newest_tree, render, render_as, symbols, write};

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

#[test]
fn an_upstream_livepatch_is_a_whole_module() {
    let Some(tree) = newest_tree() else { return };
    // Of two architectures: one file is built in on the other, which lacks the other file.
    let files = vec![elsewhere_built_in(extracted(&tree, PCM)), extracted(&tree, CMDLINE)];
    let rendered = render(Flavour::Upstream, &[Arch::X86_64, Arch::S390x], files);
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

/// A livepatch whose function shows where it found namesakes, each with its position.
fn positions(name: &str, symbols: &[(&str, u32)]) -> BTreeMap<String, String> {
    let mut source = String::from("#include <linux/seq_file.h>\n\n");
    let mut show = String::new();
    let mut externalized = Vec::new();
    for (symbol, sympos) in symbols {
        let variable = format!("klpe_{sympos}");
        source.push_str(&format!("static void *{variable};\n"));
        show.push_str(&format!("\tseq_printf(m, \" %px\", {variable});\n"));
        externalized.push(ExternalizedSymbol {
            symbol: (*symbol).to_owned(),
            object: ObjectName::vmlinux(),
            variable,
            sympos: *sympos,
        });
    }
    source.push_str(&format!(
        "\nint klpp_version_proc_show(struct seq_file *m, void *v)\n{{\n{show}\treturn 0;\n}}\n"
    ));
    let function: FunctionName = "version_proc_show".parse().expect("function");
    let facts = ArchFacts {
        object: ObjectName::vmlinux(),
        // It is the only one, which is also the first.
        functions: BTreeMap::from([(function.clone(), 1)]),
        symbols: BTreeMap::new(),
    };
    let file = SourceFile {
        file: "fs/proc/version.c".parse().expect("path"),
        config: "CONFIG_PROC_FS".parse().expect("config"),
        source,
        patched: vec![PatchedFunction {
            function,
            replacement: "klpp_version_proc_show".parse().expect("function"),
            prototype: "int klpp_version_proc_show(struct seq_file *m, void *v);".into(),
            sympos: 1,
        }],
        externalized,
        flags: Vec::new(),
        platforms: BTreeMap::from([(Arch::X86_64, facts)]),
    };
    render_as(name, Flavour::Upstream, &[Arch::X86_64], vec![file])
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
    // Every file that says its functions' names has symbols of this one.
    const MANY: &str = "__func__.0";
    for (name, symbols) in [
        ("positions", &[(MANY, 1), (MANY, 3)][..]),
        ("ambiguous", &[(MANY, 0)][..]),
        ("absent", &[("nobody_has_this_symbol", 0)][..]),
    ] {
        let built = build_upstream(&tree, &positions(name, symbols));
        let module = fs::read(built.file(&format!("klp_{name}.ko"))).expect("module");
        machine.file(&format!("{name}.ko"), &module);
    }
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
insmod /positions.ko && echo "FOUND $(cat /proc/version)"
echo "KERNEL $(grep ' __func__\.0$' /proc/kallsyms | sed -n '1p;3p' | while read a b; do echo -n "$a "; done)"
insmod /ambiguous.ko || echo REFUSED-AMBIGUOUS
insmod /absent.ko || echo REFUSED-ABSENT
dmesg | grep "symbols named" | sed 's/.*klp_/SAID /'
dmesg | grep -E "WARNING|BUG:|Oops|refusing" | sed 's/^/BAD /'
"#,
    );
    let line = |word: &str| {
        // The console's first line begins with what clears the screen.
        let found = said.lines().find_map(|line| Some(line.split_once(word)?.1));
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
    assert_eq!(line("FOUND"), line("KERNEL"));
    line("REFUSED-AMBIGUOUS");
    line("REFUSED-ABSENT");
    assert!(
        line("SAID ambiguous: vmlinux has").contains("symbols named __func__.0"),
        "{said}"
    );
    assert_eq!(
        line("SAID absent:"),
        "vmlinux has 0 symbols named nobody_has_this_symbol; the livepatch needs number 0 (0: the only one)"
    );
    assert!(!said.contains("BAD "), "{said}");
}
