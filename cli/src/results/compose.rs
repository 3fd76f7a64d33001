//! Which sources of a codestream serve which architectures, and what is written for them.

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::names::SourcePath;
use klp_livepatch::render::{ArchFacts, Author, Flavour, LivepatchOutput, SourceFile};
use klp_livepatch::report::TargetExtraction;
use klp_livepatch::spec::Spec;
use klp_livepatch::suse::SuseName;
use klp_livepatch::{Arch, Codestream};

use super::{PlatformResult, Source};

/// One architecture's source, and the architectures that it serves.
pub struct Part<'a> {
    /// Where it was extracted.
    pub arch: Arch,
    pub source: &'a Source,
    /// `arch` among them.
    pub serves: BTreeSet<Arch>,
    /// It serves its own architecture alone, for another's is not the same code.
    pub own: bool,
}

/// The parts of a codestream, the one of the preferred architecture first. It serves all that have the same code or no
/// source of their own; each other source serves its own architecture. `same` tells whether two architectures' outputs are
/// the same code.
pub fn compose<'a>(
    platforms: &'a BTreeMap<Arch, PlatformResult>,
    usable: impl Fn(&Source) -> bool,
    same: impl Fn(Arch, Arch) -> bool,
) -> Vec<Part<'a>> {
    let sources = platforms
        .iter()
        .filter_map(|(arch, p)| Some((*arch, p.source.as_ref()?)));
    let mut sources = sources.filter(|(_, source)| usable(source));
    // Architectures are ordered by preference.
    let Some((preferred, source)) = sources.next() else {
        return Vec::new();
    };
    let mut parts = vec![Part {
        arch: preferred,
        source,
        serves: BTreeSet::from([preferred]),
        own: false,
    }];
    for (arch, source) in sources {
        if same(preferred, arch) {
            parts[0].serves.insert(arch);
        } else {
            let serves = BTreeSet::from([arch]);
            parts.push(Part {
                arch,
                source,
                serves,
                own: true,
            });
        }
    }
    // One whose own extraction failed or goes on may need what the preferred one's lacks.
    let without = platforms
        .iter()
        .filter(|(_, p)| p.source.is_none() && p.can_be_patched() && p.failed.is_none() && !p.open);
    parts[0].serves.extend(without.map(|(arch, _)| *arch));
    parts
}

impl<'a> Part<'a> {
    /// What its `lp` folder is written from; `texts` holds each target's source.
    pub fn output(
        &self,
        spec: &'a Spec,
        author: &'a Author,
        year: u32,
        codestream: &Codestream,
        platforms: &BTreeMap<Arch, PlatformResult>,
        texts: &BTreeMap<SourcePath, String>,
    ) -> LivepatchOutput<'a> {
        let files = self.source.report.targets.iter().filter_map(|target| {
            let config = spec.targets.iter().find(|t| t.file == target.file)?.config.clone();
            Some(SourceFile {
                file: target.file.clone(),
                config,
                source: texts.get(&target.file)?.clone(),
                patched: target.patched.clone(),
                externalized: target.externalized.clone(),
                flags: Vec::new(),
                platforms: self.platforms(target, platforms),
            })
        });
        LivepatchOutput {
            name: &spec.name,
            cve: spec.cve.as_ref(),
            flavour: Flavour::of(codestream, self.source.report.ibt),
            author,
            year,
            archs: self.archs(spec, codestream, platforms),
            files: files.collect(),
        }
    }

    /// What it will be built for: for a source that is not one architecture's own, those without the code too, so that it is
    /// guarded there.
    fn archs(
        &self,
        spec: &Spec,
        codestream: &Codestream,
        platforms: &BTreeMap<Arch, PlatformResult>,
    ) -> BTreeSet<Arch> {
        let mut archs = self.serves.clone();
        if !self.own {
            archs.extend(platforms.iter().filter(|(_, p)| p.left_out).map(|(arch, _)| *arch));
            if spec.archs.is_empty() {
                archs.extend(
                    SuseName::of(codestream)
                        .map(SuseName::default_archs)
                        .unwrap_or_default(),
                );
            }
        }
        archs
    }

    fn platforms(
        &self,
        target: &TargetExtraction,
        platforms: &BTreeMap<Arch, PlatformResult>,
    ) -> BTreeMap<Arch, ArchFacts> {
        let facts = |arch: &Arch| {
            if *arch == self.arch {
                return Some(ArchFacts::of_extraction(target));
            }
            let platform = platforms.get(arch)?;
            let extracted = platform
                .source
                .as_ref()
                .and_then(|s| s.report.targets.iter().find(|t| t.file == target.file));
            match extracted {
                Some(extracted) => Some(ArchFacts::of_extraction(extracted)),
                None => {
                    let checks = &platform.check.as_ref()?.targets;
                    let check = checks.iter().find(|t| t.file == target.file && t.left_out.is_none())?;
                    ArchFacts::of_checks(check, &platform.verified)
                }
            }
        };
        self.serves
            .iter()
            .filter_map(|arch| Some((*arch, facts(arch)?)))
            .collect()
    }
}
