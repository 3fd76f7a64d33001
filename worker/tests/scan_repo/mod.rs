//! A repository of kernel-source's shape: branches, tags, patches, a series, configurations. All of its texts are made up.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use klp_livepatch::Arch;
use klp_livepatch::scan::branches::Branches;
use klp_worker::scan::{ScanCodestream, ScanRequest, SourceDirs};
use tempfile::TempDir;

const TOY: &str = "\
#include <linux/toy.h>

static int toy_walk(struct toy *toy, int (*visit)(struct toy *, void *), void *data)
{
	return visit(toy, data);
}

static void toy_locked(struct toy *toy)
	__must_hold(toy->lock)
{
	toy->count++;
}

static int toy_same(void)
{
	return 1;
}

SYSCALL_DEFINE2(toyctl, int, fd, void __user *, arg)
{
	return toy_ioctl(fd, arg);
}
";

const DATA: &str = "\
static const int toy_limits[] = { 64, 128 };

int toy_limit(int i)
{
	return toy_limits[i];
}
";

const PREPARE: &str = "\
From: A Developer <dev@example.org>
Subject: [PATCH 1/2] toy: look before walking
Git-commit: 0123456789abcdef0123456789abcdef01234567
Patch-mainline: v6.9
References: bsc#1200000 CVE-2024-1234

---
--- a/fs/toy/toy.c
+++ b/fs/toy/toy.c
@@ -2,5 +2,7 @@
 
 static int toy_walk(struct toy *toy, int (*visit)(struct toy *, void *), void *data)
 {
+	if (!toy)
+		return 0;
 	return visit(toy, data);
 }
@@ -8,5 +10,6 @@
 static void toy_locked(struct toy *toy)
 	__must_hold(toy->lock)
 {
-	toy->count++;
+	if (toy->count < TOY_MAX)
+		toy->count++;
 }
";

const CHECK: &str = "\
From: A Developer <dev@example.org>
Subject: [PATCH 2/2] toy: check the limits
Git-commit: 89abcdef0123456789abcdef0123456789abcdef
References: CVE-2024-1234
 bsc#1200000

