//! `klp-farm scan`: which codestreams lack a CVE's fixes, and what a livepatch of them would target.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use klp_livepatch::names::ObjectName;
use klp_livepatch::report::ConfigValue;
use klp_livepatch::scan::{Proposal, ScanReport, Status};
use klp_livepatch::spec::{FixDraft, TargetDraft};
use klp_livepatch::{Arch, Codestream, CodestreamFilter};
use klp_proto::v1;
use tonic::Code;

use crate::client::Client;
use crate::output::{self, Failed, Mode};

const EXAMPLES: &str = "\
Examples:
  klp-farm scan --cve 2022-1048
  klp-farm scan --cve 2022-1048 --filter '15.6|15.7' -O json
  klp-farm submit --name bsc1197597 --cve 2022-1048        scans, shows what it found, and asks before it submits

A worker scans that has a clone of kernel-source (KLP_KERNEL_SOURCE). It proposes and warns; nothing is decided.

Exit codes: 0 scanned, 1 failed, as when no worker has such a clone.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ScanArgs {
    /// The CVE, such as 2022-1048
    #[arg(long)]
    cve: String,
    /// Of the catalog's codestreams: a regular expression, anchored at the start [default: all]
    #[arg(
        long,
        alias = "codestreams",
        value_name = "REGEX",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,
    /// Patches of the repository that are fixes, too, wherever a branch has them
    #[arg(long, value_name = "PATH", num_args = 1..)]
    add_patches: Vec<String>,
}

pub async fn run(args: ScanArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let found = scan(client, &args.cve, &args.filter, &args.add_patches).await?;
    if mode == Mode::Json {
        return output::json(&found.report);
    }
    show(&found.report)
}

/// What a scan found.
pub struct Found {
    pub report: ScanReport,
    /// By scope, in the order of their application.
    pub fixes: Vec<v1::Fix>,
}

/// # Errors
/// [`Failed::Error`], among others if no worker can scan: see [`unable`].
pub async fn scan(client: &Client, cve: &str, filter: &str, add_patches: &[String]) -> Result<Found, Failed> {
    scan_if_able(client, cve, filter, add_patches)
        .await
        .map_err(|status| client.explain(status))
}

async fn scan_if_able(
    client: &Client,
    cve: &str,
    filter: &str,
    add_patches: &[String],
) -> Result<Found, tonic::Status> {
    let request = v1::ScanRequest {
        cve: cve.strip_prefix("CVE-").unwrap_or(cve).to_owned(),
        codestreams: filter.to_owned(),
        add_patches: add_patches.to_vec(),
    };
    eprintln!("looking for the fixes of CVE-{} …", request.cve);
    let answer = client
        .livepatches()
        .scan(request)
        .await?
        .into_inner()
        .answer
        .unwrap_or_default();
    let report = serde_json::from_str(&answer.report_json);
    let report = report.map_err(|e| tonic::Status::internal(format!("the scan's report can't be read: {e}")))?;
    Ok(Found {
        report,
        fixes: answer.fixes,
    })
}

/// As [`scan`], where it is only a help: `None`, with a word on standard error, if nobody can scan.
pub async fn scan_if_can(client: &Client, cve: &str, filter: &str, add: &[String]) -> Result<Option<Found>, Failed> {
    match scan_if_able(client, cve, filter, add).await {
        Ok(found) => Ok(Some(found)),
        Err(status) if status.code() == Code::FailedPrecondition => {
            eprintln!("no fixes are looked for: {}", status.message());
            Ok(None)
        }
        Err(status) => Err(client.explain(status)),
    }
}

fn show(report: &ScanReport) -> Result<(), Failed> {
    let mut patches = output::table(&["PRODUCT", "BRANCH", "PATCH", "SUBJECT"]);
    for (product, found) in &report.products {
        for patch in &found.patches {
            patches.add_row([product, &found.branch, patch.path.as_str(), &patch.subject]);
        }
    }
    output::print(&patches.trim_fmt())?;
    let mut table = output::table(&["CODESTREAM", "KERNEL", "STATUS"]);
    for (codestream, scan) in &report.codestreams {
        let status = match &scan.status {
            Status::Patched => "patched".to_owned(),
            Status::NotAffected => "not affected".to_owned(),
            Status::Affected { required } => format!("AFFECTED, lacks {}", required.len()),
            Status::Unknown { why } => format!("unknown: {why}"),
        };
        table.add_row([codestream.as_str(), &scan.kernel, &status]);
    }
    output::print(&format!("\n{}", table.trim_fmt()))?;
    for proposal in &report.proposals {
        show_proposal(proposal)?;
    }
    for problem in &report.problems {
        output::tell(&format!("warning: {problem}"));
    }
    Ok(())
}

