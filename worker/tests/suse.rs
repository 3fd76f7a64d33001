//! SUSE's layout: kernels of our own, compiled for each architecture that this machine has a compiler for, are found,
//! read, patched and left as they are.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use klp_livepatch::task::Platform;
use klp_livepatch::{Arch, Codestream};
use klp_tests::suse::{DataDir, Kernel, Layout, Packing};
use klp_worker::extract::{CommandSource, compile_command};
use klp_worker::isolation::Cell;
use klp_worker::symbols::ObjectSymbols;
use klp_worker::trees::overlay::{Patch, View};
use klp_worker::trees::suse::{Flavour, KnownKernels, SuseData, unknown};
use klp_worker::trees::{Tree, TreeError, TreeKind, TreeStore, verify};
use tokio_util::sync::CancellationToken;

const ALL: [Arch; 3] = [Arch::X86_64, Arch::S390x, Arch::Ppc64le];

const TIMER: &str = "#include <linux/export.h>\n#include <linux/printk.h>\n#include \"timer.h\"\n\n\
    #ifndef __s390x__\n__attribute__((noinline)) static int not_on_s390x(int x)\n{\n\treturn vprintk(\"t\", x);\n}\n#else\n\
    #define not_on_s390x(x) (x)\n#endif\n\n\
    __attribute__((noinline)) static int reset(int x)\n{\n\treturn vprintk(\"r\", x + TICK);\n}\n\n\
    int snd_timer_start(int x)\n{\n\treturn reset(x) + not_on_s390x(x);\n}\nEXPORT_SYMBOL_GPL(snd_timer_start);\n";

const OTHER: &str = "#include <linux/printk.h>\n\n__attribute__((noinline)) static int reset(int x)\n{\n\
    \treturn vprintk(\"o\", x);\n}\n\nint snd_timer_other(int x)\n{\n\treturn reset(x);\n}\n";

fn kernel(version: &str, flavour: &str) -> Kernel {
    Kernel::new(version, flavour)
        .text("sound/core/timer.h", "#define TICK 1\n")
        .module("sound/core/timer.c", "CONFIG_SND_TIMER", "snd-timer", TIMER)
        .module("sound/core/other.c", "CONFIG_SND_TIMER", "snd-timer", OTHER)
        .built_in(
            "net/sock.c",
            "CONFIG_NET",
            "int sock_open(int x)\n{\n\treturn x + 1;\n}\n",
        )
}

struct Farm {
    data: DataDir,
    own: tempfile::TempDir,
}

impl Farm {
    fn new() -> Self {
        Self {
            data: DataDir::new(),
            own: tempfile::tempdir().unwrap(),
        }
    }

    fn indexes(&self) -> PathBuf {
        self.own.path().join("indexes")
    }

    fn store(&self, known: Arc<KnownKernels>) -> TreeStore {
        let suse = SuseData::open(self.data.path(), &self.indexes(), known).unwrap();
        let trees = TreeStore::open(&self.own.path().join("trees")).unwrap();
        trees.with_suse(Some(suse))
    }

    fn scratch(&self) -> PathBuf {
        tempfile::tempdir_in(self.own.path()).unwrap().keep()
    }
}

fn platform(codestream: &str, arch: Arch) -> Platform {
    Platform {
        codestream: codestream.parse().unwrap(),
        arch,
    }
}

/// Every file's time and bytes, and every folder's time.
fn seen(dir: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        all.insert(
            folder.clone(),
            (folder.metadata().unwrap().modified().unwrap(), Vec::new()),
        );
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let bytes = std::fs::read(&path).unwrap();
                    all.insert(path.clone(), (path.metadata().unwrap().modified().unwrap(), bytes));
                }
            }
        }
    }
    all
}

fn known() -> Arc<KnownKernels> {
    Arc::new(|kernel, flavour| {
        let name = match (kernel, flavour) {
            ("5.14.21-150400.24", Flavour::Default) => "15.4u1",
            ("6.4.0-150600.23", Flavour::Default) => "15.6u1",
            ("6.12.0-160000.5", Flavour::Default) => "16.0u0",
            ("6.12.0-160000.5", Flavour::Rt) => "16.0rtu0",
            _ => return Vec::new(),
        };
        vec![name.parse::<Codestream>().unwrap()]
    })
}

