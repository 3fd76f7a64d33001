//! `klp-farm status`: one livepatch at a glance.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;
use klp_livepatch::Share;
use klp_livepatch::names::LivepatchName;
use klp_proto::v1;
use serde::Serialize;

use crate::client::Client;
use crate::findings;
use crate::matrix::Matrix;
use crate::output::{self, Failed, Mode};
use klp_proto::view;

#[derive(Args)]
pub struct StatusArgs {
    pub name: LivepatchName,
}

#[derive(Serialize)]
struct Status {
    livepatch: view::Livepatch,
    tasks: Vec<view::Task>,
    groups: Vec<view::Group>,
}

pub async fn run(args: StatusArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let response = client.get(&args.name).await?;
    let state = response.livepatch.as_ref().map(v1::Livepatch::state);
    print(client, &args.name, response, mode).await?;
    match state {
        Some(v1::LivepatchState::Partial | v1::LivepatchState::Failed | v1::LivepatchState::Cancelled) => {
            Err(Failed::NotAllSucceeded)
        }
        _ => Ok(()),
    }
}

/// Prints a livepatch with its matrix, failures and groups.
pub async fn print(client: &Client, name: &LivepatchName, response: v1::GetResponse, mode: Mode) -> Result<(), Failed> {
    let livepatch = response.livepatch.unwrap_or_default();
    let ended = livepatch.ended_ms != 0;
    let groups = if ended { client.groups(name).await? } else { Vec::new() };
    if mode == Mode::Json {
        return output::json(&Status {
            livepatch: livepatch.into(),
            tasks: response.tasks.into_iter().map(view::Task::from).collect(),
            groups: groups.into_iter().map(view::Group::from).collect(),
        });
    }
    output::print(&describe(&livepatch, &response.tasks, &groups))
}

fn describe(livepatch: &v1::Livepatch, tasks: &[v1::Task], groups: &[v1::Group]) -> String {
    let ended = livepatch.ended_ms != 0;
    let spec = livepatch.spec.clone().unwrap_or_default();
    let mut text = spec.name;
    if !spec.cve.is_empty() {
        // Writing to a String can't fail, here and below.
        let _ = write!(text, "  CVE-{}", spec.cve);
    }
    let _ = write!(text, "  {}", view::livepatch_state(livepatch));
    if ended {
        let _ = write!(
            text,
            " in {}: {}",
            output::duration(livepatch.ended_ms - livepatch.created_ms),
            livepatch.verdict
        );
    }
    if livepatch.paused_ms > 0 {
        let since = output::ago(livepatch.paused_ms, output::now_ms());
        let _ = write!(text, "  paused {since}");
        if !livepatch.pause_reason.is_empty() {
            let _ = write!(text, " ({})", livepatch.pause_reason);
        }
    }
    let share = livepatch.share.unwrap_or_default();
    if (share.priority, share.weight) != (0, Share::DEFAULT_WEIGHT.into()) && !ended {
        let _ = write!(text, "  priority {}, weight {}", share.priority, share.weight);
    }
    let _ = write!(
        text,
        "\n\n{}\n",
        Matrix::new(tasks, ended).render(usize::MAX, output::colours())
    );
    describe_waiting(tasks, &mut text);
    for task in tasks {
        describe_failure(task, &mut text);
    }
    text.push_str(&findings::describe(tasks));
    if !groups.is_empty() {
        text.push_str("\nGroups (one source serves each):\n");
        for (i, group) in groups.iter().enumerate() {
            let _ = writeln!(text, "  {}  {}: {}", i + 1, group.arch, group.codestreams.join(" "));
        }
        describe_differing(&livepatch.spec.clone().unwrap_or_default().name, groups, &mut text);
    }
    text
}

/// The codestreams whose architectures have not all the same code.
fn describe_differing(name: &str, groups: &[v1::Group], text: &mut String) {
    let mut by_codestream: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for group in groups {
        for codestream in &group.codestreams {
            by_codestream
                .entry(codestream)
                .or_default()
                .push((&group.arch, &group.digest));
        }
    }
    for (codestream, archs) in by_codestream {
        let Some(((first, digest), others)) = archs.split_first() else {
            continue;
        };
        for (other, _) in others.iter().filter(|(_, other)| other != digest) {
            let _ = writeln!(
                text,
                "  {codestream} has other code on {other} than on {first}: klp-farm cs-diff --name {name} {codestream}/{first} \
                 {codestream}/{other}"
            );
        }
    }
}

/// Why tasks wait: each reason once, with whom it concerns.
fn describe_waiting(tasks: &[v1::Task], text: &mut String) {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for task in tasks.iter().filter(|t| !t.waiting_for.is_empty()) {
        let platform = task.platform.clone().unwrap_or_default();
        let name = format!("{}/{} {}", platform.codestream, platform.arch, view::task_kind(task));
        match reasons.iter_mut().find(|(reason, _)| *reason == task.waiting_for) {
            Some((_, names)) => names.push(name),
            None => reasons.push((&task.waiting_for, vec![name])),
        }
    }
    if !reasons.is_empty() {
        text.push_str("\nWaiting:\n");
    }
    for (reason, names) in reasons {
        let _ = writeln!(text, "  {reason}\n    {}", names.join(", "));
    }
}

fn describe_failure(task: &v1::Task, text: &mut String) {
    let Some(failure) = &task.failure else { return };
    let platform = task.platform.clone().unwrap_or_default();
    let (what, again) = match task.state() {
        v1::TaskState::Failed => ("failed", ""),
        v1::TaskState::Leased => ("failed before", "; tried again now"),
        _ => ("failed", "; will be tried again"),
    };
    let _ = writeln!(
        text,
        "\n{}/{} {} {what}{again}:",
        platform.codestream,
        platform.arch,
        view::task_kind(task)
    );
    for line in failure.message.lines() {
        let _ = writeln!(text, "  {line}");
    }
}
