//! Fixes that are given by hand, over small kernels in SUSE's layout: each is judged where it is checked, on every codestream by
//! itself, before anything is extracted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use klp_livepatch::Arch;
use klp_tests::suse::{DataDir, Kernel};
use klp_tests::{CommandResult, Farm, WorkerOptions};
use serde_json::Value;

/// Of these 15.6u1 has no tree.
const CATALOG: &str = "Update ID,Maintenance Project,Kernel version,Supported until,LTSS until\n\
    SLE15-SP5_Update_1,SUSE:Maintenance:1,5.14.21-150500.55.7.1,2030-12-31,\n\
    SLE15-SP5_Update_2,SUSE:Maintenance:2,5.14.21-150500.55.12.1,2030-12-31,\n\
    SLE15-SP5_Update_3,SUSE:Maintenance:3,5.14.21-150500.55.19.1,2030-12-31,\n\
    SLE15-SP5_Update_4,SUSE:Maintenance:4,5.14.21-150500.55.22.1,2030-12-31,\n\
    SLE15-SP6_Update_1,SUSE:Maintenance:5,6.4.0-150600.23.7.1,2030-12-31,\n";

const CORE: &str = "#include <linux/export.h>\n#include <linux/printk.h>\n\nstatic int core_limit = 3;\n\n\
    static __attribute__((noinline)) int core_step(int x)\n{\n\treturn vprintk(\"core\", x + core_limit);\n}\n\n\
    int core_run(int x)\n{\n\treturn core_step(x) + core_step(x + 1);\n}\n";

const SIDE: &str = "int side_run(int x)\n{\n\treturn x * 3;\n}\n";

/// On the second update a line beside the fix is another, on the third and fourth the fixed line itself. The fourth is built
/// without the code.
fn kernel(version: &str, core: &str) -> Kernel {
    Kernel::new(version, "default")
        // As kernels are built that ftrace can hook.
        .flags(&["-pg", "-mfentry", "-mrecord-mcount", "-mnop-mcount", "-fno-pie"])
        .built_in("kernel/core.c", "CONFIG_CORE", core)
        .built_in("kernel/side.c", "CONFIG_SIDE", SIDE)
        .text("Kbuild", "obj-y += init/ kernel/\n")
        .text(
            "kernel/Makefile",
            "obj-$(CONFIG_CORE) += core.o\nobj-$(CONFIG_SIDE) += side.o\n",
        )
}

struct Ground {
    farm: Farm,
    data: DataDir,
}

impl Ground {
    fn new() -> Self {
        let data = DataDir::new();
        let other = CORE.replace("core_step(x) +", "core_step(x) -");
        data.add(&kernel("5.14.21-150500.55.7", CORE));
        data.add(&kernel(
            "5.14.21-150500.55.12",
            &CORE.replace("linux/export.h", "linux/types.h"),
        ));
        data.add(&kernel("5.14.21-150500.55.19", &other));
        data.add(&kernel("5.14.21-150500.55.22", &other).set(Arch::X86_64, "CONFIG_CORE", "n"));
        let catalog = data.path().join("supported.csv");
        fs::write(&catalog, CATALOG).expect("catalog");
        let mut farm = Farm::with_settings(&format!("catalog = {:?}\n", catalog.display().to_string()));
        let nothing = data.path().join("no-trees");
        farm.add_worker(WorkerOptions {
            trees: &nothing,
            slots: 2,
            suse: Some((data.path(), &catalog)),
            ..WorkerOptions::default()
        });
        Self { farm, data }
    }

    /// Sets a livepatch of `core_run` up, with further arguments.
    fn set_up(&self, name: &str, more: &[&str]) -> CommandResult {
        let target = ["--conf", "CONFIG_CORE", "--file-funcs", "kernel/core.c", "core_run"];
        self.farm
            .cli(["setup", "--name", name].iter().chain(&target).chain(more))
    }

    fn put(&self, path: &str, text: &str) -> PathBuf {
        let path = self.data.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        fs::write(&path, text).expect("file");
        path
    }
}

