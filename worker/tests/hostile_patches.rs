//! Patches that want out of the source, applied by the real programs within their cell. Whatever each says, it is refused by
//! name or changes a file of the view, and nothing else anywhere; programs that a repository or the environment names don't run.
#![allow(clippy::unwrap_used)]

mod small_kernel;

use std::path::Path;
use std::process::Command;

use klp_livepatch::outcome::Cause;
use klp_tests::program;
use klp_worker::config::ToolPaths;
use klp_worker::isolation::{Isolation, Settings};

use small_kernel::{Kernel, SOCK, changed, diff, read, seen, write};

/// A kernel whose patches are applied behind all fences that this host has.
async fn kernel() -> Kernel {
    let mut kernel = Kernel::new(&[]).await;
    let isolation = Isolation::look(
        &Settings::default(),
        &ToolPaths::default(),
        kernel.place.path(),
        &program("klp-worker"),
    )
    .await;
    kernel.cell = isolation.unwrap().cell([]);
    assert!(!kernel.cell.isolation().fences().up.is_empty());
    kernel
}

fn add(path: &str) -> String {
    format!("--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n")
}

fn git(path: &str, header: &str, text: &str) -> String {
    format!("diff --git a/{path} b/{path}\n{header}\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{text}\n")
}

#[tokio::test]
async fn each_is_refused_by_name_and_changes_nothing() {
    let kernel = kernel().await;
    let around = kernel.place.path().join("secret");
    write(&around, b"secret");
    let link = git("net/way", "new file mode 120000", "../..");
    for (patch, why) in [
        (add("../secret"), "not below the source"),
        (add("net/../../secret"), "not below the source"),
        (add(around.to_str().unwrap()), "not below the source"),
        (add("net/core/./x.c"), "not below the source"),
        (add(".git/hooks/post-applypatch"), "not below the source"),
        (add("net/.GiT/config"), "not below the source"),
        (
            "--- /dev/null\n+++ \"b/\\056\\056/secret\"\n@@ -0,0 +1 @@\n+x\n".to_owned(),
            "such characters",
        ),
        (
            "--- /dev/null\n+++ b/net/a\\057..\\057x\n@@ -0,0 +1 @@\n+x\n".to_owned(),
            "such characters",
        ),
        // A link, alone and as the way to a file; and one that the tree has.
        (link.clone(), "symbolic link"),
        (format!("{link}{}", add("net/way/secret")), "symbolic link"),
        (add("net/etc/passwd"), "is no folder here"),
        (add("net/link.c"), "no plain file"),
        // Things that are no files, and modes.
        (git("dev/null", "new file mode 020666", "x"), "plain file"),
        (git("dev/sda", "new file mode 060660", "x"), "plain file"),
        (git("net/sub", "new file mode 160000", "x"), "submodule"),
        (git("net/suid.sh", "new file mode 104755", "x"), "plain file"),
        (
            "diff --git a/scripts/mod/modpost b/scripts/mod/modpost\nold mode 100644\nnew mode 100755\n".to_owned(),
            "mode",
        ),
        // What one name says and the other does not.
        (
            format!(
                "diff --git a/net/sock.h b/{}\nsimilarity index 100%\nrename from net/sock.h\nrename to ../secret\n",
                "../secret"
            ),
            "--no-renames",
        ),
        (
            "diff --git a/net/sock.h b/net/s\nsimilarity index 100%\ncopy from net/sock.h\ncopy to net/s\n".to_owned(),
            "--no-renames",
        ),
        (
            diff("net/sock.h", "#define SOCK 4\n", "#define SOCK 5\n").replace("+++ b/net/sock.h", "+++ b/../secret"),
            "not below the source",
        ),
        // What the compiler would read, and show.
        (
            diff(
                "net/sock.h",
                "#define SOCK 4\n",
                "#define SOCK 4\n#include \"/etc/passwd\"\n",
            ),
            "not below the source folder",
        ),
        (
            diff(
                "net/sock.h",
                "#define SOCK 4\n",
                "#define SOCK 4\nasm(\".incbin \\\"/etc/passwd\\\"\");\n",
            ),
            ".incbin",
        ),
    ] {
        let failure = kernel.failure(&[&patch]).await;
        assert_eq!(failure.cause(), Cause::Yours, "{patch}: {failure}");
        let said = failure.to_string();
        assert!(
            said.contains(why) && said.contains("`0.patch`") && said.contains("15.6u1/x86_64"),
            "{patch}: {said}"
        );
    }
    assert_eq!(std::fs::read(&around).unwrap(), b"secret");
    assert!(seen(&kernel.tree.src) == kernel.before);
}

