//! What a codestream's folders hold, rendered from its sources and what its tasks found, and from nothing else: so they can be
//! rendered again, and compared.

use std::collections::BTreeMap;

use klp_livepatch::names::SourcePath;
use klp_livepatch::outcome::{Artifact, Digest};
use klp_livepatch::render::{self, Author};
use klp_livepatch::report::TargetExtraction;
use klp_livepatch::spec::Spec;
use klp_livepatch::{Arch, Codestream, grouping, layout};

use super::{Part, PlatformResult, Source, compose};

/// The sources as the backends gave them, by architecture and artifact.
pub type Sources = BTreeMap<Arch, BTreeMap<String, Vec<u8>>>;

/// What a codestream is rendered from, beside its sources.
pub struct Rendering<'a> {
    pub spec: &'a Spec,
    pub author: &'a Author,
    /// Of the copyright.
    pub year: u32,
    pub codestream: &'a Codestream,
    pub platforms: &'a BTreeMap<Arch, PlatformResult>,
    /// Sources that did not pass the compile check are written, too.
    pub include_failed: bool,
}

/// An `lp` folder.
pub struct Folder<'a> {
    pub part: Part<'a>,
    /// By name.
    pub files: BTreeMap<String, String>,
    /// Why only the bare sources are in it.
    pub bare: Option<String>,
}

impl Folder<'_> {
    /// The architecture that it alone is for.
    pub fn only(&self) -> Option<Arch> {
        self.part.own.then_some(self.part.arch)
    }

    /// What the tool left beside the sources: its log, its lists of symbols, its raw output.
    pub fn beside(&self) -> impl Iterator<Item = &Artifact> {
        let is_source = |a: &&Artifact| self.part.source.targets_of(a).next().is_some();
        self.part.source.artifacts.iter().filter(move |a| !is_source(a))
    }
}

impl Source {
    /// The targets whose source an artifact is: one at most.
    fn targets_of<'a>(&'a self, artifact: &'a Artifact) -> impl Iterator<Item = &'a TargetExtraction> {
        let targets = self.report.targets.iter();
        targets.filter(|target| target.source_artifact == artifact.name)
    }

    /// The artifacts that are targets' sources.
    pub fn sources(&self) -> impl Iterator<Item = &Artifact> {
        self.artifacts.iter().filter(|a| self.targets_of(a).next().is_some())
    }
}

impl<'a> Rendering<'a> {
    /// The sources that are needed, by architecture.
    pub fn needed(&self) -> impl Iterator<Item = (Arch, &'a Source)> {
        let sources = self
            .platforms
            .iter()
            .filter_map(|(arch, p)| Some((*arch, p.source.as_ref()?)));
        sources.filter(|(_, source)| self.usable(source))
    }

    fn usable(&self, source: &Source) -> bool {
        source.compiles || self.include_failed
    }

    /// All `lp` folders, the preferred architecture's first.
    pub fn folders(&self, sources: &Sources) -> Vec<Folder<'a>> {
        let digests = self.digests(sources);
        let same = |a, b| digests.get(&a).is_some_and(|digest| Some(digest) == digests.get(&b));
        let parts = compose(self.platforms, |source| self.usable(source), same);
        parts.into_iter().map(|part| self.folder(part, sources)).collect()
    }

    /// Of each architecture's sources that compile: equal where they are the same code.
    pub fn digests(&self, sources: &Sources) -> BTreeMap<Arch, Digest> {
        let compile = self.needed().filter(|(_, source)| source.compiles);
        let digest = |(arch, _)| {
            let outputs = sources.get(&arch)?.iter();
            let outputs = outputs.map(|(name, bytes)| (name.clone(), text(bytes)));
            Some((arch, grouping::digest(outputs.collect())))
        };
        compile.filter_map(digest).collect()
    }

    pub fn folder(&self, part: Part<'a>, sources: &Sources) -> Folder<'a> {
        let texts = texts(&part, sources);
        let output = part.output(
            self.spec,
            self.author,
            self.year,
            self.codestream,
            self.platforms,
            &texts,
        );
        let targets = &part.source.report.targets;
        let (mut files, bare) = match render::livepatch(&output) {
            Ok(files) => (files, None),
            Err(why) => (bare(self.spec, &texts, targets), Some(why.to_string())),
        };
        files.insert(layout::EXTERNALIZED.to_owned(), render::externalized(targets));
        Folder { part, files, bare }
    }
}

/// By target.
fn texts(part: &Part<'_>, sources: &Sources) -> BTreeMap<SourcePath, String> {
    let of_arch = sources.get(&part.arch);
    let targets = part.source.report.targets.iter();
    targets
        .filter_map(|target| Some((target.file.clone(), text(of_arch?.get(&target.source_artifact)?))))
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is written where no template fits.
fn bare(spec: &Spec, texts: &BTreeMap<SourcePath, String>, targets: &[TargetExtraction]) -> BTreeMap<String, String> {
    let named = |(file, text): (&SourcePath, &String)| (layout::source_name(spec, file), text.clone());
    let mut files: BTreeMap<String, String> = texts.iter().map(named).collect();
    files.insert(layout::header_name(spec), render::header(&spec.name, targets));
    files.insert(layout::PATCHED_FUNCS.to_owned(), render::patched_funcs(targets));
    files
}
