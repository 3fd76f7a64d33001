//! Every answer of the checks, against a kernel made of a few words.

use std::collections::HashMap;

use klp_livepatch::names::FunctionName;
use klp_livepatch::report::ConfigValue;
use klp_livepatch::round::WantedSymbol;

use super::*;
use crate::symbols::{Place, Places, SymbolInfo, SymbolKind};
use klp_livepatch::report::Traced;

/// Names with their kinds, in the kernel's order; a name twice is two symbols. One with `notrace` is not traced, one with
/// `__init` is in init code, and `old` makes it a table that knows no places.
struct FakeTable(Vec<(&'static str, SymbolKind)>);

impl SymbolTable for FakeTable {
    fn lookup(&self, name: &str) -> Option<SymbolInfo> {
        let all: Vec<_> = self.0.iter().filter(|(n, _)| *n == name).collect();
        let (_, kind) = all.first()?;
        Some(SymbolInfo {
            kind: *kind,
            global: false,
            count: u32::try_from(all.len()).unwrap(),
        })
    }

    fn for_each_name(&self, each: &mut dyn FnMut(&str)) {
        self.0.iter().for_each(|(name, _)| each(name));
    }

    fn places(&self, names: &[&str]) -> Result<Places, String> {
        if self.0.iter().any(|(name, _)| *name == "old") {
            return Err("the table is old".to_owned());
        }
        let place = |at: usize, position: u32| Place {
            kind: self.0[at].1,
            global: false,
            file: None,
            address: at as u64,
            size: 0,
            init: self.0[at].0.contains("__init"),
            position: Some(position),
            traced: if self.0[at].0.contains("notrace") {
                Traced::No
            } else {
                Traced::Yes
            },
            neighbours: [at.wrapping_sub(1), at + 1, at + 2]
                .iter()
                .filter_map(|i| self.0.get(*i))
                .map(|(name, _)| (*name).into())
                .collect(),
        };
        let of = |name: &str| {
            let all: Vec<usize> = (0..self.0.len()).filter(|i| self.0[*i].0 == name).collect();
            let only = all.len() == 1;
            let positions = 1u32..;
            all.into_iter()
                .zip(positions)
                .map(|(at, n)| place(at, if only { 0 } else { n }))
                .collect()
        };
        Ok(Places {
            by_name: names.iter().map(|name| of(name)).collect(),
            untold: None,
        })
    }
}

struct FakeKernel {
    platform: Platform,
    config: KernelConfig,
    sources: HashMap<&'static str, &'static str>,
    vmlinux: Arc<dyn SymbolTable>,
    modules: HashMap<&'static str, Arc<dyn SymbolTable>>,
}

impl Kernel for FakeKernel {
    fn platform(&self) -> &Platform {
        &self.platform
    }
    fn config(&self) -> &KernelConfig {
        &self.config
    }
    fn source(&self, file: &SourcePath) -> Option<String> {
        self.sources.get(file.as_str()).map(|text| (*text).to_owned())
    }
    fn vmlinux(&self) -> Result<Arc<dyn SymbolTable>, TreeError> {
        Ok(self.vmlinux.clone())
    }
    fn module(&self, name: &str) -> Result<Arc<dyn SymbolTable>, TreeError> {
        self.modules.get(name).cloned().ok_or_else(|| {
            TreeError::Module(ModuleError::Absent {
                name: name.to_owned(),
                dir: "/modules".into(),
                hint: String::new(),
            })
        })
    }
    fn module_path(&self, name: &str) -> Option<String> {
        self.modules
            .contains_key(name)
            .then(|| format!("kernel/sound/core/{name}.ko"))
    }
    fn modinfo(&self, name: &str, key: &str) -> Option<String> {
        (name == "snd-timer" && key == "supported").then(|| "no".to_owned())
    }
    fn module_names(&self) -> Vec<String> {
        self.modules.keys().map(|name| name.replace('-', "_")).collect()
    }
    fn modules_in(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<_> = self.modules.keys().map(|name| (*name).to_owned()).collect();
        names.sort();
        if folder == "sound/core" { names } else { Vec::new() }
    }
    fn has_option(&self, option: &ConfigName) -> bool {
        option.as_str() == "CONFIG_DEPENDENT"
    }
    fn files_named_like(&self, file: &SourcePath) -> Vec<String> {
        let name = file.as_str().rsplit('/').next().unwrap();
        self.sources
            .keys()
            .filter(|path| path.ends_with(&format!("/{name}")))
            .map(|path| (*path).to_owned())
            .collect()
    }
}

fn kernel() -> FakeKernel {
    use SymbolKind::{Function, Object, Other};
    let pcm = FakeTable(vec![
        ("snd_pcm_attach", Function),
        ("snd_pcm_detach", Function),
        ("snd_pcm_twice", Function),
        ("other_one", Function),
        ("other_two", Function),
        ("snd_pcm_twice", Function),
        ("snd_pcm_reset", Function),
        ("snd_pcm_halt", Function),
        ("snd_pcm_list", Object),
        ("snd_pcm_asm", Other),
        ("stray", Function),
        ("other_three", Function),
        ("stray", Function),
        ("snd_pcm_notrace", Function),
        ("snd_pcm__init", Function),
        ("snd_pcm_copied.isra.0", Function),
        ("snd_pcm_copied.cold", Function),
    ]);
    let timer = FakeTable(vec![("snd_timer_open", Function)]);
    FakeKernel {
        platform: Platform {
            codestream: "debian12-6.1.0-50".parse().unwrap(),
            arch: klp_livepatch::Arch::X86_64,
        },
        config: KernelConfig::parse(
            "CONFIG_LIVEPATCH=y\nCONFIG_SND_PCM=m\nCONFIG_PROC_FS=y\nCONFIG_NR_CPUS=64\n# CONFIG_SND_OFF is not set\n",
        ),
        sources: HashMap::from([
            (
                "sound/core/pcm.c",
                "static int snd_pcm_inlined(void) { return snd_pcm_copied(1); }\n\
                 static void snd_pcm_twice(void) { }\nstatic void snd_pcm_reset(void) { }\n\
                 static void snd_pcm_halt(void) { }\n",
            ),
            ("fs/proc/cmdline.c", "static int cmdline_proc_show(void);"),
        ]),
        vmlinux: Arc::new(FakeTable(vec![("cmdline_proc_show", Function), ("kfree", Function)])),
        modules: HashMap::from([
            ("snd-pcm", Arc::new(pcm) as Arc<dyn SymbolTable>),
            ("snd-timer", Arc::new(timer)),
        ]),
    }
}

fn target(file: &str, config: &str, object: &str, functions: &[&str]) -> Target {
    Target {
        file: file.parse().unwrap(),
        functions: functions.iter().map(|f| f.parse::<FunctionName>().unwrap()).collect(),
        config: config.parse().unwrap(),
        object: object.parse().unwrap(),
    }
}

fn checked(file: &str, config: &str, object: &str, functions: &[&str]) -> TargetCheck {
    check_one(
        &kernel(),
        target(file, config, object, functions),
        CheckOptions::default(),
    )
}

#[test]
fn a_kernel_that_loads_no_livepatch_says_so() {
    let mut without = kernel();
    without.config = KernelConfig::parse("CONFIG_PROC_FS=y\n# CONFIG_LIVEPATCH is not set\n");
    let target = target("fs/proc/cmdline.c", "CONFIG_PROC_FS", "vmlinux", &["cmdline_proc_show"]);
    let check = check_one(&without, target, CheckOptions::default());
    assert!(
        check.warnings[0].contains("without CONFIG_LIVEPATCH"),
        "{:?}",
        check.warnings
    );
}

fn check_one(kernel: &dyn Kernel, target: Target, options: CheckOptions) -> TargetCheck {
    check_kernel(kernel, &[target], options, &Inlining::default())
        .unwrap()
        .targets
        .remove(0)
}

fn pcm(functions: &[&str]) -> TargetCheck {
    checked("sound/core/pcm.c", "CONFIG_SND_PCM", "snd-pcm", functions)
}

/// The one problem, without what it is about, which is checked.
fn problem(check: &TargetCheck) -> &str {
    assert_eq!(check.problems.len(), 1, "{:?}", check.problems);
    let about = format!("debian12-6.1.0-50/x86_64: {}: ", check.file);
    check.problems[0].strip_prefix(&about).unwrap()
}

#[test]
fn what_is_right_is_found() {
    let check = pcm(&["snd_pcm_attach", "snd_pcm_detach"]);
    assert_eq!(check.config, Some(ConfigValue::Module));
    assert_eq!(check.object.unwrap().as_str(), "snd-pcm");
    assert_eq!(check.functions.len(), 2);
    assert!(check.problems.is_empty() && check.warnings.is_empty());
}

#[test]
fn built_in_code_is_in_vmlinux_whatever_the_spec_says() {
    let check = checked("fs/proc/cmdline.c", "CONFIG_PROC_FS", "procfs", &["cmdline_proc_show"]);
    assert_eq!(check.config, Some(ConfigValue::BuiltIn));
    assert!(check.object.unwrap().is_vmlinux());
    assert!(check.problems.is_empty());
    assert!(
        check.warnings[0].contains("module procfs, but CONFIG_PROC_FS=y"),
        "{:?}",
        check.warnings
    );
}

#[test]
fn each_way_a_config_can_be_wrong_has_its_answer() {
    for (config, answer) in [
        (
            "CONFIG_SND_PCN",
            "no option of this kernel; did you mean CONFIG_SND_PCM?",
        ),
        ("CONFIG_QQQQQQQQ", "is no option of this kernel; see the Makefile"),
        ("CONFIG_NR_CPUS", "is set to 64, neither y nor m"),
    ] {
        let check = checked("sound/core/pcm.c", config, "snd-pcm", &["snd_pcm_attach"]);
        assert!(problem(&check).contains(answer), "{}", problem(&check));
        assert_eq!((check.config, check.object, check.functions.len()), (None, None, 0));
    }
}

#[test]
fn a_kernel_without_the_code_needs_no_livepatch() {
    for (config, answer) in [
        ("CONFIG_SND_OFF", "is not set, so this kernel doesn't have the code"),
        ("CONFIG_DEPENDENT", "something it depends on is off"),
    ] {
        // Nor does it matter that there is no such file.
        for file in ["sound/core/pcm.c", "none.c"] {
            let check = checked(file, config, "snd-pcm", &["snd_pcm_attach"]);
            assert!(check.left_out.as_ref().unwrap().contains(answer), "{check:?}");
            assert!(check.problems.is_empty() && check.object.is_none(), "{check:?}");
            assert!(
                CheckReport {
                    targets: vec![check],
                    ..Default::default()
                }
                .leaves_out()
            );
        }
    }
}

#[test]
fn each_way_an_object_can_be_wrong_has_its_answer() {
    let check = checked("sound/core/pcm.c", "CONFIG_SND_PCM", "vmlinux", &["snd_pcm_attach"]);
    assert!(
        problem(&check).contains("name it with --mod; sound/core builds snd-pcm and snd-timer"),
        "{}",
        problem(&check)
    );
    let check = checked("sound/core/pcm.c", "CONFIG_SND_PCM", "snd-pcn", &["snd_pcm_attach"]);
    assert!(
        problem(&check).contains("no module snd-pcn; did you mean snd_pcm?"),
        "{}",
        problem(&check)
    );
}

#[test]
fn each_way_a_function_can_be_absent_has_its_answer() {
    for (function, answer) in [
        (
            "snd_pcm_copied",
            "left only snd_pcm_copied.cold and snd_pcm_copied.isra.0",
        ),
        (
            "snd_pcm_inlined",
            "probably inlined everywhere; patch the functions that call it",
        ),
        ("snd_pcm_atach", "did you mean snd_pcm_attach or snd_pcm_detach?"),
        ("snd_timer_open", "it is in module snd-timer"),
        ("kfree", "it is in vmlinux"),
        ("snd_pcm_list", "is data in snd-pcm"),
        ("entirely_elsewhere", "nor does sound/core/pcm.c mention it"),
    ] {
        let check = pcm(&[function, "snd_pcm_attach"]);
        assert!(problem(&check).contains(answer), "{function}: {}", problem(&check));
        assert!(problem(&check).contains(function));
        assert_eq!(check.functions.len(), 1);
    }
}

#[test]
fn what_a_reviewer_should_know_is_a_warning() {
    let check = pcm(&["snd_pcm_attach", "snd_pcm_asm"]);
    assert!(check.problems.is_empty());
    assert!(check.warnings[0].contains("assembler"), "{:?}", check.warnings);
    assert_eq!(check.module_path.unwrap(), "kernel/sound/core/snd-pcm.ko");
    let check = checked("sound/core/timer.c", "CONFIG_SND_PCM", "snd-timer", &["snd_timer_open"]);
    assert!(check.warnings[0].contains("supported=no"), "{:?}", check.warnings);
}

#[test]
fn a_namesake_gets_its_position_or_is_a_problem() {
    let check = pcm(&["snd_pcm_twice", "snd_pcm_attach"]);
    assert!(check.problems.is_empty(), "{:?}", check.problems);
    let found: Vec<_> = check.functions.iter().map(|f| (f.sympos, f.traced)).collect();
    assert_eq!(found, [(2, Traced::Yes), (0, Traced::Yes)]);
    let check = pcm(&["stray"]);
    assert!(
        problem(&check).contains("2 symbols named stray (at 1 beside snd_pcm_asm and other_three and at 2"),
        "{}",
        problem(&check)
    );
    assert!(problem(&check).contains("(sympos)"), "{}", problem(&check));
}

#[test]
fn what_can_t_be_diverted_is_a_problem_unless_forgiven() {
    for (function, answer) in [
        ("snd_pcm_notrace", "no ftrace location"),
        ("snd_pcm__init", "is init code"),
    ] {
        assert!(problem(&pcm(&[function])).contains(answer));
        let target = target("sound/core/pcm.c", "CONFIG_SND_PCM", "snd-pcm", &[function, "gone"]);
        let forgiving = CheckOptions {
            forgiving: true,
            ..CheckOptions::default()
        };
        let check = check_one(&kernel(), target, forgiving);
        assert!(check.problems.is_empty(), "{:?}", check.problems);
        assert!(
            check.warnings.iter().any(|w| w.contains(answer)),
            "{:?}",
            check.warnings
        );
        assert!(
            check.warnings.iter().any(|w| w.contains("has no symbol gone")),
            "{:?}",
            check.warnings
        );
    }
}

#[test]
fn a_table_without_places_is_enough_where_there_are_no_namesakes() {
    let mut kernel = kernel();
    let old = [
        ("old", SymbolKind::Function),
        ("twin", SymbolKind::Function),
        ("twin", SymbolKind::Function),
    ];
    kernel.vmlinux = Arc::new(FakeTable(old.to_vec()));
    let of = |function| target("fs/proc/cmdline.c", "CONFIG_PROC_FS", "vmlinux", &[function]);
    let check = check_one(&kernel, of("old"), CheckOptions::default());
    assert!(check.problems.is_empty(), "{:?}", check.problems);
    assert_eq!(
        (check.functions[0].sympos, check.functions[0].traced),
        (0, Traced::Unknown)
    );
    assert!(check.warnings[0].contains("the table is old"), "{:?}", check.warnings);
    let check = check_one(&kernel, of("twin"), CheckOptions::default());
    assert!(
        problem(&check).contains("can't be told: the table is old"),
        "{:?}",
        check.problems
    );
}

#[test]
fn inlined_copies_name_those_to_patch() {
    let copy = |from: &str, to: &str| format!("Callgraph clone;{from};0;a.c;1;1;{to};1;a.c;2;1;inlining to\n");
    let dump = [
        copy("snd_pcm_inlined", "snd_pcm_gone"),
        copy("snd_pcm_gone", "snd_pcm_detach"),
        copy("snd_pcm_attach", "snd_pcm_copied.isra.0"),
        copy("snd_pcm_attach", "snd_pcm_reset"),
    ]
    .concat();
    let file: SourcePath = "sound/core/pcm.c".parse().unwrap();
    let check = |functions: &[&str], found| {
        let targets = [target(file.as_str(), "CONFIG_SND_PCM", "snd-pcm", functions)];
        let inlining = Inlining::with(file.clone(), found);
        check_kernel(&kernel(), &targets, CheckOptions::default(), &inlining)
            .unwrap()
            .targets
            .remove(0)
    };
    let known = || Ok(IpaClones::parse(&dump));
    let found = check(&["snd_pcm_inlined"], known());
    assert!(
        problem(&found).contains("it was inlined into snd_pcm_detach; patch that instead"),
        "{found:?}"
    );
    let found = check(&["snd_pcm_attach", "snd_pcm_reset"], known());
    assert_eq!(found.functions[0].inlined_into, ["snd_pcm_copied", "snd_pcm_reset"]);
    assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    assert!(
        found.warnings[0].contains("snd_pcm_copied holds inlined code of snd_pcm_attach"),
        "{:?}",
        found.warnings
    );
    let found = check(&["snd_pcm_attach"], Err("no compiler".to_owned()));
    assert!(
        found.warnings[0].contains("not known: no compiler"),
        "{:?}",
        found.warnings
    );
}

#[test]
fn wanted_symbols_are_found_where_the_code_is_here() {
    let wanted = |object: &str, symbol: &str| WantedSymbol {
        object: object.parse().unwrap(),
        symbol: symbol.parse().unwrap(),
        file: "sound/core/pcm.c".parse().unwrap(),
    };
    let asked = [
        wanted("snd-pcm", "snd_pcm_twice"),
        wanted("vmlinux", "kfree"),
        wanted("snd-pcm", "kfree"),
        wanted("vmlinux", "snd_timer_open"),
        wanted("no-such", "snd_pcm_attach"),
        wanted("snd-pcm", "stray"),
        wanted("snd-pcm", "nowhere"),
    ];
    let report = verify::verify_kernel(&kernel(), &asked).unwrap();
    let found: Vec<_> = report
        .symbols
        .iter()
        .map(|s| (s.found_in.as_ref().map(|o| o.as_str()), s.sympos))
        .collect();
    assert_eq!(
        found,
        [
            (Some("snd-pcm"), 2),
            (Some("vmlinux"), 0),
            (Some("vmlinux"), 0),
            (Some("snd-timer"), 0),
            (Some("snd-pcm"), 0),
            (None, 0),
            (None, 0)
        ]
    );
    assert_eq!(report.symbols[2].object.as_str(), "snd-pcm");
}

#[test]
fn everything_wrong_is_told_at_once() {
    let targets = [
        target("sound/pcm.c", "CONFIG_SND_PCM", "snd-pcm", &["nope_a", "nope_b"]),
        target("fs/none.c", "CONFIG_NONE_SUCH", "x", &["f"]),
    ];
    let report = check_kernel(&kernel(), &targets, CheckOptions::default(), &Inlining::default()).unwrap();
    let problems: Vec<_> = report.targets.iter().map(|t| t.problems.len()).collect();
    assert_eq!(problems, [3, 2], "{report:#?}");
    assert!(
        report.targets[0].problems[0].contains("is it sound/core/pcm.c?"),
        "{report:#?}"
    );
}

#[test]
fn a_damaged_tree_is_not_the_users_fault() {
    struct Damaged(FakeKernel);
    impl Kernel for Damaged {
        fn platform(&self) -> &Platform {
            self.0.platform()
        }
        fn config(&self) -> &KernelConfig {
            self.0.config()
        }
        fn source(&self, file: &SourcePath) -> Option<String> {
            self.0.source(file)
        }
        fn vmlinux(&self) -> Result<Arc<dyn SymbolTable>, TreeError> {
            self.0.vmlinux()
        }
        fn module(&self, _: &str) -> Result<Arc<dyn SymbolTable>, TreeError> {
            Err(TreeError::Symbols(crate::symbols::SymbolError::broken(
                "x.ko".as_ref(),
                "is cut short",
            )))
        }
        fn module_path(&self, _: &str) -> Option<String> {
            None
        }
        fn modinfo(&self, _: &str, _: &str) -> Option<String> {
            None
        }
        fn module_names(&self) -> Vec<String> {
            Vec::new()
        }
        fn modules_in(&self, _: &str) -> Vec<String> {
            Vec::new()
        }
        fn has_option(&self, _: &ConfigName) -> bool {
            false
        }
        fn files_named_like(&self, _: &SourcePath) -> Vec<String> {
            Vec::new()
        }
    }
    let targets = [target(
        "sound/core/pcm.c",
        "CONFIG_SND_PCM",
        "snd-pcm",
        &["snd_pcm_attach"],
    )];
    let error = check_kernel(
        &Damaged(kernel()),
        &targets,
        CheckOptions::default(),
        &Inlining::default(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("x.ko"), "{error}");
}
