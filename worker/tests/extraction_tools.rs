//! klp-ccp and clang-extract themselves, where they are installed: on a small made-up kernel, and on those in the folder
//! KLP_FARM_TREES names. Where a tool is not in PATH its test says so and passes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use klp_livepatch::Arch;
use klp_livepatch::spec::Backend;
use klp_worker::config::ToolPaths;
use klp_worker::extract::ccp::Ccp;
use klp_worker::extract::clang_extract::ClangExtract;
use klp_worker::extract::{
    ChildBackend, CompileCheck, CompileCommand, Engine, Error, Extraction, Extractor, Job, Kept, Unpatched,
};
use klp_worker::isolation::Isolation;
use klp_worker::symbols::NameTable;
use klp_worker::symbols::table::NamedSymbol;
use klp_worker::trees::TreeStore;

/// The installed tools that are to be tested, each with the name of its log.
fn installed() -> Vec<(Engine, &'static str)> {
    let paths = ToolPaths::from_env();
    let policy = paths.policy.clone();
    let ccp = paths
        .ccp()
        .map(|program| (Engine::Ccp(Ccp { program, policy }), "ccp.out.txt"));
    let clang_extract = paths
        .clang_extract()
        .map(|program| (Engine::ClangExtract(ClangExtract { program }), "ce.out.txt"));
    for (found, name) in [(&ccp, "klp-ccp"), (&clang_extract, "clang-extract")] {
        if found.is_none() {
            println!("SKIPPED: {name} is not in PATH, so that nothing of it was tested");
        }
    }
    ccp.into_iter().chain(clang_extract).collect()
}

const HEADER: &str = "#ifndef _K_H\n#define _K_H\nstruct demo { int value; };\n\
    extern int exported_call(int n);\nextern int elsewhere(int n);\n#endif\n";

const SOURCE: &str = "#include <linux/k.h>\n#include \"local.h\"\n\
    static int count;\n\
    static __attribute__((noinline)) int hidden(int n)\n{\n\treturn n * 3 + DEMO_STEP;\n}\n\
    int unrelated(void)\n{\n\treturn 4;\n}\n\
    int target(struct demo *demo)\n{\n\tcount++;\n\treturn hidden(demo->value) + exported_call(count) + elsewhere(DEMO_STEP);\n}\n";

/// A kernel of two headers and a source.
struct Kernel {
    dir: tempfile::TempDir,
}

impl Kernel {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kernel = Self { dir };
        kernel.put("src/include/linux/k.h", HEADER);
        kernel.put("src/drivers/demo/local.h", "#define DEMO_STEP 5\n");
        let source = kernel.put("src/drivers/demo/a-b.c", SOURCE);
        kernel.put(
            "obj/Module.symvers",
            "0x00000001\texported_call\tvmlinux\tEXPORT_SYMBOL\t\n",
        );
        let (src, obj) = (kernel.path("src"), kernel.path("obj"));
        let command = format!(
            // As kernels are compiled: a pointer that nobody sets here is no proof that code is never reached.
            "gcc -nostdinc -I{} -std=gnu11 -O2 -fno-delete-null-pointer-checks -D__KERNEL__ -DKBUILD_MODNAME='\"a_b\"' -c -o drivers/demo/a-b.o {}",
            src.join("include").display(),
            source.display()
        );
        let entry = serde_json::json!([{ "directory": obj, "file": source, "command": command }]);
        kernel.put("obj/compile_commands.json", &entry.to_string());
        let symbols = [
            ("count", b'b'),
            ("elsewhere", b'T'),
            ("exported_call", b'T'),
            ("hidden", b't'),
            ("target", b'T'),
            ("unrelated", b'T'),
        ];
        let symbols = symbols.map(|(name, letter)| NamedSymbol {
            name: name.into(),
            letter,
            ..NamedSymbol::default()
        });
        NameTable::write(symbols.into(), &mut fs::File::create(kernel.path("names")).unwrap()).unwrap();
        fs::create_dir(kernel.path("scratch")).unwrap();
        kernel
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        let mut all = BTreeSet::new();
        let mut folders = vec![self.path("src"), self.path("obj")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => drop(all.insert(path)),
                }
            }
        }
        all
    }

    fn extract(
        &self,
        engine: &Engine,
        function: &str,
        avoid: &[&str],
    ) -> Result<(Extraction, CompileCheck, Vec<Kept>), Error> {
        self.run(self.job(engine, function, avoid))
    }

    fn run(&self, job: Job) -> Result<(Extraction, CompileCheck, Vec<Kept>), Error> {
        let symbols = job.symbols().unwrap();
        job.run(&symbols)
    }

    fn job(&self, engine: &Engine, function: &str, avoid: &[&str]) -> Job {
        Job {
            engine: engine.clone(),
            file: "drivers/demo/a-b.c".into(),
            functions: vec![function.into()],
            object: "vmlinux".into(),
            src_dir: self.path("src"),
            obj_dir: self.path("obj"),
            compiler: "gcc".into(),
            make_args: Vec::new(),
            symvers: self.path("obj/Module.symvers"),
            vmlinux: self.path("names"),
            module: None,
            scratch: self.path("scratch"),
            arch: Arch::X86_64,
            ibt: false,
            avoid: avoid.iter().map(|a| (*a).to_owned()).collect(),
            unpatched: None,
            command: None,
        }
    }
}

