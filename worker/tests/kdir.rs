//! Taking a built kernel folder as a tree, with a folder that has what such a one has as far as adding looks: real ELF
//! files (this test's own program), real configuration syntax. Nothing of it may be changed.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use klp_livepatch::Arch;
use klp_livepatch::task::Platform;
use klp_worker::trees::kdir::{Request, add};
use klp_worker::trees::{Tree, TreeError, TreeKind, TreeStore};
use tokio_util::sync::CancellationToken;

struct Farm {
    _place: tempfile::TempDir,
    kernel: PathBuf,
    store: TreeStore,
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

impl Farm {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let kernel = place.path().join("linux");
        let config = "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_CC_VERSION_TEXT=\"gcc-12 (Debian 12) 12.2.0\"\n";
        for (name, content) in [
            ("Makefile", "VERSION = 6\n"),
            ("Kbuild", "\n"),
            ("scripts/Kbuild.include", "\n"),
            ("scripts/mod/modpost", "\n"),
            (".config", config),
            ("include/generated/autoconf.h", "\n"),
            ("include/config/kernel.release", "6.18.0-mine\n"),
            ("Module.symvers", "0x1\tvprintk\tvmlinux\tEXPORT_SYMBOL\t\n"),
            ("modules.order", "net/one-two.o\n"),
        ] {
            write(&kernel.join(name), content.as_bytes());
        }
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        write(&kernel.join("vmlinux"), &program);
        write(&kernel.join("net/one-two.ko"), &program);
        let store = TreeStore::open(&place.path().join("trees")).unwrap();
        Self {
            _place: place,
            kernel,
            store,
        }
    }

    async fn add(&self, codestream: &str, arch: Arch) -> Result<Tree, TreeError> {
        let request = Request {
            path: self.kernel.clone(),
            platform: platform(codestream, arch),
            mod_dir: None,
        };
        add(&self.store, &request, &CancellationToken::new(), &mut |_| {}).await
    }

    async fn refusal(&self) -> String {
        self.add("mine", Arch::X86_64).await.unwrap_err().to_string()
    }
}

fn platform(codestream: &str, arch: Arch) -> Platform {
    Platform {
        codestream: codestream.parse().unwrap(),
        arch,
    }
}

#[tokio::test]
async fn a_built_kernel_becomes_a_tree_and_stays_as_it_is() {
    let farm = Farm::new();
    let files = || {
        let mut all: Vec<_> = walk(&farm.kernel)
            .into_iter()
            .map(|f| (f.metadata().unwrap().modified().unwrap(), f))
            .collect();
        all.sort();
        all
    };
    let before = files();
    let tree = farm.add("mine", Arch::X86_64).await.unwrap();
    assert_eq!(
        (tree.kind, tree.release.as_str(), tree.compiler.as_str()),
        (TreeKind::Kdir, "6.18.0-mine", "gcc-12")
    );
    assert_eq!(tree.module_count, 1);
    assert_eq!(
        tree.modules().unwrap().find("one_two").unwrap(),
        tree.src.join("net/one-two.ko")
    );
    let symbols = tree.symbols(&"one-two".parse().unwrap()).unwrap();
    assert!(symbols.in_object("main") && symbols.in_vmlinux("main") && symbols.exported("vprintk").is_some());
    assert_eq!(farm.store.list().trees.len(), 1);
    let none = CancellationToken::new();
    farm.store.remove(&tree.platform, &none, &mut |_| {}).await.unwrap();
    assert!(farm.store.list().trees.is_empty());
    assert_eq!(files(), before);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}

