//! `klp-farm get`: writes a livepatch where klp-build users look for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use klp_livepatch::date::Date;
use klp_livepatch::fix::patch::Patch;
use klp_livepatch::grouping::groups_file;
use klp_livepatch::klp_build::{
    self,
    missing_syms::{self, MissingSymbols},
};
use klp_livepatch::names::LivepatchName;
use klp_livepatch::outcome::Artifact;
use klp_livepatch::render::{Commit, commit_message};
use klp_livepatch::spec::{Draft, Spec};
use klp_livepatch::{Codestream, layout};
use klp_proto::v1;
use serde::Serialize;

use crate::client::Client;
use crate::output::{self, Failed, Mode};
use crate::provenance::{self, Statements, WrittenBy};
use crate::results::{self, Folder, Rendering, Results, Source, Sources};
use crate::settings::Settings;

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

#[derive(Args)]
pub struct GetArgs {
    pub name: LivepatchName,
    /// The work folder; the livepatch gets a folder of its name in it [default: KLP_WORK_DIR, the configured one, or .]
    #[arg(long = "output-dir", short, alias = "work-dir", value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Also write sources that did not pass the compile check, to be finished by hand
    #[arg(long)]
    pub include_failed: bool,
}

#[derive(Serialize)]
struct Written {
    codestream: String,
    /// Where it was extracted.
    arch: String,
    /// The architectures that it is for.
    archs: Vec<String>,
    directory: PathBuf,
    compiles: bool,
    files: Vec<String>,
}

pub async fn run(args: GetArgs, client: &Client, settings: &Settings, mode: Mode) -> Result<(), Failed> {
    let response = client.get(&args.name).await?;
    if response.reports_omitted {
        return Err(Failed::Error(anyhow::anyhow!(
            "{} is too large for one answer; split it into livepatches of fewer codestreams",
            args.name
        )));
    }
    let livepatch = response.livepatch.unwrap_or_default();
    let spec = Spec::parse(&Draft::from(livepatch.spec.clone().unwrap_or_default())).map_err(Failed::Invalid)?;
    let unreadable = |v| anyhow::anyhow!("the coordinator sent something unreadable: {v}");
    let results = results::gather(response.tasks).map_err(unreadable)?;
    let groups = match livepatch.ended_ms {
        0 => Vec::new(),
        _ => client.groups(&args.name).await?,
    };
    let writer = Writer {
        client,
        settings,
        spec: &spec,
        work_dir: args.output_dir.as_deref().unwrap_or(&settings.work_dir),
        year: year(livepatch.created_ms),
        digests: digests(&groups),
        include_failed: args.include_failed,
    };
    let statements = Statements::fetch(client, &args.name).await?;
    let written = writer.codestreams(&results, &statements).await?;
    if written.is_empty() {
        return Err(Failed::Error(anyhow::anyhow!(
            "{0} has no source that passed the compile check yet; see `klp-farm status {0}` (--include-failed writes what did not pass)",
            args.name
        )));
    }
    writer.whole(&results).await?;
    let missing: Vec<(String, String)> = results
        .iter()
        .flat_map(|(codestream, platforms)| platforms.iter().map(move |(arch, p)| (codestream, arch, p)))
        .filter_map(|(codestream, arch, p)| Some((format!("{codestream}/{arch}"), p.why_missing()?)))
        .collect();
    for (platform, why) in &missing {
        eprintln!("missing: {platform}: {why}; see `klp-farm status {}`", args.name);
    }
    tell(&writer, &written, mode)?;
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Failed::NotAllSucceeded),
    }
}

/// A codestream's `lp` folder as `get` writes it: empty if it has no source that compiles.
pub async fn rendered(
    client: &Client,
    settings: &Settings,
    livepatch: &v1::Livepatch,
    spec: &Spec,
    results: &Results,
    codestream: &Codestream,
) -> Result<BTreeMap<String, String>, Failed> {
    let Some(platforms) = results.get(codestream) else {
        return Ok(BTreeMap::new());
    };
    let rendering = Rendering {
        spec,
        author: &settings.author,
        year: year(livepatch.created_ms),
        codestream,
        platforms,
        include_failed: false,
    };
    // Whatever the others' code is, the first one's is meant.
    let Some(part) = results::compose(platforms, |s| s.compiles, |_, _| true)
        .into_iter()
        .next()
    else {
        return Ok(BTreeMap::new());
    };
    let sources = BTreeMap::from([(part.arch, sources(client, part.source).await?)]);
    let folder = rendering.folder(part, &sources);
    tell_bare(codestream, &folder);
    Ok(folder.files)
}

