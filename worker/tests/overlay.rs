//! Patched views of a small tree, made with the real `git`, `diff`, `patch` and `gcc`. Whatever is done, the tree stays as
//! it is to the last byte and time.
#![allow(clippy::unwrap_used)]

mod small_kernel;

use std::process::Command;
use std::task::Poll;

use klp_livepatch::outcome::Cause;
use klp_worker::extract::CompileCommand;
use klp_worker::isolation::Cell;
use klp_worker::trees::overlay::{Applied, Patch, View};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use small_kernel::{Kernel, SOCK, changed, diff, read, seen, write};

#[tokio::test]
async fn without_patches_there_is_no_view() {
    let kernel = Kernel::new(&[]).await;
    assert!(kernel.try_view(&[]).await.unwrap().is_none());
}

#[tokio::test]
async fn patches_are_applied_in_order_and_all_else_is_the_trees() {
    let kernel = Kernel::new(&[]).await;
    let (once, twice) = (changed("return 1", "return 10"), changed("return 1", "return 100"));
    let first = diff("net/core/sock.c", SOCK, &once);
    let second = format!(
        "Git-commit: 1\nReferences: bsc#1\n\n{}",
        diff("net/core/sock.c", &once, &twice)
    );
    let view = kernel.view(&[&first, &second]).await;
    assert_eq!(read(&view, "net/core/sock.c"), twice);
    assert_eq!(view.changed(), ["net/core/sock.c"]);
    assert!(view.warnings().is_empty() && !view.is_whole());
    assert_eq!(view.obj(), view.src(), "it was built in its source folder");
    for same in [
        "net/core/local.h",
        "net/other/other.c",
        "net/sock.h",
        ".config",
        "vmlinux",
    ] {
        let place = view.src().join(same).canonicalize().unwrap();
        assert_eq!(place, kernel.tree.src.join(same), "{same}");
    }
    assert!(!view.src().join(".git").exists());
    // In another order the second has nothing to change.
    let failure = kernel.failure(&[&second, &first]).await;
    assert_eq!(
        (failure.cause(), failure.failed_file()),
        (Cause::Codestream, Some("net/core/sock.c"))
    );
}

#[tokio::test]
async fn a_changed_header_is_seen_from_every_folder() {
    let kernel = Kernel::new(&[]).await;
    let patch = diff("net/sock.h", "#define SOCK 4\n", "#define SOCK 44\n");
    let view = kernel.view(&[&patch]).await;
    assert!(view.is_whole());
    for file in ["net/other/other.c", "net/core/sock.c", "net/link.c"] {
        let command = CompileCommand {
            compiler: "gcc".into(),
            args: ["-E", "-P", file].map(str::to_owned).to_vec(),
            directory: kernel.tree.src.clone(),
        };
        let command = view.command(&command);
        // The link is the view's own file, found through its folder there.
        let file = file.replace("net/link.c", "net/core/sock.c");
        let done = Command::new(command.compiler)
            .args(["-E", "-P"])
            .arg(command.directory.join(&file))
            .output()
            .unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(
            text.contains("44") && !text.contains("SOCK"),
            "{file}: {text} {:?}",
            done.stderr
        );
    }
    let link = view.src().join("net/link.c").canonicalize().unwrap();
    assert_eq!(link, view.src().join("net/core/sock.c").canonicalize().unwrap());
}

