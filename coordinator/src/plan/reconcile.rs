//! One source for a codestream on all its architectures: what a source externalizes must be there on each of them.
//!
//! A source is extracted on some architectures. The symbols that it needs at run time are looked for (`verify`) on those
//! that do not need them themselves. Where some architecture lacks one, whoever needs it is extracted again with the symbol
//! copied instead, and what the new source needs is looked for in turn. It ends when nothing is missing that was not copied
//! already, or after [`MAX_ROUNDS`].

use std::collections::{BTreeMap, BTreeSet};

use klp_livepatch::Arch;
use klp_livepatch::names::SymbolName;
use klp_livepatch::round::{Input, MAX_ROUNDS, WantedSymbol};
use klp_livepatch::task::{Platform, TaskKey, TaskKind};

use super::{Next, Planned, Progress};

/// What a task that succeeded found, as far as other architectures are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A source, extracted without these symbols, which needs those.
    Source {
        avoided: BTreeSet<SymbolName>,
        wants: BTreeSet<WantedSymbol>,
    },
    /// Which symbols were looked for, and which of them are not there.
    Verified {
        looked_for: BTreeSet<WantedSymbol>,
        missing: BTreeSet<WantedSymbol>,
    },
}

/// Whether the tasks of a codestream are all done that [`super::next`] asks for, so that their findings are worth reading.
pub fn wants_reconciling(tasks: &[Planned]) -> bool {
    let done = |t: &Planned| !matches!(t.progress, Progress::Open | Progress::Cancelled);
    let several = tasks
        .iter()
        .filter(|t| t.key.kind == TaskKind::Check && t.progress == Progress::Succeeded);
    let source = |t: &Planned| t.key.kind == TaskKind::Extract && t.progress == Progress::Succeeded;
    several.count() > 1 && tasks.iter().all(done) && tasks.iter().any(source)
}

/// An architecture of a codestream, whose check succeeded.
#[derive(Default)]
struct Side<'a> {
    /// Of the newest extraction, if it succeeded.
    source: Option<(u32, &'a BTreeSet<SymbolName>, &'a BTreeSet<WantedSymbol>)>,
    /// The newest extraction's round, however it ended.
    extracted: u32,
    looked_for: BTreeSet<&'a WantedSymbol>,
    /// The newest verification's round.
    verified: u32,
    /// Nothing can be looked for here.
    blind: bool,
}

/// The tasks that a codestream needs next, given all its tasks and what those found that succeeded.
pub fn reconcile(tasks: &[Planned], found: &BTreeMap<TaskKey, Found>) -> Vec<Next> {
    let Some(codestream) = tasks.first().map(|t| &t.key.platform.codestream) else {
        return Vec::new();
    };
    let platform = |arch: Arch| Platform {
        codestream: codestream.clone(),
        arch,
    };
    let sides = sides(tasks, found);
    let verify = sides.iter().filter_map(|(arch, side)| {
        let wanted = wanted_here(*arch, side, &sides);
        (!wanted.is_empty()).then(|| Next {
            key: TaskKey {
                kind: TaskKind::Verify,
                platform: platform(*arch),
                round: side.verified + 1,
            },
            input: Some(Input::Verify(wanted)),
        })
    });
    let verify: Vec<Next> = verify.collect();
    if !verify.is_empty() {
        return verify;
    }
    let missing: BTreeSet<&WantedSymbol> = found.values().flat_map(Found::missing).collect();
    let again = sides.iter().filter_map(|(arch, side)| {
        let (round, avoided, wants) = side.source?;
        let lacking = wants.iter().filter(|w| missing.contains(w) && w.can_be_copied());
        let mut avoid: BTreeSet<SymbolName> = lacking.map(|w| w.symbol.clone()).collect();
        avoid.retain(|symbol| !avoided.contains(symbol));
        if avoid.is_empty() || round >= MAX_ROUNDS {
            return None;
        }
        avoid.extend(avoided.iter().cloned());
        Some(Next {
            key: TaskKey {
                kind: TaskKind::Extract,
                platform: platform(*arch),
                round: round + 1,
            },
            input: Some(Input::Avoid(avoid)),
        })
    });
    again.collect()
}