#[tokio::test]
async fn a_kernel_built_anew_is_read_anew() {
    let farm = Farm::new();
    let tree = farm.add("mine", Arch::X86_64).await.unwrap();
    assert_eq!(tree.vmlinux_names(), tree.dir.join("vmlinux.symbols"));
    // Another build of vmlinux: the recorded names are not its own any more.
    let other = std::fs::read(env!("CARGO_BIN_EXE_klp-worker")).unwrap();
    std::fs::write(farm.kernel.join("vmlinux"), other).unwrap();
    assert_eq!(tree.vmlinux_names(), tree.src.join("vmlinux"));
    assert!(tree.vmlinux_symbols().unwrap().lookup("main").is_some());
    let renewed = farm.add("mine", Arch::X86_64).await.unwrap();
    assert_eq!(renewed.vmlinux_names(), tree.dir.join("vmlinux.symbols"));
}

#[tokio::test]
async fn all_that_is_missing_is_named_with_what_makes_it() {
    let farm = Farm::new();
    for name in [
        "Module.symvers",
        "vmlinux",
        "modules.order",
        "net/one-two.ko",
        "include/generated/autoconf.h",
    ] {
        std::fs::remove_file(farm.kernel.join(name)).unwrap();
    }
    let said = farm.refusal().await;
    for wanted in [
        "include/generated/autoconf.h (run `make modules_prepare`)",
        "Module.symvers (run `make`)",
        "vmlinux (run `make`)",
        "make modules",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    std::fs::remove_file(farm.kernel.join(".config")).unwrap();
    assert!(farm.refusal().await.contains("has no .config"));
    std::fs::remove_file(farm.kernel.join("Kbuild")).unwrap();
    assert!(farm.refusal().await.contains("not the top folder"));
    assert!(farm.store.list().trees.is_empty() && farm.store.list().broken.is_empty());
}

#[tokio::test]
async fn a_kernel_for_another_architecture_or_name_is_refused() {
    let farm = Farm::new();
    let said = farm.add("mine", Arch::S390x).await.unwrap_err().to_string();
    assert!(said.contains("is for x86_64, not s390x"), "{said}");
    farm.add("mine", Arch::X86_64).await.unwrap();
    let other = Farm::new();
    let request = Request {
        path: other.kernel.clone(),
        platform: platform("mine", Arch::X86_64),
        mod_dir: None,
    };
    let refused = add(&farm.store, &request, &CancellationToken::new(), &mut |_| {}).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("tree remove mine --arch x86_64")
    );
}

#[tokio::test]
async fn damaged_files_are_errors() {
    let farm = Farm::new();
    std::fs::write(farm.kernel.join("vmlinux"), b"\x7fELF but no more").unwrap();
    assert!(farm.refusal().await.contains("vmlinux"));
    std::fs::write(farm.kernel.join("Module.symvers"), b"what\n").unwrap();
    assert!(farm.refusal().await.contains("line 1 is not an export"));
    let listing = farm.store.list();
    assert!(
        listing.trees.is_empty() && listing.broken.is_empty(),
        "nothing half made is left"
    );
}

#[tokio::test]
async fn folders_that_are_no_trees_are_told_apart() {
    let farm = Farm::new();
    let tree = farm.add("mine", Arch::X86_64).await.unwrap();
    let record = std::fs::read_to_string(tree.dir.join("tree.json")).unwrap();
    let others = tree.dir.parent().unwrap();
    for (name, content) in [
        ("renamed", record.clone()),
        ("newer", record.replace("\"format\": 1", "\"format\": 99")),
        ("cut", record[..record.len() / 2].to_owned()),
    ] {
        write(&others.join(name).join("tree.json"), content.as_bytes());
    }
    std::fs::create_dir(others.join("empty")).unwrap();
    let listing = farm.store.list();
    assert_eq!(listing.trees.len(), 1);
    let said: Vec<_> = listing.broken.iter().map(|(_, e)| e.to_string()).collect();
    assert_eq!(said.len(), 4, "{said:?}");
    for wanted in [
        "is damaged",
        "has no tree.json",
        "has format 99",
        "the folder was renamed",
    ] {
        assert!(said.iter().any(|text| text.contains(wanted)), "{wanted}: {said:?}");
    }
    let absent = farm.store.get(&platform("absent", Arch::X86_64)).unwrap_err();
    assert!(matches!(absent, TreeError::NotFound { .. }));
}
