//! `klp-farm import`: goes on with what SUSE klp-build began, from its livepatch's folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use klp_livepatch::CodestreamFilter;
use klp_livepatch::klp_build::{self, Project, ProjectFile};
use klp_livepatch::names::LivepatchName;
use klp_livepatch::spec::TargetDraft;

use crate::client::Client;
use crate::output::{self, Failed, Mode};
use crate::spec_args::Order;

use super::submit;

/// Longest accepted file, in bytes.
const MAX_FILE: u64 = 16 << 20;

const EXAMPLES: &str = "\
Examples:
  klp-farm import ~/klp/livepatches/bsc1197597                     its checks, as `setup` makes them
  klp-farm import ~/klp/livepatches/bsc1197597 && klp-farm extract --name bsc1197597

Reads codestreams.json (and conf.json, where an older klp-build left one) and fixes/; nothing there is changed.

Exit codes: 0 stored, 1 failed, 2 not a valid livepatch.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    /// klp-build's folder of the livepatch, which holds codestreams.json
    folder: PathBuf,
    /// Another name than the folder's
    #[arg(long, short)]
    name: Option<LivepatchName>,
}

pub async fn run(args: ImportArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let codestreams = read(&args.folder.join("codestreams.json"))?
        .with_context(|| format!("{} holds no codestreams.json", args.folder.display()))?;
    let conf = read(&args.folder.join("conf.json"))?;
    let imported = klp_build::import(&codestreams, conf.as_deref());
    let imported = imported.with_context(|| format!("{}/codestreams.json", args.folder.display()))?;
    for note in &imported.notes {
        eprintln!("note: {note}");
    }
    let project = &imported.project;
    let name = match args.name {
        Some(name) => name.to_string(),
        None => {
            let folder = args
                .folder
                .canonicalize()
                .with_context(|| format!("can't open {}", args.folder.display()))?;
            folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
        }
    };
    let fixes = Some(args.folder.join("fixes")).filter(|fixes| fixes.is_dir());
    let filter = CodestreamFilter::exactly(project.codestreams.keys()).map_err(|e| anyhow::anyhow!("{e}"))?;
    let order = Order::of_project(
        name,
        project.cve.as_ref().map(ToString::to_string).unwrap_or_default(),
        targets(project)?,
        filter.as_str().to_owned(),
        project.archs.iter().map(ToString::to_string).collect(),
        fixes.as_deref(),
    )?;
    let name = order.spec.name.clone();
    let livepatch = submit::send(client, order, klp_livepatch::Share::default()).await?;
    match mode {
        Mode::Json => output::json(&klp_proto::view::Livepatch::from(livepatch)),
        Mode::Table => output::print(&format!(
            "{name} imported and being checked; follow it with `klp-farm watch {name}`, then `klp-farm extract --name {name}`"
        )),
    }
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    let size = match fs::metadata(path) {
        Ok(file) => file.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
    };
    if size > MAX_FILE {
        bail!("{} has {size} bytes; at most {MAX_FILE}", path.display());
    }
    fs::read_to_string(path)
        .map(Some)
        .with_context(|| format!("can't read {}", path.display()))
}

/// The targets that all codestreams have alike; klp-build can have others for each.
fn targets(project: &Project) -> anyhow::Result<Vec<TargetDraft>> {
    let mut by_file: BTreeMap<&str, (TargetDraft, &str)> = BTreeMap::new();
    for (codestream, of) in &project.codestreams {
        for file in &of.files {
            let target = target(file)?;
            match by_file.get(file.file.as_str()) {
                Some((other, first)) if *other != target => bail!(
                    "{} has other functions, CONFIG or module on {codestream} than on {first}; make a livepatch for each with \
                     `klp-farm setup --codestreams`",
                    file.file
                ),
                Some(_) => {}
                None => drop(by_file.insert(file.file.as_str(), (target, codestream.as_str()))),
            }
        }
    }
    Ok(by_file.into_values().map(|(target, _)| target).collect())
}

fn target(file: &ProjectFile) -> anyhow::Result<TargetDraft> {
    let config = file.config.as_ref();
    let config = config.with_context(|| {
        format!(
            "{}: its CONFIG is not recorded; give it with `klp-farm setup`",
            file.file
        )
    })?;
    Ok(TargetDraft {
        file: file.file.to_string(),
        functions: file.symbols.iter().map(ToString::to_string).collect(),
        config: config.to_string(),
        object: file.module.object().to_string(),
    })
}
