//! The main job on real kernels: a coordinator, two workers with a tree each, and livepatches from submission to disk.

use std::collections::BTreeSet;
use std::path::Path;

use klp_tests::{Farm, WorkerOptions, trees};
use serde_json::Value;

/// A farm with a worker for each of the two newest 6.1 kernels among the trees.
fn farm_with_two_kernels() -> Option<(Farm, [String; 2])> {
    let trees = trees()?;
    let mut codestreams: Vec<String> = std::fs::read_dir(trees.join("x86_64"))
        .expect("trees for x86_64")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("debian12-6.1."))
        .collect();
    codestreams.sort();
    let two: [String; 2] = codestreams
        .split_off(codestreams.len().saturating_sub(2))
        .try_into()
        .expect("two trees");
    let mut farm = Farm::start();
    for (name, codestream) in ["worker-a", "worker-b"].into_iter().zip(&two) {
        let only = format!("{}$", codestream.replace('.', "\\."));
        farm.add_worker(WorkerOptions {
            name,
            trees: &trees,
            codestreams: &only,
            slots: 1,
            ..WorkerOptions::default()
        });
    }
    Some((farm, two))
}

/// The extractions of a livepatch: codestream, and its targets' reports.
fn extractions(status: &Value) -> Vec<(String, Vec<Value>)> {
    let tasks = status["tasks"].as_array().expect("tasks").iter();
    tasks
        .filter(|t| t["kind"] == "extract")
        .map(|t| {
            let codestream = t["codestream"].as_str().expect("codestream").to_owned();
            (codestream, t["extractions"].as_array().expect("extractions").clone())
        })
        .collect()
}

#[test]
fn cve_2022_1048_on_two_kernels() {
    let Some((farm, two)) = farm_with_two_kernels() else {
        return;
    };
    let submitted = farm.cli([
        "submit",
        "--name",
        "bsc1197597",
        "--cve",
        "2022-1048",
        "--mod",
        "snd-pcm",
        "--conf",
        "CONFIG_SND_PCM",
        "--file-funcs",
        "sound/core/pcm.c",
        "snd_pcm_attach_substream",
        "snd_pcm_detach_substream",
        "--codestreams",
        "debian12-6.1",
        "--archs",
        "x86_64",
        "--wait",
    ]);
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    assert!(submitted.stdout.contains("succeeded"), "{submitted:?}");

    let status = farm.cli(["status", "bsc1197597", "--output", "json"]).json();
    let extracted = extractions(&status);
    let codestreams: BTreeSet<&str> = extracted.iter().map(|(c, _)| c.as_str()).collect();
    assert_eq!(codestreams, two.iter().map(String::as_str).collect());
    for (codestream, targets) in &extracted {
        assert_eq!(
            targets[0]["compile_check"]["passed"], true,
            "{codestream}: {}",
            targets[0]
        );
        let patched: Vec<_> = targets[0]["patched"]
            .as_array()
            .expect("patched")
            .iter()
            .map(|p| &p["replacement"])
            .collect();
        assert_eq!(
            patched,
            ["klpp_snd_pcm_attach_substream", "klpp_snd_pcm_detach_substream"]
        );
    }
    // Each kernel was the work of the worker that holds it.
    let workers: BTreeSet<&str> = status["tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .filter_map(|t| t["worker"].as_str())
        .collect();
    assert_eq!(workers, BTreeSet::from(["worker-a", "worker-b"]));

    let out = farm.out();
    let got = farm.cli(["get", "bsc1197597", "-o", out.to_str().expect("UTF-8")]);
    assert_eq!(got.code, Some(0), "{got:?}");
    for codestream in &two {
        let lp = out.join("bsc1197597/native").join(codestream).join("lp");
        let source = std::fs::read_to_string(lp.join("bsc1197597_sound_core_pcm.c")).expect("source");
        assert!(source.contains("klpp_snd_pcm_attach_substream"), "{source}");
        assert!(
            source.contains("/* sound/core/pcm.c:"),
            "pieces say where they are from: {source}"
        );
        assert!(
            !source.contains(env!("CARGO_MANIFEST_DIR")) && !source.contains("/usr/src"),
            "no host paths"
        );
        // A module of its own, for kernels that nobody registers livepatches for.
        let module = std::fs::read_to_string(lp.join("livepatch_bsc1197597.c")).expect("module");
        assert!(
            module.contains("klp_enable_patch") && lp.join("Makefile").is_file(),
            "{module}"
        );
        let funcs = std::fs::read_to_string(lp.join("patched_funcs.csv")).expect("patched_funcs.csv");
        assert!(
            funcs.contains("snd_pcm snd_pcm_attach_substream klpp_snd_pcm_attach_substream"),
            "{funcs}"
        );
    }
    let work = out
        .join("bsc1197597/native")
        .join(&two[0])
        .join("work_sound_core_pcm.c");
    let commands = std::fs::read(work.join("compile_commands.json")).expect("compile_commands.json");
    let commands: Value = serde_json::from_slice(&commands).expect("JSON");
    let (file, arguments) = (&commands[0]["file"], &commands[0]["arguments"]);
    assert!(
        Path::new(file.as_str().expect("file")).is_file()
            && arguments.as_array().expect("arguments").contains(&"-c".into()),
        "{commands}"
    );
    let groups = std::fs::read_to_string(out.join("bsc1197597/native/groups")).expect("groups");
    for codestream in &two {
        assert_eq!(groups.matches(codestream.as_str()).count(), 1, "{groups}");
    }

    let logs = farm.cli(["logs", "bsc1197597", "--kind", "extract"]);
    assert!(logs.stdout.contains("extracting sound/core/pcm.c"), "{logs:?}");
}

#[test]
fn modules_and_built_in_code_extract_and_compile() {
    let Some((farm, _)) = farm_with_two_kernels() else {
        return;
    };
    let cases = [
        ("rpl", "net/ipv6/rpl.c", "ipv6_rpl_srh_size", "CONFIG_IPV6", "vmlinux"),
        (
            "qfq",
            "net/sched/sch_qfq.c",
            "qfq_change_class",
            "CONFIG_NET_SCH_QFQ",
            "sch_qfq",
        ),
        (
            "l2cap",
            "net/bluetooth/l2cap_sock.c",
            "l2cap_sock_kill",
            "CONFIG_BT",
            "bluetooth",
        ),
        (
            "hid",
            "drivers/hid/hid-core.c",
            "hid_alloc_report_buf",
            "CONFIG_HID",
            "hid",
        ),
        (
            "cmdline",
            "fs/proc/cmdline.c",
            "cmdline_proc_show",
            "CONFIG_PROC_FS",
            "vmlinux",
        ),
    ];
    for (name, file, function, config, object) in cases {
        let submitted = farm.cli([
            "submit",
            "--name",
            name,
            "--conf",
            config,
            "--mod",
            object,
            "--file-funcs",
            file,
            function,
            "--wait",
        ]);
        assert_eq!(submitted.code, Some(0), "{name}: {submitted:?}");
        let status = farm.cli(["status", name, "--output", "json"]).json();
        let extracted = extractions(&status);
        assert_eq!(extracted.len(), 2, "{name} on both kernels");
        for (codestream, targets) in extracted {
            assert_eq!(
                targets[0]["compile_check"]["passed"], true,
                "{name} on {codestream}: {}",
                targets[0]
            );
        }
    }
}
