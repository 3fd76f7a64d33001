//! The extracted sources of a livepatch's codestreams, fetched to be compared.

use std::collections::BTreeMap;

use klp_livepatch::names::LivepatchName;
use klp_livepatch::{Arch, Codestream};

use crate::client::Client;
use crate::output::Failed;
use crate::results::{self, PlatformResult, Results};

/// A codestream's sources on one architecture, as one text with the name of each file before it.
pub async fn text(client: &Client, platform: &PlatformResult) -> Result<Option<String>, Failed> {
    let Some(source) = &platform.source else {
        return Ok(None);
    };
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for target in &source.report.targets {
        if let Some(artifact) = source.artifacts.iter().find(|a| a.name == target.source_artifact) {
            let bytes = client.artifact(artifact).await?;
            files.insert(target.file.as_str(), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    let single = files.len() == 1;
    let whole = files.into_iter().map(|(name, text)| match single {
        true => text,
        false => format!("file {name};\n{text}\n"),
    });
    Ok(Some(whole.collect()))
}

/// What a livepatch's tasks found so far.
pub async fn results(client: &Client, name: &LivepatchName) -> Result<Results, Failed> {
    let response = client.get(name).await?;
    if response.reports_omitted {
        return Err(Failed::Error(anyhow::anyhow!(
            "{name} is too large for one answer; split it into livepatches of fewer codestreams"
        )));
    }
    let unreadable = |v| Failed::Error(anyhow::anyhow!("the coordinator sent something unreadable: {v}"));
    results::gather(response.tasks).map_err(unreadable)
}

/// The architecture to compare on: the one that is named, else the first in order of preference with a source.
pub fn pick<'a>(
    results: &'a Results,
    codestream: &Codestream,
    arch: Option<Arch>,
) -> Result<(Arch, &'a PlatformResult), Failed> {
    let refuse = |why: String| Err(Failed::Error(anyhow::anyhow!(why)));
    let Some(platforms) = results.get(codestream) else {
        let known: Vec<String> = results.keys().map(ToString::to_string).take(20).collect();
        return refuse(format!("it is not for {codestream}; it is for: {}", known.join(", ")));
    };
    let usable = |p: &PlatformResult| p.source.is_some();
    let found = platforms
        .iter()
        .find(|(a, p)| arch.is_none_or(|wanted| wanted == **a) && usable(p));
    match found {
        Some((arch, platform)) => Ok((*arch, platform)),
        None => refuse(format!(
            "{codestream} has no source{}",
            arch.map(|a| format!(" on {a}")).unwrap_or_default()
        )),
    }
}