/// How many symbols are missing on each architecture of a codestream that another's source is for, given all its tasks.
pub fn lacking(tasks: &[Planned], found: &BTreeMap<TaskKey, Found>) -> BTreeMap<Arch, usize> {
    let sides = sides(tasks, found);
    // Architectures are ordered by preference: the first source is for all that have none.
    let Some((_, _, wants)) = sides.values().find_map(|side| side.source) else {
        return BTreeMap::new();
    };
    let without = sides.iter().filter(|(_, side)| side.extracted == 0);
    let count = |arch: Arch| {
        let here = found.iter().filter(|(key, _)| key.platform.arch == arch);
        let missing: BTreeSet<&WantedSymbol> = here.flat_map(|(_, found)| found.missing()).collect();
        wants.iter().filter(|w| missing.contains(w)).count()
    };
    let counts = without.map(|(arch, _)| (*arch, count(*arch)));
    counts.filter(|(_, count)| *count > 0).collect()
}

impl Found {
    fn missing(&self) -> &BTreeSet<WantedSymbol> {
        const NONE: &BTreeSet<WantedSymbol> = &BTreeSet::new();
        match self {
            Found::Source { .. } => NONE,
            Found::Verified { missing, .. } => missing,
        }
    }
}

fn sides<'a>(tasks: &[Planned], found: &'a BTreeMap<TaskKey, Found>) -> BTreeMap<Arch, Side<'a>> {
    let checked = tasks
        .iter()
        .filter(|t| t.key.kind == TaskKind::Check && t.progress == Progress::Succeeded);
    let mut sides: BTreeMap<Arch, Side<'a>> = checked.map(|t| (t.key.platform.arch, Side::default())).collect();
    for task in tasks {
        let Some(side) = sides.get_mut(&task.key.platform.arch) else {
            continue;
        };
        let round = task.key.round;
        match (task.key.kind, found.get(&task.key)) {
            (TaskKind::Extract, Some(Found::Source { avoided, wants })) if round > side.extracted => {
                side.extracted = round;
                side.source = Some((round, avoided, wants));
            }
            // A newer one that failed leaves nothing that is worth extracting again.
            (TaskKind::Extract, _) if round > side.extracted => {
                side.extracted = round;
                side.source = None;
            }
            (TaskKind::Verify, Some(Found::Verified { looked_for, .. })) => {
                side.verified = side.verified.max(round);
                side.looked_for.extend(looked_for);
            }
            (TaskKind::Verify, _) => side.blind = true,
            _ => {}
        }
    }
    sides
}