#[tokio::test]
async fn kernels_are_found_and_read_whatever_their_layout_and_compression() {
    let farm = Farm::new();
    let mut made = Vec::new();
    for (version, layout, packing) in [
        ("5.14.21-150400.24", Layout::Boot, Packing::Gzip),
        ("6.4.0-150600.23", Layout::Boot, Packing::Xz),
        ("6.12.0-160000.5", Layout::Usr, Packing::Zstd),
        ("6.13.0-1", Layout::Usr, Packing::Plain),
    ] {
        made = farm
            .data
            .add(&kernel(version, "default").layout(layout).packing(packing).archs(&ALL));
    }
    assert!(!made.is_empty(), "no compiler at all");
    let before = seen(farm.data.path());
    let store = farm.store(known());
    let listing = store.list();
    assert!(listing.broken.is_empty(), "{:?}", listing.broken);
    let names: Vec<_> = listing
        .trees
        .iter()
        .filter(|t| t.platform.arch == made[0])
        .map(|t| t.platform.codestream.as_str())
        .collect();
    assert_eq!(names, ["15.4u1", "15.6u1", "16.0u0", "linux-6.13.0-1-default"]);
    assert_eq!(listing.trees.len(), 4 * made.len());
    for tree in &listing.trees {
        assert_eq!((tree.kind, tree.module_count), (TreeKind::Suse, 1));
        assert_eq!(store.get(&tree.platform).unwrap().src, tree.src);
        let symbols = tree.symbols(&"snd-timer".parse().unwrap()).unwrap();
        assert!(
            symbols.in_vmlinux("sock_open") && !symbols.in_vmlinux("snd_timer_start"),
            "{}",
            tree.platform
        );
        assert_eq!(symbols.lookup_in_object("reset").unwrap().count, 2);
        assert_eq!(symbols.in_object("not_on_s390x"), tree.platform.arch != Arch::S390x);
        assert_eq!(symbols.exported("vprintk").unwrap().module, "vmlinux");
        assert_eq!(symbols.exported("snd_timer_start").unwrap().module, "snd-timer");
        assert!(tree.vmlinux_names().starts_with(farm.indexes()));
        let problems = verify::verify(tree, &CancellationToken::new()).await.unwrap();
        assert!(problems.is_empty(), "{}: {problems:?}", tree.platform);
    }
    assert!(seen(farm.data.path()) == before, "the data folder was written");
}

#[test]
fn a_kernel_that_lacks_something_says_what() {
    let farm = Farm::new();
    farm.data.add(&kernel("6.4.0-150600.23", "default"));
    let store = farm.store(known());
    let root = farm.data.path().join("x86_64");
    std::fs::remove_file(root.join("boot/vmlinux-6.4.0-150600.23-default")).unwrap();
    std::fs::remove_dir_all(root.join("usr/src/linux-6.4.0-150600.23")).unwrap();
    let listing = store.list();
    let [(whose, error)] = &listing.broken[..] else {
        panic!("{listing:?}")
    };
    assert_eq!((whose.codestream.as_str(), listing.trees.len()), ("15.6u1", 0));
    let said = error.to_string();
    for part in [
        "6.4.0-150600.23-default",
        "boot/vmlinux-6.4.0-150600.23-default, usr/src/linux-6.4.0-150600.23 missing",
        "download",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(matches!(store.get(whose), Err(TreeError::Broken { .. })));
    let absent = store.get(&platform_of("15.4u1"));
    assert!(matches!(absent, Err(TreeError::NotFound { .. })));
    // A configuration of another architecture.
    let s390x = farm.data.path().join("s390x");
    std::fs::rename(&root, &s390x).unwrap();
    std::fs::create_dir_all(s390x.join("usr/src/linux-6.4.0-150600.23-obj/s390x")).unwrap();
    let obj = s390x.join("usr/src/linux-6.4.0-150600.23-obj");
    std::fs::rename(obj.join("x86_64/default"), obj.join("s390x/default")).unwrap();
    std::fs::create_dir(s390x.join("usr/src/linux-6.4.0-150600.23")).unwrap();
    std::fs::write(s390x.join("boot/vmlinux-6.4.0-150600.23-default"), b"x").unwrap();
    let said = store.get(&platform("15.6u1", Arch::S390x)).unwrap_err().to_string();
    assert!(said.contains("is for x86_64, not for s390x"), "{said}");
}

fn platform_of(codestream: &str) -> Platform {
    platform(codestream, Arch::X86_64)
}

#[tokio::test]
async fn what_was_added_by_hand_goes_first_and_nothing_is_removed_here() {
    let farm = Farm::new();
    farm.data.add(&kernel("6.4.0-150600.23", "default"));
    let store = farm.store(known());
    let none = CancellationToken::new();
    let refused = store
        .remove(&platform_of("15.6u1"), &none, &mut |_| {})
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("only reads"), "{refused}");
    let own = store.tree_dir(&platform_of("15.6u1"));
    std::fs::create_dir_all(&own).unwrap();
    assert!(
        store
            .get(&platform_of("15.6u1"))
            .unwrap_err()
            .to_string()
            .contains("has no tree.json")
    );
    assert_eq!((store.list().trees.len(), store.list().broken.len()), (0, 1));
}

