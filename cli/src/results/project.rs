//! A livepatch as SUSE klp-build keeps it: its `codestreams.json`.

use std::collections::BTreeMap;

use klp_livepatch::catalog::Entry;
use klp_livepatch::klp_build::{CodestreamFacts, LivepatchFacts, ModulePath, TargetFacts};
use klp_livepatch::names::{ObjectName, SourcePath};
use klp_livepatch::report::TargetCheck;
use klp_livepatch::spec::Spec;
use klp_livepatch::suse::SuseName;
use klp_livepatch::{Arch, Codestream};
use klp_proto::v1;

use super::{PlatformResult, Results};

/// What klp-build is told. `infos` are the codestreams as the coordinator lists them, `upstream` the fixes in mainline.
pub fn facts(spec: &Spec, results: &Results, infos: &[v1::CodestreamInfo], upstream: Vec<String>) -> LivepatchFacts {
    let codestreams = results.iter().filter_map(|(codestream, platforms)| {
        let entry = entry(codestream, platforms, infos)?;
        let names = spec
            .fixes_for(codestream)
            .filter_map(|fix| fix.name.as_str().parse().ok());
        let targets = platforms
            .iter()
            .map(|(arch, platform)| (*arch, targets(&entry, platform)));
        Some(CodestreamFacts {
            required_patches: names.collect(),
            targets: targets.collect(),
            entry,
        })
    });
    LivepatchFacts {
        upstream,
        patched: Default::default(),
        codestreams: codestreams.collect(),
    }
}

/// As the catalog has it; a codestream that no catalog knows goes by its own name.
fn entry(
    codestream: &Codestream,
    platforms: &BTreeMap<Arch, PlatformResult>,
    infos: &[v1::CodestreamInfo],
) -> Option<Entry> {
    let of = |info: &&v1::CodestreamInfo| {
        info.platform
            .as_ref()
            .is_some_and(|p| p.codestream == codestream.as_str())
    };
    let info = infos.iter().find(of).cloned().unwrap_or_default();
    let kernel = match info.kernel.as_str() {
        "" => codestream.as_str(),
        kernel => kernel,
    };
    Some(Entry {
        codestream: codestream.clone(),
        kernel: kernel.parse().ok()?,
        project: info.project,
        patchid: info.patchid,
        eol: info.end_of_support.parse().ok(),
        archs: platforms.keys().copied().collect(),
    })
}

fn targets(entry: &Entry, platform: &PlatformResult) -> BTreeMap<SourcePath, TargetFacts> {
    let checks = platform.check.iter().flat_map(|check| &check.targets);
    let facts = |check: &TargetCheck| {
        let extraction = platform
            .source
            .as_ref()
            .and_then(|s| s.report.targets.iter().find(|t| t.file == check.file));
        let named = check.functions.iter().filter(|f| f.sympos > 0);
        TargetFacts {
            config: check.config,
            module: module(check),
            object_file: object_file(entry, check),
            ibt: platform.source.as_ref().is_some_and(|s| s.report.ibt),
            duplicated: named.map(|f| f.function.clone()).collect(),
            extraction: extraction.cloned(),
        }
    };
    checks.map(|check| (check.file.clone(), facts(check))).collect()
}

/// `kernel/sound/core/snd-pcm.ko.zst` as `sound/core/snd-pcm`.
fn module(check: &TargetCheck) -> ModulePath {
    let object = check.object.clone().unwrap_or_else(ObjectName::vmlinux);
    let path = check.module_path.as_deref().and_then(|path| {
        let path = path.strip_prefix("kernel/").unwrap_or(path);
        path.split_once(".ko")
            .map(|(stem, _)| stem)
            .unwrap_or(path)
            .parse()
            .ok()
    });
    path.unwrap_or_else(|| object.into())
}

/// Where klp-build's data folder has the object; only SUSE's kernels are there.
fn object_file(entry: &Entry, check: &TargetCheck) -> Option<klp_livepatch::klp_build::DataPath> {
    let name = SuseName::of(&entry.codestream)?;
    let modules = name.modules_dir(&entry.kernel);
    let path = match &check.module_path {
        Some(path) => format!("{modules}/{path}"),
        None if name.is_slfo() => format!("{modules}/vmlinux"),
        None => format!("boot/vmlinux-{}", name.release(&entry.kernel)),
    };
    path.parse().ok()
}