/// A folder with a program that tells that it was run, in the ways a repository or an environment can name one.
fn trap(dir: &Path) -> std::path::PathBuf {
    let trap = dir.join("trap");
    write(
        &trap,
        format!("#!/bin/sh\ntouch {}/sprung\ncat\n", dir.display()).as_bytes(),
    );
    std::fs::set_permissions(&trap, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    trap
}

/// What git is told by its environment, in a process of its own that has it.
#[test]
fn neither_environment_nor_repository_names_a_program() {
    let dir = tempfile::tempdir().unwrap();
    let trap = trap(dir.path());
    let trap = trap.to_str().unwrap();
    let config = dir.path().join(".gitconfig");
    let settings = format!(
        "[filter \"t\"]\n clean = {trap}\n smudge = {trap}\n[core]\n hooksPath = {0}\n fsmonitor = {trap}\n pager = {trap}\n \
         attributesFile = {0}/attributes\n[alias]\n apply = !{trap}\n",
        dir.path().display()
    );
    write(&config, settings.as_bytes());
    write(&dir.path().join("attributes"), b"* filter=t\n");
    let variables = [
        ("HOME", dir.path().to_str().unwrap()),
        ("XDG_CONFIG_HOME", dir.path().to_str().unwrap()),
        ("GIT_CONFIG_GLOBAL", config.to_str().unwrap()),
        ("GIT_DIR", dir.path().to_str().unwrap()),
        ("GIT_EXTERNAL_DIFF", trap),
        ("GIT_PAGER", trap),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "core.fsmonitor"),
        ("GIT_CONFIG_VALUE_0", trap),
        ("GIT_TRACE", trap),
        ("VERSION_CONTROL", "numbered"),
        ("PATCH_GET", "1"),
        ("POSIXLY_CORRECT", "1"),
    ];
    // The trap is one: git that is told so runs it.
    let repository = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(args).current_dir(&repository);
        let variables = variables
            .iter()
            .filter(|(name, _)| ["HOME", "GIT_CONFIG_GLOBAL"].contains(name));
        assert!(git.envs(variables.copied()).status().unwrap().success());
    };
    git(&["init", "-q"]);
    write(&repository.path().join("a"), b"a\n");
    git(&["add", "a"]);
    let sprung = dir.path().join("sprung");
    assert!(sprung.exists(), "the trap is none");
    std::fs::remove_file(&sprung).unwrap();

    let done = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "patches_are_applied_whatever_surrounds_the_worker",
            "--include-ignored",
        ])
        .envs(variables)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    assert!(!sprung.exists(), "a program ran");
}

#[tokio::test]
async fn patches_are_applied_whatever_surrounds_the_worker() {
    let kernel = kernel().await;
    // Attributes and settings in the source are text.
    let attributes = git(".gitattributes", "new file mode 100644", "*.c filter=t");
    let fix = diff("net/core/sock.c", SOCK, &changed("return 1", "return 10"));
    // One that takes GNU patch.
    let moved = diff(
        "net/core/sock.c",
        &changed("return 1", "return 10").replace("int two(void)", "int two(int x)"),
        &changed("return 1", "return 10")
            .replace("int two(void)", "int two(int x)")
            .replace("return 2", "return 20"),
    );
    let view = kernel.view(&[&attributes, &fix, &moved]).await;
    assert_eq!(
        read(&view, "net/core/sock.c"),
        changed("return 1", "return 10").replace("return 2", "return 20")
    );
    assert_eq!(view.changed(), [".gitattributes", "net/core/sock.c"]);
    assert!(seen(&kernel.tree.src) == kernel.before);
}
