//! What a livepatch needs done next. Pure, and the same however often it is asked: planning names tasks by their keys,
//! and the store creates a key once.
//!
//! On each codestream x architecture (a platform) the `check` comes first; when it has succeeded, `extract`. Platforms
//! do not wait for each other, and the failure of one stops no other ([`next`]). When all extractions of a codestream have
//! ended, what each externalizes is looked for on the others, and extracted anew without what is missing somewhere
//! ([`reconcile`]). When nothing is left to do there is a [`verdict`].

mod reconcile;
mod verdict;

use klp_livepatch::CodestreamFilter;
use klp_livepatch::round::Input;
use klp_livepatch::spec::{Backend, Goal, Spec};
use klp_livepatch::task::{Platform, TaskKey, TaskKind};
use serde::{Deserialize, Serialize};

pub use reconcile::{Found, lacking, reconcile, wants_reconciling};
pub use verdict::{Ended, Lacking, Verdict, verdict};

/// What planning asks of a livepatch's spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aim {
    pub goal: Goal,
    pub backend: Backend,
    /// The codestreams that are extracted from, of those that were checked.
    pub codestreams: CodestreamFilter,
}

impl Aim {
    pub fn of(spec: &Spec) -> Self {
        Self {
            goal: spec.goal,
            backend: spec.backend,
            codestreams: CodestreamFilter::all(),
        }
    }

    /// Whether a source is extracted for this platform by itself.
    fn extracts(&self, platform: &Platform) -> bool {
        self.wants_source(platform) && self.backend.extracts(platform.arch)
    }

    /// Whether a source is wanted for this platform, be it another architecture's.
    fn wants_source(&self, platform: &Platform) -> bool {
        self.goal == Goal::Sources && self.codestreams.matches(&platform.codestream)
    }
}

/// A task as far as planning cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub key: TaskKey,
    pub progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Open,
    Succeeded,
    /// A check that succeeded, and found nothing to patch.
    LeftOut,
    Failed,
    Cancelled,
}

/// A task to be created, and what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    pub key: TaskKey,
    pub input: Option<Input>,
}

/// The tasks that should exist on a platform, given those that do. Answers only what is missing.
pub fn next(platform: &Platform, tasks: &[Planned], aim: &Aim) -> Vec<Next> {
    let of_kind = |kind| tasks.iter().find(|t| t.key.kind == kind && t.key.platform == *platform);
    let first = |kind| Next {
        key: TaskKey {
            kind,
            platform: platform.clone(),
            round: 1,
        },
        input: None,
    };
    match (of_kind(TaskKind::Check), of_kind(TaskKind::Extract)) {
        (None, _) => vec![first(TaskKind::Check)],
        (Some(check), None) if check.progress == Progress::Succeeded && aim.extracts(platform) => {
            vec![first(TaskKind::Extract)]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use klp_livepatch::Arch;
    use proptest::prelude::*;

    use super::*;

    pub(super) fn sources() -> Aim {
        Aim {
            goal: Goal::Sources,
            backend: Backend::Native,
            codestreams: CodestreamFilter::all(),
        }
    }

    pub(super) fn platform(n: usize) -> Platform {
        Platform {
            codestream: format!("15.6u{n}").parse().unwrap(),
            arch: Arch::X86_64,
        }
    }

    pub(super) fn task(n: usize, kind: TaskKind, progress: Progress) -> Planned {
        Planned {
            key: TaskKey {
                kind,
                platform: platform(n),
                round: 1,
            },
            progress,
        }
    }

    #[test]
    fn extraction_follows_a_check_that_succeeded_and_only_that() {
        use Progress::{Failed, LeftOut, Open, Succeeded};
        assert_eq!(next(&platform(1), &[], &sources())[0].key.kind, TaskKind::Check);
        assert_eq!(next(&platform(1), &[task(1, TaskKind::Check, Open)], &sources()), []);
        assert_eq!(next(&platform(1), &[task(1, TaskKind::Check, Failed)], &sources()), []);
        assert_eq!(next(&platform(1), &[task(1, TaskKind::Check, LeftOut)], &sources()), []);
        let checked = [task(1, TaskKind::Check, Succeeded)];
        let extract = next(&platform(1), &checked, &sources());
        assert_eq!(extract[0].key, task(1, TaskKind::Extract, Open).key);
        for none in [
            Aim {
                goal: Goal::Checks,
                ..sources()
            },
            Aim {
                codestreams: "15.5".parse().unwrap(),
                ..sources()
            },
        ] {
            assert_eq!(next(&platform(1), &checked, &none), []);
        }
    }

    #[test]
    fn what_a_tool_can_t_read_is_not_extracted() {
        let ccp = Aim {
            backend: Backend::Ccp,
            ..sources()
        };
        let on = |arch| Platform { arch, ..platform(1) };
        let checked = |arch| {
            let mut task = task(1, TaskKind::Check, Progress::Succeeded);
            task.key.platform.arch = arch;
            [task]
        };
        assert_eq!(next(&on(Arch::S390x), &checked(Arch::S390x), &ccp), []);
        assert_eq!(next(&on(Arch::X86_64), &checked(Arch::X86_64), &ccp).len(), 1);
    }

    proptest! {
        /// Play a livepatch to its end with any failures in any order: every platform is checked once, extracted exactly
        /// if its check succeeded, no key is planned twice, and the verdict comes exactly when nothing is left.
        #[test]
        fn every_platform_runs_to_its_own_end(
            platforms in 1..8usize,
            order in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 16),
        ) {
            let mut tasks: Vec<Planned> = Vec::new();
            let plan_all = |tasks: &mut Vec<Planned>| {
                for n in 0..platforms {
                    for Next { key, .. } in next(&platform(n), tasks, &sources()) {
                        assert!(tasks.iter().all(|t| t.key != key), "{key} planned twice");
                        tasks.push(Planned { key, progress: Progress::Open });
                    }
                    assert_eq!(next(&platform(n), tasks, &sources()), []);
                }
            };
            plan_all(&mut tasks);
            for (pick, good) in order {
                let open: Vec<usize> =
                    (0..tasks.len()).filter(|&i| tasks[i].progress == Progress::Open).collect();
                prop_assert_eq!(verdict(&tasks, &sources(), &Lacking::new()).is_some(), open.is_empty());
                if open.is_empty() {
                    break;
                }
                tasks[open[pick.index(open.len())]].progress =
                    if good { Progress::Succeeded } else { Progress::Failed };
                plan_all(&mut tasks);
            }
            let verdict = verdict(&tasks, &sources(), &Lacking::new()).expect("16 endings are enough for 7 platforms");
            let done = tasks.iter().filter(|t| t.key.kind == TaskKind::Extract && t.progress == Progress::Succeeded);
            let expected = match done.count() {
                n if n == platforms => Ended::Succeeded,
                0 => Ended::Failed,
                _ => Ended::Partial,
            };
            prop_assert_eq!(verdict.state, expected);
        }
    }
}