#[tokio::test]
async fn mails_of_git_add_and_delete_files() {
    let kernel = Kernel::new(&[("old.c", b"int old;\n"), ("was-empty.c", b"")]).await;
    let repo = kernel.place.path().join("repo");
    for file in ["old.c", "was-empty.c", "net/core/sock.c"] {
        write(&repo.join(file), &std::fs::read(kernel.tree.src.join(file)).unwrap());
    }
    let git = |args: &[&str]| {
        let done = Command::new("git")
            .args([
                "-c",
                "user.name=A",
                "-c",
                "user.email=a@b",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(args)
            .current_dir(&repo)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "base"]);
    std::fs::remove_file(repo.join("old.c")).unwrap();
    std::fs::remove_file(repo.join("was-empty.c")).unwrap();
    write(&repo.join("net/new/new.c"), b"int new;\nno newline");
    write(&repo.join("net/new/empty.c"), b"");
    write(
        &repo.join("net/core/sock.c"),
        changed("return 3", "return 33").as_bytes(),
    );
    git(&["add", "-A"]);
    git(&["commit", "-qm", "a fix\n\nwith\n---\na line of dashes"]);
    let mail = git(&["format-patch", "-1", "--no-renames", "--stdout"]);
    let view = kernel.view(&[&mail]).await;
    assert_eq!(read(&view, "net/new/new.c"), "int new;\nno newline");
    assert_eq!(read(&view, "net/new/empty.c"), "");
    assert_eq!(read(&view, "net/core/sock.c"), changed("return 3", "return 33"));
    assert!(!view.src().join("old.c").exists() && !view.src().join("was-empty.c").exists());
    assert!(view.is_whole(), "who knows who includes new.c");
    assert!(kernel.tree.src.join("old.c").exists());
}

#[tokio::test]
async fn ends_of_lines_are_kept() {
    let kernel = Kernel::new(&[]).await;
    let old = "int a;\r\nint b;\r\n";
    let view = kernel
        .view(&[&diff("net/other/crlf.c", old, "int a;\r\nint c;\r\n")])
        .await;
    assert_eq!(read(&view, "net/other/crlf.c"), "int a;\r\nint c;\r\n");
    let unlike = diff("net/other/crlf.c", "int a;\nint b;\n", "int a;\nint c;\n");
    assert_eq!(kernel.failure(&[&unlike]).await.failed_hunk().unwrap().number, 1);
}

#[tokio::test]
async fn fuzz_is_a_warning_that_names_the_hunk() {
    let kernel = Kernel::new(&[]).await;
    // Made for a kernel with another first line, and some more before.
    let other = format!(
        "/* more */\n/* lines */\n{}",
        changed("int two(void)", "int two(int x)")
    );
    let patch = diff("net/core/sock.c", &other, &other.replace("return 2", "return 22"));
    let view = kernel.view(&[&patch]).await;
    assert_eq!(read(&view, "net/core/sock.c"), changed("return 2", "return 22"));
    let [warning] = view.warnings() else {
        panic!("{:?}", view.warnings())
    };
    for part in [
        "15.6u1/x86_64",
        "0.patch",
        "net/core/sock.c",
        "hunk 1 of 1",
        "@@ -",
        "fuzz 2",
        "offset -2 lines",
    ] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
}

#[tokio::test]
async fn a_failure_names_patch_file_hunk_and_codestream() {
    let kernel = Kernel::new(&[]).await;
    let other = changed("\treturn 4", "\treturn 5")
        .replace("SOCK;", "SOCK; /* else */")
        .replace("four", "for");
    let new = other.replace("return 1", "return 11").replace("else", "more");
    let patch = diff("net/core/sock.c", &other, &new);
    let failure = kernel.failure(&[&patch]).await;
    let hunk = failure.failed_hunk().unwrap();
    assert_eq!((hunk.number, hunk.of, failure.applied()), (2, 2, Applied::No));
    let said = failure.to_string();
    for part in [
        "15.6u1/x86_64",
        "`0.patch`",
        "net/core/sock.c",
        "hunk 2 of 2 (`@@ -",
        "backported",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let absent = diff("net/gone.c", "int a;\n", "int b;\n");
    assert!(
        kernel
            .failure(&[&absent])
            .await
            .to_string()
            .contains("this kernel has no such file")
    );
    let present = diff("net/core/sock.c", "", SOCK);
    let present = present.replace("--- a/net/core/sock.c", "--- /dev/null");
    let failure = kernel.failure(&[&present]).await;
    assert!(failure.to_string().contains("has that file already"), "{failure}");
    assert_eq!(failure.applied(), Applied::Whole);
}

#[tokio::test]
async fn a_patch_that_is_there_already_is_told() {
    let kernel = Kernel::new(&[]).await;
    let before = SOCK.replace("#include \"local.h\"\n", "");
    // With fuzz it could be applied once more: it only adds a line.
    let patch = diff("net/core/sock.c", &before, SOCK);
    let failure = kernel.failure(&[&patch]).await;
    assert_eq!(failure.applied(), Applied::Whole);
    assert!(failure.to_string().contains("leave this codestream out"), "{failure}");
    let with_more = format!("{patch}{}", diff("net/sock.h", "#define SOCK 4\n", "#define SOCK 5\n"));
    let failure = kernel.failure(&[&with_more]).await;
    assert_eq!(
        (failure.applied(), failure.failed_file()),
        (Applied::ThisFile, Some("net/core/sock.c"))
    );
}

#[tokio::test]
async fn nothing_leaves_the_source() {
    let kernel = Kernel::new(&[]).await;
    let add = |path: &str| format!("--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n");
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    for (path, why) in [
        ("../../x", "not below"),
        ("net/etc/x", "net/etc is no folder"),
        ("net/link.c/x", "is no folder"),
        ("net/core/sock.c/x", "is no folder"),
        ("net/link.c", "no plain file"),
        ("net/core", "no plain file"),
        (".git/config", "not below"),
    ] {
        let failure = kernel.failure(&[&add(path)]).await;
        assert_eq!(failure.cause(), Cause::Yours, "{path}: {failure}");
        assert!(failure.to_string().contains(why), "{path}: {failure}");
    }
    let both = kernel.failure(&[&format!("{}{}", add("net/y"), add("net/y/z"))]).await;
    assert!(both.to_string().contains("a file and a folder"), "{both}");
    let both = kernel.failure(&[&format!("{}{}", add("net/y/z"), add("net/y"))]).await;
    assert!(both.to_string().contains("a file and a folder"), "{both}");
    let edit = diff("net/etc/hosts", &format!("{hosts}a\n"), &format!("{hosts}b\n"));
    assert_eq!(kernel.failure(&[&edit]).await.cause(), Cause::Yours);
    // What other readers of patches would run or follow is text to us.
    let ed = "Index: ../../x\nPrereq: 1\n1,$d\n!touch /tmp/x\n";
    let view = kernel
        .view(&[&format!(
            "{ed}{}",
            diff("net/sock.h", "#define SOCK 4\n", "#define SOCK 5\n")
        )])
        .await;
    assert_eq!(view.changed(), ["net/sock.h"]);
}

#[tokio::test]
async fn too_much_is_refused() {
    let kernel = Kernel::new(&[]).await;
    let add = |n: usize| format!("--- /dev/null\n+++ b/new/{n}.c\n@@ -0,0 +1 @@\n+x\n");
    let many: String = (0..1001).map(add).collect();
    assert!(
        kernel
            .failure(&[&many])
            .await
            .to_string()
            .contains("more than 1000 files")
    );
    let large = format!("{}{}", add(0), " ".repeat(4 << 20));
    assert!(kernel.failure(&[&large]).await.to_string().contains("at most 4096 KiB"));
    let almost = format!("{}{}", add(0), "\n".repeat(4_000_000));
    let nine = [almost.as_str(); 9];
    assert!(kernel.failure(&nine).await.to_string().contains("more than 32 MiB"));
}

#[tokio::test]
async fn a_patched_makefile_has_no_effect_and_says_so() {
    let kernel = Kernel::new(&[]).await;
    let patch = diff(
        "net/core/Makefile",
        "obj-y := sock.o\n",
        "obj-y := $(shell touch /tmp/x) sock.o\n",
    );
    let view = kernel.view(&[&patch]).await;
    assert!(
        view.warnings()[0].contains("net/core/Makefile is patched"),
        "{:?}",
        view.warnings()
    );
}

/// An attempt that is stopped takes its scratch folder with it, at whatever point that is.
#[tokio::test]
async fn a_view_that_nobody_wants_any_more_leaves_nothing() {
    let many: Vec<String> = (0..300).map(|n| format!("many/{n}/x.c")).collect();
    let files: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b"x\n"[..])).collect();
    let kernel = Kernel::new(&files).await;
    let patch = Patch {
        name: "x".to_owned(),
        bytes: diff("net/sock.h", "#define SOCK 4\n", "#define SOCK 5\n").into_bytes(),
    };
    let none = CancellationToken::new();
    let mut stopped = 0;
    for polls in 1.. {
        let scratch = tempfile::tempdir_in(kernel.place.path()).unwrap();
        let patches = [patch.clone()];
        let open = Cell::open();
        let mut making = Box::pin(View::new(&kernel.tree, scratch.path(), &patches, &open, &none));
        let mut left = polls;
        let ended = std::future::poll_fn(|context| {
            left -= 1;
            match making.as_mut().poll(context) {
                Poll::Ready(view) => Poll::Ready(Some(view)),
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        drop(making);
        scratch.close().unwrap();
        if ended.is_some() {
            break;
        }
        stopped += 1;
    }
    assert!(stopped > 1);
    assert!(seen(&kernel.tree.src) == kernel.before);
}

/// A file before and after: lines that are kept, changed, added or removed.
fn edited() -> impl Strategy<Value = (String, String)> {
    let line = "[a-c]{1,2}\r?";
    let edit = prop_oneof![
        6 => line.prop_map(|a| (Some(a.clone()), Some(a))),
        1 => (line, line).prop_map(|(a, b)| (Some(a), Some(b))),
        1 => line.prop_map(|a| (None, Some(a))),
        1 => line.prop_map(|a| (Some(a), None)),
    ];
    (proptest::collection::vec(edit, 1..40), any::<bool>(), any::<bool>()).prop_map(|(edits, old_end, new_end)| {
        let join = |lines: Vec<&str>, end: bool| {
            let text = lines.join("\n");
            if end && !text.is_empty() { text + "\n" } else { text }
        };
        let old = join(edits.iter().filter_map(|(old, _)| old.as_deref()).collect(), old_end);
        let new = join(edits.iter().filter_map(|(_, new)| new.as_deref()).collect(), new_end);
        (old, new)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 40, ..ProptestConfig::default() })]

    /// What git makes of two folders turns the one into the other, and the tree stays what it was.
    #[test]
    fn a_generated_diff_gives_what_it_was_made_from(files in proptest::collection::vec(edited(), 1..4)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let names: Vec<String> = (0..files.len()).map(|i| format!("d{}/f{i}.c", i % 2)).collect();
            let originals: Vec<(&str, &[u8])> =
                names.iter().zip(&files).map(|(name, (old, _))| (name.as_str(), old.as_bytes())).collect();
            let kernel = Kernel::new(&originals).await;
            let sides = tempfile::tempdir().unwrap();
            for (name, (old, new)) in names.iter().zip(&files) {
                write(&sides.path().join("a").join(name), old.as_bytes());
                write(&sides.path().join("b").join(name), new.as_bytes());
            }
            let done = Command::new("git")
                .args(["diff", "--no-index", "--no-renames", "--no-prefix", "a", "b"])
                .current_dir(&sides)
                .output()
                .unwrap();
            if done.stdout.is_empty() {
                return;
            }
            let view = kernel.view_of(std::slice::from_ref(&done.stdout)).await;
            let view = view.unwrap_or_else(|e| panic!("{e}\n{}", String::from_utf8_lossy(&done.stdout))).unwrap();
            assert!(view.warnings().is_empty());
            for (name, (_, new)) in names.iter().zip(&files) {
                assert_eq!(&std::fs::read(view.src().join(name)).unwrap(), new.as_bytes(), "{name}");
            }
        });
    }
}
