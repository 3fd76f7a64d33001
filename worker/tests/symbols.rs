//! Positions and ftrace locations, in objects made here by the host's compiler and Debian's cross compilers, and in real
//! kernels. An architecture whose compiler is missing is skipped, and the test's output says so.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use klp_livepatch::names::ObjectName;
use klp_livepatch::report::Traced;
use klp_livepatch::spec::Target;
use klp_worker::check::{Position, check, positions};
use klp_worker::symbols::{NameTable, ObjectIndex, Place, SymbolTable, kallsyms, open_places};
use klp_worker::trees::{Tree, TreeKind, TreeStore, verify};
use proptest::prelude::*;

/// A file with a function of its own that other files have, too, one that is not traced, and one that is only there at
/// the start; `@` is the file's letter.
const SOURCE: &str = r"
__attribute__((noinline)) static int reset(int x) { return x * @@ + 1; }
int @_first(int x) { return reset(x) + 1; }
__attribute__((no_instrument_function, noinline)) QUIET int @_quiet(int x) { return x ^ 5; }
int @_last(int x) { return reset(x + 2) - @_quiet(x); }
__attribute__((section(INIT), noinline)) int @_boot(int x) { return x + 9; }
int @_data = @@;
";

/// The first of these is linked first, so that its address is the lowest; two have the same last part.
const FILES: [(&str, char, u32); 3] = [("one.c", 'a', 3), ("two.c", 'b', 7), ("sub/one.c", 'c', 11)];

const SCRIPT: &str = r"
SECTIONS {
  . = 0x1000000;
  .text : { *(.text .text.*) }
  .init.text : { *(.init.text) }
  .init.data : {
    __start_mcount_loc = .;
    KEEP(*(__mcount_loc)) KEEP(*(__patchable_function_entries))
    __stop_mcount_loc = .;
  }
  .rela.dyn : { *(.rela*) }
  .data : { *(.data) *(.bss) }
}
";

struct Kind {
    name: &'static str,
    /// What the tools' names begin with.
    prefix: &'static str,
    compiler: &'static [&'static str],
    linker: &'static [&'static str],
}

const KINDS: [Kind; 9] = [
    Kind {
        name: "x86_64",
        prefix: "",
        compiler: &["-pg", "-mfentry", "-mrecord-mcount"],
        linker: &[],
    },
    Kind {
        name: "x86_64 with ENDBR",
        prefix: "",
        compiler: &["-pg", "-mfentry", "-mrecord-mcount", "-fcf-protection=branch"],
        linker: &[],
    },
    Kind {
        name: "aarch64",
        prefix: "aarch64-linux-gnu-",
        compiler: &["-fpatchable-function-entry=2"],
        linker: &[],
    },
    Kind {
        name: "aarch64 with BTI",
        prefix: "aarch64-linux-gnu-",
        compiler: &["-fpatchable-function-entry=2", "-mbranch-protection=bti"],
        linker: &[],
    },
    Kind {
        name: "aarch64 with padding before functions",
        prefix: "aarch64-linux-gnu-",
        compiler: &["-fpatchable-function-entry=4,2", "-mbranch-protection=bti"],
        linker: &[],
    },
    Kind {
        name: "aarch64 that relocates itself",
        prefix: "aarch64-linux-gnu-",
        compiler: &["-fpatchable-function-entry=2", "-fpie"],
        // The values are in the relocations alone.
        linker: &["-pie", "--no-apply-dynamic-relocs"],
    },
    Kind {
        name: "s390x",
        prefix: "s390x-linux-gnu-",
        compiler: &["-pg", "-mfentry", "-mrecord-mcount"],
        linker: &[],
    },
    Kind {
        name: "s390x that relocates itself",
        prefix: "s390x-linux-gnu-",
        compiler: &["-pg", "-mfentry", "-mrecord-mcount", "-fpie"],
        linker: &["-pie"],
    },
    Kind {
        name: "ppc64le",
        prefix: "powerpc64le-linux-gnu-",
        compiler: &["-mcpu=power8", "-fpatchable-function-entry=2"],
        linker: &[],
    },
];

/// A module and a kernel of the same files.
struct Built {
    kind: &'static Kind,
    module: PathBuf,
    vmlinux: PathBuf,
}

fn run(program: &str, args: &[&str], dir: &Path) -> Option<()> {
    let output = match Command::new(program).args(args).current_dir(dir).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        other => other.unwrap(),
    };
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(())
}

