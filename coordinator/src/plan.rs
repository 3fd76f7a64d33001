//! What a livepatch needs done next. Pure, and the same however often it is asked: planning names tasks by their keys,
//! and the store creates a key once.
//!
//! On each codestream x architecture (a platform) the `check` comes first; when it has succeeded, `extract`. Platforms
//! do not wait for each other, and the failure of one stops no other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use klp_livepatch::task::{Platform, TaskKey, TaskKind};

/// How many platforms a verdict names.
const NAMED: usize = 5;

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
    Failed,
    Cancelled,
}

/// How a livepatch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub state: Ended,
    /// A sentence for people.
    pub sentence: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every platform succeeded.
    Succeeded,
    /// Some did.
    Partial,
    /// None did.
    Failed,
    /// A user cancelled what was left of it.
    Cancelled,
}

/// The tasks that should exist on a platform, given those that do. Answers only what is missing.
pub fn next(platform: &Platform, tasks: &[Planned]) -> Vec<TaskKey> {
    let of_kind = |kind| tasks.iter().find(|t| t.key.kind == kind && t.key.platform == *platform);
    let first = |kind| TaskKey {
        kind,
        platform: platform.clone(),
        round: 1,
    };
    match (of_kind(TaskKind::Check), of_kind(TaskKind::Extract)) {
        (None, _) => vec![first(TaskKind::Check)],
        (Some(check), None) if check.progress == Progress::Succeeded => vec![first(TaskKind::Extract)],
        _ => Vec::new(),
    }
}

/// The verdict over all of a livepatch's tasks; `None` while one is open or is still to be created.
pub fn verdict(tasks: &[Planned]) -> Option<Verdict> {
    let mut by_platform: BTreeMap<&Platform, Vec<Planned>> = BTreeMap::new();
    for task in tasks {
        by_platform.entry(&task.key.platform).or_default().push(task.clone());
    }
    let mut failed = Vec::new();
    let mut cancelled = 0;
    for (platform, tasks) in &by_platform {
        if tasks.iter().any(|t| t.progress == Progress::Open) || !next(platform, tasks).is_empty() {
            return None;
        }
        if let Some(task) = tasks.iter().find(|t| t.progress == Progress::Failed) {
            failed.push(format!("{platform} ({})", task.key.kind));
        } else if tasks.iter().any(|t| t.progress == Progress::Cancelled) {
            cancelled += 1;
        }
    }
    let total = by_platform.len();
    if cancelled > 0 {
        let (succeeded, failed) = (total - cancelled - failed.len(), failed.len());
        return Some(Verdict {
            state: Ended::Cancelled,
            sentence: format!(
                "cancelled: of {total} codestreams x architectures {succeeded} had succeeded and {failed} failed"
            ),
        });
    }
    let state = match failed.len() {
        0 => Ended::Succeeded,
        n if n < total => Ended::Partial,
        _ => Ended::Failed,
    };
    Some(Verdict {
        state,
        sentence: sentence(total, &failed),
    })
}

fn sentence(total: usize, failed: &[String]) -> String {
    let succeeded = total - failed.len();
    let mut text = match (succeeded, total) {
        (1, 1) => "the one codestream x architecture succeeded".to_owned(),
        (_, _) if failed.is_empty() => format!("all {total} codestreams x architectures succeeded"),
        _ => format!("{succeeded} of {total} codestreams x architectures succeeded; failed: "),
    };
    text.push_str(&failed[..failed.len().min(NAMED)].join(", "));
    if failed.len() > NAMED {
        // Writing to a String can't fail.
        let _ = write!(text, " and {} more", failed.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use klp_livepatch::Arch;
    use proptest::prelude::*;

    use super::*;

    fn platform(n: usize) -> Platform {
        Platform {
            codestream: format!("15.6u{n}").parse().unwrap(),
            arch: Arch::X86_64,
        }
    }

    fn task(n: usize, kind: TaskKind, progress: Progress) -> Planned {
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
        use Progress::{Failed, Open, Succeeded};
        assert_eq!(next(&platform(1), &[])[0].kind, TaskKind::Check);
        assert_eq!(next(&platform(1), &[task(1, TaskKind::Check, Open)]), []);
        assert_eq!(next(&platform(1), &[task(1, TaskKind::Check, Failed)]), []);
        let extract = next(&platform(1), &[task(1, TaskKind::Check, Succeeded)]);
        assert_eq!(extract, [task(1, TaskKind::Extract, Open).key]);
    }

    fn good(n: usize) -> [Planned; 2] {
        [TaskKind::Check, TaskKind::Extract].map(|kind| task(n, kind, Progress::Succeeded))
    }

    #[test]
    fn verdicts_count_and_name_what_failed() {
        use Progress::{Failed, Succeeded};
        let one = verdict(&good(1)).unwrap();
        assert_eq!(one.sentence, "the one codestream x architecture succeeded");
        let all = verdict(&[good(1), good(2)].concat()).unwrap();
        assert_eq!(all.state, Ended::Succeeded);
        assert_eq!(all.sentence, "all 2 codestreams x architectures succeeded");

        let mut tasks = good(1).to_vec();
        tasks.push(task(2, TaskKind::Check, Failed));
        let some = verdict(&tasks).unwrap();
        assert_eq!(some.state, Ended::Partial);
        assert_eq!(
            some.sentence,
            "1 of 2 codestreams x architectures succeeded; failed: 15.6u2/x86_64 (check)"
        );

        let none = |of| verdict(&Vec::from_iter((0..of).map(|n| task(n, TaskKind::Check, Failed)))).unwrap();
        assert_eq!(none(8).state, Ended::Failed);
        assert!(
            none(8).sentence.ends_with("15.6u4/x86_64 (check) and 3 more"),
            "{}",
            none(8).sentence
        );
        assert!(
            none(5).sentence.ends_with("15.6u4/x86_64 (check)"),
            "{}",
            none(5).sentence
        );

        // The extraction is not there yet, so nothing has ended.
        assert_eq!(verdict(&[task(1, TaskKind::Check, Succeeded)]), None);
    }

    #[test]
    fn cancelling_leaves_what_had_ended() {
        use Progress::{Cancelled, Failed, Succeeded};
        let mut tasks = [good(1), good(2)].concat();
        tasks.push(task(3, TaskKind::Check, Succeeded));
        tasks.push(task(3, TaskKind::Extract, Cancelled));
        tasks.push(task(4, TaskKind::Check, Cancelled));
        tasks.push(task(5, TaskKind::Check, Failed));
        let rest = verdict(&tasks).unwrap();
        assert_eq!(rest.state, Ended::Cancelled);
        assert_eq!(
            rest.sentence,
            "cancelled: of 5 codestreams x architectures 2 had succeeded and 1 failed"
        );
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
                    for key in next(&platform(n), tasks) {
                        assert!(tasks.iter().all(|t| t.key != key), "{key} planned twice");
                        tasks.push(Planned { key, progress: Progress::Open });
                    }
                    assert_eq!(next(&platform(n), tasks), []);
                }
            };
            plan_all(&mut tasks);
            for (pick, good) in order {
                let open: Vec<usize> =
                    (0..tasks.len()).filter(|&i| tasks[i].progress == Progress::Open).collect();
                prop_assert_eq!(verdict(&tasks).is_some(), open.is_empty());
                if open.is_empty() {
                    break;
                }
                tasks[open[pick.index(open.len())]].progress =
                    if good { Progress::Succeeded } else { Progress::Failed };
                plan_all(&mut tasks);
            }
            let verdict = verdict(&tasks).expect("16 endings are enough for 7 platforms");
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
