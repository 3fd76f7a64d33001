//! Patches of every dialect, and texts that are none.

use proptest::prelude::*;

use super::*;

const SUSE: &str = "\
From: A Developer <a@example.org>
Date: Mon, 1 Jan 2024 00:00:00 +0000
Subject: [PATCH v2 3/4] toy: don't trust the length
 that user space gives
Git-commit: 0123456789abcdef0123456789abcdef01234567
Patch-mainline: v6.9-rc1
References: CVE-2024-1234 bsc#1234567,
 git-fixes

Prose with a rule
---
and --- dashes, @@ -1 +1 @@ included.

Acked-by: Somebody <s@example.org>
---
 fs/toy.c | 2 +-
 1 file changed

diff --git a/fs/toy.c b/fs/toy.c
index 1111111..2222222 100644
--- a/fs/toy.c
+++ b/fs/toy.c
@@ -10,4 +10,4 @@ static int toy(int len)
 {

-\treturn len;
+\treturn min(len, 8);
 }
-- 
2.43.0
";

#[test]
fn a_kernel_source_patch_is_read_whole() {
    let patch: Patch = SUSE.parse().unwrap();
    assert_eq!(patch.subject, "toy: don't trust the length that user space gives");
    assert_eq!(patch.git_commits[0].short(), "0123456789ab");
    assert_eq!(patch.mainline.as_deref(), Some("v6.9-rc1"));
    assert_eq!(patch.references, ["CVE-2024-1234", "bsc#1234567", "git-fixes"]);
    assert_eq!(patch.cves(), ["2024-1234".parse().unwrap()]);
    let [file] = &patch.files[..] else {
        panic!("{:?}", patch.files)
    };
    assert_eq!(file.path().unwrap().as_str(), "fs/toy.c");
    let [hunk] = &file.hunks[..] else {
        panic!("{:?}", file.hunks)
    };
    assert_eq!((hunk.line, hunk.old_start, hunk.lines.len()), (23, 10, 5));
    // The blank line is context, though its space is gone.
    assert_eq!(hunk.lines[1].side, Side::Both);
}

#[test]
fn plain_diffs_and_git_headers_mix() {
    let text = "\
Index: linux/fs/a.c
--- linux.orig/fs/a.c\t2024-01-01 00:00:00
+++ linux/fs/a.c\t2024-01-02 00:00:00
@@ -1 +1 @@
--- old comment
+++ new comment
diff --git a/fs/b.c b/fs/c.c
similarity index 100%
rename from fs/b.c
rename to fs/c.c
diff --git a/fs/n.c b/fs/n.c
new file mode 100644
--- /dev/null
+++ b/fs/n.c
@@ -0,0 +1 @@
+int n;
\\ No newline at end of file
diff --git a/fs/e.c b/fs/e.c
deleted file mode 100644
index e69de29..0000000
diff --git a/logo.png b/logo.png
Binary files a/logo.png and b/logo.png differ
";
    let patch: Patch = text.parse().unwrap();
    let names: Vec<_> = patch
        .files
        .iter()
        .map(|f| {
            (
                f.old.as_ref().map(TreePath::as_str),
                f.new.as_ref().map(TreePath::as_str),
                f.hunks.len(),
                f.binary,
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            (Some("fs/a.c"), Some("fs/a.c"), 1, false),
            (Some("fs/b.c"), Some("fs/c.c"), 0, false),
            (None, Some("fs/n.c"), 1, false),
            (Some("fs/e.c"), None, 0, false),
            (Some("logo.png"), Some("logo.png"), 0, true),
        ]
    );
    assert_eq!(patch.files[0].hunks[0].lines[0].text, "-- old comment");
}

#[test]
fn commits_of_stable_kernels_are_found() {
    let diff = "--- a/x.c\n+++ b/x.c\n@@ -1 +1 @@\n-a\n+b\n";
    for line in [
        "commit 0123456789abcdef upstream.",
        "[ Upstream commit 0123456789abcdef ]",
    ] {
        let patch: Patch = format!("Subject: x\n\n{line}\n\n{diff}").parse().unwrap();
        assert_eq!(patch.git_commits[0].as_str(), "0123456789abcdef");
    }
}

#[test]
fn errors_name_the_line() {
    let error = |text: &str| text.parse::<Patch>().unwrap_err().to_string();
    assert!(error("just prose\n").contains("no diff"));
    assert!(error("--- a/x\n+++ b/../x\n@@ -1 +1 @@\n").starts_with("line 2:"));
    assert!(error("--- a/x\n+++ b/x\n@@ -1,z +1 @@\n").starts_with("line 3:"));
    assert!(error("--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a\n").contains("line 5: the hunk that began in line 3"));
    assert!(error("--- a/x\n+++ b/x\n@@ -1,9999999999 +1 @@\n a\n").starts_with("line 3:"));
    assert!(error("diff --git x y\n@@ -1 +1 @@\n-a\n+b\n").starts_with("line 2: a hunk with no file"));
    assert!(error(&"x".repeat(MAX_PATCH + 1)).contains("at most"));
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "(--- a/x\n\\+\\+\\+ b/x\n|@@ -[0-9]{0,3},?[0-9]{0,12} \\+[0-9]{1,3} @@\n|[-+ \\\\]x\n|diff --git a/.{0,9} b/.{0,9}\n|\n|.{0,20}\n){0,30}") {
        let _ = text.parse::<Patch>();
    }
}
