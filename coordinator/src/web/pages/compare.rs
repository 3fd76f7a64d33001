//! Two codestreams' sources side by side, without what makes no difference to the code.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use klp_livepatch::normalize::normalize;
use klp_proto::view::cell::Grid;
use serde::Deserialize;
use similar::{ChangeTag, DiffOp, TextDiff};
use tonic::Status;

use super::{Ask, Asked};
use crate::web::Web;
use crate::web::answer::Refused;
use crate::web::api::{self, about};

/// Equal lines around a difference.
const CONTEXT: usize = 4;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Query {
    pub a: String,
    pub b: String,
    pub arch: String,
}

#[derive(Template)]
#[template(path = "compare.html")]
struct Page {
    asked: Asked,
    name: String,
    a: String,
    b: String,
    arch: String,
    codestreams: Vec<String>,
    archs: Vec<String>,
    hunks: Vec<Vec<Pair>>,
    differing: usize,
}

/// A line of each side; one that has none has nothing to show.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pair {
    left: Option<(usize, String)>,
    right: Option<(usize, String)>,
    changed: bool,
}

pub async fn page(
    State(web): Ask,
    Path(name): Path<String>,
    asked: Asked,
    api::Asked(query): api::Asked<Query>,
) -> Result<Response, Refused> {
    let make = async || {
        let answer = web.livepatch(&name, false).await?;
        let (about, live) = about(&answer);
        let grid = Grid::new(&answer.tasks, true);
        let codestreams: Vec<String> = grid.rows.keys().map(ToString::to_string).collect();
        let archs: Vec<String> = grid.archs.iter().cloned().collect();
        let or = |text: &str, default: Option<&String>| match text {
            "" => default.cloned().unwrap_or_default(),
            text => text.to_owned(),
        };
        let (a, b) = (or(&query.a, codestreams.first()), or(&query.b, codestreams.get(1)));
        let arch = or(&query.arch, archs.first());
        let left = web.normalised(&answer.tasks, &a, &arch).await?;
        let right = web.normalised(&answer.tasks, &b, &arch).await?;
        // Work for a thread that may be busy.
        let hunks = tokio::task::spawn_blocking(move || hunks(&left, &right)).await;
        let hunks = hunks.map_err(|error| Status::internal(format!("the comparison broke: {error}")))?;
        let page = Page {
            asked: asked.clone(),
            name: name.clone(),
            a,
            b,
            arch,
            codestreams,
            archs,
            differing: hunks.iter().flatten().filter(|pair| pair.changed).count(),
            hunks,
        };
        Ok((about, live, page))
    };
    web.page(&asked, make).await
}

impl Web {
    /// A codestream's sources as groups compare them, each file's name before its text.
    async fn normalised(&self, tasks: &[klp_proto::v1::Task], codestream: &str, arch: &str) -> Result<String, Refused> {
        let texts = self.sources(&self.told(tasks, codestream, arch).await?).await?;
        if texts.is_empty() {
            let message = format!("{codestream}/{arch} has no source to compare");
            return Err(Refused(Status::not_found(message)));
        }
        let normal = texts
            .iter()
            .map(|text| format!("/* {} */\n{}", text.file, normalize(&text.text)));
        Ok(normal.collect())
    }
}

fn hunks(left: &str, right: &str) -> Vec<Vec<Pair>> {
    let diff = TextDiff::from_lines(left, right);
    let pairs = |ops: Vec<DiffOp>| {
        let mut pairs: Vec<Pair> = Vec::new();
        for op in ops {
            // The lines that only one side has stand beside each other.
            let (mut gone, mut come) = (Vec::new(), Vec::new());
            for change in diff.iter_changes(&op) {
                let text = change.value().trim_end_matches('\n').to_owned();
                let (old, new) = (change.old_index(), change.new_index());
                match (change.tag(), old, new) {
                    (ChangeTag::Delete, Some(old), _) => gone.push((old + 1, text)),
                    (ChangeTag::Insert, _, Some(new)) => come.push((new + 1, text)),
                    (_, Some(old), Some(new)) => pairs.push(Pair {
                        left: Some((old + 1, text.clone())),
                        right: Some((new + 1, text)),
                        changed: false,
                    }),
                    _ => {}
                }
            }
            let count = gone.len().max(come.len());
            let (mut gone, mut come) = (gone.into_iter(), come.into_iter());
            pairs.extend((0..count).map(|_| Pair {
                left: gone.next(),
                right: come.next(),
                changed: true,
            }));
        }
        pairs
    };
    diff.grouped_ops(CONTEXT).into_iter().map(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_stands_side_by_side() {
        let hunks = hunks("a\nb\nc\n", "a\nx\ny\nc\n");
        assert_eq!(hunks.len(), 1);
        let shown: Vec<(Option<&str>, Option<&str>, bool)> = hunks[0]
            .iter()
            .map(|p| {
                let text = |side: &'static str| match side {
                    "l" => p.left.as_ref().map(|(_, t)| t.as_str()),
                    _ => p.right.as_ref().map(|(_, t)| t.as_str()),
                };
                (text("l"), text("r"), p.changed)
            })
            .collect();
        assert_eq!(
            shown,
            [
                (Some("a"), Some("a"), false),
                (Some("b"), Some("x"), true),
                (None, Some("y"), true),
                (Some("c"), Some("c"), false)
            ]
        );
        assert!(super::hunks("a\n", "a\n").is_empty());
    }
}