/// What other architectures' sources need that this one's does not, and that was not looked for here.
fn wanted_here(arch: Arch, side: &Side<'_>, sides: &BTreeMap<Arch, Side<'_>>) -> BTreeSet<WantedSymbol> {
    if side.blind {
        return BTreeSet::new();
    }
    let others = sides.iter().filter(|(other, _)| **other != arch);
    let wanted = others
        .filter_map(|(_, other)| other.source)
        .flat_map(|(_, _, wants)| wants);
    let own = |w: &WantedSymbol| side.source.is_some_and(|(_, _, wants)| wants.contains(w));
    wanted
        .filter(|w| !side.looked_for.contains(w) && !own(w))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::sources;
    use super::super::{Aim, next};
    use super::*;
    use klp_livepatch::spec::Backend;

    fn on(arch: Arch) -> Platform {
        Platform {
            codestream: "15.6u1".parse().unwrap(),
            arch,
        }
    }

    fn symbol(name: &str) -> WantedSymbol {
        WantedSymbol {
            object: "vmlinux".parse().unwrap(),
            symbol: name.parse().unwrap(),
            file: "a.c".parse().unwrap(),
        }
    }

    /// A codestream whose sources need symbols, some of which are missing on some architectures; some of those can be
    /// copied, and what is copied may need others.
    #[derive(Clone, Debug, Default)]
    struct Kernel {
        /// What a source needs at first.
        needs: BTreeSet<String>,
        /// What is needed instead of a copied symbol; one that is not here can't be copied.
        copies: BTreeMap<String, BTreeSet<String>>,
        missing: BTreeSet<(Arch, String)>,
    }

    impl Kernel {
        fn source(&self, avoid: &BTreeSet<SymbolName>) -> BTreeSet<WantedSymbol> {
            let mut wanted: Vec<String> = self.needs.iter().cloned().collect();
            let (mut seen, mut kept) = (BTreeSet::new(), BTreeSet::new());
            while let Some(name) = wanted.pop() {
                if !seen.insert(name.clone()) {
                    continue;
                }
                match self.copies.get(&name) {
                    Some(instead) if avoid.iter().any(|a| a.as_str() == name) => wanted.extend(instead.iter().cloned()),
                    _ => drop(kept.insert(symbol(&name))),
                }
            }
            kept
        }

        fn run(&self, next: &Next) -> Option<Found> {
            let arch = next.key.platform.arch;
            match (next.key.kind, &next.input) {
                (TaskKind::Check, _) => None,
                (TaskKind::Extract, input) => {
                    let avoided = match input {
                        Some(Input::Avoid(avoid)) => avoid.clone(),
                        _ => BTreeSet::new(),
                    };
                    let wants = self.source(&avoided);
                    Some(Found::Source { avoided, wants })
                }
                (TaskKind::Verify, Some(Input::Verify(looked_for))) => {
                    let gone = |w: &&WantedSymbol| self.missing.contains(&(arch, w.symbol.to_string()));
                    let missing = looked_for.iter().filter(gone).cloned().collect();
                    let looked_for = looked_for.clone();
                    Some(Found::Verified { looked_for, missing })
                }
                (TaskKind::Verify, _) => panic!("a verify without what is wanted"),
            }
        }
    }

    /// Plays a codestream to its end; answers every task with what it found.
    fn play(kernel: &Kernel, archs: &[Arch], aim: &Aim) -> (Vec<Planned>, BTreeMap<TaskKey, Found>) {
        let (mut tasks, mut found) = (Vec::<Planned>::new(), BTreeMap::new());
        loop {
            let mut todo: Vec<Next> = archs.iter().flat_map(|arch| next(&on(*arch), &tasks, aim)).collect();
            if todo.is_empty() && wants_reconciling(&tasks) {
                todo = reconcile(&tasks, &found);
            }
            if todo.is_empty() {
                return (tasks, found);
            }
            for task in todo {
                assert!(tasks.iter().all(|t| t.key != task.key), "{} planned twice", task.key);
                found.extend(kernel.run(&task).map(|f| (task.key.clone(), f)));
                tasks.push(Planned {
                    key: task.key,
                    progress: Progress::Succeeded,
                });
            }
        }
    }

    fn names(tasks: &[Planned]) -> Vec<String> {
        tasks
            .iter()
            .map(|t| format!("{} {} {}", t.key.kind, t.key.platform.arch, t.key.round))
            .collect()
    }

    const THREE: [Arch; 3] = [Arch::X86_64, Arch::S390x, Arch::Ppc64le];

    #[test]
    fn a_symbol_that_one_architecture_lacks_is_copied_in_a_second_round() {
        let kernel = Kernel {
            needs: ["f".to_owned(), "g".to_owned()].into(),
            copies: [("f".to_owned(), ["h".to_owned()].into())].into(),
            missing: [(Arch::S390x, "f".to_owned())].into(),
        };
        let ccp = Aim {
            backend: Backend::Ccp,
            ..sources()
        };
        let (tasks, found) = play(&kernel, &THREE, &ccp);
        assert_eq!(
            names(&tasks)[3..],
            [
                "extract x86_64 1",
                "verify s390x 1",
                "verify ppc64le 1",
                "extract x86_64 2",
                "verify s390x 2",
                "verify ppc64le 2"
            ]
        );
        let last = tasks.iter().rev().find(|t| t.key.kind == TaskKind::Verify).unwrap();
        let Found::Verified { looked_for, .. } = &found[&last.key] else {
            panic!()
        };
        assert_eq!(
            *looked_for,
            [symbol("h")].into(),
            "what was looked for is not looked for again"
        );
        assert_eq!(lacking(&tasks, &found), BTreeMap::new(), "f is not needed any more");
    }

    #[test]
    fn where_all_is_there_or_nothing_can_be_copied_it_ends() {
        let fine = Kernel {
            needs: ["f".to_owned()].into(),
            ..Default::default()
        };
        // With native each architecture's own source needs the same, so that there is nothing to look for.
        assert_eq!(names(&play(&fine, &THREE, &sources()).0).len(), 6);
        let lost = Kernel {
            missing: [(Arch::S390x, "f".to_owned())].into(),
            ..fine.clone()
        };
        let ccp = Aim {
            backend: Backend::Ccp,
            ..sources()
        };
        // Tried once, in vain: it stays externalized, and is not tried again.
        let (tasks, found) = play(&lost, &THREE, &ccp);
        let rounds = tasks.iter().filter(|t| t.key.kind == TaskKind::Extract).count();
        assert_eq!(rounds, 2);
        assert_eq!(lacking(&tasks, &found), [(Arch::S390x, 1)].into());
        let made = Kernel {
            needs: ["__SCT__f".to_owned()].into(),
            missing: [(Arch::S390x, "__SCT__f".to_owned())].into(),
            ..Default::default()
        };
        let tasks = play(&made, &THREE, &ccp).0;
        assert_eq!(tasks.iter().filter(|t| t.key.kind == TaskKind::Extract).count(), 1);
    }

    #[test]
    fn one_architecture_alone_has_nothing_to_reconcile() {
        let kernel = Kernel {
            needs: ["f".to_owned()].into(),
            ..Default::default()
        };
        assert_eq!(
            names(&play(&kernel, &THREE[..1], &sources()).0),
            ["check x86_64 1", "extract x86_64 1"]
        );
    }

    proptest! {
        /// However symbols depend on each other and wherever they are missing: it ends, within the bound, and then no
        /// source needs anything that is missing somewhere, unless it can't be copied or the rounds are used up.
        #[test]
        fn it_ends_with_as_little_missing_as_can_be(
            needs in prop::collection::btree_set("[a-h]", 1..4),
            copies in prop::collection::btree_map("[a-h]", prop::collection::btree_set("[a-h]", 0..3), 0..8),
            missing in prop::collection::btree_set((prop::sample::select(&THREE[..]), "[a-h]"), 0..8),
            ccp in any::<bool>(),
        ) {
            let kernel = Kernel { needs, copies, missing };
            let aim = if ccp { Aim { backend: Backend::Ccp, ..sources() } } else { sources() };
            let (tasks, found) = play(&kernel, &THREE, &aim);
            let rounds = tasks.iter().map(|t| t.key.round).max().unwrap_or(0);
            prop_assert!(rounds <= MAX_ROUNDS * 3, "{:?}", names(&tasks));
            for arch in THREE {
                let newest = tasks.iter().filter(|t| t.key.kind == TaskKind::Extract && t.key.platform.arch == arch);
                let Some(newest) = newest.max_by_key(|t| t.key.round) else { continue };
                let Found::Source { avoided, wants } = &found[&newest.key] else { panic!() };
                for wanted in wants {
                    // A source's own architecture is asked by its own extraction, not here.
                    let lacking = THREE.into_iter().any(|a| {
                        let own = tasks.iter().any(|t| t.key.kind == TaskKind::Extract && t.key.platform.arch == a);
                        !own && kernel.missing.contains(&(a, wanted.symbol.to_string()))
                    });
                    prop_assert!(
                        !lacking || avoided.contains(&wanted.symbol) || newest.key.round == MAX_ROUNDS,
                        "{wanted:?} of {:?}", names(&tasks)
                    );
                }
            }
        }
    }
}
