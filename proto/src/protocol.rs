//! Which programs can talk to each other: the versions of the session's protocol, and how far apart software versions may be.
//!
//! **Software versions** are told and compared, and decide nothing. Coordinator and workers one minor version apart, either
//! way, are supported: they speak a protocol in common, and are tried together (`deploy/try-upgrade.sh`).
//!
//! **The protocol** is all of `worker.proto`. Its version is counted up only by what the other side must know to act
//! right:
//!
//! - A field, a method or a value that the other side may ignore needs no new version: that is the rule, and how it is made so
//!   is by a default that means "as before".
//! - What it must not ignore, or a changed meaning of what there is, makes a new version N: [`SPOKEN`]'s newest becomes N, and
//!   each side goes on as before with whoever has agreed on less.
//! - The oldest is counted up two minor versions after its successor came, at the earliest, so that neighbours always have
//!   a version in common. Only then may code for it go.
//! - `Protocol`, `WorkerState.protocol`, `WorkerState.version`, `FarmState.protocol` and `FarmState.version` never change.

use std::fmt;

use klp_livepatch::spec::Violation;
use semver::Version;

use crate::v1;

/// What this program speaks.
pub const SPOKEN: Range = Range { oldest: 1, newest: 1 };

/// The only version that programs speak which don't say what they do.
const UNSAID: u32 = 1;

/// This program's software version: one for the whole workspace.
pub const SOFTWARE: &str = env!("CARGO_PKG_VERSION");

/// The name under which an answer's metadata tell the coordinator's software version.
pub const VERSION_HEADER: &str = "klp-farm-version";

/// Versions of the protocol, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    oldest: u32,
    newest: u32,
}

impl Range {
    /// `None`: there is nothing between these.
    pub const fn new(oldest: u32, newest: u32) -> Option<Self> {
        match oldest <= newest {
            true => Some(Self { oldest, newest }),
            false => None,
        }
    }

    pub fn holds(self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }

    /// The version that two programs talk in; `None`: they can't.
    pub fn in_common(self, other: Range) -> Option<u32> {
        Some(self.newest.min(other.newest)).filter(|version| self.holds(*version) && other.holds(*version))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest == self.newest {
            true => write!(f, "{}", self.oldest),
            false => write!(f, "{} to {}", self.oldest, self.newest),
        }
    }
}

impl From<Range> for v1::Protocol {
    fn from(Range { oldest, newest }: Range) -> Self {
        v1::Protocol { oldest, newest }
    }
}

/// What a program says that it speaks.
impl TryFrom<Option<v1::Protocol>> for Range {
    type Error = Violation;

    fn try_from(said: Option<v1::Protocol>) -> Result<Self, Violation> {
        let v1::Protocol { oldest, newest } = said.unwrap_or(v1::Protocol {
            oldest: UNSAID,
            newest: UNSAID,
        });
        Range::new(oldest, newest).ok_or_else(|| Violation {
            field: "protocol".to_owned(),
            message: format!("the oldest version, {oldest}, is newer than the newest, {newest}"),
        })
    }
}

/// What a coordinator answers with where nothing is in common, or what a worker tells of its coordinator: why they can't talk, and
/// what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "coordinator and worker have no session protocol in common: the coordinator ({coordinator}) speaks version {spoken}, worker \
     `{worker}` ({software}) version {heard}. Upgrade the {behind}: they may be one minor version apart, no more"
)]
pub struct Apart {
    coordinator: String,
    spoken: Range,
    worker: String,
    software: String,
    heard: Range,
    behind: &'static str,
}

impl Apart {
    fn new(coordinator: &str, spoken: Range, worker: Worker<'_>) -> Self {
        let said = |version: &str| match version {
            "" => "of a version that it does not say".to_owned(),
            version => version.to_owned(),
        };
        Self {
            coordinator: said(coordinator),
            spoken,
            worker: worker.name.to_owned(),
            software: said(worker.version),
            heard: worker.speaks,
            behind: match spoken.newest < worker.speaks.oldest {
                true => "coordinator",
                false => "worker",
            },
        }
    }
}

/// A worker as far as this is about it.
#[derive(Clone, Copy, Debug)]
pub struct Worker<'a> {
    pub name: &'a str,
    /// Its software version, as it said.
    pub version: &'a str,
    pub speaks: Range,
}

/// The coordinator decides: the version to talk in with this worker.
///
/// # Errors
/// There is none.
pub fn negotiate(coordinator: Range, worker: Worker<'_>) -> Result<u32, Apart> {
    let common = coordinator.in_common(worker.speaks);
    common.ok_or_else(|| Apart::new(SOFTWARE, coordinator, worker))
}

/// The worker checks what the coordinator decided; the version that they talk in.
///
/// # Errors
/// The worker does not speak it: it talks to a coordinator that does not negotiate, or decides wrongly.
pub fn accept(worker: Worker<'_>, farm: &v1::FarmState) -> Result<u32, Apart> {
    let chosen = match farm.protocol {
        0 => UNSAID,
        said => said,
    };
    match worker.speaks.holds(chosen) {
        true => Ok(chosen),
        false => Err(Apart::new(
            &farm.version,
            Range {
                oldest: chosen,
                newest: chosen,
            },
            worker,
        )),
    }
}

/// How a program's version compares with the coordinator's.
pub fn skew(program: &str, coordinator: &str) -> v1::Skew {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let (Ok(own), Ok(other)) = (Version::parse(program), Version::parse(coordinator)) else {
        return v1::Skew::Unspecified;
    };
    let supported = own.major == other.major && own.minor.abs_diff(other.minor) <= 1;
    match (own.cmp_precedence(&other), supported) {
        (Equal, _) => v1::Skew::Same,
        (Less, true) => v1::Skew::Older,
        (Less, false) => v1::Skew::TooOld,
        (Greater, true) => v1::Skew::Newer,
        (Greater, false) => v1::Skew::TooNew,
    }
}

