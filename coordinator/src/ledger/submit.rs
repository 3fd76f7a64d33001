//! Submitting a livepatch: all or nothing, and the same however often it is repeated.

use std::collections::BTreeSet;
use std::sync::Arc;

use klp_livepatch::spec::{Spec, Violation};
use klp_livepatch::task::{LivepatchId, Platform};
use klp_livepatch::{Share, Submitter, words};

use super::{Now, create, fixes};
use crate::lifecycle::Millis;
use crate::plan;
use crate::store::{self, Change, LivepatchRow, OpenLivepatch, StoreError, Tx};

/// How many names an error lists.
const LISTED: usize = 20;

#[derive(Clone, Debug)]
pub struct Submission {
    pub id: LivepatchId,
    pub spec: Spec,
    pub share: Share,
    pub submitted_by: Submitter,
    /// The most livepatches that may be open, this one included.
    pub max_open: u32,
    /// The most platforms it may select.
    pub max_platforms: u32,
    /// The scopes of fixes that mean something, beside those of what workers hold; `None`: there is no catalog to tell.
    pub scopes: Option<BTreeSet<String>>,
}

#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The spec selects nothing, or too much.
    #[error("{0}")]
    Invalid(Violation),
    /// The name belongs to another livepatch.
    #[error("the name `{name}` is used by another livepatch")]
    NameTaken {
        name: String,
        by: LivepatchId,
        since: Millis,
    },
    /// The id belongs to a livepatch with another spec.
    #[error("the id {id} is that of another livepatch, `{name}`")]
    IdTaken {
        id: LivepatchId,
        name: String,
        since: Millis,
    },
    #[error("{} open, as many as max_open_livepatches allows; wait until one has ended", words::amount(*.open, "livepatch is", "livepatches are"))]
    TooManyOpen { open: u32 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for SubmitError {
    fn from(error: rusqlite::Error) -> Self {
        SubmitError::Store(error.into())
    }
}

/// Stores a livepatch with its first tasks and its first event; answers the stored one if it is there already.
///
/// # Errors
/// Nothing was stored, for the reason that the error names.
pub fn submit(tx: &mut Tx<'_>, submission: Submission, now: Now) -> Result<LivepatchRow, SubmitError> {
    let Submission { id, spec, .. } = &submission;
    if let Some(existing) = store::livepatch(tx, *id)? {
        if existing.spec.repeats(spec) {
            return Ok(existing);
        }
        return Err(SubmitError::IdTaken {
            id: *id,
            name: existing.spec.name.to_string(),
            since: existing.created,
        });
    }
    if let Some(existing) = store::find_livepatch(tx, &spec.name)? {
        return Err(SubmitError::NameTaken {
            name: spec.name.to_string(),
            by: existing.id,
            since: existing.created,
        });
    }
    let open = store::count_open(tx)?;
    if open >= submission.max_open {
        return Err(SubmitError::TooManyOpen { open });
    }
    let known = store::known_platforms(tx)?;
    let platforms = platforms(spec, &known).map_err(SubmitError::Invalid)?;
    if platforms.len() > submission.max_platforms as usize {
        return Err(SubmitError::Invalid(Violation {
            field: "codestreams".to_owned(),
            message: format!(
                "selects {}; at most {}: split it into several livepatches",
                words::platforms(platforms.len()),
                submission.max_platforms
            ),
        }));
    }
    if let Some(scopes) = &submission.scopes {
        fixes::known(spec, &platforms, scopes, &known).map_err(SubmitError::Invalid)?;
    }
    fixes::complete(spec, &platforms).map_err(SubmitError::Invalid)?;
    store::insert_livepatch(tx, *id, spec, submission.share, &submission.submitted_by, now.ms)?;
    tx.note(Change::Opened(OpenLivepatch {
        id: *id,
        spec: Arc::new(spec.clone()),
        share: submission.share,
        pause: None,
    }));
    let mut message = format!("submitted for {}", words::platforms(platforms.len()));
    for idle in fixes::idle(spec, platforms.iter().map(|p| &p.codestream)) {
        message.push_str("; ");
        message.push_str(&idle);
    }
    store::append_event(tx, *id, now.ms, &message, None, false)?;
    let aim = plan::Aim::of(spec);
    create(tx, *id, platforms.iter().flat_map(|p| plan::next(p, &[], &aim)), now)?;
    let stored = store::livepatch(tx, *id)?;
    stored.ok_or(SubmitError::Store(StoreError::Closed))
}

/// The platforms that a spec selects of those the farm holds; at least one.
///
/// # Errors
/// The field that selects none.
pub fn platforms(spec: &Spec, known: &BTreeSet<Platform>) -> Result<Vec<Platform>, Violation> {
    let violation = |field: &str, message| Violation {
        field: field.to_owned(),
        message,
    };
    if known.is_empty() {
        let message = "the farm holds no tree yet; start a worker that has one (klp-worker tree add --help)".to_owned();
        return Err(violation("codestreams", message));
    }
    let named: Vec<&Platform> = known
        .iter()
        .filter(|p| spec.codestreams.matches(&p.codestream))
        .collect();
    if named.is_empty() {
        let filter = spec.codestreams.as_str();
        let held = list(known.iter().map(|p| p.codestream.to_string()));
        return Err(violation(
            "codestreams",
            format!("no codestream matches `{filter}`; the farm holds: {held}"),
        ));
    }
    let wanted = |p: &Platform| spec.archs.is_empty() || spec.archs.contains(&p.arch);
    let selected: Vec<Platform> = named.iter().copied().filter(|p| wanted(p)).cloned().collect();
    if selected.is_empty() {
        let archs = list(spec.archs.iter().map(ToString::to_string));
        let held = list(named.iter().map(ToString::to_string));
        return Err(violation(
            "archs",
            format!("none of the selected codestreams is held for {archs}; the farm holds: {held}"),
        ));
    }
    Ok(selected)
}

/// Distinct names, as many as a message may list.
pub(super) fn list(names: impl Iterator<Item = String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for name in names {
        // Platforms are sorted, so equal codestreams are neighbours.
        if distinct.last() != Some(&name) {
            distinct.push(name);
        }
    }
    match distinct.len().checked_sub(LISTED) {
        None | Some(0) => distinct.join(", "),
        Some(more) => format!("{} and {more} more", distinct[..LISTED].join(", ")),
    }
}
