//! A farm over small kernels in SUSE's layout, from their catalog to what klp-build's users find on their disks: two files
//! under two CONFIGs, modules with dashes, namesakes, and a symbol that s390x lacks.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use klp_livepatch::Arch;
use klp_tests::suse::{DataDir, Kernel, Packing, has_compiler};
use klp_tests::{Farm, WorkerOptions, command_on};
use serde_json::Value;

const CATALOG: &str = "Update ID,Maintenance Project,Kernel version,Supported until,LTSS until\n\
    SLE15-SP5_Update_1,SUSE:Maintenance:1,5.14.21-150500.55.7.1,2030-12-31,\n\
    SLE15-SP5_Update_2,SUSE:Maintenance:2,5.14.21-150500.55.12.1,2030-12-31,\n\
    SLE15-SP5_Update_3,SUSE:Maintenance:3,5.14.21-150500.55.19.1,2030-12-31,\n";

/// A module with a dash in its name. `demo_helper` is a function of its own but on s390x, where it is inlined; of the
/// functions named `reset` this file's is one.
const DEMO: &str = "#include <linux/export.h>\n#include <linux/printk.h>\n\n\
    #ifdef __s390x__\n#define apart static inline __attribute__((always_inline))\n\
    #else\n#define apart static __attribute__((noinline))\n#endif\n\n\
    static int demo_count;\n\n\
    apart int demo_helper(int x)\n{\n\tdemo_count += x;\n\treturn vprintk(\"demo\", demo_count);\n}\n\n\
    static __attribute__((noinline)) int reset(int x)\n{\n\tdemo_count = x;\n\treturn demo_helper(x);\n}\n\n\
    int demo_open(int x)\n{\n\treturn demo_helper(x) + reset(x);\n}\nEXPORT_SYMBOL(demo_open);\n";

const OTHER: &str = "#include <linux/export.h>\n\nstatic __attribute__((noinline)) int reset(int x)\n{\n\treturn x * 3 + 1;\n}\n\n\
    int other_close(int x)\n{\n\treturn reset(x) + 1;\n}\nEXPORT_SYMBOL(other_close);\n";

const CORE: &str = "#include <linux/export.h>\n#include <linux/printk.h>\n\nstatic __attribute__((noinline)) int core_step(int x)\n{\n\t\
    return vprintk(\"core\", x);\n}\n\nint core_run(int x)\n{\n\treturn core_step(x) + core_step(x + 1);\n}\n";

fn kernel(version: &str) -> Kernel {
    Kernel::new(version, "default")
        .packing(Packing::Zstd)
        .archs(&[Arch::X86_64, Arch::S390x])
        // As kernels are built that ftrace can hook.
        .flags(&["-pg", "-mfentry", "-mrecord-mcount", "-mnop-mcount", "-fno-pie"])
        .module("drivers/demo/other.c", "CONFIG_DEMO_NET", "demo-net", OTHER)
        .module("drivers/demo/demo.c", "CONFIG_DEMO_NET", "demo-net", DEMO)
        .built_in("kernel/core.c", "CONFIG_CORE", CORE)
        .text("Kbuild", "obj-y += init/ kernel/ drivers/\n")
        .text("kernel/Makefile", "obj-$(CONFIG_CORE) += core.o\n")
}

/// A kernel-source repository: the branch of one product, with a fix in `kernel/core.c` that the second update has.
fn kernel_source(dir: &Path) {
    let git = |args: &[&str]| {
        let identity = [
            "-c",
            "user.name=A",
            "-c",
            "user.email=a@example.org",
            "-c",
            "init.defaultBranch=SLE15-SP5-LTSS",
        ];
        let done = Command::new("git")
            .arg("-C")
            .arg(dir)
            .args(identity)
            .args(args)
            .output()
            .expect("git");
        assert!(done.status.success(), "{args:?}: {done:?}");
    };
    let put = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        fs::write(path, text).expect("file");
    };
    git(&["init", "-q"]);
    put("series.conf", "# Kernel patches\n");
    for arch in ["x86_64", "s390x"] {
        put(&format!("config/{arch}/default"), "CONFIG_CORE=y\nCONFIG_DEMO_NET=m\n");
    }
    put("supported.conf", "\tdrivers/demo/demo-net\n");
    let commit = |tag: &str| {
        git(&["add", "-A"]);
        git(&["commit", "-q", "--allow-empty", "-m", tag]);
        git(&["tag", tag]);
    };
    commit("rpm-5.14.21-150500.55.7");
    commit("rpm-5.14.21-150500.55.19");
    let headers = "From: A Developer <dev@example.org>\nSubject: core: run further\nGit-commit: \
        0123456789abcdef0123456789abcdef01234567\nPatch-mainline: v6.9\nReferences: bsc#1200001 CVE-2026-1234\n\n---\n";
    put(
        "patches.suse/core-run-further.patch",
        &format!("{headers}{}", core_fix()),
    );
    put(
        "series.conf",
        "# Kernel patches\n\tpatches.suse/core-run-further.patch\n",
    );
    commit("rpm-5.14.21-150500.55.12");
}