/// Why a folder has no more than the sources.
fn tell_bare(codestream: &Codestream, folder: &Folder<'_>) {
    if let Some(why) = &folder.bare {
        output::tell(&format!("{codestream}: only the bare sources are written: {why}"));
    }
}

/// An extraction's sources, by their artifacts' names.
async fn sources(client: &Client, source: &Source) -> Result<BTreeMap<String, Vec<u8>>, Failed> {
    let mut sources = BTreeMap::new();
    for artifact in source.sources() {
        sources.insert(artifact.name.clone(), client.artifact(artifact).await?);
    }
    Ok(sources)
}

fn tell(writer: &Writer<'_>, written: &[Written], mode: Mode) -> Result<(), Failed> {
    if mode == Mode::Json {
        return output::json(&written);
    }
    for entry in written {
        let remark = if entry.compiles {
            ""
        } else {
            "  DOES NOT PASS THE COMPILE CHECK"
        };
        output::print(&format!(
            "{}/{}  {}{remark}",
            entry.codestream,
            entry.archs.join(","),
            entry.directory.display()
        ))?;
    }
    if writer.digests.is_empty() {
        return Ok(());
    }
    output::print(&format!("groups  {}", writer.groups_path().display()))
}

/// Of the copyright: when the livepatch was submitted.
pub fn year(created_ms: i64) -> u32 {
    Date::from_unix_days(created_ms.div_euclid(DAY)).year().into()
}

/// By codestream and architecture.
pub type Digests = BTreeMap<(String, String), String>;

pub fn digests(groups: &[v1::Group]) -> Digests {
    let of_group = |g: &v1::Group| {
        let (arch, digest) = (g.arch.clone(), g.digest.clone());
        let codestreams = g.codestreams.clone().into_iter();
        codestreams
            .map(move |c| ((c, arch.clone()), digest.clone()))
            .collect::<Vec<_>>()
    };
    groups.iter().flat_map(of_group).collect()
}

/// Codestreams that have equal digests on every architecture.
pub fn merged_groups(digests: &Digests) -> Vec<Vec<Codestream>> {
    let mut by_codestream: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for ((codestream, arch), digest) in digests {
        by_codestream.entry(codestream).or_default().push((arch, digest));
    }
    let mut groups: BTreeMap<Vec<(&str, &str)>, Vec<Codestream>> = BTreeMap::new();
    for (codestream, key) in by_codestream {
        if let Ok(codestream) = codestream.parse() {
            groups.entry(key).or_default().push(codestream);
        }
    }
    groups.into_values().collect()
}

/// What writing needs.
struct Writer<'a> {
    client: &'a Client,
    settings: &'a Settings,
    spec: &'a Spec,
    work_dir: &'a Path,
    year: u32,
    digests: Digests,
    include_failed: bool,
}