/// Builds one kind; `None`: its compiler isn't installed.
fn build(kind: &'static Kind, dir: &Path) -> Option<Built> {
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    std::fs::write(dir.join("script"), SCRIPT).unwrap();
    let mut objects = Vec::new();
    for (file, letter, number) in FILES {
        let text = SOURCE
            .replace("@@", &number.to_string())
            .replace('@', &letter.to_string());
        std::fs::write(dir.join(file), text).unwrap();
        let object = format!("{file}.o");
        let quiet = match kind.compiler.iter().any(|arg| arg.starts_with("-fpatchable")) {
            true => "-DQUIET=__attribute__((patchable_function_entry(0,0)))",
            false => "-DQUIET=",
        };
        let mut args = vec![
            "-O2",
            "-fno-pic",
            "-fno-pie",
            "-fno-asynchronous-unwind-tables",
            "-DINIT=\".init.text\"",
            quiet,
        ];
        args.extend(kind.compiler);
        args.extend(["-c", file, "-o", &object]);
        run(&format!("{}gcc", kind.prefix), &args, dir)?;
        objects.push(object);
    }
    let objects: Vec<&str> = objects.iter().map(String::as_str).collect();
    let ld = format!("{}ld", kind.prefix);
    let joined = [&["-r", "-o", "m.ko"][..], &objects].concat();
    run(&ld, &joined, dir)?;
    let linked = [
        "-T",
        "script",
        "--no-warn-rwx-segments",
        "--defsym=__fentry__=a_first",
        "-e",
        "a_first",
        "-o",
        "vmlinux",
    ];
    run(&ld, &[kind.linker, &linked, &objects].concat(), dir)?;
    Some(Built {
        kind,
        module: dir.join("m.ko"),
        vmlinux: dir.join("vmlinux"),
    })
}

/// All kinds that can be built here, built once.
fn built() -> &'static [Built] {
    static BUILT: OnceLock<(tempfile::TempDir, Vec<Built>)> = OnceLock::new();
    let (_, built) = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut built = Vec::new();
        for (i, kind) in KINDS.iter().enumerate() {
            match build(kind, &dir.path().join(i.to_string())) {
                Some(one) => built.push(one),
                None => println!("SKIPPED {}: {}gcc is not installed", kind.name, kind.prefix),
            }
        }
        (dir, built)
    });
    assert!(built.len() >= 2, "not even the host's own compiler works");
    built
}

fn places(table: &dyn SymbolTable, name: &str) -> Vec<Place> {
    table.places(&[name]).unwrap().by_name.remove(0)
}