fn core_fix() -> String {
    "--- a/kernel/core.c\n+++ b/kernel/core.c\n@@ -8,5 +8,5 @@\n \n int core_run(int x)\n {\n-\treturn core_step(x) + \
        core_step(x + 1);\n+\treturn core_step(x) + core_step(x + 7);\n }\n"
        .to_owned()
}

/// The kernels in a folder, and the catalog that names them.
fn kernels() -> Option<DataDir> {
    if !has_compiler(Arch::S390x) {
        eprintln!("skipped: gcc-s390x-linux-gnu is not installed");
        return None;
    }
    let data = DataDir::new();
    data.add(&kernel("5.14.21-150500.55.7"));
    data.add(&kernel("5.14.21-150500.55.12"));
    // The third has other code, and no CONFIG_CORE on s390x.
    let third = kernel("5.14.21-150500.55.19").set(Arch::S390x, "CONFIG_CORE", "n");
    let demo = DEMO.replace("demo_helper(x) +", "2 * demo_helper(x) +");
    data.add(&third.module("drivers/demo/demo.c", "CONFIG_DEMO_NET", "demo-net", &demo));
    fs::write(data.path().join("supported.csv"), CATALOG).expect("catalog");
    Some(data)
}

struct Ground {
    farm: Farm,
    _data: DataDir,
}

fn ground() -> Option<Ground> {
    let data = kernels()?;
    let catalog = data.path().join("supported.csv");
    let mut farm = Farm::with_settings(&format!("catalog = {:?}\n", catalog.display().to_string()));
    let source = data.path().join("kernel-source");
    fs::create_dir(&source).expect("folder");
    kernel_source(&source);
    let nothing = data.path().join("no-trees");
    farm.add_worker(WorkerOptions {
        trees: &nothing,
        slots: 2,
        suse: Some((data.path(), &catalog)),
        kernel_source: Some(&source),
        ..WorkerOptions::default()
    });
    Some(Ground { farm, _data: data })
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn rounds(tasks: &[Value], codestream: &str) -> Vec<String> {
    let of = tasks.iter().filter(|t| t["codestream"] == codestream);
    let mut names: Vec<String> = of
        .map(|t| {
            format!(
                "{} {} {}",
                t["kind"].as_str().unwrap_or(""),
                t["arch"].as_str().unwrap_or(""),
                t["round"]
            )
        })
        .collect();
    names.sort();
    names
}

const TWO_CONFIGS: [&str; 16] = [
    "--name",
    "bsc1",
    "--codestreams",
    "15.5",
    "--archs",
    "x86_64",
    "s390x",
    "--conf-mod-file-funcs",
    "CONFIG_DEMO_NET",
    "demo-net",
    "drivers/demo/demo.c",
    "demo_open",
    "--conf-mod-file-funcs",
    "CONFIG_CORE",
    "vmlinux",
    "kernel/core.c core_run",
];

fn spec() -> Vec<&'static str> {
    TWO_CONFIGS.iter().flat_map(|word| word.split(' ')).collect()
}