fn externalized(extraction: &Extraction) -> Vec<(&str, &str)> {
    let all = extraction.externalized.iter();
    all.map(|e| (e.symbol.as_str(), e.variable.as_str())).collect()
}

#[test]
fn what_a_function_needs_comes_along_and_nothing_is_written_into_the_kernel() {
    for (engine, log) in installed() {
        let kernel = Kernel::new();
        let before = kernel.files();
        let (x, check, kept) = kernel.extract(&engine, "target", &[]).unwrap();
        let source = &x.source;
        assert!(check.ok, "{check:#?}\n{source}");
        assert_eq!(
            externalized(&x),
            [
                ("count", "klpe_count"),
                ("elsewhere", "klpe_elsewhere"),
                ("hidden", "klpe_hidden")
            ],
            "{source}"
        );
        assert_eq!(x.patched.len(), 1);
        assert_eq!(x.patched[0].replacement, "klpp_target");
        assert_eq!(x.patched[0].prototype, "int klpp_target(struct demo *demo);");
        assert!(
            source.contains("#include <linux/k.h>") && source.contains("DEMO_STEP"),
            "{source}"
        );
        assert!(!source.contains("unrelated"), "{source}");
        let place = kernel.dir.path().to_string_lossy().into_owned();
        assert!(
            !source.contains(&place),
            "no machine path may be in the output\n{source}"
        );
        assert_eq!(kernel.files(), before, "a tree is never written to");

        let names: Vec<&str> = kept.iter().map(|k| k.name.as_str()).collect();
        assert_eq!(
            names[..2],
            [
                &*format!("work_drivers_demo_a-b.c/{log}"),
                "work_drivers_demo_a-b.c/drivers_demo_a_b.c.orig"
            ]
        );
        let text = fs::read_to_string(&kept[0].path).unwrap();
        assert!(text.contains("target") && text.contains("Module.symvers"), "{text}");
        assert!(kept.iter().all(|k| k.path.is_file()), "{kept:?}");
    }
}

#[test]
fn what_is_to_be_avoided_is_copied_if_its_definition_is_there() {
    for (engine, _) in installed() {
        let kernel = Kernel::new();
        let (x, check, _) = kernel.extract(&engine, "target", &["hidden", "elsewhere"]).unwrap();
        assert!(check.ok, "{check:#?}\n{}", x.source);
        assert_eq!(
            externalized(&x),
            [("count", "klpe_count"), ("elsewhere", "klpe_elsewhere")],
            "{}",
            x.source
        );
        assert!(x.source.contains("n * 3"), "{}", x.source);
        let told = x.warnings.iter().filter(|w| w.contains("elsewhere was to be copied"));
        assert_eq!(told.count(), 1, "{:?}", x.warnings);
    }
}

#[test]
fn with_indirect_branch_tracking_symbols_are_resolved_by_relocation() {
    for (engine, _) in installed() {
        let kernel = Kernel::new();
        kernel.put("src/include/linux/livepatch.h", "");
        let mut job = kernel.job(&engine, "target", &[]);
        job.ibt = true;
        let (x, check, _) = kernel.run(job).unwrap();
        assert!(check.ok, "{check:#?}\n{}", x.source);
        assert_eq!(
            externalized(&x),
            [("count", "count"), ("elsewhere", "elsewhere"), ("hidden", "hidden")],
            "{}",
            x.source
        );
        let orders = x.source.matches("KLP_RELOC_SYMBOL(vmlinux, vmlinux, ").count();
        assert_eq!(orders, 3, "{}", x.source);
        let object = fs::read(kernel.path("scratch/livepatch.o")).unwrap();
        let order = b".klp.sym.rela.vmlinux.vmlinux.hidden.0";
        assert!(object.windows(order.len()).any(|w| w == order), "{}", x.source);
    }
}

