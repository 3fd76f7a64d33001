//! A kernel of another architecture on this machine: its names in its own byte order, its functions extracted by libclang
//! and compiled by the cross compiler.
//!
//! Reads the trees in the folder KLP_FARM_FOREIGN_TREES names (`make test` provides it, with Debian's newest kernel for
//! s390x, which is big-endian).
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use klp_livepatch::Arch;
use klp_livepatch::spec::Target;
use klp_worker::check::check;
use klp_worker::extract::{Job, native};
use klp_worker::symbols::traceable::read_traceable;
use klp_worker::symbols::{SymbolKind, kallsyms};
use klp_worker::trees::{Tree, TreeStore, verify};
use object::{Architecture, Object};
use tokio_util::sync::CancellationToken;

fn foreign_trees() -> Vec<Tree> {
    let dir = std::env::var_os("KLP_FARM_FOREIGN_TREES")
        .map(PathBuf::from)
        .expect("KLP_FARM_FOREIGN_TREES is not set: run `make test`");
    let mut trees = TreeStore::open(&dir).unwrap().list().trees;
    trees.retain(|tree| Some(tree.platform.arch) != Arch::host());
    assert!(
        !trees.is_empty(),
        "no foreign tree in {}; add one with `klp-worker tree add debian --latest 1 --arch s390x --trees DIR`",
        dir.display()
    );
    trees
}

fn machine(arch: Arch) -> (Architecture, bool) {
    match arch {
        Arch::X86_64 => (Architecture::X86_64, true),
        Arch::S390x => (Architecture::S390x, false),
        Arch::Ppc64le => (Architecture::PowerPc64, true),
        Arch::Aarch64 => (Architecture::Aarch64, true),
    }
}

/// The checks of the same functions find nothing to complain about.
fn passes_checks(tree: &Tree) {
    let target = |file: &str, config: &str, object: &str, function: &str| Target {
        file: file.parse().unwrap(),
        functions: vec![function.parse().unwrap()],
        config: config.parse().unwrap(),
        object: object.parse().unwrap(),
    };
    let targets = [
        target(
            "sound/core/pcm.c",
            "CONFIG_SND_PCM",
            "snd-pcm",
            "snd_pcm_attach_substream",
        ),
        target("net/ipv6/rpl.c", "CONFIG_IPV6", "vmlinux", "ipv6_rpl_srh_size"),
    ];
    for found in check(tree, &targets).unwrap().targets {
        assert!(found.problems.is_empty(), "{:#?}", found.problems);
    }
}

/// Extracts and compiles into `scratch`; the replacements must all be in an object of the tree's architecture.
fn extract(tree: &Tree, scratch: &Path, file: &str, functions: &[&str], object: &str) {
    let about = format!("{}: {file}", tree.platform);
    let names = functions.iter().map(|f| (*f).to_owned()).collect();
    let job = Job::for_tree(tree, file, names, object, scratch).unwrap();
    let symbols = job.symbols().unwrap();
    let (extraction, check) = native::extract_and_check(&job.into_request().unwrap(), &symbols).unwrap();
    assert!(check.ok, "{about}: {check:#?}");
    let patched: Vec<_> = extraction.patched.iter().map(|p| p.function.as_str()).collect();
    assert_eq!(patched, functions, "{about}");
    assert!(
        !extraction.warnings.iter().any(|w| w.starts_with("libclang: ")),
        "{about}: {:?}",
        extraction.warnings
    );
    let bytes = std::fs::read(scratch.join("livepatch.o")).unwrap();
    let compiled = object::File::parse(&*bytes).unwrap();
    assert_eq!(
        (compiled.architecture(), compiled.is_little_endian()),
        machine(tree.platform.arch),
        "{about}"
    );
}

#[test]
#[ignore = "needs a tree of 2 GB for another architecture"]
fn a_foreign_kernel_is_read_and_extracted_from() {
    for tree in foreign_trees() {
        let about = tree.platform.to_string();
        let problems = tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(verify::verify(&tree, &CancellationToken::new()))
            .unwrap();
        assert_eq!(problems, Vec::<String>::new(), "{about}");

        let names = tree.vmlinux_symbols().unwrap();
        let printk = names.lookup("vprintk").unwrap();
        assert_eq!((printk.kind, printk.global), (SymbolKind::Function, true), "{about}");
        assert!(names.lookup("no_such_symbol_here").is_none(), "{about}");
        let entries = kallsyms::read_entries(tree.boot_image.as_deref().unwrap()).unwrap();
        assert!(
            entries.len() > 10_000 && entries.is_sorted_by_key(|entry| entry.address),
            "{about}"
        );
        let traceable = read_traceable(tree.boot_image.as_deref().unwrap()).unwrap();
        let can_trace = |name: &str| {
            let mut of_name = entries.iter().filter(|entry| entry.name == name);
            of_name.any(|entry| traceable.contains(&entry.address))
        };
        assert!(can_trace("vprintk") && can_trace("ipv6_rpl_srh_size"), "{about}");
        assert!(
            !can_trace("ftrace_caller") && !can_trace("memcpy"),
            "{about}: not traced themselves"
        );
        let missing = entries
            .iter()
            .filter(|entry| names.lookup(&entry.name).is_none())
            .count();
        assert_eq!(missing, 0, "{about}: names that only the boot image has");

        passes_checks(&tree);
        let scratch = tempfile::tempdir().unwrap();
        let pcm = ["snd_pcm_attach_substream", "snd_pcm_detach_substream"];
        extract(&tree, scratch.path(), "sound/core/pcm.c", &pcm, "snd-pcm");
        extract(
            &tree,
            scratch.path(),
            "net/ipv6/rpl.c",
            &["ipv6_rpl_srh_size"],
            "vmlinux",
        );
    }
}

#[test]
#[ignore = "fetches 10 MB of apt's lists"]
fn foreign_packages_leave_the_hosts_apt_alone() {
    let place = tempfile::tempdir().unwrap();
    let foreign = Arch::ALL.into_iter().find(|arch| Some(*arch) != Arch::host()).unwrap();
    let architectures = || {
        let output = Command::new("dpkg")
            .arg("--print-foreign-architectures")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let before = architectures();
    let output = Command::new(env!("CARGO_BIN_EXE_klp-worker"))
        .args([
            "tree",
            "add",
            "debian",
            "6.1.0-9999",
            "--arch",
            foreign.as_str(),
            "--trees",
        ])
        .arg(place.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("apt has no package linux-headers-6.1.0-9999-"),
        "{said}"
    );
    assert!(said.contains("6.1.0-"), "what apt has instead: {said}");
    assert_eq!(architectures(), before);
}
