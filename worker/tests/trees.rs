//! Real kernel trees: what they hold, what the checks say about them, and that looking at them leaves no trace.
//!
//! Reads the trees in the folder KLP_FARM_TREES names (`make test` provides it: Debian's 6.1.0-50 at least); without the
//! variable these tests fail, unless KLP_FARM_SKIP_REAL says to go without.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use klp_livepatch::Arch;
use klp_livepatch::names::ObjectName;
use klp_livepatch::report::ConfigValue;
use klp_livepatch::spec::Target;
use klp_worker::check::{CheckOptions, Lab, check, check_with, inlining};
use klp_worker::extract::{CommandSource, compile_command};
use klp_worker::isolation::{Cell, Room};
use klp_worker::process::{Limits, capture};
use klp_worker::symbols::traceable::read_traceable;
use klp_worker::symbols::{SymbolKind, Symvers, kallsyms};
use klp_worker::trees::overlay::{Patch, View};
use klp_worker::trees::{Tree, TreeKind, TreeStore, verify};
use tokio_util::sync::CancellationToken;

/// The Debian trees, of which there must be some if the variable is set.
fn debian_trees() -> Vec<Tree> {
    let Some(dir) = std::env::var_os("KLP_FARM_TREES") else {
        assert!(
            std::env::var_os("KLP_FARM_SKIP_REAL").is_some(),
            "KLP_FARM_TREES is not set: run `make test`, or set KLP_FARM_SKIP_REAL=1 to go without real kernels"
        );
        return Vec::new();
    };
    let listing = TreeStore::open(Path::new(&dir)).unwrap().list();
    assert!(listing.broken.is_empty(), "{:?}", listing.broken);
    let trees: Vec<_> = listing
        .trees
        .into_iter()
        .filter(|tree| tree.kind == TreeKind::Debian)
        .collect();
    assert!(
        !trees.is_empty(),
        "no debian tree in {dir:?}; add one with `klp-worker tree add debian 6.1.0-50`"
    );
    trees
}

fn target(file: &str, config: &str, object: &str, functions: &[&str]) -> Target {
    Target {
        file: file.parse().unwrap(),
        functions: functions.iter().map(|f| f.parse().unwrap()).collect(),
        config: config.parse().unwrap(),
        object: object.parse().unwrap(),
    }
}

/// Every folder's and every file's time of change below a folder.
fn times(dir: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let mut all = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        all.insert(folder.clone(), folder.metadata().unwrap().modified().unwrap());
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                all.insert(entry.path(), entry.metadata().unwrap().modified().unwrap());
            }
        }
    }
    all
}

#[test]
fn every_export_of_vmlinux_is_among_its_recovered_symbols() {
    for tree in debian_trees() {
        let table = tree.vmlinux_symbols().unwrap();
        let text = std::fs::read_to_string(&tree.symvers).unwrap();
        let exports: Vec<_> = text
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>())
            .filter(|fields| fields[2] == "vmlinux")
            .map(|fields| fields[1].to_owned())
            .collect();
        assert!(exports.len() > 5000, "{}: {}", tree.platform, exports.len());
        let missing: Vec<_> = exports.iter().filter(|name| table.lookup(name).is_none()).collect();
        assert!(missing.is_empty(), "{}: {missing:?}", tree.platform);
        let mut count = 0;
        table.for_each_name(&mut |_| count += 1);
        assert!(count > 80_000, "{}: {count}", tree.platform);
    }
}

#[test]
fn symbols_are_told_apart_by_who_has_them() {
    for tree in debian_trees() {
        let start = Instant::now();
        let pcm = tree.symbols(&"snd-pcm".parse().unwrap()).unwrap();
        let opening = start.elapsed();
        assert!(pcm.in_object("snd_pcm_attach_substream") && !pcm.in_vmlinux("snd_pcm_attach_substream"));
        assert!(pcm.exported("snd_pcm_attach_substream").is_none());
        assert_eq!(pcm.exported("snd_pcm_new").unwrap().module, "snd-pcm");
        assert!(pcm.exported("kfree").is_some() && pcm.in_vmlinux("kfree") && !pcm.in_object("kfree"));
        let show = "cmdline_proc_show";
        let vmlinux = tree.symbols(&ObjectName::vmlinux()).unwrap();
        assert!(vmlinux.in_object(show) && vmlinux.in_vmlinux(show) && vmlinux.exported(show).is_none());
        assert_eq!(vmlinux.lookup_in_object(show).unwrap().kind, SymbolKind::Function);
        println!("{}: symbols of snd-pcm opened in {opening:?}", tree.platform);
        assert!(opening.as_millis() < 500, "{opening:?}");
        assert!(Symvers::open(&tree.symvers).unwrap().len() > 10_000);
    }
}