#[test]
fn what_a_fix_changes_in_headers_is_told_of_what_the_source_has_without_it() {
    for (engine, _) in installed() {
        let kernel = Kernel::new();
        let mut job = kernel.job(&engine, "target", &[]);
        let command = job.command().unwrap();
        let (patched, orig) = (kernel.path("src"), kernel.path("orig"));
        for (path, text) in [
            ("include/linux/k.h", HEADER),
            ("drivers/demo/local.h", "#define DEMO_STEP 5\n"),
            ("drivers/demo/a-b.c", SOURCE),
        ] {
            kernel.put(&format!("orig/{path}"), text);
        }
        let fixed = HEADER
            .replace("int value;", "int value; int more;")
            .replace("extern int exported_call", "#define FRESH 1\nextern int exported_call");
        kernel.put("src/include/linux/k.h", &fixed);
        kernel.put("src/drivers/demo/local.h", "#define DEMO_STEP 6\n");
        let from = |arg: &String| arg.replace(&*patched.to_string_lossy(), &orig.to_string_lossy());
        job.unpatched = Some(Unpatched {
            src_dir: orig.clone(),
            command: CompileCommand {
                args: command.args.iter().map(from).collect(),
                ..command.clone()
            },
        });
        job.command = Some(command);
        let (x, check, _) = kernel.run(job).unwrap();
        // The source holds the private header's text, and includes the public one.
        assert!(check.ok, "{check:#?}\n{}", x.source);
        assert!(x.source.contains("DEMO_STEP 6"), "{}", x.source);
        let told = |what: &str| x.warnings.iter().filter(|w| w.contains(what)).count();
        assert_eq!(told("k.h:3: struct demo has another layout"), 1, "{:#?}", x.warnings);
        assert_eq!(told("k.h:4: FRESH is a new macro"), 1, "{:#?}", x.warnings);
        assert_eq!(told("DEMO_STEP"), 0, "{:#?}", x.warnings);
        assert!(told(&kernel.dir.path().to_string_lossy()) == 0, "{:#?}", x.warnings);
    }
}

#[test]
fn a_function_that_is_not_there_is_the_users_matter() {
    for (engine, _) in installed() {
        let error = Kernel::new().extract(&engine, "tarket", &[]).unwrap_err();
        assert!(
            matches!(&error, Error::NoFunction { function, .. } if function == "tarket"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_tool_is_announced_after_it_has_worked_and_a_broken_one_with_its_reason() {
    let paths = ToolPaths::from_env();
    for (backend, there) in [
        (Backend::Ccp, paths.ccp().is_some()),
        (Backend::ClangExtract, paths.clang_extract().is_some()),
    ] {
        let probed = ChildBackend::probe(backend, &paths, &Isolation::none()).await.unwrap();
        assert_eq!(probed.is_some(), there, "{backend}");
        if let Some(tool) = probed {
            assert_eq!(tool.identity().backend, backend);
            assert!(tool.identity().version.starts_with("build "), "{:?}", tool.identity());
            assert!(tool.supports(Arch::X86_64) && !tool.supports(Arch::S390x));
            assert_eq!(tool.supports(Arch::Aarch64), backend == Backend::Ccp);
        }
    }
    let broken = ToolPaths {
        ccp: Some("/bin/true".into()),
        clang_extract: Some("/bin/false".into()),
        ..ToolPaths::default()
    };
    for backend in [Backend::Ccp, Backend::ClangExtract] {
        let Err(why) = ChildBackend::probe(backend, &broken, &Isolation::none()).await else {
            panic!("{backend} can't work");
        };
        assert!(why.contains("/bin/"), "{why}");
    }
}

#[test]
fn klp_ccp_reads_code_for_aarch64() {
    for (engine, _) in installed() {
        if let Engine::Ccp(_) = engine {
            let kernel = Kernel::new();
            let mut job = kernel.job(&engine, "unrelated", &[]);
            job.arch = Arch::Aarch64;
            // The machine's own compiler takes it: nothing in it is of one architecture.
            let (x, check, _) = kernel.run(job).unwrap();
            assert!(check.ok && x.externalized.is_empty(), "{check:#?}\n{}", x.source);
        }
    }
}

/// The functions the project promises, on each kernel that is there.
#[test]
#[ignore = "takes minutes: `make test` runs it"]
fn promised_functions_extract_from_real_kernels() {
    let Some(dir) = std::env::var_os("KLP_FARM_TREES") else {
        println!("SKIPPED: KLP_FARM_TREES is not set");
        return;
    };
    let Some(tree) = TreeStore::open(Path::new(&dir)).unwrap().list().trees.pop() else {
        println!("SKIPPED: there is no tree in {}", Path::new(&dir).display());
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    for (engine, _) in installed() {
        for line in include_str!("fixtures/extract/promised.txt").lines() {
            let [file, functions, object] = line.split(' ').collect::<Vec<_>>()[..] else {
                continue;
            };
            let text = fs::read_to_string(tree.src.join(file)).unwrap_or_default();
            let functions: Vec<String> = functions.split(',').map(str::to_owned).collect();
            if line.starts_with('#') || !functions.iter().all(|f| text.contains(f)) {
                println!("SKIPPED: {} has nothing like {line:?}", tree.platform.codestream);
                continue;
            }
            let mut job = Job::for_tree(&tree, file, functions.clone(), object, scratch.path()).unwrap();
            job.engine = engine.clone();
            let symbols = job.symbols().unwrap();
            let (x, check, _) = job.run(&symbols).unwrap();
            assert!(check.ok, "{file}: {check:#?}");
            let patched: BTreeSet<&str> = x.patched.iter().map(|p| p.function.as_str()).collect();
            assert!(functions.iter().all(|f| patched.contains(&**f)), "{file}: {patched:?}");
        }
    }
}