#[test]
fn an_index_is_made_once_for_each_vmlinux() {
    let farm = Farm::new();
    let kernel = kernel("6.4.0-150600.23", "default").packing(Packing::Xz);
    farm.data.add(&kernel);
    let tree = || farm.store(known()).get(&platform_of("15.6u1")).unwrap();
    let first = tree();
    assert!(!farm.indexes().exists(), "listing makes none");
    let index = first.vmlinux_names();
    let made = index.metadata().unwrap().modified().unwrap();
    assert_eq!(tree().vmlinux_names(), index);
    assert_eq!(index.metadata().unwrap().modified().unwrap(), made);
    farm.data
        .add(&kernel.built_in("net/new.c", "CONFIG_NET", "int brand_new(void)\n{\n\treturn 1;\n}\n"));
    // Who still has the former tree reads the new vmlinux itself.
    assert_eq!(first.vmlinux_names(), first.vmlinux_file().unwrap());
    assert!(first.vmlinux_symbols().unwrap().lookup("brand_new").is_some());
    let renewed = tree().vmlinux_names();
    assert!(renewed != index && !index.exists());
    // Where no index can be made vmlinux itself is read.
    std::fs::remove_dir_all(farm.indexes()).unwrap();
    std::fs::write(farm.indexes(), b"in the way").unwrap();
    assert_eq!(tree().vmlinux_names(), first.vmlinux_file().unwrap());
    assert!(tree().vmlinux_symbols().unwrap().lookup("brand_new").is_some());
}

fn patch(old: &str, new: &str) -> Patch {
    let text = format!(
        "--- a/net/sock.c\n+++ b/net/sock.c\n@@ -1,4 +1,4 @@\n int sock_open(int x)\n {{\n-\treturn {old};\n+\treturn {new};\n }}\n"
    );
    Patch {
        name: "fix.patch".to_owned(),
        bytes: text.into_bytes(),
    }
}

