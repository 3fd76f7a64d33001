//! `klp-farm get`: writes a livepatch's sources where klp-build users look for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use klp_livepatch::grouping::groups_file;
use klp_livepatch::names::LivepatchName;
use klp_livepatch::outcome::Artifact;
use klp_livepatch::report::{ExtractReport, Report};
use klp_livepatch::spec::{Draft, Spec};
use klp_livepatch::task::Platform;
use klp_livepatch::{Arch, Codestream, layout, render};
use klp_proto::{convert, v1};
use serde::Serialize;

use crate::client::Client;
use crate::output::{self, Failed, Mode};
use crate::view::task_kind;

#[derive(Args)]
pub struct GetArgs {
    name: LivepatchName,
    /// The work folder; the livepatch gets a folder of its name in it
    #[arg(
        long = "output-dir",
        short,
        value_name = "DIR",
        env = "KLP_WORK_DIR",
        default_value = "."
    )]
    output_dir: PathBuf,
    /// Also write sources that did not pass the compile check, to be finished by hand
    #[arg(long)]
    include_failed: bool,
}

/// One platform's extraction, ready to be written.
struct Extracted {
    platform: Platform,
    compiles: bool,
    report: ExtractReport,
    artifacts: Vec<Artifact>,
}

#[derive(Serialize)]
struct Written {
    codestream: String,
    arch: String,
    directory: PathBuf,
    compiles: bool,
    files: Vec<String>,
}

pub async fn run(args: GetArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let response = client.get(&args.name).await?;
    let livepatch = response.livepatch.unwrap_or_default();
    let spec = Spec::parse(&Draft::from(livepatch.spec.unwrap_or_default())).map_err(Failed::Invalid)?;
    if response.reports_omitted {
        return Err(Failed::Error(anyhow::anyhow!(
            "{} is too large for one answer; split it into livepatches of fewer codestreams",
            args.name
        )));
    }
    let missing = missing(&response.tasks);
    let mut results = Vec::new();
    for task in response.tasks {
        let unreadable = |v| anyhow::anyhow!("the coordinator sent something unreadable: {v}");
        let extracted = extraction(task).map_err(unreadable)?;
        results.extend(extracted.filter(|e| e.compiles || args.include_failed));
    }
    if results.is_empty() {
        return Err(Failed::Error(anyhow::anyhow!(
            "{0} has no source that passed the compile check yet; see `klp-farm status {0}` (--include-failed writes what did not pass)",
            args.name
        )));
    }
    let groups = if livepatch.ended_ms == 0 {
        Vec::new()
    } else {
        client.groups(&args.name).await?
    };
    let digests: BTreeMap<(String, String), &str> = groups
        .iter()
        .flat_map(|g| {
            g.codestreams
                .iter()
                .map(|c| ((c.clone(), g.arch.clone()), g.digest.as_str()))
        })
        .collect();
    let own_dir = own_directories(&results, &digests);
    let mut written = Vec::new();
    for result in &results {
        let only = own_dir.contains(&result.platform).then_some(result.platform.arch);
        let directory = args
            .output_dir
            .join(layout::lp_dir(&spec, &result.platform.codestream, only));
        let files = write(client, &spec, result, &directory).await?;
        written.push(Written {
            codestream: result.platform.codestream.to_string(),
            arch: result.platform.arch.to_string(),
            directory,
            compiles: result.compiles,
            files,
        });
    }
    let groups_path = args.output_dir.join(layout::backend_dir(&spec)).join(layout::GROUPS);
    if !groups.is_empty() {
        write_file(&groups_path, groups_file(&merged_groups(&digests)).as_bytes())?;
    }
    for (platform, why) in &missing {
        eprintln!("missing: {platform}: {why}; see `klp-farm status {}`", args.name);
    }
    let all = if missing.is_empty() {
        Ok(())
    } else {
        Err(Failed::NotAllSucceeded)
    };
    if mode == Mode::Json {
        output::json(&written)?;
        return all;
    }
    for entry in &written {
        let remark = if entry.compiles {
            ""
        } else {
            "  DOES NOT PASS THE COMPILE CHECK"
        };
        output::print(&format!(
            "{}/{}  {}{remark}",
            entry.codestream,
            entry.arch,
            entry.directory.display()
        ))?;
    }
    if !groups.is_empty() {
        output::print(&format!("groups  {}", groups_path.display()))?;
    }
    all
}

