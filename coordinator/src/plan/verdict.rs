//! How a livepatch ended: the count of its platforms, and the names of those that a person must look at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use klp_livepatch::spec::Goal;
use klp_livepatch::task::{Platform, TaskKind};
use klp_livepatch::words::platforms;

use super::{Aim, Planned, Progress, next};

/// How many platforms a verdict names.
const NAMED: usize = 5;

/// How a livepatch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub state: Ended,
    /// A sentence for people.
    pub sentence: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every platform succeeded, but for those that need no livepatch.
    Succeeded,
    /// Some did.
    Partial,
    /// None did.
    Failed,
    /// A user cancelled what was left of it.
    Cancelled,
}

/// How one platform ended.
enum End {
    Succeeded,
    LeftOut,
    /// With what did not succeed.
    Failed(String),
    Cancelled,
}

/// Platforms that another architecture's source is for, and how many of the symbols that it needs are missing there.
pub type Lacking = BTreeMap<Platform, usize>;

/// The verdict over all of a livepatch's tasks; `None` while one is open or is still to be created.
pub fn verdict(tasks: &[Planned], aim: &Aim, lacking: &Lacking) -> Option<Verdict> {
    let mut by_platform: BTreeMap<&Platform, Vec<Planned>> = BTreeMap::new();
    for task in tasks {
        by_platform.entry(&task.key.platform).or_default().push(task.clone());
    }
    let extracted = tasks.iter().filter(|t| t.key.kind == TaskKind::Extract);
    let extracted: BTreeSet<_> = extracted.map(|t| &t.key.platform.codestream).collect();
    let mut ends = Vec::with_capacity(by_platform.len());
    for (platform, tasks) in by_platform {
        if tasks.iter().any(|t| t.progress == Progress::Open) || !next(platform, &tasks, aim).is_empty() {
            return None;
        }
        let sourceless = aim.wants_source(platform) && !extracted.contains(&platform.codestream);
        ends.push((
            platform,
            match end(&tasks, sourceless, aim) {
                End::Succeeded if aim.wants_source(platform) => loads(lacking.get(platform).copied().unwrap_or(0)),
                end => end,
            },
        ));
    }
    Some(over(&ends, aim))
}

/// How a platform ended; `sourceless` says that a source is wanted and no architecture of its codestream gave one.
fn end(tasks: &[Planned], sourceless: bool, aim: &Aim) -> End {
    let with = |progress| tasks.iter().find(|t| t.progress == progress);
    if let Some(task) = with(Progress::Failed) {
        let round = match task.key.round {
            1 => String::new(),
            n => format!(" round {n}"),
        };
        End::Failed(format!("{}{round}", task.key.kind))
    } else if with(Progress::Cancelled).is_some() {
        End::Cancelled
    } else if with(Progress::LeftOut).is_some() {
        End::LeftOut
    } else if sourceless {
        End::Failed(format!("no source: {} can't extract from it", aim.backend))
    } else {
        End::Succeeded
    }
}

/// Whether a source loads that needs so many symbols which are not there.
fn loads(missing: usize) -> End {
    match missing {
        0 => End::Succeeded,
        1 => End::Failed("a symbol that the source needs is missing".to_owned()),
        n => End::Failed(format!("{n} symbols that the source needs are missing")),
    }
}

fn over(ends: &[(&Platform, End)], aim: &Aim) -> Verdict {
    let count = |is: fn(&End) -> bool| ends.iter().filter(|(_, end)| is(end)).count();
    let succeeded = count(|end| matches!(end, End::Succeeded));
    let cancelled = count(|end| matches!(end, End::Cancelled));
    let failed = count(|end| matches!(end, End::Failed(_)));
    let total = ends.len();
    if cancelled > 0 {
        return Verdict {
            state: Ended::Cancelled,
            sentence: format!(
                "cancelled: of {} {succeeded} had succeeded and {failed} failed",
                platforms(total)
            ),
        };
    }
    if succeeded == 0 && failed == 0 {
        return Verdict {
            state: Ended::Failed,
            sentence: format!(
                "nothing to patch: none of {} is built with what the livepatch names",
                platforms(total)
            ),
        };
    }
    let state = match (failed, succeeded) {
        (0, _) => Ended::Succeeded,
        (_, 0) => Ended::Failed,
        _ => Ended::Partial,
    };
    Verdict {
        state,
        sentence: sentence(ends, succeeded, failed, aim),
    }
}

fn sentence(ends: &[(&Platform, End)], succeeded: usize, failed: usize, aim: &Aim) -> String {
    let wanted = succeeded + failed;
    let done = match aim.goal {
        Goal::Checks => "can be patched",
        Goal::Sources => "succeeded",
    };
    let mut text = match (succeeded, wanted) {
        (1, 1) => format!("the one codestream x architecture {done}"),
        (_, _) if failed == 0 => format!("all {} {done}", platforms(wanted)),
        _ => format!("{succeeded} of {} {done}; failed: ", platforms(wanted)),
    };
    let why = |(platform, end): &(&Platform, End)| match end {
        End::Failed(why) => Some(format!("{platform} ({why})")),
        _ => None,
    };
    name(&mut text, ends.iter().filter_map(why).collect());
    let left_out = ends.iter().filter(|(_, end)| matches!(end, End::LeftOut));
    let left_out: Vec<String> = left_out.map(|(platform, _)| platform.to_string()).collect();
    if !left_out.is_empty() {
        text.push_str("; not built there, so left out: ");
        name(&mut text, left_out);
    }
    text
}

