//! A livepatch with a fix, as `get` writes it, and its check.

use std::path::{Path, PathBuf};
use std::process::Command;

use klp_tests::{CommandResult, Farm, SUBMIT, command_on};

/// A fix of `sound/core/pcm.c` that applies to every kernel of the trees.
pub fn fix(trees: &Path, dir: &Path) -> PathBuf {
    let source = trees
        .join("x86_64")
        .join(klp_tests::one_codestream(trees))
        .join("src/sound/core/pcm.c");
    let before = std::fs::read_to_string(&source).unwrap();
    let at = "\tswitch (stream) {";
    let function = before.find("int snd_pcm_attach_substream").unwrap();
    let line = function
        + before[function..]
            .find("\tif (snd_BUG_ON(!pcm || !rsubstream))")
            .expect(at);
    let after = format!(
        "{}\tif (stream > 1)\n\t\treturn -EINVAL;\n{}",
        &before[..line],
        &before[line..]
    );
    let changed = dir.join("pcm.c");
    std::fs::write(&changed, after).unwrap();
    let diff = Command::new("diff")
        .args(["-u", "--label", "a/sound/core/pcm.c", "--label", "b/sound/core/pcm.c"])
        .args([&source, &changed])
        .output()
        .unwrap();
    let patch = dir.join("limit-streams.patch");
    let text = [
        b"From: A <a@b>\nSubject: pcm: refuse other streams\n\n".as_slice(),
        &diff.stdout,
    ]
    .concat();
    std::fs::write(&patch, text).unwrap();
    patch
}

/// Submits the livepatch `lp` with the fix, waits for its success, and fetches it; answers its folder.
pub fn got(farm: &Farm, trees: &Path) -> PathBuf {
    let patch = fix(trees, farm.dir.path());
    let mut args: Vec<&str> = SUBMIT.to_vec();
    args.extend(["--patch", patch.to_str().unwrap()]);
    let submitted = farm.cli(args);
    assert_eq!(submitted.code, Some(0), "{submitted:?}");
    farm.ends_in_success("lp");
    fetch(farm)
}

pub fn fetch(farm: &Farm) -> PathBuf {
    let got = farm.cli(["get", "lp", "-o", farm.out().to_str().unwrap()]);
    assert_eq!(got.code, Some(0), "{got:?}");
    farm.out().join("lp")
}

/// `klp-farm verify-provenance`, by somebody who has nothing of the farm but what the arguments name.
pub fn verify(dir: &Path, args: &[&str]) -> CommandResult {
    let output = command_on(None, "klp-farm")
        .arg("verify-provenance")
        .arg(dir)
        .args(args)
        .env_remove("KLP_FARM_CA")
        .env_remove("KLP_FARM_COORDINATOR")
        .env("KLP_FARM_CONFIG", "/dev/null")
        .output()
        .unwrap();
    CommandResult {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A copy to be altered, beside the original.
pub fn copy(of: &Path, to: &Path) -> PathBuf {
    let done = Command::new("cp").arg("-a").arg(of).arg(to).status().unwrap();
    assert!(done.success());
    to.join(of.file_name().unwrap())
}

/// The codestreams' folders.
pub fn codestreams(livepatch: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(livepatch.join("native")).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}