impl Writer<'_> {
    fn groups_path(&self) -> PathBuf {
        self.work_dir.join(layout::backend_dir(self.spec)).join(layout::GROUPS)
    }

    /// The folders of all codestreams that have a source.
    async fn codestreams(&self, results: &Results, statements: &Statements) -> Result<Vec<Written>, Failed> {
        let mut written = Vec::new();
        for (codestream, platforms) in results {
            let rendering = Rendering {
                spec: self.spec,
                author: &self.settings.author,
                year: self.year,
                codestream,
                platforms,
                include_failed: self.include_failed,
            };
            let mut all = Sources::new();
            for (arch, source) in rendering.needed() {
                all.insert(arch, sources(self.client, source).await?);
            }
            let folders = rendering.folders(&all);
            if folders.is_empty() {
                continue;
            }
            for folder in &folders {
                tell_bare(codestream, folder);
                written.push(self.folder(codestream, folder).await?);
            }
            let place = self.work_dir.join(layout::codestream_dir(self.spec, codestream));
            let by = WrittenBy::new(&self.settings.author, self.include_failed);
            provenance::write(&place, statements.of(codestream), &all, &by)?;
        }
        Ok(written)
    }

    async fn folder(&self, codestream: &Codestream, folder: &Folder<'_>) -> Result<Written, Failed> {
        let directory = self.work_dir.join(layout::lp_dir(self.spec, codestream, folder.only()));
        for (name, text) in &folder.files {
            write_file(&directory.join(name), text.as_bytes())?;
        }
        for artifact in folder.beside() {
            // Artifacts' names are relative and plain.
            let path = directory.with_file_name(&artifact.name);
            write_file(&path, &self.client.artifact(artifact).await?)?;
        }
        let part = &folder.part;
        Ok(Written {
            codestream: codestream.to_string(),
            arch: part.arch.to_string(),
            archs: part.serves.iter().map(ToString::to_string).collect(),
            directory,
            compiles: part.source.compiles,
            files: folder.files.keys().cloned().collect(),
        })
    }

    /// What a livepatch has once.
    async fn whole(&self, results: &Results) -> Result<(), Failed> {
        if !self.digests.is_empty() {
            write_file(
                &self.groups_path(),
                groups_file(&merged_groups(&self.digests)).as_bytes(),
            )?;
        }
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut upstream: Vec<String> = Vec::new();
        for fix in &self.spec.fixes {
            let number = numbers.entry(fix.scope.as_str()).or_default();
            *number += 1;
            let artifact = Artifact {
                name: fix.name.to_string(),
                digest: fix.digest,
                size: fix.size,
            };
            let path = layout::fix(self.spec, fix.scope.as_str(), *number, fix.name.as_str());
            let bytes = self.client.artifact(&artifact).await?;
            write_file(&self.work_dir.join(path), &bytes)?;
            for commit in commits(&bytes) {
                if !upstream.contains(&commit) {
                    upstream.push(commit);
                }
            }
        }
        let commit = Commit {
            name: &self.spec.name,
            cve: self.spec.cve.as_ref(),
            title: "",
            upstream: &upstream,
            author: &self.settings.author,
        };
        self.once(layout::COMMIT_MSG, &commit_message(&commit))?;
        let listed = v1::ListCodestreamsRequest::default();
        let listed = self.client.fleet().list_codestreams(listed).await;
        let infos = listed.map_err(|s| self.client.explain(s))?.into_inner().codestreams;
        let facts = results::facts(self.spec, results, &infos, upstream);
        let (project, notes) = klp_build::from_spec(self.spec, &facts);
        self.once(layout::CODESTREAMS, &klp_build::export(&project))?;
        for note in notes {
            eprintln!("{}: {note}", layout::CODESTREAMS);
        }
        let missing = missing_symbols(results);
        if !missing.is_empty() {
            self.once(layout::MISSING_SYMS, &missing_syms::print(&missing))?;
            eprintln!(
                "some externalized symbols are missing on some architectures; {} names them",
                self.work_dir
                    .join(layout::of_livepatch(self.spec, layout::MISSING_SYMS))
                    .display()
            );
        }
        Ok(())
    }

    fn once(&self, name: &str, text: &str) -> anyhow::Result<()> {
        write_file(
            &self.work_dir.join(layout::of_livepatch(self.spec, name)),
            text.as_bytes(),
        )
    }
}

/// The commits in mainline that a fix is made from, as `<12 digits> ("<subject>")`.
fn commits(fix: &[u8]) -> Vec<String> {
    let Ok(patch) = String::from_utf8_lossy(fix).parse::<Patch>() else {
        return Vec::new();
    };
    let subject = patch.subject.trim();
    let commits = patch.git_commits.iter();
    commits
        .map(|commit| format!("{} (\"{subject}\")", commit.short()))
        .collect()
}

/// The symbols that a source still needs and that an architecture lacks which it is for.
fn missing_symbols(results: &Results) -> MissingSymbols {
    let mut missing = MissingSymbols::new();
    for (codestream, platforms) in results {
        let needed: BTreeSet<(&str, &str)> = platforms
            .values()
            .filter_map(|p| p.source.as_ref())
            .flat_map(|s| &s.report.targets)
            .flat_map(|t| &t.externalized)
            .map(|e| (e.object.as_str(), e.symbol.as_str()))
            .collect();
        for (arch, platform) in platforms {
            let gone = platform.verified.iter().filter(|v| v.found_in.is_none());
            for symbol in gone.filter(|v| needed.contains(&(v.object.as_str(), v.symbol.as_str()))) {
                // A name that C can't say no person can act upon.
                let Ok(name) = symbol.symbol.parse() else { continue };
                let objects = missing.entry(*arch).or_default();
                let codestreams = objects.entry(symbol.object.clone()).or_default();
                let names = codestreams.entry(codestream.clone()).or_default();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    missing
}

/// Writes a file whole or not at all.
pub fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || {
        fs::create_dir_all(dir)?;
        let mut file = tempfile::Builder::new()
            .prefix(".klp-farm-")
            .permissions(readable())
            .tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok::<_, std::io::Error>(())
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

/// What a text file usually has; temporary files are private otherwise.
fn readable() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}