#[test]
fn known_targets_pass_their_checks() {
    let targets = [
        target(
            "sound/core/pcm.c",
            "CONFIG_SND_PCM",
            "snd-pcm",
            &["snd_pcm_attach_substream", "snd_pcm_detach_substream"],
        ),
        target(
            "net/sched/sch_qfq.c",
            "CONFIG_NET_SCH_QFQ",
            "sch_qfq",
            &["qfq_change_class"],
        ),
        target(
            "net/bluetooth/l2cap_sock.c",
            "CONFIG_BT",
            "bluetooth",
            &["l2cap_sock_kill"],
        ),
        target("drivers/hid/hid-core.c", "CONFIG_HID", "hid", &["hid_alloc_report_buf"]),
        target("fs/proc/cmdline.c", "CONFIG_PROC_FS", "vmlinux", &["cmdline_proc_show"]),
    ];
    for tree in debian_trees() {
        let report = check(&tree, &targets).unwrap();
        for (found, target) in report.targets.iter().zip(&targets) {
            assert!(found.problems.is_empty(), "{:#?}", found.problems);
            let functions: Vec<_> = found.functions.iter().map(|f| f.function.clone()).collect();
            assert_eq!(functions, target.functions);
            let built_in = found.config == Some(ConfigValue::BuiltIn);
            assert_eq!(found.object.as_ref().unwrap().is_vmlinux(), built_in);
        }
        assert_eq!(report.targets[0].config, Some(ConfigValue::Module));
        assert_eq!(report.targets[4].config, Some(ConfigValue::BuiltIn));
    }
}

#[test]
fn wrong_targets_are_explained() {
    let cases = [
        (
            target("sound/core/pcm.c", "CONFIG_SND_PCMX", "snd-pcm", &["snd_pcm_new"]),
            "did you mean CONFIG_SND_PCM",
        ),
        (
            target("sound/pcm.c", "CONFIG_SND_PCM", "snd-pcm", &["snd_pcm_new"]),
            "sound/core/pcm.c",
        ),
        (
            target("sound/core/pcm.c", "CONFIG_SND_PCM", "snd-pcn", &["snd_pcm_new"]),
            "snd_pcm",
        ),
        (
            target("sound/core/pcm.c", "CONFIG_SND_PCM", "vmlinux", &["snd_pcm_new"]),
            "snd-pcm",
        ),
        (
            target("sound/core/pcm.c", "CONFIG_SND_PCM", "snd-pcm", &["snd_pcm_nev"]),
            "did you mean snd_pcm_new",
        ),
        (
            target("sound/core/pcm.c", "CONFIG_SND_PCM", "snd-pcm", &["snd_timer_open"]),
            "module snd-timer",
        ),
        (
            target("sound/core/pcm.c", "CONFIG_SND_PCM", "snd-pcm", &["kfree"]),
            "it is in vmlinux",
        ),
    ];
    for tree in debian_trees() {
        for (target, answer) in &cases {
            let report = check(&tree, std::slice::from_ref(target)).unwrap();
            let problems = &report.targets[0].problems;
            assert!(
                problems.len() == 1
                    && problems[0].contains(answer)
                    && problems[0].starts_with(&tree.platform.to_string()),
                "wanted {answer}, got {problems:#?}"
            );
        }
        for (config, answer) in [
            ("CONFIG_KCSAN", "is not set"),
            // Behind a menu that this kernel has off, so that .config doesn't name it at all.
            ("CONFIG_KCSAN_STRICT", "depends on is off"),
        ] {
            let kcsan = target("kernel/kcsan/core.c", config, "vmlinux", &["kcsan_init"]);
            let report = check(&tree, &[kcsan]).unwrap();
            assert!(report.leaves_out(), "{report:?}");
            assert!(
                report.targets[0].left_out.as_ref().unwrap().contains(answer),
                "{report:?}"
            );
        }
        // A function that 6.1 has and later kernels don't.
        let rpl = target("net/ipv6/rpl.c", "CONFIG_IPV6", "vmlinux", &["ipv6_rpl_srh_size"]);
        let found = check(&tree, &[rpl]).unwrap().targets.remove(0);
        if tree.release.starts_with("6.1.") {
            assert!(found.problems.is_empty(), "{:?}", found.problems);
        } else {
            assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
            println!("{}", found.problems[0]);
        }
    }
}

#[tokio::test]
async fn good_trees_verify() {
    for tree in debian_trees() {
        let start = Instant::now();
        let problems = verify::verify(&tree, &CancellationToken::new()).await.unwrap();
        assert!(problems.is_empty(), "{problems:#?}");
        println!("{}: verified in {:?}", tree.platform, start.elapsed());
    }
}