#[test]
fn klp_build_users_find_what_they_know() {
    let Some(Ground { farm, _data }) = ground() else { return };
    let codestreams = farm.cli(["codestreams", "-O", "json"]).json();
    let listed: Vec<&str> = codestreams
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|c| c["codestream"].as_str())
        .collect();
    assert_eq!(listed, ["15.5u1", "15.5u2", "15.5u3"]);
    assert_eq!(codestreams[0]["held"]["s390x"][0], "a", "{codestreams}");

    // First the checks, and nothing but the checks.
    let setup = farm.cli(["setup"].into_iter().chain(spec()));
    assert_eq!(setup.code, Some(0), "{setup:?}");
    let kinds: Vec<Value> = farm.tasks("bsc1").iter().map(|t| t["kind"].clone()).collect();
    assert!(
        kinds.iter().all(|kind| kind == "check") && kinds.len() == 6,
        "{kinds:?}"
    );

    let out = farm.out();
    let extract = farm.cli([
        "extract",
        "--name",
        "bsc1",
        "--type",
        "native",
        "--work-dir",
        &out.to_string_lossy(),
    ]);
    assert_eq!(extract.code, Some(0), "{extract:?}");

    // What x86_64 externalizes and s390x inlined was looked for, missed, and copied in a further round.
    let tasks = farm.tasks("bsc1");
    let first = rounds(&tasks, "15.5u1");
    for wanted in [
        "extract x86_64 1",
        "extract s390x 1",
        "verify s390x 1",
        "extract x86_64 2",
    ] {
        assert!(
            first.iter().any(|name| name == wanted),
            "{wanted} is not among {first:?}"
        );
    }
    let lp = out.join("bsc1/native/15.5u1/lp");
    let demo = read(&lp.join("bsc1_drivers_demo_demo.c"));
    assert!(
        demo.contains("klpp_demo_open") && !demo.contains("klpe_demo_helper"),
        "{demo}"
    );
    // The position of this file's `reset` among the module's.
    assert!(demo.contains("\"reset\""), "{demo}");
    for file in [
        "livepatch_bsc1.c",
        "livepatch_bsc1.h",
        "bsc1_kernel_core.c",
        "Kbuild.inc",
        "patched_funcs.csv",
    ] {
        assert!(lp.join(file).is_file(), "{file} is not in {}", lp.display());
    }
    let funcs = read(&lp.join("patched_funcs.csv"));
    assert!(funcs.contains("demo_net demo_open klpp_demo_open"), "{funcs}");
    assert!(funcs.contains("vmlinux core_run klpp_core_run"), "{funcs}");
    // Where a CONFIG is set on some architectures only, the line is for those.
    let third = read(&out.join("bsc1/native/15.5u3/lp/patched_funcs.csv"));
    assert!(third.contains("core_run klpp_core_run"), "{third}");

    let groups = read(&out.join("bsc1/native/groups"));
    assert_eq!(groups, "15.5u1-2\n15.5u3");
    let why = farm.cli(["groups", "bsc1", "--why"]);
    assert!(
        why.stdout.contains("apart from") && why.stdout.contains("2 * "),
        "{why:?}"
    );
    let diff = farm.cli(["cs-diff", "--name", "bsc1", "15.5u1", "15.5u3"]);
    assert!(diff.stdout.contains("+") && diff.stdout.contains("2 * "), "{diff:?}");
    assert!(read(&out.join("bsc1/commit.msg")).contains("Live patch for CVE-XXXX-XXXX"));
}

#[test]
fn a_config_that_no_architecture_has_is_refused_and_one_that_some_lack_leaves_those_out() {
    let Some(Ground { farm, _data }) = ground() else { return };
    let nowhere = farm.cli([
        "setup",
        "--name",
        "no",
        "--conf",
        "CONFIG_NO_SUCH",
        "--file-funcs",
        "kernel/core.c",
        "core_run",
    ]);
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
    assert!(nowhere.stderr.contains("CONFIG_NO_SUCH"), "{nowhere:?}");
    let some = farm.cli([
        "setup",
        "--name",
        "some",
        "--conf",
        "CONFIG_CORE",
        "--codestreams",
        "15.5u3",
        "--file-funcs",
        "kernel/core.c",
        "core_run",
    ]);
    assert_eq!(some.code, Some(0), "{some:?}");
    assert!(some.stdout.contains("left out: 15.5u3/s390x"), "{some:?}");
}

