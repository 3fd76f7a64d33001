//! Makes a klp-build project of a livepatch that the farm worked on.
//!
//! The farm knows each fact per codestream and architecture. klp-build has one value for all architectures of a codestream,
//! but for the CONFIG's: it takes a function to be in `vmlinux` where the CONFIG is `y`, and in the one module it knows where
//! it is `m`. Values are those of the first architecture in order of preference; what can't be said so is noted.

use std::collections::{BTreeMap, BTreeSet};

use super::project::{DataPath, Extra, ModulePath, PatchName, Project, ProjectCodestream, ProjectFile};
use crate::catalog::Entry;
use crate::names::{FunctionName, ObjectName, SourcePath};
use crate::report::{ConfigValue, TargetExtraction};
use crate::spec::{Spec, Target};
use crate::{Arch, Codestream};

/// What was found out about a livepatch.
#[derive(Clone, Debug, Default)]
pub struct LivepatchFacts {
    /// The fixes in mainline, as `<12 hexadecimal digits> ("<subject>")`.
    pub upstream: Vec<String>,
    /// Codestreams that have the fix already.
    pub patched: BTreeSet<Codestream>,
    /// Those that need the livepatch.
    pub codestreams: Vec<CodestreamFacts>,
}

#[derive(Clone, Debug)]
pub struct CodestreamFacts {
    /// As the catalog has it.
    pub entry: Entry,
    /// The fixes its kernel lacks.
    pub required_patches: Vec<PatchName>,
    /// By architecture and file: what a check or an extraction there found.
    pub targets: BTreeMap<Arch, BTreeMap<SourcePath, TargetFacts>>,
}

/// One target of the spec on one codestream and architecture.
#[derive(Clone, Debug)]
pub struct TargetFacts {
    /// `None`: not set, so that there is nothing to patch.
    pub config: Option<ConfigValue>,
    /// What holds the functions: a module's path as in `modules.order`, without `kernel/` and `.ko`; or `vmlinux`.
    pub module: ModulePath,
    /// That object's file below the architecture's data folder.
    pub object_file: Option<DataPath>,
    /// Whether the kernel is built with indirect branch tracking.
    pub ibt: bool,
    /// Functions of the target with namesakes in their object.
    pub duplicated: Vec<FunctionName>,
    /// `None` before the extraction.
    pub extraction: Option<TargetExtraction>,
}

/// The project, and what it can't say, a sentence each.
pub fn from_spec(spec: &Spec, facts: &LivepatchFacts) -> (Project, Vec<String>) {
    let mut notes = Vec::new();
    let codestreams: BTreeMap<_, _> = facts
        .codestreams
        .iter()
        .map(|facts| (facts.entry.codestream.clone(), codestream(spec, facts, &mut notes)))
        .collect();
    let project = Project {
        archs: codestreams.values().flat_map(|c| c.archs.iter().copied()).collect(),
        upstream: facts.upstream.clone(),
        cve: spec.cve.clone(),
        patched: facts.patched.clone(),
        codestreams,
        extra: Extra::new(),
    };
    (project, notes)
}

fn codestream(spec: &Spec, facts: &CodestreamFacts, notes: &mut Vec<String>) -> ProjectCodestream {
    let mut out = ProjectCodestream {
        project: facts.entry.project.clone(),
        patchid: facts.entry.patchid.clone(),
        kernel: Some(facts.entry.kernel.clone()),
        eol: facts.entry.eol,
        required_patches: facts.required_patches.clone(),
        ..Default::default()
    };
    for target in &spec.targets {
        // In order of preference.
        let by_arch: BTreeMap<Arch, (&TargetFacts, ConfigValue)> = facts
            .targets
            .iter()
            .filter_map(|(arch, targets)| {
                let found = targets.get(&target.file)?;
                Some((*arch, (found, found.config?)))
            })
            .collect();
        let place = format!("{}, {}", facts.entry.codestream, target.file);
        if by_arch.is_empty() {
            notes.push(format!(
                "{place}: left out, as {} is set on no architecture",
                target.config
            ));
            continue;
        }
        out.archs.extend(by_arch.keys());
        let configs = out.configs.entry(target.config.clone()).or_default();
        configs.extend(by_arch.iter().map(|(arch, (_, config))| (*arch, *config)));
        for (found, _) in by_arch.values() {
            if let Some(path) = &found.object_file {
                let file = out.modules.entry(found.module.clone());
                file.or_insert_with(|| path.clone());
            }
        }
        out.files.push(file(target, &by_arch, &place, notes));
    }
    out
}

