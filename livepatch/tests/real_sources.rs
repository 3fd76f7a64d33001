//! What is read from real kernel sources: functions, system calls and Makefiles, held against the kernel's own tables.
//!
//! Reads the trees in the folder KLP_FARM_TREES names (`make test` provides it); without the variable these tests fail,
//! unless KLP_FARM_SKIP_REAL says to go without.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klp_livepatch::Arch;
use klp_livepatch::fix::functions::{Change, compare};
use klp_livepatch::fix::kbuild;
use klp_livepatch::fix::outline::{Definition, ItemKind, Outline};
use klp_livepatch::fix::syscalls;

/// One x86_64 tree.
fn tree() -> Option<PathBuf> {
    let Some(dir) = std::env::var_os("KLP_FARM_TREES") else {
        assert!(
            std::env::var_os("KLP_FARM_SKIP_REAL").is_some(),
            "KLP_FARM_TREES is not set: run `make test`, or set KLP_FARM_SKIP_REAL=1 to go without real kernels"
        );
        return None;
    };
    let trees = std::fs::read_dir(Path::new(&dir).join("x86_64")).unwrap();
    let mut trees: Vec<PathBuf> = trees.map(|entry| entry.unwrap().path()).collect();
    trees.retain(|tree| tree.join("tree.json").is_file() && tree.join("vmlinux.symbols").is_file());
    trees.sort();
    Some(trees.pop().expect("a finished tree"))
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

/// All C files below a folder.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|e| e == "c") {
                found.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn a_function_that_is_changed_alone_is_named_alone() {
    let Some(tree) = tree() else { return };
    for file in ["fs/open.c", "mm/mmap.c", "net/core/sock.c", "sound/core/pcm.c"] {
        let old = text(&tree.join("src").join(file));
        let lines: Vec<&str> = old.lines().collect();
        let outline = Outline::new(&old).unwrap();
        let functions: Vec<_> = outline.functions().collect();
        assert!(functions.len() > 30, "{file}: {}", functions.len());
        // Every seventh is enough for a debug build.
        for function in functions.iter().step_by(7) {
            let end = function.lines.1 - 1;
            assert!(lines[end].contains('}'), "{file}:{}: {}", end + 1, function.name);
            let changed = lines[end].replacen('}', "changed(); }", 1);
            let new = [&lines[..end], &[changed.as_str()], &lines[end + 1..]]
                .concat()
                .join("\n");
            let changes = compare(&old, &new).unwrap();
            let names: Vec<_> = changes.functions.iter().map(|f| (f.name.as_str(), f.change)).collect();
            assert_eq!(names, [(function.name.as_str(), Change::Changed)], "{file}");
            assert_eq!(changes.things, [], "{file}");
        }
    }
}

#[test]
fn every_system_call_of_the_kernel_is_found_in_its_sources() {
    let Some(tree) = tree() else { return };
    let symbols = text(&tree.join("vmlinux.symbols"));
    let symbols: BTreeSet<&str> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut defined = BTreeSet::new();
    let mut conditional = BTreeSet::new();
    for dir in [
        "arch/x86",
        "drivers/char",
        "fs",
        "io_uring",
        "ipc",
        "kernel",
        "mm",
        "net",
        "security",
    ] {
        for file in sources(&tree.join("src").join(dir)) {
            let text = text(&file);
            if !text.contains("SYSCALL_DEFINE") {
                continue;
            }
            for item in Outline::new(&text).unwrap().functions() {
                if let ItemKind::Function(Definition::Syscall { compat }) = item.kind {
                    defined.extend(
                        syscalls::symbols(&item.name, compat, Arch::X86_64)
                            .into_iter()
                            .map(|s| s.name),
                    );
                }
            }
        }
    }
    // What a configuration leaves out has entries all the same, made here and not by a definition.
    let left_out = text(&tree.join("src/kernel/sys_ni.c"));
    for item in Outline::new(&left_out).unwrap().items {
        if let ItemKind::MacroUse { of } = &item.kind
            && of.starts_with("COND_SYSCALL")
        {
            let names = syscalls::symbols(&item.name, of.ends_with("COMPAT"), Arch::X86_64);
            conditional.extend(names.into_iter().map(|s| s.name));
        }
    }
    let is_entry = |name: &&&str| name.starts_with("__x64_sys_") || name.starts_with("__ia32_compat_sys_");
    let entries = symbols.iter().filter(is_entry).filter(|name| !name.contains('.'));
    let entries: Vec<&str> = entries.copied().collect();
    let found = entries.iter().filter(|name| defined.contains(**name)).count();
    assert!(found > 350, "{found}");
    let known = |name: &str| defined.contains(name) || conditional.contains(name) || name.ends_with("_ni_syscall");
    let missing: Vec<_> = entries.iter().filter(|name| !known(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn modules_that_makefiles_lead_to_are_those_that_were_built() {
    let Some(tree) = tree() else { return };
    let order = text(&tree.join("modules/modules.order"));
    let modules: BTreeSet<&str> = order
        .lines()
        .map(|line| line.trim_start_matches("kernel/").trim_end_matches(".ko"))
        .collect();
    let config = text(&tree.join("obj/.config"));
    let config: BTreeSet<&str> = config.lines().collect();
    let src = tree.join("src");
    let read = |path: &str| {
        std::fs::read(src.join(path))
            .ok()
            .map(|b| String::from_utf8_lossy(&b).into_owned())
    };
    let mut seen = 0;
    for dir in [
        "sound/core",
        "net/sched",
        "net/bluetooth",
        "fs/ext4",
        "fs/smb",
        "drivers/net/ethernet/intel",
    ] {
        for file in sources(&src.join(dir)) {
            let name = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
            let found = kbuild::find(&name.parse().unwrap(), &read);
            for built in found.built {
                let (Some(own), Some(module)) = (&built.config, &built.module) else {
                    continue;
                };
                let set = |name: &str, value: &str| config.contains(format!("{name}={value}").as_str());
                let also = built.also.iter().all(|c| set(c.as_str(), "y") || set(c.as_str(), "m"));
                if set(own.as_str(), "m") && also {
                    seen += 1;
                    assert!(modules.contains(module.as_str()), "{name}: {module} ({own})");
                }
            }
        }
    }
    assert!(seen > 300, "{seen}");
}