/// What to make of it that the coordinator has not got what a client of our version asks for.
pub fn not_there(coordinator: Option<&str>, what: &str) -> String {
    let named = coordinator.map(|version| format!(" ({version})")).unwrap_or_default();
    let (than, what_to_do) = match coordinator.map(|version| skew(version, SOFTWARE)) {
        Some(v1::Skew::Newer | v1::Skew::TooNew) => ("newer than", "upgrade klp-farm"),
        Some(v1::Skew::Same) => ("another build than", "install both from one release"),
        _ => ("older than", "upgrade it"),
    };
    format!("the coordinator{named} is {than} this klp-farm ({SOFTWARE}) and does not know {what}; {what_to_do}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(oldest: u32, newest: u32) -> Range {
        Range::new(oldest, newest).unwrap()
    }

    fn worker(speaks: Range) -> Worker<'static> {
        Worker {
            name: "build7",
            version: "0.9.0",
            speaks,
        }
    }

    #[test]
    fn the_highest_common_version_counts_whoever_asks() {
        let all: Vec<Range> = (0..6)
            .flat_map(|oldest| (oldest..6).map(move |newest| range(oldest, newest)))
            .collect();
        for one in &all {
            for other in &all {
                let both = (0..6).rev().find(|v| one.holds(*v) && other.holds(*v));
                assert_eq!(one.in_common(*other), both, "{one} and {other}");
                assert_eq!(other.in_common(*one), both, "{other} and {one}");
                assert_eq!(negotiate(*one, worker(*other)).ok(), both);
            }
        }
        assert_eq!(Range::new(2, 1), None);
    }

    #[test]
    fn whoever_says_nothing_speaks_version_1() {
        assert_eq!(Range::try_from(None).unwrap(), range(1, 1));
        let said = |oldest, newest| Range::try_from(Some(v1::Protocol { oldest, newest }));
        assert_eq!(said(0, 0).unwrap(), range(0, 0));
        assert_eq!(said(u32::MAX, u32::MAX).unwrap(), range(u32::MAX, u32::MAX));
        assert_eq!(said(3, 2).unwrap_err().field, "protocol");
        assert!(
            SPOKEN.holds(1),
            "farms of the first version are still about: count it up with them in mind"
        );
    }

    #[test]
    fn who_can_t_talk_is_told_which_side_to_upgrade() {
        let refused = |speaks| negotiate(range(2, 3), worker(speaks)).unwrap_err().to_string();
        assert_eq!(
            refused(range(4, 5)),
            format!(
                "coordinator and worker have no session protocol in common: the coordinator ({SOFTWARE}) speaks version 2 to 3, \
                 worker `build7` (0.9.0) version 4 to 5. Upgrade the coordinator: they may be one minor version apart, no more"
            )
        );
        assert!(refused(range(0, 1)).contains("Upgrade the worker"));
    }

    #[test]
    fn a_worker_takes_only_what_it_speaks() {
        let farm = |protocol| v1::FarmState {
            protocol,
            version: "0.9.9".to_owned(),
            ..Default::default()
        };
        assert_eq!(accept(worker(range(1, 2)), &v1::FarmState::default()), Ok(1));
        assert_eq!(accept(worker(range(1, 2)), &farm(2)), Ok(2));
        let newer = accept(worker(range(1, 2)), &farm(3)).unwrap_err().to_string();
        assert!(
            newer.contains("(0.9.9) speaks version 3") && newer.contains("Upgrade the worker"),
            "{newer}"
        );
        // A coordinator of before, and a worker that left version 1 behind.
        let older = accept(worker(range(2, 3)), &v1::FarmState::default());
        let older = older.unwrap_err().to_string();
        assert!(
            older.contains("does not say") && older.contains("Upgrade the coordinator"),
            "{older}"
        );
    }

    #[test]
    fn one_minor_version_apart_is_supported() {
        use v1::Skew::{Newer, Older, Same, TooNew, TooOld, Unspecified};
        for (program, coordinator, expected) in [
            ("0.2.0", "0.2.0", Same),
            ("0.2.0+build.1", "0.2.0", Same),
            ("0.2.0", "0.2.1", Older),
            ("0.2.0-rc.1", "0.2.0", Older),
            ("0.2.9", "0.3.0", Older),
            ("0.3.0", "0.2.9", Newer),
            ("0.1.9", "0.3.0", TooOld),
            ("0.3.0", "0.1.0", TooNew),
            ("1.0.0", "0.9.0", TooNew),
            ("0.10.0", "0.9.0", Newer),
            ("", "0.9.0", Unspecified),
            ("soon", "0.9.0", Unspecified),
            ("0.9.0", "", Unspecified),
        ] {
            assert_eq!(skew(program, coordinator), expected, "{program} beside {coordinator}");
        }
    }

    #[test]
    fn who_asks_for_what_is_not_there_is_told_what_to_upgrade() {
        let told = |coordinator| not_there(coordinator, "this");
        assert_eq!(
            told(Some("0.0.1")),
            format!(
                "the coordinator (0.0.1) is older than this klp-farm ({SOFTWARE}) and does not know this; upgrade it"
            )
        );
        assert!(told(None).starts_with("the coordinator is older than"));
        assert!(
            told(Some("99.0.0")).contains("(99.0.0) is newer than")
                && told(Some("99.0.0")).ends_with("upgrade klp-farm")
        );
        assert!(told(Some(SOFTWARE)).contains("another build"));
    }
}