/// Compiles a file of a view as its tree's build would, and returns what became of it in assembly.
fn compiled(tree: &Tree, view: &View, scratch: &Path) -> String {
    let source = CommandSource {
        src_dir: &tree.src,
        obj_dir: &tree.obj,
        cc: &tree.compiler,
        make_args: &[],
    };
    let command = view.command(&compile_command(&source, "net/sock.c").unwrap());
    let at = command.args.iter().position(|arg| arg == "-c").unwrap();
    let done = Command::new(&command.compiler)
        .args(&command.args[..at])
        .args(["-S", "-o", "-"])
        .arg(command.args.last().unwrap())
        .current_dir(&command.directory)
        .output()
        .unwrap();
    assert!(done.status.success() && scratch.is_dir(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// A klp-build defect: codestreams of two flavours share a source folder, and both got the patches of the last one.
#[tokio::test]
async fn two_codestreams_on_one_source_have_a_patch_each() {
    let farm = Farm::new();
    for flavour in ["default", "rt"] {
        farm.data.add(
            &kernel("6.12.0-160000.5", flavour)
                .layout(Layout::Usr)
                .packing(Packing::Zstd),
        );
    }
    let store = farm.store(known());
    let trees = ["16.0u0", "16.0rtu0"].map(|name| store.get(&platform_of(name)).unwrap());
    assert_eq!(trees[0].src, trees[1].src, "that is how SUSE ships them");
    assert_ne!(trees[0].obj, trees[1].obj);
    let before = seen(farm.data.path());
    let none = CancellationToken::new();
    let scratch = [farm.scratch(), farm.scratch()];
    let patches = [[patch("x + 1", "x + 7001")], [patch("x + 1", "x + 9002")]];
    // Both at once.
    let open = Cell::open();
    let (first, second) = tokio::join!(
        View::new(&trees[0], &scratch[0], &patches[0], &open, &none),
        View::new(&trees[1], &scratch[1], &patches[1], &open, &none)
    );
    let views = [first.unwrap().unwrap(), second.unwrap().unwrap()];
    let code = [0, 1].map(|i| compiled(&trees[i], &views[i], &scratch[i]));
    assert!(code[0].contains("7001") && !code[0].contains("9002"), "{}", code[0]);
    assert!(code[1].contains("9002") && !code[1].contains("7001"), "{}", code[1]);
    assert_eq!(views[0].obj(), trees[0].obj);
    assert!(seen(farm.data.path()) == before, "the data folder was written");
}

#[test]
fn options_differ_by_architecture() {
    let farm = Farm::new();
    let kernel = kernel("6.4.0-150600.23", "default")
        .archs(&ALL)
        .set(Arch::S390x, "CONFIG_SND_TIMER", "n")
        .set(Arch::Ppc64le, "CONFIG_SND_TIMER", "y");
    for arch in farm.data.add(&kernel) {
        let tree = farm
            .store(unknown())
            .get(&platform("linux-6.4.0-150600.23-default", arch))
            .unwrap();
        let in_vmlinux = tree.vmlinux_symbols().unwrap().lookup("snd_timer_start").is_some();
        let module = tree.modules().unwrap().find("snd_timer").ok();
        assert_eq!(
            (in_vmlinux, module.is_some()),
            (arch == Arch::Ppc64le, arch == Arch::X86_64),
            "{arch}"
        );
        if let Some(module) = module {
            assert!(ObjectSymbols::open(&module).is_ok());
        }
    }
}

/// As many as a farm has: SLE 15 and 16 with three architectures each. Prints how long a look takes.
#[test]
fn many_kernels_are_found_at_once() {
    let farm = Farm::new();
    let one = DataDir::new();
    one.add(&kernel("6.4.0-1", "default"));
    let copy = |from: &str, to: &Path| {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(one.path().join("x86_64").join(from), to).unwrap();
    };
    for n in 0..60 {
        let root = farm.data.path().join("x86_64");
        let release = format!("6.4.0-{n}-default");
        for name in ["vmlinux", "config", "symvers"] {
            copy(
                &format!("boot/{name}-6.4.0-1-default"),
                &root.join(format!("boot/{name}-{release}")),
            );
        }
        copy(
            "lib/modules/6.4.0-1-default/modules.order",
            &root.join(format!("lib/modules/{release}/modules.order")),
        );
        let obj = root.join(format!("usr/src/linux-6.4.0-{n}-obj/x86_64/default"));
        copy(
            "usr/src/linux-6.4.0-1-obj/x86_64/default/compile_commands.json",
            &obj.join("compile_commands.json"),
        );
        std::fs::create_dir_all(root.join(format!("usr/src/linux-6.4.0-{n}"))).unwrap();
    }
    let store = farm.store(unknown());
    for look in ["first", "next"] {
        let start = std::time::Instant::now();
        let listing = store.list();
        println!("{look} look: {:?}", start.elapsed());
        assert_eq!(
            (listing.trees.len(), listing.broken.len()),
            (60, 0),
            "{:?}",
            listing.broken.first()
        );
    }
}