/// The platforms that have no source that compiles, each with the reason.
fn missing(tasks: &[v1::Task]) -> BTreeMap<String, String> {
    let mut missing = BTreeMap::new();
    let mut done = BTreeSet::new();
    for task in tasks {
        let platform = task.platform.clone().unwrap_or_default();
        let name = format!("{}/{}", platform.codestream, platform.arch);
        match task.state() {
            v1::TaskState::Succeeded if task.kind() == v1::TaskKind::Extract => drop(done.insert(name)),
            v1::TaskState::Failed => drop(missing.insert(name, format!("{} failed", task_kind(task)))),
            _ => drop(missing.entry(name).or_insert_with(|| "not done yet".to_owned())),
        }
    }
    missing.retain(|name, _| !done.contains(name));
    missing
}

/// What an extract task gave; `None` for other tasks and for those without a source.
fn extraction(task: v1::Task) -> Result<Option<Extracted>, klp_livepatch::spec::Violation> {
    let compiles = task.state() == v1::TaskState::Succeeded;
    let Some(report) = task.report else { return Ok(None) };
    let Report::Extract(report) = Report::try_from(report)? else {
        return Ok(None);
    };
    let artifacts = task
        .artifacts
        .into_iter()
        .map(Artifact::try_from)
        .collect::<Result<_, _>>()?;
    Ok(Some(Extracted {
        platform: convert::platform(task.platform)?,
        compiles,
        report,
        artifacts,
    }))
}

/// The platforms whose source goes into a folder of their architecture: all but each codestream's preferred one, unless
/// they are the same code.
fn own_directories(results: &[Extracted], digests: &BTreeMap<(String, String), &str>) -> BTreeSet<Platform> {
    let mut preferred: BTreeMap<&Codestream, Arch> = BTreeMap::new();
    for result in results {
        let arch = preferred
            .entry(&result.platform.codestream)
            .or_insert(result.platform.arch);
        *arch = (*arch).min(result.platform.arch);
    }
    let digest = |codestream: &Codestream, arch: Arch| digests.get(&(codestream.to_string(), arch.to_string()));
    results
        .iter()
        .map(|r| &r.platform)
        .filter(|p| {
            let first = preferred[&p.codestream];
            let same = digest(&p.codestream, p.arch).is_some_and(|d| Some(d) == digest(&p.codestream, first));
            p.arch != first && !same
        })
        .cloned()
        .collect()
}

/// Codestreams that have equal digests on every architecture.
fn merged_groups(digests: &BTreeMap<(String, String), &str>) -> Vec<Vec<Codestream>> {
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

async fn write(client: &Client, spec: &Spec, result: &Extracted, dir: &Path) -> Result<Vec<String>, Failed> {
    let mut files = Vec::new();
    for target in &result.report.targets {
        let Some(artifact) = result.artifacts.iter().find(|a| a.name == target.source_artifact) else {
            continue;
        };
        let bytes = client.artifact(artifact).await?;
        files.push((layout::source_name(spec, &target.file), bytes));
    }
    let targets = &result.report.targets;
    files.push((
        layout::header_name(spec),
        render::header(&spec.name, targets).into_bytes(),
    ));
    files.push((
        layout::PATCHED_FUNCS.to_owned(),
        render::patched_funcs(targets).into_bytes(),
    ));
    files.push((
        layout::EXTERNALIZED.to_owned(),
        render::externalized(targets).into_bytes(),
    ));
    for (name, bytes) in &files {
        write_file(&dir.join(name), bytes)?;
    }
    Ok(files.into_iter().map(|(name, _)| name).collect())
}

/// Writes a file whole or not at all.
fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
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
