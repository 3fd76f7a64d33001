//! Patches that are read, and those that are refused.

use super::*;

fn refused(patch: &str) -> String {
    parse(patch.as_bytes()).unwrap_err().why
}

const HUNK: &str = "@@ -1,2 +1,2 @@ int f(void)\n a\n-b\n+c\n";

#[test]
fn mails_plain_diffs_and_bare_ones_are_read() {
    let mail = format!(
        "From 1234 Mon Sep 17 00:00:00 2001\nSubject: x\n\n--- not a header\n---\n a/x | 2 +-\n\n\
         diff --git a/net/x.c b/net/x.c\nindex 1..2 100644\n--- a/net/x.c\n+++ b/net/x.c\n{HUNK}-- \n2.39\n"
    );
    let suse = format!(
        "From: A <a@b>\nGit-commit: 12\nPatch-mainline: v6\n\n--- linux-5.3.orig/net/x.c\t2020-01-01\n\
         +++ linux-5.3/net/x.c\t2020-01-02\n{HUNK}"
    );
    for patch in [mail, suse] {
        let files = parse(patch.as_bytes()).unwrap();
        assert_eq!((files.len(), files[0].path.as_str()), (1, "net/x.c"));
        assert_eq!(files[0].hunks[0].header, "@@ -1,2 +1,2 @@ int f(void)");
        let mut written = Vec::new();
        files[0].write(&mut written);
        let expected = "--- a/net/x.c\n+++ b/net/x.c\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n";
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }
}

#[test]
fn files_come_and_go_with_and_without_lines() {
    let patch = "diff --git a/d/new.c b/d/new.c\nnew file mode 100644\nindex 0..1\n--- /dev/null\n+++ b/d/new.c\n\
                 @@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n\
                 diff --git a/empty b/empty\nnew file mode 100644\nindex 0..e\n\
                 diff --git a/old.c b/old.c\ndeleted file mode 100755\nindex 1..0\n--- a/old.c\n+++ /dev/null\n\
                 @@ -1 +0,0 @@\n-x\n--- l/older.c\t2000-01-01\n+++ n/older.c\t1970-01-01 00:00\n@@ -1 +0,0 @@\n-x\n";
    let files = parse(patch.as_bytes()).unwrap();
    let told: Vec<_> = files
        .iter()
        .map(|f| (f.path.as_str(), f.change, f.hunks.len()))
        .collect();
    assert_eq!(
        told,
        [
            ("d/new.c", Change::Add, 1),
            ("empty", Change::Add, 0),
            ("old.c", Change::Delete, 1),
            ("older.c", Change::Delete, 1)
        ]
    );
    assert!(files[0].hunks[0].lines.ends_with(b"+x\n\\ No newline at end of file\n"));
}

#[test]
fn what_leads_out_of_the_source_is_refused() {
    for name in [
        "a/../../etc/passwd",
        "../a/x.c",
        "/etc/passwd",
        "a//etc/passwd",
        "a/./x.c",
        "a/.git/config",
        "a/.GIT/hooks/x",
        "\"a/x\\056c\"",
        "a/x y.c",
        "x.c",
        "a/\u{e9}.c",
    ] {
        let why = refused(&format!("--- {name}\n+++ {name}\n{HUNK}"));
        assert!(why.contains("it names the file"), "{name}: {why}");
        refused(&format!("--- /dev/null\n+++ {name}\n@@ -0,0 +1 @@\n+x\n"));
        refused(&format!("--- {name}\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"));
    }
}

#[test]
fn what_is_no_change_of_text_is_refused() {
    let git = |header: &str| refused(&format!("diff --git a/x b/x\n{header}\n--- a/x\n+++ b/x\n{HUNK}"));
    assert!(git("old mode 100644\nnew mode 100755").contains("mode"));
    assert!(git("new file mode 120000").contains("symbolic link"));
    assert!(git("index 1..2 120000").contains("symbolic link"));
    assert!(git("deleted file mode 160000").contains("submodule"));
    assert!(git("new file mode 060000").contains("plain file"));
    assert!(git("similarity index 90%\nrename from x\nrename to y").contains("--no-renames"));
    assert!(git("copy from x").contains("--no-renames"));
    assert!(git("GIT binary patch").contains("binary"));
    assert!(refused(&format!("--- a/x\n+++ b/y\n{HUNK}")).contains("turns x into y"));
    assert!(refused("Binary files a/x and b/x differ\n").contains("binary"));
    assert!(refused("diff --cc x\n").contains("merge"));
    assert!(refused("diff --git a/x b/x\nindex 1..2 100644\n").contains("no change"));
    assert!(refused("hello\n").contains("no unified diff"));
    assert!(refused(&"x".repeat(MAX_PATCH + 1)).contains("at most"));
}

#[test]
fn damaged_hunks_are_refused() {
    let hunk = |hunk: &str| refused(&format!("--- a/x\n+++ b/x\n{hunk}"));
    assert!(hunk("@@ -1,3 +1,3 @@\n a\n").contains("ends within"));
    assert!(hunk("@@ -1,2 +1,1 @@\n a\n+b\n").contains("don't fit"));
    assert!(hunk("@@ -1,1 +1,1 @@\n a\n+b\n").contains("more lines"));
    assert!(hunk("@@ -1,2 +1,2 @@\n a\n?\n").contains("fewer lines"));
    assert!(hunk("@@ -1,-2 +1,2 @@\n a\n").contains("damaged"));
    assert!(hunk("@@ -99999999999,2 +1,2 @@\n a\n").contains("damaged"));
}

#[test]
fn the_line_of_a_refusal_is_the_patchs() {
    let patch = format!("hello\n\ndiff --git a/x b/x\nold mode 100644\n--- a/x\n+++ b/x\n{HUNK}");
    assert_eq!(parse(patch.as_bytes()).unwrap_err().line, 4);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        lines in proptest::collection::vec("(diff --git a/x b/x|--- a/x|\\+\\+\\+ b/x|@@ -[0-3],[0-3] \\+[0-3],[0-3] @@|[ +\\\\-]?[a-z]{0,3}|new file mode 100644)\r?", 0..40)
    ) {
        let text = lines.join("\n");
        // What was understood and written anew is understood as the same.
        if let Ok(files) = parse(text.as_bytes()) {
            let mut written = Vec::new();
            files.iter().for_each(|file| file.write(&mut written));
            if !written.is_empty() {
                let again = parse(&written).unwrap();
                let with_text: Vec<_> = files.iter().filter(|file| !file.hunks.is_empty()).collect();
                proptest::prop_assert_eq!(again.len(), with_text.len());
                for (a, b) in again.iter().zip(with_text) {
                    proptest::prop_assert_eq!((&a.path, a.change), (&b.path, b.change));
                    for (x, y) in a.hunks.iter().zip(&b.hunks) {
                        proptest::prop_assert_eq!(&x.lines, &y.lines);
                    }
                }
            }
        }
    }
}