fn show_proposal(proposal: &Proposal) -> Result<(), Failed> {
    let names: Vec<&str> = proposal.codestreams.iter().map(Codestream::as_str).collect();
    output::print(&format!("\nProposed for {}:", names.join(" ")))?;
    let (targets, unclear) = targets(proposal);
    for target in targets {
        output::print(&format!(
            "  --conf-mod-file-funcs {} {} {} {}",
            target.config,
            target.object,
            target.file,
            target.functions.join(" ")
        ))?;
    }
    for text in unclear {
        output::print(&format!("  to be decided: {text}"))?;
    }
    for finding in &proposal.findings {
        output::print(&format!("  {finding}"))?;
    }
    Ok(())
}

/// The targets that a proposal comes to, and what it leaves open.
fn targets(proposal: &Proposal) -> (Vec<TargetDraft>, Vec<String>) {
    let (mut targets, mut unclear) = (Vec::new(), Vec::new());
    for target in &proposal.targets {
        let mut functions: Vec<String> = Vec::new();
        for function in &target.functions {
            // One source serves all architectures; which names of a system call a kernel has, its check says.
            for symbol in function.symbols(Arch::X86_64) {
                if !functions.contains(&symbol.name) {
                    functions.push(symbol.name);
                }
            }
        }
        let built = match target.built.built.as_slice() {
            [one] => one.config.as_ref().map(|config| {
                let mut values = target.configs.values().filter_map(|configs| configs.get(config));
                let built_in = values.clone().next().is_some() && values.all(|value| *value == ConfigValue::BuiltIn);
                let object = if built_in { ObjectName::vmlinux() } else { one.object() };
                (config.to_string(), object.to_string())
            }),
            _ => None,
        };
        match (built, functions.is_empty()) {
            (_, true) => unclear.push(format!("{}: no function of it changes by itself", target.file)),
            (None, _) => unclear.push(format!(
                "{}: its CONFIG and module are not certain ({}); functions: {}",
                target.file,
                target.built.unclear.join("; "),
                functions.join(" ")
            )),
            (Some((config, object)), false) => targets.push(TargetDraft {
                file: target.file.to_string(),
                functions,
                config,
                object,
            }),
        }
    }
    (targets, unclear)
}

/// What a submission takes from a scan.
pub struct Taken {
    pub codestreams: String,
    pub targets: Vec<TargetDraft>,
    pub fixes: Vec<FixDraft>,
}

/// What a livepatch whose targets are known takes: the affected codestreams, and their fixes.
///
/// # Errors
/// No codestream is affected.
pub fn fixes_alone(found: &Found) -> Result<Taken, Failed> {
    let affected = affected(&found.report);
    if affected.is_empty() {
        return Err(none_affected(&found.report));
    }
    for (codestream, scan) in &found.report.codestreams {
        match &scan.status {
            Status::Patched => eprintln!("{codestream} has the fixes, so it is left out"),
            Status::NotAffected => eprintln!("{codestream} is not affected, so it is left out"),
            Status::Unknown { why } => output::tell(&format!(
                "{codestream} is left out, for nobody knows whether it is affected: {why}"
            )),
            Status::Affected { .. } => {}
        }
    }
    Ok(Taken {
        codestreams: exactly(&affected)?,
        targets: Vec::new(),
        fixes: fixes(found, &affected),
    })
}

/// What a livepatch takes whose targets are to be proposed, too: shown first, and taken if the person at the keyboard or
/// `--yes` says so.
///
/// # Errors
/// No codestream is affected, the proposal leaves something open, or the answer is no.
pub fn proposed(found: &Found, yes: bool) -> Result<Taken, Failed> {
    show(&found.report)?;
    let refuse = |why: String| Failed::Error(anyhow::anyhow!(why));
    let proposal = match found.report.proposals.as_slice() {
        [] => return Err(none_affected(&found.report)),
        [one] => one,
        several => {
            return Err(refuse(format!(
                "{} sets of codestreams would get different targets; submit a livepatch for each, with its targets from above \
                 and --codestreams",
                several.len()
            )));
        }
    };
    let (targets, unclear) = targets(proposal);
    if targets.is_empty() || !unclear.is_empty() {
        let why = "the proposal leaves something to be decided; give the targets with --conf-mod-file-funcs, the fixes are \
                   found all the same";
        return Err(refuse(why.to_owned()));
    }
    if !yes && !confirmed()? {
        return Err(refuse(
            "nothing was submitted; --yes takes the proposal without asking".to_owned(),
        ));
    }
    Ok(Taken {
        codestreams: exactly(&proposal.codestreams)?,
        targets,
        fixes: fixes(found, &proposal.codestreams),
    })
}