/// The fix: a variable, a function that is no target, one that is, and one in another file.
fn fix() -> String {
    let core = CORE
        .replace("limit = 3", "limit = 4")
        .replace("x + core_limit", "x - core_limit")
        .replace("core_step(x + 1)", "core_step(x + 7)");
    let side = SIDE.replace("x * 3", "x * 4");
    diff("kernel/core.c", CORE, &core) + &diff("kernel/side.c", SIDE, &side)
}

fn diff(path: &str, old: &str, new: &str) -> String {
    let dir = tempfile::tempdir().expect("temporary folder");
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("file");
    put("old", old);
    put("new", new);
    let done = Command::new("diff")
        .arg("-u")
        .args(["--label", &format!("a/{path}"), "--label", &format!("b/{path}")])
        .args(["old", "new"])
        .current_dir(&dir)
        .output()
        .expect("diff");
    String::from_utf8(done.stdout).expect("text")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The part of a table that begins with a line which holds `wanted`, and that line's successor.
fn said<'a>(stdout: &'a str, wanted: &str) -> [&'a str; 2] {
    let mut lines = stdout.lines().skip_while(|line| !line.contains(wanted));
    [lines.next(), lines.next()].map(|line| line.unwrap_or_default().trim())
}

#[test]
fn a_fix_is_judged_on_each_codestream_before_anything_is_extracted() {
    let ground = Ground::new();
    let farm = &ground.farm;
    let patch = ground.put("0001-core.patch", &fix());
    let setup = ground.set_up("lp", &["--patch", &text(&patch)]);
    assert_eq!(setup.code, Some(3), "{setup:?}");
    let out = &setup.stdout;

    // Where it does not apply, all is named; where nothing is built, nothing has to apply.
    assert!(
        out.contains("2 of 3 codestreams x architectures can be patched"),
        "{out}"
    );
    assert!(out.contains("left out: 15.5u4/x86_64"), "{out}");
    let [failed, why] = said(out, "15.5u3/x86_64 check failed");
    assert!(!failed.is_empty(), "{out}");
    assert!(
        why.starts_with(
            "15.5u3/x86_64: patch `0001-core.patch` does not apply to kernel/core.c: hunk 1 of 1 (`@@ -1,14 +1,14 @@`)"
        ),
        "{why}"
    );
    let tasks = farm.tasks("lp");
    assert!(
        tasks.iter().all(|task| task["kind"] == "check"),
        "nothing was extracted"
    );
    let third = tasks
        .iter()
        .find(|task| task["codestream"] == "15.5u3")
        .expect("a task");
    assert_eq!(third["failure"]["cause"], "yours", "{third}");
    assert_eq!(third["fixes"]["problems"].as_array().map(Vec::len), Some(1), "{third}");

    // What is to be known of it is told once with whom it concerns, its lines where the fix leaves them.
    let both = "15.5u1/x86_64, 15.5u2/x86_64";
    for (wanted, topic) in [
        (
            "warning: kernel/core.c:6: the fix changes core_step(), which is no target",
            "[target]",
        ),
        (
            "warning: kernel/side.c:1: the fix changes side_run(), which is no target",
            "[target]",
        ),
        ("warning: kernel/core.c:4: variable core_limit changed", "[data]"),
    ] {
        let [line, whom] = said(out, wanted);
        assert!(line.ends_with(topic), "{wanted}: {out}");
        assert_eq!(whom, both, "{wanted}: {out}");
    }
    assert!(!out.contains("changes core_run()"), "that is the target: {out}");
    let [fuzzy, whom] = said(out, "applied with fuzz");
    assert!(
        fuzzy.starts_with("patch `0001-core.patch`: kernel/core.c: hunk 1 of 1"),
        "{out}"
    );
    assert_eq!(whom, "15.5u2/x86_64");
    let first = tasks
        .iter()
        .find(|task| task["codestream"] == "15.5u1")
        .expect("a task");
    let topics: Vec<&Value> = first["fixes"]["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|f| &f["topic"])
        .collect();
    assert_eq!(topics, ["data", "target", "target"], "{first}");
    let logs = farm.cli(["logs", "lp", "--codestreams", "15.5u1", "--kind", "check"]);
    assert!(logs.stdout.contains("the fix changes core_step()"), "{logs:?}");

    // The tryout was over with the first good answer, and that is no cause for alarm.
    let log = farm.workers[0].log();
    assert!(!log.contains("the farm moved on"), "{log}");

    let groups = farm.cli(["groups", "lp"]);
    assert_eq!((groups.code, groups.stdout.as_str()), (Some(0), ""), "{groups:?}");
    assert!(groups.stderr.contains("was only set up"), "{groups:?}");

    // The extraction agrees with its check: what was found fine is extracted with the fix in it.
    let out = farm.out();
    let dir = text(&out);
    let extract = farm.cli(["extract", "--name", "lp", "--type", "native", "--work-dir", &dir]);
    assert_eq!(extract.code, Some(3), "{extract:?}");
    for (codestream, fixed) in [("15.5u1", true), ("15.5u2", true), ("15.5u3", false)] {
        let source = out.join(format!("lp/native/{codestream}/lp/livepatch_lp.c"));
        assert_eq!(
            fs::read_to_string(source).is_ok_and(|code| code.contains("x + 7")),
            fixed,
            "{codestream}"
        );
    }
    let status = farm.cli(["status", "lp"]).stdout;
    let fuzzy: Vec<&str> = status
        .lines()
        .filter(|line| line.contains("applied with fuzz"))
        .collect();
    assert_eq!(fuzzy.len(), 1, "the check and the extraction say it as one: {status}");
}

#[test]
fn a_codestream_that_a_fix_does_not_apply_to_is_extracted_from_where_none_is_to_be_applied() {
    let ground = Ground::new();
    let farm = &ground.farm;
    let patch = ground.put("0001-core.patch", &fix());
    let setup = ground.set_up("lp", &["--patch", &text(&patch)]);
    assert_eq!(setup.code, Some(3), "{setup:?}");
    let dir = text(&farm.out());
    let extract = farm.cli([
        "extract",
        "--name",
        "lp",
        "--type",
        "native",
        "--no-patches",
        "--work-dir",
        &dir,
    ]);
    assert_eq!(extract.code, Some(0), "{extract:?}");
    for codestream in ["15.5u1", "15.5u3"] {
        let source = farm.out().join(format!("lp/native/{codestream}/lp/livepatch_lp.c"));
        let code = fs::read_to_string(&source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
        assert!(
            code.contains("x + 1") && !code.contains("x + 7"),
            "{codestream}: {code}"
        );
    }
}

#[test]
fn a_fix_that_applies_to_no_kernel_is_refused_before_it_is_stored() {
    let ground = Ground::new();
    let nowhere = fix().replace("-\treturn core_step(x) + core_step(x + 1);", "-\treturn core_stop(x);");
    let patch = ground.put("0001-core.patch", &nowhere);
    let refused = ground.set_up("lp", &["--patch", &text(&patch), "--codestreams", "15.5u[123]"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for codestream in ["15.5u1", "15.5u2", "15.5u3"] {
        let wanted =
            format!("fixes: {codestream}/x86_64: patch `0001-core.patch` does not apply to kernel/core.c: hunk 1 of 1");
        assert!(refused.stderr.contains(&wanted), "{wanted}: {refused:?}");
    }
    assert!(ground.farm.livepatches().is_empty(), "its name is still free");
    let patch = ground.put("0001-core.patch", &fix());
    let again = ground.set_up("lp", &["--patch", &text(&patch), "--codestreams", "15.5u1"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(
        again
            .stdout
            .contains("the one codestream x architecture can be patched"),
        "{again:?}"
    );
}

#[test]
fn fixes_for_others_are_told_and_those_for_nobody_refused() {
    let ground = Ground::new();
    ground.put("fixes/15.5/01-core.patch", &fix());
    ground.put("fixes/15.6/01-core.patch", &fix());
    let fixes = text(&ground.data.path().join("fixes"));
    let told = ground.set_up("lp", &["--fixes", &fixes, "--codestreams", "15.5u1"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let warning = "warning: no selected codestream takes the fixes for 15.6; they are kept, and applied nowhere";
    assert!(told.stderr.contains(warning), "{told:?}");

    ground.put("fixes/15.5u11/01-core.patch", &fix());
    let refused = ground.set_up("slip", &["--fixes", &fixes, "--codestreams", "15.5u1"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("takes fixes for 15.5u11;"), "{refused:?}");
    assert_eq!(ground.farm.livepatches(), ["lp"]);
}
