//! `klp-farm up`: a whole farm in one process.

use klp_tests::{Farm, Proc, trees, wait_until};

#[test]
fn a_laptop_makes_a_livepatch_and_stops_clean() {
    let Some(trees) = trees() else { return };
    let dir = tempfile::tempdir().expect("temporary folder");
    let (data, trees) = (dir.path().join("data"), trees.to_string_lossy().into_owned());
    let mut up = Proc::start(
        "up",
        "klp-farm",
        [
            "up",
            "--listen",
            "127.0.0.1:0",
            "--trees",
            &trees,
            "--data-dir",
            &data.to_string_lossy(),
        ],
        dir.path(),
    );
    let farm = Farm::at(up.wait_for_line("listening on "));
    wait_until(std::time::Duration::from_secs(30), "its worker is there", || {
        let workers = farm.cli(["workers", "--output", "json"]).json();
        (workers[0]["connected"] == true).then_some(())
    });
    let submitted = farm.cli([
        "submit",
        "--name",
        "lp",
        "--conf",
        "CONFIG_PROC_FS",
        "--file-funcs",
        "fs/proc/cmdline.c",
        "cmdline_proc_show",
        "--codestreams",
        "debian12-6.1",
        "--wait",
    ]);
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    assert!(up.terminate().success(), "{}", up.log());
}
