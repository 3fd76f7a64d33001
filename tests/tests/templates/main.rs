//! Rendered livepatches on a real kernel: each template's files are built by that kernel's own kbuild, SUSE's within
//! stand-ins of what their livepatch module offers. One is loaded, in a virtual machine, where that is asked for.

mod suse;
mod upstream;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use klp_livepatch::Arch;
use klp_livepatch::names::{Cve, LivepatchName, ObjectName};
use klp_livepatch::render::{self, ArchFacts, Author, Flavour, LivepatchOutput, Provider, SourceFile};
use klp_livepatch::report::{ExternalizedSymbol, PatchedFunction};
use klp_tests::trees;
use klp_worker::extract::{Job, native};
use klp_worker::trees::{Tree, TreeStore};
use object::{Object, ObjectSymbol};

/// A file that patches a module, with symbols of the module itself.
const PCM: (&str, &str, &str, &[&str]) = (
    "sound/core/pcm.c",
    "CONFIG_SND_PCM",
    "snd-pcm",
    &["snd_pcm_dev_register", "snd_pcm_proc_read", "snd_pcm_attach_substream"],
);
/// Code that is built in.
const CMDLINE: (&str, &str, &str, &[&str]) = ("fs/proc/cmdline.c", "CONFIG_PROC_FS", "vmlinux", &["cmdline_proc_show"]);

fn newest_tree() -> Option<Tree> {
    let mut all = TreeStore::open(&trees()?).expect("trees").list().trees;
    all.retain(|tree| tree.platform.codestream.as_str().starts_with("debian12-6.1."));
    Some(all.pop().expect("a tree of 6.1"))
}

/// The farm's own extraction of a file.
fn extracted(tree: &Tree, (file, config, object, functions): (&str, &str, &str, &[&str])) -> SourceFile {
    let scratch = tempfile::tempdir().expect("temporary folder");
    let functions = functions.iter().map(|f| (*f).to_owned()).collect();
    let job = Job::for_tree(tree, file, functions, object, scratch.path()).expect("job");
    let symbols = job.symbols().expect("symbols");
    let request = job.into_request().expect("request");
    let (extraction, check) = native::extract_and_check(&request, &symbols).expect("extraction");
    assert!(check.ok, "{file}: {check:?}");
    let patched = extraction.patched.iter().map(|p| PatchedFunction {
        function: p.function.parse().expect("function"),
        replacement: p.replacement.parse().expect("function"),
        prototype: p.prototype.clone(),
        sympos: 0,
    });
    let externalized = extraction.externalized.iter().map(|e| ExternalizedSymbol {
        symbol: e.symbol.clone(),
        object: e.object.parse().expect("object"),
        variable: e.variable.clone(),
        sympos: 0,
    });
    let facts = ArchFacts {
        object: object.parse().expect("object"),
        functions: BTreeMap::new(),
        symbols: BTreeMap::new(),
    };
    SourceFile {
        file: file.parse().expect("path"),
        config: config.parse().expect("config"),
        source: extraction.source,
        patched: patched.collect(),
        externalized: externalized.collect(),
        flags: Vec::new(),
        platforms: BTreeMap::from([(Arch::X86_64, facts)]),
    }
}

fn render(flavour: Flavour, archs: &[Arch], files: Vec<SourceFile>) -> BTreeMap<String, String> {
    render_as("bsc1197597", flavour, archs, files)
}

fn render_as(name: &str, flavour: Flavour, archs: &[Arch], files: Vec<SourceFile>) -> BTreeMap<String, String> {
    let name: LivepatchName = name.parse().expect("name");
    let cve: Cve = "2022-1048".parse().expect("CVE");
    let author = Author {
        name: "Ada \"A\" Example".into(),
        mail: "ada@example.org".into(),
        company: String::new(),
        licence: Author::LICENCE.into(),
    };
    let output = LivepatchOutput {
        name: &name,
        cve: Some(&cve),
        flavour,
        author: &author,
        year: 2026,
        archs: archs.iter().copied().collect(),
        files,
    };
    render::livepatch(&output).expect("rendered")
}

/// The file as it is where s390x has it built in: what differs goes under conditions.
fn elsewhere_built_in(mut file: SourceFile) -> SourceFile {
    let mut facts = file.platforms[&Arch::X86_64].clone();
    facts.object = ObjectName::vmlinux();
    for symbol in &file.externalized {
        let provider = Provider {
            object: ObjectName::vmlinux(),
            sympos: 2,
        };
        facts.symbols.insert(symbol.symbol.clone(), provider);
    }
    file.platforms.insert(Arch::S390x, facts);
    file
}

fn write(dir: &Path, files: &BTreeMap<String, String>) {
    fs::create_dir_all(dir).expect("folder");
    for (name, text) in files {
        fs::write(dir.join(name), text).expect("written");
    }
}

/// What kbuild made in a folder of modules, and what it said.
struct Built {
    dir: tempfile::TempDir,
    said: String,
}

impl Built {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Runs `make` and expects it to succeed without a warning of ours.
fn make(mut command: Command, dir: tempfile::TempDir) -> Built {
    let output = command.stdin(Stdio::null()).output().expect("make");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("warning:"), "{said}");
    Built { dir, said }
}

fn symbols(object: &Path, undefined: bool) -> Vec<String> {
    let bytes = fs::read(object).expect("object");
    let file = object::File::parse(&*bytes).expect("ELF");
    let all = file.symbols().filter(|s| s.is_undefined() == undefined);
    all.filter_map(|s| s.name().ok().map(str::to_owned)).collect()
}