#[tokio::test]
async fn asking_for_commands_and_checking_leave_no_trace() {
    for tree in debian_trees() {
        let before = times(&tree.dir);
        let scratch = tempfile::tempdir().unwrap();
        let command = tree.make_command(scratch.path()).args(["-sn", "sound/core/pcm.o"]);
        let done = capture(&command, &Limits::default(), &CancellationToken::new())
            .await
            .unwrap();
        assert!(done.finish.end.success(), "{}", done.stderr);
        let is_compile = |line: &&str| line.contains(" -c ") && line.contains("sound/core/pcm.c");
        let compile: Vec<_> = done.stdout.lines().filter(is_compile).collect();
        assert_eq!(compile.len(), 1, "{}", done.stdout);
        // kbuild found out that the compiler has this option: it could write where it tries that.
        assert!(compile[0].contains("-fmacro-prefix-map="), "{}", compile[0]);
        check(
            &tree,
            &[target("sound/core/pcm.c", "CONFIG_SND_PCM", "snd-pcm", &["nope"])],
        )
        .unwrap();
        // What was inlined is known from a compilation of the file's own.
        let qfq = target(
            "net/sched/sch_qfq.c",
            "CONFIG_NET_SCH_QFQ",
            "sch_qfq",
            &["qfq_change_class", "qfq_slot_rotate"],
        );
        if Arch::host() == Some(tree.platform.arch) {
            let cancel = CancellationToken::new();
            let room = Room::at(scratch.path().to_owned()).unwrap();
            let lab = Lab {
                room: &room,
                cell: &Cell::open(),
                limits: Limits::default(),
                cancel: &cancel,
            };
            let targets = [qfq];
            let inlining = inlining::gather(&tree, &targets, &lab).await.unwrap();
            let report = check_with(&tree, &targets, CheckOptions::default(), &inlining).unwrap();
            let problems = &report.targets[0].problems;
            assert!(
                problems.len() == 1 && problems[0].contains("qfq_slot_rotate: it was inlined into qfq_"),
                "{problems:?}"
            );
        }
        verify::verify(&tree, &CancellationToken::new()).await.unwrap();
        let after = times(&tree.dir);
        let changed: Vec<_> = after
            .iter()
            .filter(|(path, time)| before.get(*path) != Some(time))
            .collect();
        assert!(changed.is_empty() && before.len() == after.len(), "{changed:?}");
        assert_eq!(
            std::fs::read_dir(scratch.path()).unwrap().count(),
            0,
            "kbuild tidies up after itself"
        );
    }
}

/// A patch that adds a line before a file's second one.
fn marking(tree: &Tree, file: &str, line: &str) -> Patch {
    let text = std::fs::read_to_string(tree.src.join(file)).unwrap();
    let first: Vec<&str> = text.lines().take(3).collect();
    let diff = format!(
        "--- a/{file}\n+++ b/{file}\n@@ -1,3 +1,4 @@\n {}\n+{line}\n {}\n {}\n",
        first[0], first[1], first[2]
    );
    Patch {
        name: "marking.patch".to_owned(),
        bytes: diff.into_bytes(),
    }
}

/// What a compiler reads of a view is the view's, be it a `.c` file or a header that is patched, and the compiler finds
/// nothing of the patch in the tree. Prints what a view takes.
#[tokio::test]
#[ignore = "makes some ten thousand links"]
async fn a_view_of_a_real_kernel_is_compiled_as_patched() {
    let Some(tree) = debian_trees().pop() else { return };
    let before = times(&tree.src);
    for (file, whole) in [("sound/core/pcm.c", false), ("include/sound/pcm.h", true)] {
        let scratch = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let patch = marking(&tree, file, "extern int marked_by_a_patch;");
        let view = View::new(
            &tree,
            scratch.path(),
            &[patch],
            &Cell::open(),
            &CancellationToken::new(),
        )
        .await;
        let view = view.unwrap().unwrap();
        println!("{}: {file}: a view in {:?}", tree.platform, start.elapsed());
        assert_eq!(view.is_whole(), whole);
        let make_args = tree.make_args(scratch.path());
        let source = CommandSource {
            src_dir: &tree.src,
            obj_dir: &tree.obj,
            cc: &tree.compiler,
            make_args: &make_args,
        };
        let command = view.command(&compile_command(&source, "sound/core/pcm.c").unwrap());
        let at = command.args.iter().position(|arg| arg == "-c").unwrap();
        let done = std::process::Command::new(&command.compiler)
            .args(command.args[..at].iter().filter(|arg| !arg.starts_with("-Wp,-M")))
            .arg("-E")
            .arg(command.args.last().unwrap())
            .current_dir(&command.directory)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(text.contains("marked_by_a_patch"));
        let src = tree.src.to_str().unwrap();
        let strays: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("# ") && line.contains(src))
            .collect();
        assert!(strays.is_empty(), "{:?}", &strays[..strays.len().min(5)]);
        let start = Instant::now();
        drop(scratch);
        println!("{}: {file}: gone in {:?}", tree.platform, start.elapsed());
    }
    assert!(times(&tree.src) == before);
}

#[test]
fn the_boot_image_tells_what_ftrace_can_hook() {
    for tree in debian_trees() {
        let image = tree.boot_image.as_deref().unwrap();
        let entries = kallsyms::read_entries(image).unwrap();
        let traceable = read_traceable(image).unwrap();
        let can_trace = |name: &str| {
            let mut of_name = entries.iter().filter(|entry| entry.name == name);
            of_name.any(|entry| traceable.contains(&entry.address))
        };
        assert!(can_trace("vprintk") && can_trace("tcp_v4_rcv"), "{}", tree.platform);
        assert!(
            !can_trace("ftrace_caller") && !can_trace("jiffies"),
            "{}",
            tree.platform
        );
    }
}