#[test]
fn a_fix_is_applied_before_anything_is_extracted_and_one_that_fails_names_its_hunk() {
    let Some(Ground { farm, _data: data }) = ground() else {
        return;
    };
    let fixes = data.path().join("fixes");
    let patch = core_fix();
    for (scope, text) in [
        ("15.5", patch.clone()),
        ("15.5u2", patch.replace("core_step(x) +", "core_stop(x) +")),
    ] {
        fs::create_dir_all(fixes.join(scope)).expect("folder");
        fs::write(fixes.join(scope).join("01-core.patch"), text).expect("patch");
    }
    let fixes = fixes.to_string_lossy().into_owned();
    let submit = farm.cli([
        "submit",
        "--name",
        "fixed",
        "--type",
        "native",
        "--conf",
        "CONFIG_CORE",
        "--archs",
        "x86_64",
        "--fixes",
        &fixes,
        "--wait",
        "--file-funcs",
        "kernel/core.c",
        "core_run",
    ]);
    assert_eq!(submit.code, Some(3), "{submit:?}");
    let status = farm.cli(["status", "fixed"]);
    assert!(
        status.stdout.contains("01-core.patch") && status.stdout.contains("@@ -8,5 +8,5 @@"),
        "{status:?}"
    );
    let out = farm.out();
    let get = farm.cli(["get", "fixed", "-o", &out.to_string_lossy()]);
    assert_eq!(get.code, Some(3), "one failed, the rest is there: {get:?}");
    assert!(read(&out.join("fixed/native/15.5u1/lp/livepatch_fixed.c")).contains("x + 7"));
    assert!(!out.join("fixed/native/15.5u2/lp").exists());
    assert!(out.join("fixed/fixes/15.5u2/01-core.patch").is_file());
}

#[test]
fn a_scan_finds_who_lacks_a_fix_and_what_to_patch_and_asks_before_it_is_built_on() {
    let Some(Ground { farm, _data }) = ground() else { return };
    let scan = farm.cli(["scan", "--cve", "2026-1234", "-O", "json"]);
    assert_eq!(scan.code, Some(0), "{scan:?}");
    let report = scan.json();
    let status = |codestream: &str| report["codestreams"][codestream]["status"].clone();
    assert_eq!(
        [status("15.5u1"), status("15.5u2"), status("15.5u3")],
        ["affected", "patched", "affected"],
        "{report}"
    );

    let submit = |name: &str, yes: &[&str]| {
        let common = [
            "submit",
            "--name",
            name,
            "--cve",
            "2026-1234",
            "--type",
            "native",
            "--archs",
            "x86_64",
            "--wait",
        ];
        farm.cli(common.iter().chain(yes))
    };
    let unasked = submit("shy", &[]);
    assert_eq!(unasked.code, Some(1), "{unasked:?}");
    assert!(
        unasked.stdout.contains("CONFIG_CORE vmlinux kernel/core.c core_run"),
        "{unasked:?}"
    );
    assert!(unasked.stderr.contains("--yes"), "{unasked:?}");
    assert!(
        farm.livepatches().is_empty(),
        "nothing is stored before somebody has said yes"
    );

    let taken = submit("bsc9", &["--yes"]);
    assert_eq!(taken.code, Some(0), "{taken:?}");
    let out = farm.out();
    let get = farm.cli(["get", "bsc9", "-o", &out.to_string_lossy()]);
    assert_eq!(get.code, Some(0), "{get:?}");
    for affected in ["15.5u1", "15.5u3"] {
        assert!(read(&out.join(format!("bsc9/native/{affected}/lp/livepatch_bsc9.c"))).contains("x + 7"));
    }
    assert!(
        !out.join("bsc9/native/15.5u2").exists(),
        "what has the fix needs no livepatch"
    );
    let kept = out.join("bsc9/fixes/15.5");
    assert_eq!(fs::read_dir(&kept).expect("fixes").count(), 1, "{}", kept.display());
    assert!(read(&out.join("bsc9/commit.msg")).contains("CVE-2026-1234"));

    assert!(read(&out.join("bsc9/commit.msg")).contains("0123456789ab (\"core: run further\")"));
    // klp-build's own state, by its own rules.
    let project = klp_livepatch::klp_build::import(&read(&out.join("bsc9/codestreams.json")), None).expect("readable");
    assert_eq!(project.notes, Vec::<String>::new());
    let first = &project.project.codestreams[&"15.5u1".parse().expect("a codestream")];
    assert_eq!(first.kernel.as_ref().expect("a kernel").as_str(), "5.14.21-150500.55.7");
    assert_eq!(first.required_patches[0].as_str(), "01-core-run-further.patch");
    assert!(read(&out.join("bsc9/codestreams.json")).contains("boot/vmlinux-5.14.21-150500.55.7-default"));

    // And back: a farm goes on with what klp-build has.
    let import = farm.cli([
        "import".as_ref(),
        out.join("bsc9").as_os_str(),
        "--name".as_ref(),
        "again".as_ref(),
    ]);
    assert_eq!(import.code, Some(0), "{import:?}");
    let watched = farm.cli(["watch", "again"]);
    assert_eq!(watched.code, Some(0), "{watched:?}");
    let names: BTreeSet<String> = farm
        .tasks("again")
        .iter()
        .map(|t| t["codestream"].to_string())
        .collect();
    assert_eq!(Vec::from_iter(names), ["\"15.5u1\"", "\"15.5u3\""]);

    // For its reviewers: what was edited by hand is said.
    let edited = out.join("bsc9/native/15.5u1/lp/livepatch_bsc9.c");
    fs::write(&edited, read(&edited).replace("x + 7", "x + 8")).expect("an edit");
    let mails = farm.cli([
        "format-patches".as_ref(),
        "--name".as_ref(),
        "bsc9".as_ref(),
        "-v".as_ref(),
        "2".as_ref(),
        "--work-dir".as_ref(),
        out.as_os_str(),
    ]);
    assert_eq!(mails.code, Some(0), "{mails:?}");
    let letter = read(&out.join("bsc9/patches/0000-cover-letter.patch"));
    assert!(letter.contains("PATCH v2 0/1") && letter.contains("x + 8"), "{letter}");
    let patch = read(&out.join("bsc9/patches/0001-15.5u1-3.patch"));
    assert!(
        patch.contains("+++ b/bsc9/livepatch_bsc9.c") && patch.contains("x + 8"),
        "{patch}"
    );
    let copy = tempfile::tempdir().expect("temporary folder");
    let file = out.join("bsc9/patches/0001-15.5u1-3.patch");
    let applied = Command::new("git")
        .arg("apply")
        .arg(&file)
        .current_dir(copy.path())
        .output()
        .expect("git");
    assert!(applied.status.success(), "{applied:?}");
    assert_eq!(read(&copy.path().join("bsc9/livepatch_bsc9.c")), read(&edited));

    let nothing = farm.cli(["scan", "--cve", "2026-9999"]);
    assert_eq!(nothing.code, Some(0), "{nothing:?}");
    assert!(nothing.stdout.contains("not affected"), "{nothing:?}");
}