fn file(
    target: &Target,
    by_arch: &BTreeMap<Arch, (&TargetFacts, ConfigValue)>,
    place: &str,
    notes: &mut Vec<String>,
) -> ProjectFile {
    let found = || by_arch.values().map(|(found, _)| *found);
    let mut modules = found().map(|found| &found.module);
    let module = modules.find(|module| !module.object().is_vmlinux());
    let module = module.cloned().unwrap_or_else(ModulePath::vmlinux);
    for (arch, (found, config)) in by_arch {
        let taken = match config {
            ConfigValue::BuiltIn => &ObjectName::vmlinux(),
            ConfigValue::Module => module.object(),
        };
        if taken.kernel_name() != found.module.object().kernel_name() {
            let really = found.module.object();
            notes.push(format!(
                "{place}: in {really} on {arch}, where klp-build takes it to be in {taken}"
            ));
        }
    }
    let mut extractions = by_arch
        .iter()
        .filter_map(|(arch, (found, _))| Some((arch, found.extraction.as_ref()?)));
    let first = extractions.next();
    let externalized = first.map(|(_, extraction)| externalized(extraction, place, notes));
    if let (Some((preferred, _)), Some(symbols)) = (first, &externalized) {
        for (arch, other) in extractions {
            if self::externalized(other, place, &mut Vec::new()) != *symbols {
                notes.push(format!(
                    "{place}: other symbols are externalized on {arch} than on {preferred}"
                ));
            }
        }
    }
    let replacements = first.map(|(_, extraction)| {
        let patched = extraction.patched.iter();
        patched.map(|p| (p.function.clone(), p.prototype.clone())).collect()
    });
    let duplicated: BTreeSet<&FunctionName> = found().flat_map(|found| &found.duplicated).collect();
    ProjectFile {
        file: target.file.clone(),
        module,
        config: Some(target.config.clone()),
        symbols: target.functions.clone(),
        ibt: found().any(|found| found.ibt),
        externalized,
        replacements,
        duplicated: duplicated.into_iter().cloned().collect(),
        extra: Extra::new(),
    }
}