/// Appends the first names, and how many more there are.
fn name(text: &mut String, names: Vec<String>) {
    text.push_str(&names[..names.len().min(NAMED)].join(", "));
    if names.len() > NAMED {
        // Writing to a String can't fail.
        let _ = write!(text, " and {} more", names.len() - NAMED);
    }
}

#[cfg(test)]
mod tests {
    use klp_livepatch::spec::Backend;

    use super::super::tests::{platform, sources, task};
    use super::*;

    fn good(n: usize) -> [Planned; 2] {
        [TaskKind::Check, TaskKind::Extract].map(|kind| task(n, kind, Progress::Succeeded))
    }

    #[test]
    fn verdicts_count_and_name_what_failed() {
        use Progress::{Failed, Succeeded};
        let one = verdict(&good(1), &sources(), &Lacking::new()).unwrap();
        assert_eq!(one.sentence, "the one codestream x architecture succeeded");
        let all = verdict(&[good(1), good(2)].concat(), &sources(), &Lacking::new()).unwrap();
        assert_eq!(all.state, Ended::Succeeded);
        assert_eq!(all.sentence, "all 2 codestreams x architectures succeeded");

        let mut tasks = good(1).to_vec();
        tasks.push(task(2, TaskKind::Check, Failed));
        let some = verdict(&tasks, &sources(), &Lacking::new()).unwrap();
        assert_eq!(some.state, Ended::Partial);
        assert_eq!(
            some.sentence,
            "1 of 2 codestreams x architectures succeeded; failed: 15.6u2/x86_64 (check)"
        );

        let none = |of| {
            verdict(
                &Vec::from_iter((0..of).map(|n| task(n, TaskKind::Check, Failed))),
                &sources(),
                &Lacking::new(),
            )
            .unwrap()
        };
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
        assert_eq!(
            verdict(&[task(1, TaskKind::Check, Succeeded)], &sources(), &Lacking::new()),
            None
        );
    }

    #[test]
    fn cancelling_leaves_what_had_ended() {
        use Progress::{Cancelled, Failed, Succeeded};
        let mut tasks = [good(1), good(2)].concat();
        tasks.push(task(3, TaskKind::Check, Succeeded));
        tasks.push(task(3, TaskKind::Extract, Cancelled));
        tasks.push(task(4, TaskKind::Check, Cancelled));
        tasks.push(task(5, TaskKind::Check, Failed));
        let rest = verdict(&tasks, &sources(), &Lacking::new()).unwrap();
        assert_eq!(rest.state, Ended::Cancelled);
        assert_eq!(
            rest.sentence,
            "cancelled: of 5 codestreams x architectures 2 had succeeded and 1 failed"
        );
    }

    #[test]
    fn what_needs_no_livepatch_is_no_failure() {
        let mut tasks = good(1).to_vec();
        tasks.push(task(2, TaskKind::Check, Progress::LeftOut));
        let some = verdict(&tasks, &sources(), &Lacking::new()).unwrap();
        assert_eq!(some.state, Ended::Succeeded);
        assert_eq!(
            some.sentence,
            "the one codestream x architecture succeeded; not built there, so left out: 15.6u2/x86_64"
        );
        let none = verdict(&tasks[2..], &sources(), &Lacking::new()).unwrap();
        assert_eq!(none.state, Ended::Failed);
        assert!(
            none.sentence.starts_with("nothing to patch: none of 1"),
            "{}",
            none.sentence
        );
    }

    #[test]
    fn checks_alone_are_a_livepatchs_end_if_no_more_was_asked() {
        let tasks = [task(1, TaskKind::Check, Progress::Succeeded)];
        let checks = Aim {
            goal: Goal::Checks,
            ..sources()
        };
        let checked = verdict(&tasks, &checks, &Lacking::new()).unwrap();
        assert_eq!(checked.sentence, "the one codestream x architecture can be patched");
    }

    #[test]
    fn a_codestream_that_no_tool_reads_has_no_source() {
        let mut on_s390x = task(1, TaskKind::Check, Progress::Succeeded);
        on_s390x.key.platform.arch = klp_livepatch::Arch::S390x;
        let ccp = Aim {
            backend: Backend::Ccp,
            ..sources()
        };
        let alone = verdict(std::slice::from_ref(&on_s390x), &ccp, &Lacking::new()).unwrap();
        assert_eq!(alone.state, Ended::Failed);
        assert!(
            alone.sentence.contains("15.6u1/s390x (no source: ccp can't"),
            "{}",
            alone.sentence
        );
        let beside = [good(1).to_vec(), vec![on_s390x]].concat();
        assert_eq!(verdict(&beside, &ccp, &Lacking::new()).unwrap().state, Ended::Succeeded);
        let lacking = Lacking::from([(beside[2].key.platform.clone(), 2)]);
        let some = verdict(&beside, &ccp, &lacking).unwrap();
        assert_eq!(some.state, Ended::Partial);
        assert!(
            some.sentence
                .ends_with("15.6u1/s390x (2 symbols that the source needs are missing)"),
            "{}",
            some.sentence
        );
        assert_eq!(platform(1).arch, klp_livepatch::Arch::X86_64);
    }
}
