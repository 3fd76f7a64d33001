//! Every answer of the checks, against a kernel made of a few words.

use std::collections::HashMap;

use klp_livepatch::names::FunctionName;
use klp_livepatch::report::ConfigValue;

use super::*;
use crate::symbols::{SymbolInfo, SymbolKind};

/// Names with their kinds; a name twice is two symbols.
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
        ("snd_pcm_twice", Function),
        ("snd_pcm_list", Object),
        ("snd_pcm_asm", Other),
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
            "CONFIG_SND_PCM=m\nCONFIG_PROC_FS=y\nCONFIG_NR_CPUS=64\n# CONFIG_SND_OFF is not set\n",
        ),
        sources: HashMap::from([
            (
                "sound/core/pcm.c",
                "static int snd_pcm_inlined(void) { return snd_pcm_copied(1); }",
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
    let mut report = check_kernel(&kernel(), &[target(file, config, object, functions)]).unwrap();
    report.targets.remove(0)
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
        ("CONFIG_SND_OFF", "is not set, so this kernel doesn't have the code"),
        ("CONFIG_DEPENDENT", "something it depends on is off"),
        ("CONFIG_NR_CPUS", "is set to 64, neither y nor m"),
    ] {
        let check = checked("sound/core/pcm.c", config, "snd-pcm", &["snd_pcm_attach"]);
        assert!(problem(&check).contains(answer), "{}", problem(&check));
        assert_eq!((check.config, check.object, check.functions.len()), (None, None, 0));
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
    let check = pcm(&["snd_pcm_twice", "snd_pcm_asm"]);
    assert!(check.problems.is_empty());
    assert!(
        check.warnings[0].contains("2 symbols named snd_pcm_twice"),
        "{:?}",
        check.warnings
    );
    assert!(check.warnings[1].contains("assembler"), "{:?}", check.warnings);
}

#[test]
fn everything_wrong_is_told_at_once() {
    let targets = [
        target("sound/pcm.c", "CONFIG_SND_PCM", "snd-pcm", &["nope_a", "nope_b"]),
        target("fs/none.c", "CONFIG_NONE_SUCH", "x", &["f"]),
    ];
    let report = check_kernel(&kernel(), &targets).unwrap();
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
    let error = check_kernel(&Damaged(kernel()), &targets).unwrap_err();
    assert!(error.to_string().contains("x.ko"), "{error}");
}