/// Symbols in order by the object that provides them, as the kernel knows it.
fn externalized(
    extraction: &TargetExtraction,
    place: &str,
    notes: &mut Vec<String>,
) -> BTreeMap<ObjectName, Vec<FunctionName>> {
    let mut objects: BTreeMap<ObjectName, BTreeSet<FunctionName>> = BTreeMap::new();
    for external in &extraction.externalized {
        match (external.object.kernel_name().parse(), external.symbol.parse()) {
            (Ok(object), Ok(symbol)) => {
                objects.entry(object).or_default().insert(symbol);
            }
            _ => notes.push(format!(
                "{place}: left out the symbol {}",
                crate::names::quoted(&external.symbol)
            )),
        }
    }
    let lists = objects.into_iter();
    lists
        .map(|(object, symbols)| (object, symbols.into_iter().collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::klp_build::{export, import};
    use crate::report::{CompileCheck, ExternalizedSymbol, PatchedFunction};
    use crate::spec::{Draft, TargetDraft};

    fn cs(name: &str) -> Codestream {
        name.parse().unwrap()
    }

    fn spec() -> Spec {
        Spec::parse(&Draft {
            name: "bsc1".into(),
            cve: "2024-26923".into(),
            targets: vec![TargetDraft {
                file: "drivers/gpu/drm/drm_client_modeset.c".into(),
                functions: vec!["drm_client_modeset_probe".into()],
                config: "CONFIG_DRM".into(),
                object: "drm".into(),
            }],
            ..Default::default()
        })
        .unwrap()
    }

    fn extraction(symbols: &[(&str, &str)]) -> TargetExtraction {
        let function = || "drm_client_modeset_probe".parse().unwrap();
        TargetExtraction {
            file: spec().targets[0].file.clone(),
            object: "drm".parse().unwrap(),
            source_artifact: "x.c".into(),
            patched: vec![PatchedFunction {
                function: function(),
                replacement: "klpp_drm_client_modeset_probe".parse().unwrap(),
                prototype: "int klpp_drm_client_modeset_probe(void);".into(),
                sympos: 0,
            }],
            externalized: symbols
                .iter()
                .map(|(object, symbol)| ExternalizedSymbol {
                    symbol: (*symbol).into(),
                    object: object.parse().unwrap(),
                    variable: format!("klpe_{symbol}"),
                    sympos: 0,
                })
                .collect(),
            warnings: vec![],
            compile: CompileCheck::default(),
            tool_ms: 0,
        }
    }

    fn target(config: ConfigValue, module: &str, file: &str, extraction: Option<TargetExtraction>) -> TargetFacts {
        TargetFacts {
            config: Some(config),
            module: module.parse().unwrap(),
            object_file: Some(file.parse().unwrap()),
            ibt: true,
            duplicated: vec![],
            extraction,
        }
    }

    fn livepatch(targets: Vec<(Arch, TargetFacts)>) -> LivepatchFacts {
        let file = spec().targets[0].file.clone();
        let entry = Entry {
            codestream: cs("15.6u9"),
            kernel: "6.4.0-150600.23.42".parse().unwrap(),
            project: "SUSE:Maintenance:37750".into(),
            patchid: String::new(),
            eol: "2026-04-13".parse().ok(),
            archs: Arch::ALL.into(),
        };
        LivepatchFacts {
            upstream: vec!["0123456789ab (\"drm: fix\")".into()],
            patched: BTreeSet::from([cs("15.6u10")]),
            codestreams: vec![CodestreamFacts {
                entry,
                required_patches: vec!["01-drm.patch".parse().unwrap()],
                targets: targets
                    .into_iter()
                    .map(|(arch, facts)| (arch, BTreeMap::from([(file.clone(), facts)])))
                    .collect(),
            }],
        }
    }

    #[test]
    fn a_project_has_what_the_farm_found_out() {
        let symbols = [("snd-pcm", "b"), ("vmlinux", "a"), ("snd-pcm", "a")];
        let built_in = target(
            ConfigValue::BuiltIn,
            "vmlinux",
            "boot/vmlinux-6.4.0-150600.23.42-default",
            Some(extraction(&symbols)),
        );
        let module = target(
            ConfigValue::Module,
            "drivers/gpu/drm/drm",
            "lib/modules/6.4.0-150600.23.42-default/kernel/drivers/gpu/drm/drm.ko.zst",
            Some(extraction(&symbols)),
        );
        let (project, notes) = from_spec(
            &spec(),
            &livepatch(vec![(Arch::S390x, module), (Arch::X86_64, built_in)]),
        );
        assert_eq!(notes, Vec::<String>::new(), "klp-build tells both apart by the CONFIG");
        let text = export(&project);
        assert_eq!(import(&text, None).unwrap().project, project);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["archs"], json!(["s390x", "x86_64"]));
        assert_eq!(value["cve"], "2024-26923");
        let codestream = &value["codestreams"]["15.6u9"];
        assert_eq!(
            codestream["configs"],
            json!({ "CONFIG_DRM": { "x86_64": "y", "s390x": "m" } })
        );
        assert_eq!(codestream["modules"].as_object().unwrap().len(), 2);
        assert_eq!(codestream["required_patches"], json!(["01-drm.patch"]));
        let file = &codestream["files"]["drivers/gpu/drm/drm_client_modeset.c"];
        assert_eq!(file["module"], "drivers/gpu/drm/drm");
        assert_eq!(file["ext_symbols"], json!({ "snd_pcm": ["a", "b"], "vmlinux": ["a"] }));
        assert_eq!(
            file["klpp_symbols"],
            json!({ "drm_client_modeset_probe": "int klpp_drm_client_modeset_probe(void);" })
        );
    }

    #[test]
    fn what_klp_build_cannot_say_is_noted() {
        let module = |name: &str, symbols: &[(&str, &str)]| {
            let path = format!("lib/modules/k/{name}.ko");
            target(ConfigValue::Module, name, &path, Some(extraction(symbols)))
        };
        let facts = livepatch(vec![
            (Arch::X86_64, module("drm", &[("vmlinux", "a")])),
            (Arch::S390x, module("drm_client", &[("vmlinux", "b")])),
        ]);
        let (_, notes) = from_spec(&spec(), &facts);
        assert_eq!(
            notes,
            [
                "15.6u9, drivers/gpu/drm/drm_client_modeset.c: in drm_client on s390x, where klp-build takes it to be in drm",
                "15.6u9, drivers/gpu/drm/drm_client_modeset.c: other symbols are externalized on s390x than on x86_64",
            ]
        );
        let unset = TargetFacts {
            config: None,
            ..module("drm", &[])
        };
        let (project, notes) = from_spec(&spec(), &livepatch(vec![(Arch::X86_64, unset)]));
        assert!(
            notes[0].ends_with("left out, as CONFIG_DRM is set on no architecture"),
            "{notes:?}"
        );
        assert!(project.codestreams[&cs("15.6u9")].files.is_empty() && project.archs.is_empty());
    }
}
