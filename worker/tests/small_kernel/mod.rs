//! A small tree in place of a kernel's, for patches to be applied to with the real programs.
#![allow(dead_code, reason = "each test that has it uses some of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use klp_livepatch::Arch;
use klp_livepatch::task::Platform;
use klp_worker::isolation::Cell;
use klp_worker::trees::overlay::{Patch, PatchFailure, View};
use klp_worker::trees::{Tree, TreeStore, kdir};
use tokio_util::sync::CancellationToken;

pub const SOCK: &str = "#include \"../sock.h\"\n#include \"local.h\"\n\nint one(void)\n{\n\treturn 1;\n}\n\nint two(void)\n{\n\treturn 2;\n}\n\nint three(void)\n{\n\treturn 3;\n}\n\nint four(void)\n{\n\treturn SOCK;\n}\n";

/// What a file or link was: its bytes or target, and when it was changed.
pub type Seen = BTreeMap<PathBuf, (Vec<u8>, SystemTime)>;

pub struct Kernel {
    pub place: tempfile::TempDir,
    pub tree: Tree,
    pub before: Seen,
    /// What the programs that apply patches run in.
    pub cell: Cell,
}

pub fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

pub fn look(dir: &Path, all: &mut Seen) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_dir() {
            look(&path, all);
            Vec::new()
        } else if metadata.is_symlink() {
            std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else {
            std::fs::read(&path).unwrap()
        };
        all.insert(path, (content, metadata.modified().unwrap()));
    }
}

pub fn seen(dir: &Path) -> Seen {
    let mut all = Seen::new();
    look(dir, &mut all);
    all.insert(
        dir.to_owned(),
        (Vec::new(), dir.metadata().unwrap().modified().unwrap()),
    );
    all
}

impl Kernel {
    pub async fn new(files: &[(&str, &[u8])]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let kernel = place.path().join("linux");
        for (name, content) in [
            ("Makefile", "VERSION = 6\n"),
            ("Kbuild", "\n"),
            ("scripts/Kbuild.include", "\n"),
            ("scripts/mod/modpost", "\n"),
            (".config", "CONFIG_X86_64=y\n"),
            ("include/generated/autoconf.h", "\n"),
            ("include/config/kernel.release", "6.18.0-mine\n"),
            ("Module.symvers", "0x1\tvprintk\tvmlinux\tEXPORT_SYMBOL\t\n"),
            ("modules.order", ""),
            (".git/config", "[core]\n\tautocrlf = input\n"),
            ("net/sock.h", "#define SOCK 4\n"),
            ("net/core/Makefile", "obj-y := sock.o\n"),
            ("net/core/sock.c", SOCK),
            ("net/core/local.h", "int local;\n"),
            ("net/other/other.c", "#include \"../sock.h\"\nint other = SOCK;\n"),
            ("net/other/crlf.c", "int a;\r\nint b;\r\n"),
        ] {
            write(&kernel.join(name), content.as_bytes());
        }
        for (name, content) in files {
            write(&kernel.join(name), content);
        }
        std::os::unix::fs::symlink("/etc", kernel.join("net/etc")).unwrap();
        std::os::unix::fs::symlink("core/sock.c", kernel.join("net/link.c")).unwrap();
        std::fs::copy(std::env::current_exe().unwrap(), kernel.join("vmlinux")).unwrap();
        let store = TreeStore::open(&place.path().join("trees")).unwrap();
        let request = kdir::Request {
            path: kernel,
            platform: Platform {
                codestream: "15.6u1".parse().unwrap(),
                arch: Arch::X86_64,
            },
            mod_dir: None,
        };
        let tree = kdir::add(&store, &request, &CancellationToken::new(), &mut |_| {})
            .await
            .unwrap();
        let before = seen(&tree.src);
        let cell = Cell::open();
        Self {
            place,
            tree,
            before,
            cell,
        }
    }

    pub async fn try_view(&self, patches: &[&str]) -> Result<Option<View>, PatchFailure> {
        let patches: Vec<_> = patches.iter().map(|text| text.as_bytes().to_vec()).collect();
        self.view_of(&patches).await
    }

    pub async fn view_of(&self, patches: &[Vec<u8>]) -> Result<Option<View>, PatchFailure> {
        let patches: Vec<_> = patches
            .iter()
            .enumerate()
            .map(|(i, bytes)| Patch {
                name: format!("{i}.patch"),
                bytes: bytes.clone(),
            })
            .collect();
        let scratch = tempfile::tempdir_in(self.place.path()).unwrap().keep();
        let view = View::new(&self.tree, &scratch, &patches, &self.cell, &CancellationToken::new()).await;
        assert!(seen(&self.tree.src) == self.before, "the tree was touched");
        view
    }

    pub async fn view(&self, patches: &[&str]) -> View {
        self.try_view(patches).await.unwrap().unwrap()
    }

    pub async fn failure(&self, patches: &[&str]) -> PatchFailure {
        self.try_view(patches).await.unwrap_err()
    }
}

pub fn changed(from: &str, to: &str) -> String {
    SOCK.replace(from, to)
}

/// What `diff -u` makes of a file's two contents, with names as git has them.
pub fn diff(path: &str, old: &str, new: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("a").join(path), old.as_bytes());
    write(&dir.path().join("b").join(path), new.as_bytes());
    let (a, b) = (format!("a/{path}"), format!("b/{path}"));
    let done = Command::new("diff")
        .args(["-u", &a, &b])
        .current_dir(&dir)
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

pub fn read(view: &View, path: &str) -> String {
    std::fs::read_to_string(view.src().join(path)).unwrap()
}