fn traced(table: &dyn SymbolTable, name: &str) -> Traced {
    match &places(table, name)[..] {
        [one] => one.traced,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn functions_with_a_location_are_told_from_those_without() {
    for Built { kind, module, vmlinux } in built() {
        for path in [module, vmlinux] {
            let index = ObjectIndex::open(path).unwrap();
            let places = index.places(&["a_first"]).unwrap();
            assert_eq!(places.untold, None, "{}: {}", kind.name, path.display());
            for letter in ["a", "b", "c"] {
                for (name, is) in [
                    ("first", Traced::Yes),
                    ("last", Traced::Yes),
                    ("quiet", Traced::No),
                    ("data", Traced::Unknown),
                ] {
                    let name = format!("{letter}_{name}");
                    assert_eq!(
                        traced(&index, &name),
                        is,
                        "{}: {} of {}",
                        kind.name,
                        name,
                        path.display()
                    );
                }
            }
        }
    }
}

#[test]
fn namesakes_are_counted_as_the_kernel_does() {
    for Built { kind, module, vmlinux } in built() {
        for path in [module, vmlinux] {
            let index = ObjectIndex::open(path).unwrap();
            let found = places(&index, "reset");
            let facts: Vec<_> = found
                .iter()
                .map(|p| (p.position, p.file.as_deref().unwrap(), p.global))
                .collect();
            let expected = [
                (Some(1), "one.c", false),
                (Some(2), "two.c", false),
                (Some(3), "one.c", false),
            ];
            assert_eq!(facts, expected, "{}: {}", kind.name, path.display());
            assert!(found.is_sorted_by_key(|place| place.address));
            assert_eq!(
                found[2].neighbours.iter().filter(|n| n.starts_with("c_")).count(),
                3,
                "{:?}",
                found[2].neighbours
            );
            assert_eq!(places(&index, "b_last")[0].position, Some(0));
            assert!(places(&index, "nobody").is_empty());
            // A module's init code is forgotten, vmlinux's is not.
            let boot = places(&index, "a_boot");
            assert!(boot[0].init);
            assert_eq!(boot[0].position, (path == vmlinux).then_some(0), "{}", kind.name);
        }
    }
}

#[test]
fn a_name_table_says_what_the_kernel_says() {
    for Built { kind, vmlinux, .. } in built() {
        let index = ObjectIndex::open(vmlinux).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        NameTable::write(index.to_named().unwrap(), file.as_file_mut()).unwrap();
        let table = open_places(file.path()).unwrap();
        for name in ["reset", "a_first", "b_quiet", "c_boot", "nobody"] {
            let facts = |all: Vec<Place>| -> Vec<_> {
                all.into_iter()
                    .map(|p| (p.kind, p.global, p.file, p.address, p.position, p.traced))
                    .collect()
            };
            assert_eq!(
                facts(places(&*table, name)),
                facts(places(&index, name)),
                "{}: {name}",
                kind.name
            );
        }
    }
}

#[test]
fn compressed_modules_are_read_too() {
    use std::io::Write;
    let Built { module, .. } = &built()[0];
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&std::fs::read(module).unwrap()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), packed.finish().unwrap()).unwrap();
    assert_eq!(places(&*open_places(file.path()).unwrap(), "reset").len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A file that somebody damaged gives an error or odd answers, nothing worse.
    #[test]
    fn damaged_files_are_survived(
        which in any::<prop::sample::Index>(),
        is_module in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..24),
        header in prop::option::of((0usize..64, any::<u8>())),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let built = which.get(built());
        let mut bytes = std::fs::read(if is_module { &built.module } else { &built.vmlinux }).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some((at, byte)) = header {
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(index) = ObjectIndex::of_bytes(bytes) {
            let _ = index.places(&["reset", "a_first", "a_boot", "a_data"]);
            let _ = index.to_named();
            let _ = index.modinfo("supported");
            index.lookup("reset");
            index.for_each_name(&mut |_| ());
        }
    }
}

/// The Debian trees, as in trees.rs.
fn debian_trees() -> Vec<Tree> {
    let Some(dir) = std::env::var_os("KLP_FARM_TREES") else {
        assert!(
            std::env::var_os("KLP_FARM_SKIP_REAL").is_some(),
            "KLP_FARM_TREES is not set: run `make test`, or set KLP_FARM_SKIP_REAL=1 to go without real kernels"
        );
        return Vec::new();
    };
    let trees = TreeStore::open(Path::new(&dir)).unwrap().list().trees;
    trees.into_iter().filter(|tree| tree.kind == TreeKind::Debian).collect()
}

#[test]
fn a_boot_image_tells_positions_and_locations() {
    for tree in debian_trees() {
        let Some(image) = tree
            .boot_image
            .as_ref()
            .filter(|_| tree.platform.arch == klp_livepatch::Arch::X86_64)
        else {
            continue;
        };
        let symbols = kallsyms::read_boot_image(image).unwrap();
        assert!(
            symbols
                .iter()
                .all(|symbol| symbol.address.is_some() && symbol.traced.is_some())
        );
        let mut file = tempfile::NamedTempFile::new().unwrap();
        NameTable::write(symbols, file.as_file_mut()).unwrap();
        let table = NameTable::open(file.path()).unwrap();
        for name in ["do_sys_openat2", "vprintk", "cmdline_proc_show", "kfree", "tcp_v4_rcv"] {
            assert_eq!(traced(&table, name), Traced::Yes, "{}: {name}", tree.platform);
        }
        // Assembler, noinstr, and code of ftrace's own.
        for name in [
            "entry_SYSCALL_64",
            "do_syscall_64",
            "ftrace_caller",
            "arch_ftrace_ops_list_func",
        ] {
            assert_eq!(traced(&table, name), Traced::No, "{}: {name}", tree.platform);
        }
        assert!(places(&table, "start_kernel")[0].init);
        let shows = places(&table, "state_show");
        assert!(shows.len() > 2, "{shows:?}");
        let positions: Vec<_> = shows.iter().filter_map(|place| place.position).collect();
        assert!(positions.iter().copied().eq(1..=shows.len() as u32), "{shows:?}");
        assert!(shows.is_sorted_by_key(|place| place.address));
    }
}

/// The tree as an older version made it: its list of symbols knows names and types only. All else is linked to.
fn as_of_old(tree: &Tree, store: &Path) -> Tree {
    let dir = store
        .join(tree.platform.arch.as_str())
        .join(tree.platform.codestream.as_str());
    std::fs::create_dir_all(&dir).unwrap();
    let table = tree.vmlinux_names();
    for entry in std::fs::read_dir(&tree.dir).unwrap() {
        let path = entry.unwrap().path();
        let here = dir.join(path.file_name().unwrap());
        if path == table {
            let text = std::fs::read_to_string(&path).unwrap();
            let words = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
            let old: Vec<_> = text.lines().map(words).collect();
            std::fs::write(here, old.join("\n") + "\n").unwrap();
        } else if path.ends_with("tree.json") {
            std::fs::copy(path, here).unwrap();
        } else {
            std::os::unix::fs::symlink(path, here).unwrap();
        }
    }
    TreeStore::open(store).unwrap().get(&tree.platform).unwrap()
}

#[test]
fn a_tree_of_a_former_version_is_repaired_and_tells_positions() {
    let of_x86_64 = |tree: &Tree| tree.platform.arch == klp_livepatch::Arch::X86_64;
    for tree in debian_trees().into_iter().filter(of_x86_64) {
        let store = tempfile::tempdir().unwrap();
        let mut old = as_of_old(&tree, store.path());
        let vmlinux = ObjectName::vmlinux();
        let file = "kernel/kallsyms.c".parse().unwrap();
        let names = ["s_show", "kallsyms_lookup_name", "no_such_symbol"];
        let before = positions(&old, &vmlinux, &file, &names).unwrap();
        assert!(
            matches!(&before[0], Position::Unknown(why) if why.contains("--repair")),
            "{before:?}"
        );
        assert_eq!(before[1..], [Position::At(0), Position::Missing]);

        assert!(verify::repair_symbols(&mut old).unwrap());
        let mut new = TreeStore::open(store.path()).unwrap().get(&tree.platform).unwrap();
        assert_eq!(verify::files(&new), [""; 0]);
        assert!(!verify::repair_symbols(&mut new).unwrap(), "once is enough");
        let after = positions(&new, &vmlinux, &file, &names).unwrap();
        assert_eq!(after[1..], [Position::At(0), Position::Missing]);
        let Position::At(position @ 1..) = after[0] else {
            panic!("{after:?}")
        };
        // What the same file defines is near.
        let table = new.vmlinux_symbols().unwrap();
        let near = places(&*table, "kallsyms_lookup_name")[0].address;
        for place in places(&*table, "s_show") {
            let is_near = place.address.abs_diff(near) < 0x4000;
            assert_eq!(is_near, place.position == Some(position), "{place:?} {near:x}");
        }
        let check = |function: &str| {
            let target = Target {
                file: "kernel/kallsyms.c".parse().unwrap(),
                functions: vec![function.parse().unwrap()],
                config: "CONFIG_KALLSYMS".parse().unwrap(),
                object: ObjectName::vmlinux(),
            };
            check(&new, &[target]).unwrap().targets.remove(0)
        };
        let found = check("s_show");
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        assert_eq!(
            (found.functions[0].sympos, found.functions[0].traced),
            (position, Traced::Yes)
        );
        let found = check("kallsyms_init");
        assert!(found.problems[0].contains("init code"), "{:?}", found.problems);
    }
}

#[test]
fn every_module_of_a_folder_can_be_asked() {
    for tree in debian_trees() {
        let modules = tree.modules().unwrap();
        let names = ["net/sched", "sound/core", "fs/ext4"]
            .map(|folder| modules.in_folder(folder))
            .concat();
        assert!(names.len() > 50, "{}: {}", tree.platform, names.len());
        for name in names {
            let index = ObjectIndex::open(&modules.find(&name).unwrap()).unwrap();
            let mut all = Vec::new();
            index.for_each_name(&mut |symbol| all.push(symbol.to_owned()));
            all.sort();
            all.dedup();
            let asked: Vec<&str> = all.iter().map(String::as_str).collect();
            let found = index.places(&asked).unwrap();
            assert_eq!(found.untold, None, "{name}");
            let functions = found
                .by_name
                .iter()
                .flatten()
                .filter(|place| place.traced != Traced::Unknown);
            let (yes, no): (Vec<&Place>, Vec<&Place>) = functions.partition(|place| place.traced == Traced::Yes);
            // Nearly all of a module's functions are traced; the rest are cold parts and thunks.
            assert!(
                yes.len() > no.len(),
                "{}: {name}: {} {}",
                tree.platform,
                yes.len(),
                no.len()
            );
            for places in found.by_name.iter().filter(|places| places.len() > 1) {
                let positions: Vec<_> = places.iter().filter_map(|place| place.position).collect();
                let only = positions == [0];
                assert!(
                    only || positions.iter().copied().eq(1..=positions.len() as u32),
                    "{name}: {places:?}"
                );
            }
        }
    }
}
