//! One codestream on one architecture: what checks found, the source, the compile check, the attempts and their logs, the files.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use klp_livepatch::Arch;
use klp_proto::view;
use klp_proto::view::cell::Grid;
use klp_proto::view::words::duration;
use tonic::Status;

use super::livepatch::standing;
use super::source::{Line, Piece, lines, pieces};
use super::{Ask, Asked, part};
use crate::web::answer::Refused;
use crate::web::api::about;

#[derive(Template)]
#[template(path = "cell.html")]
struct Page {
    asked: Asked,
    livepatch: view::Livepatch,
    codestream: String,
    arch: String,
    class: &'static str,
    mark: char,
    text: String,
    tasks: Vec<Task>,
    sources: Vec<Source>,
    /// Codestreams to compare with.
    others: Vec<String>,
}

struct Task {
    task: view::Task,
    attempts: Vec<view::Attempt>,
}

struct Source {
    number: usize,
    file: String,
    href: String,
    lines: Vec<Line>,
    pieces: Vec<Piece>,
    cut: bool,
}

pub async fn page(
    State(web): Ask,
    Path((name, codestream, arch)): Path<(String, String, String)>,
    asked: Asked,
) -> Result<Response, Refused> {
    let make = async || {
        let answer = web.livepatch(&name, false).await?;
        let (about, _) = about(&answer);
        let ended = answer.livepatch.as_ref().is_some_and(|l| l.ended_ms != 0);
        let of = web.told(&answer.tasks, &codestream, &arch).await?;
        let grid = Grid::new(&of, ended);
        let Some((state, _)) = grid.rows.values().find_map(|row| row.get(&arch)) else {
            let known = Grid::new(&answer.tasks, ended);
            let known: Vec<&str> = known.rows.keys().map(|c| c.as_str()).take(20).collect();
            let message = format!(
                "{name} is not for {codestream}/{arch}; it is for: {} on {}",
                known.join(", "),
                Arch::ALL.map(|a| a.to_string()).join(", ")
            );
            return Err(Refused(Status::not_found(message)));
        };
        let (class, mark, _) = standing(state.standing);
        let live = of.iter().any(|task| task.ended_ms == 0);
        let sources = web.sources(&of).await?;
        let sources = sources.into_iter().enumerate().map(|(number, text)| Source {
            number,
            href: artifact(&text.artifact.digest, &text.artifact.name),
            pieces: pieces(&text.text),
            lines: lines(&text.text),
            file: text.file,
            cut: text.cut,
        });
        let sources = sources.collect();
        let mut tasks = Vec::new();
        for task in &of {
            tasks.push(Task {
                task: task.clone().into(),
                attempts: web.attempts_of_task(&task.id).await?,
            });
        }
        let all = Grid::new(&answer.tasks, ended);
        let others = all
            .rows
            .iter()
            .filter(|(c, row)| c.as_str() != codestream && row.contains_key(&arch));
        let page = Page {
            asked: asked.clone(),
            livepatch: answer.livepatch.clone().unwrap_or_default().into(),
            codestream: codestream.clone(),
            arch: arch.clone(),
            class,
            mark,
            text: state.text.clone(),
            tasks,
            sources,
            others: others.map(|(c, _)| c.to_string()).collect(),
        };
        Ok((about, live, page))
    };
    web.page(&asked, make).await
}

pub fn artifact(digest: &str, name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    format!("/api/v1/artifacts/{}?name={}", part(digest), part(file))
}

pub fn took(attempt: &view::Attempt) -> String {
    attempt
        .ended_ms
        .map_or_else(|| "still running".to_owned(), |end| duration(end - attempt.started_ms))
}