diff --git a/fs/toy/toy.c b/fs/toy/toy.c
--- a/fs/toy/toy.c
+++ b/fs/toy/toy.c
@@ -10,5 +10,5 @@
 static void toy_locked(struct toy *toy)
 	__must_hold(toy->lock)
 {
 	if (toy->count < TOY_MAX)
-		toy->count++;
+		toy->count += 1;
@@ -23,4 +23,6 @@
 SYSCALL_DEFINE2(toyctl, int, fd, void __user *, arg)
 {
+	if (fd < 0)
+		return -EBADF;
 	return toy_ioctl(fd, arg);
 }
--- a/fs/toy/data.c
+++ b/fs/toy/data.c
@@ -1,2 +1,2 @@
-static const int toy_limits[] = { 64, 128 };
+static const int toy_limits[] = { 32, 64 };
 
";

/// A patch that does nothing of interest.
fn other(subject: &str, references: &str, body: &str) -> String {
    format!(
        "From: A Developer <dev@example.org>\nSubject: {subject}\nReferences: {references}\n\n{body}\n---\n\
        --- a/fs/other.c\n+++ b/fs/other.c\n@@ -1 +1 @@\n-a\n+b\n"
    )
}

/// The repository, and the kernels' sources beside it.
pub struct Repo {
    dir: TempDir,
}

impl Repo {
    pub fn new() -> Self {
        let repo = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(repo.path()).unwrap();
        repo.git(&["init", "-q", "-b", "SLE15-SP6-LTSS"]);
        repo.write("config/x86_64/default", "CONFIG_FS=y\nCONFIG_TOY_FS=m\n");
        repo.write("config/s390x/default", "CONFIG_FS=y\nCONFIG_TOY_FS=y\n");
        repo.write("config/arm64/default", "CONFIG_FS=y\n");
        repo.write("config/x86_64/rt", "CONFIG_FS=y\n# CONFIG_TOY_FS is not set\n");
        repo.write("supported.conf", "# modules\n\tfs/toy/*  # toys\n-\tfs/other\n");
        repo.write("patches.suse/base.patch", &other("base", "bsc#1", ""));
        repo.write(
            "patches.suse/longer-number.patch",
            &other("another", "CVE-2024-12345", ""),
        );
        repo.write(
            "patches.suse/only-prose.patch",
            &other("prose", "bsc#2", "Unlike CVE-2024-1234, this is harmless."),
        );
        let base = "# a series\n\n\tpatches.suse/base.patch\n\tpatches.suse/longer-number.patch\n\tpatches.suse/only-prose.patch\n";
        repo.write("series.conf", base);
        repo.commit("base", &["rpm-6.4.0-1", "rpm-6.4.0-7"]);
        repo.git(&["branch", "SLE15-SP6-RT"]);
        repo.git(&["branch", "SLE15-SP7"]);
        // The same fix by another name, and no CVE in it.
        repo.git(&["checkout", "-q", "-b", "SL-16.0"]);
        repo.write(
            "patches.suse/same-commit.patch",
            &CHECK.replace("CVE-2024-1234\n bsc", "bsc"),
        );
        repo.write("series.conf", &format!("{base}\tpatches.suse/same-commit.patch\n"));
        repo.commit("backport", &[]);
        repo.git(&["checkout", "-q", "SLE15-SP6-LTSS"]);
        repo.write("patches.suse/zz-toy-prepare.patch", PREPARE);
        let prepared = format!("{base}\tpatches.suse/zz-toy-prepare.patch\t# bsc#1200000\n");
        repo.write("series.conf", &prepared);
        repo.commit("prepare", &["rpm-6.4.0-2"]);
        repo.write("patches.suse/aa-toy-check.patch", CHECK);
        repo.write("patches.suse/not-applied.patch", &other("later", "CVE-2024-1234", ""));
        repo.write(
            "series.conf",
            &format!("{prepared}\tpatches.suse/aa-toy-check.patch\n+later\tpatches.suse/not-applied.patch\n"),
        );
        repo.commit("check", &["rpm-6.4.0-3"]);
        repo
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("kernel-source")
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.path().join(name), text);
    }

    fn commit(&self, subject: &str, tags: &[&str]) {
        self.git(&["add", "-A"]);
        self.git(&[
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
            "commit",
            "-q",
            "-m",
            subject,
        ]);
        for tag in tags {
            self.git(&[
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.org",
                "tag",
                "-a",
                "-m",
                tag,
                tag,
            ]);
        }
    }

    pub fn git(&self, args: &[&str]) {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.path()).args(args);
        for name in ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"] {
            git.env(name, "/dev/null");
        }
        assert!(git.status().unwrap().success(), "git {args:?}");
    }

    /// Unpatched sources for each codestream, whatever its kernel.
    pub fn sources(&self, codestreams: &[(&str, &str)]) -> SourceDirs {
        let dir = self.dir.path().join("src");
        write(&dir.join("Makefile"), "obj-y += fs/\n");
        write(&dir.join("fs/Makefile"), "obj-$(CONFIG_TOY_FS) += toy/\n");
        write(
            &dir.join("fs/toy/Makefile"),
            "obj-$(CONFIG_TOY_FS) += toyfs.o\ntoyfs-y := toy.o data.o\n",
        );
        write(&dir.join("fs/toy/toy.c"), TOY);
        write(&dir.join("fs/toy/data.c"), DATA);
        SourceDirs::new(codestreams.iter().map(|(name, _)| (name.parse().unwrap(), dir.clone())))
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

pub fn request(codestreams: &[(&str, &str)]) -> ScanRequest {
    let branches = [
        ("15.6", "SLE15-SP6-LTSS"),
        ("15.6rt", "SLE15-SP6-RT"),
        ("15.7", "SLE15-SP7"),
        ("16.0", "SL-16.0"),
    ];
    ScanRequest {
        cve: "2024-1234".parse().unwrap(),
        codestreams: codestreams
            .iter()
            .map(|(name, kernel)| ScanCodestream {
                name: name.parse().unwrap(),
                kernel: (*kernel).to_owned(),
                archs: if name.contains("rt") {
                    [Arch::X86_64].into()
                } else {
                    [Arch::X86_64, Arch::S390x, Arch::Aarch64].into()
                },
            })
            .collect(),
        add_patches: Vec::new(),
        branches: Branches::only(branches.map(|(product, branch)| (product.parse().unwrap(), branch.parse().unwrap()))),
    }
}