#[test]
fn one_machine_with_kernels_on_its_disk_needs_no_farm() {
    let Some(data) = kernels() else { return };
    let work = tempfile::tempdir().expect("temporary folder");
    let cli = |args: &[&str]| {
        let mut command = command_on(None, "klp-farm");
        // A farm that is named and not there: nobody asks it.
        command
            .env("KLP_FARM_COORDINATOR", "http://127.0.0.1:1")
            .env("KLP_WORK_DIR", work.path());
        command
            .env("KLP_FARM_CATALOG", data.path().join("supported.csv"))
            .args(args);
        command.output().expect("klp-farm")
    };
    let folder = data.path().to_string_lossy().into_owned();
    let setup = cli(&[
        "setup",
        "--name",
        "own",
        "--data-dir",
        &folder,
        "--conf",
        "CONFIG_CORE",
        "--codestreams",
        "15.5u[12]",
        "--file-funcs",
        "kernel/core.c",
        "core_run",
    ]);
    assert_eq!(setup.status.code(), Some(0), "{setup:?}");
    let extract = cli(&["extract", "--name", "own", "--type", "native"]);
    assert_eq!(extract.status.code(), Some(0), "{extract:?}");
    assert!(read(&work.path().join("own/native/15.5u2/lp/livepatch_own.c")).contains("klpp_core_run"));
    let groups = cli(&["groups", "own"]);
    assert!(
        String::from_utf8_lossy(&groups.stdout).contains("15.5u1-2"),
        "{groups:?}"
    );
    let other = cli(&["status", "another"]);
    assert_eq!(
        other.status.code(),
        Some(1),
        "what has no farm of its own is asked of the one that is named: {other:?}"
    );
}