fn exactly(codestreams: &[Codestream]) -> Result<String, Failed> {
    let filter = CodestreamFilter::exactly(codestreams);
    let filter =
        filter.map_err(|e| Failed::Error(anyhow::anyhow!("too many codestreams at once: {e}; use --codestreams")))?;
    Ok(filter.as_str().to_owned())
}

fn none_affected(report: &ScanReport) -> Failed {
    for problem in &report.problems {
        output::tell(&format!("warning: {problem}"));
    }
    Failed::Error(anyhow::anyhow!(
        "no selected codestream lacks a fix of CVE-{} that is known of",
        report.cve
    ))
}

fn affected(report: &ScanReport) -> Vec<Codestream> {
    let affected = report
        .codestreams
        .iter()
        .filter(|(_, scan)| matches!(scan.status, Status::Affected { .. }));
    affected.map(|(codestream, _)| codestream.clone()).collect()
}

/// The fixes that these codestreams lack: of their scope where they lack all of it, else of a scope of their own.
fn fixes(found: &Found, codestreams: &[Codestream]) -> Vec<FixDraft> {
    let mut by_scope: BTreeMap<&str, Vec<&v1::Fix>> = BTreeMap::new();
    for fix in &found.fixes {
        by_scope.entry(&fix.scope).or_default().push(fix);
    }
    let mut lacked_whole = BTreeSet::new();
    let mut own = Vec::new();
    for codestream in codestreams {
        let scan = found.report.codestreams.get(codestream);
        let Some((Some(scope), Status::Affected { required })) = scan.map(|scan| (&scan.scope, &scan.status)) else {
            continue;
        };
        let (Some(all), Some(product)) = (by_scope.get(scope.as_str()), found.report.products.get(scope)) else {
            continue;
        };
        if required.len() == all.len() {
            lacked_whole.insert(scope.as_str());
            continue;
        }
        let lacking = product
            .patches
            .iter()
            .zip(all)
            .filter(|(fact, _)| required.contains(&fact.path));
        own.extend(lacking.map(|(_, fix)| FixDraft {
            scope: codestream.to_string(),
            ..FixDraft::from((*fix).clone())
        }));
    }
    let whole = found
        .fixes
        .iter()
        .filter(|fix| lacked_whole.contains(fix.scope.as_str()));
    whole.cloned().map(FixDraft::from).chain(own).collect()
}

/// Asks whoever sits at the terminal; nobody there means no.
fn confirmed() -> Result<bool, Failed> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("Submit this? [y/N] ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_livepatch_takes_the_fixes_that_its_codestreams_lack_and_no_others() {
        let fact = |path: &str| serde_json::json!({"path": path, "order": 1, "subject": "", "git_commits": []});
        let product = |paths: &[&str]| {
            let patches: Vec<_> = paths.iter().map(|path| fact(path)).collect();
            serde_json::json!({"branch": "b", "patches": patches, "mentions": []})
        };
        let affected = |scope: &str, required: &[&str]| serde_json::json!({"kernel": "1", "scope": scope, "status": "affected", "required": required});
        let report = serde_json::json!({
            "cve": "2026-1234",
            "products": {"15.5": product(&["p/a", "p/b"]), "15.6": product(&["p/a", "p/b"]), "15.7": product(&["p/a"])},
            "codestreams": {
                "15.5u1": affected("15.5", &["p/a", "p/b"]),
                "15.5u2": affected("15.5", &["p/b"]),
                "15.6u1": affected("15.6", &["p/a"]),
                "15.7u1": {"kernel": "1", "scope": "15.7", "status": "patched"},
            },
            "proposals": [],
            "problems": [],
        });
        let fix = |scope: &str, name: &str| v1::Fix {
            scope: scope.to_owned(),
            name: name.to_owned(),
            ..Default::default()
        };
        let found = Found {
            report: serde_json::from_value(report).unwrap(),
            fixes: vec![
                fix("15.5", "a"),
                fix("15.5", "b"),
                fix("15.6", "a"),
                fix("15.6", "b"),
                fix("15.7", "a"),
            ],
        };
        let taken = |names: &[&str]| -> Vec<String> {
            let codestreams: Vec<Codestream> = names.iter().map(|name| name.parse().unwrap()).collect();
            let drafts = fixes(&found, &codestreams).into_iter();
            drafts.map(|draft| format!("{}/{}", draft.scope, draft.name)).collect()
        };
        assert_eq!(
            taken(&["15.5u1", "15.5u2", "15.6u1", "15.7u1"]),
            ["15.5/a", "15.5/b", "15.5u2/b", "15.6u1/a"]
        );
        assert_eq!(taken(&["15.5u2"]), ["15.5u2/b"]);
    }
}
