//! Group compression: what is written is read back, by us and by klp-build's rule.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::suse::tests::any_name;

fn cs(names: &[&str]) -> Vec<Codestream> {
    names.iter().map(|n| n.parse().unwrap()).collect()
}

/// What klp-build reads from a group's line: it looks anywhere in the line for one or two
/// digits, a dot, one digit, perhaps `rt`, `u`, one or two digits, perhaps a dash, perhaps one or two digits; gives up when
/// there are not as many of these as words; and keeps the known codestreams of all numbers from the one to the other.
fn klp_build_reads(line: &str, known: &[Codestream]) -> Option<BTreeSet<Codestream>> {
    let digits = |text: &str, most: usize| text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let mut found = Vec::new();
    let mut rest = line;
    'search: while !rest.is_empty() {
        // One regular expression's greedy match here, with fewer digits of the first number if that is what it takes.
        for major in (1..=digits(rest, 2)).rev() {
            let Some(after) = rest[major..].strip_prefix('.') else {
                continue;
            };
            if digits(after, 1) == 0 {
                continue;
            }
            let after = &after[1..];
            let (rt, after) = after.strip_prefix("rt").map_or(("", after), |after| ("rt", after));
            let Some(after) = after.strip_prefix('u') else { continue };
            let update = digits(after, 2);
            if update == 0 {
                continue;
            }
            let (first, after) = after.split_at(update);
            let base = format!("{}{rt}u", &rest[..major + 2]);
            let after = after.strip_prefix('-').unwrap_or(after);
            let (last, after) = after.split_at(digits(after, 2));
            found.push((base, first, last));
            rest = after;
            continue 'search;
        }
        let mut chars = rest.chars();
        chars.next();
        rest = chars.as_str();
    }
    if found.is_empty() || found.len() != line.split_whitespace().count() {
        return None;
    }
    let mut names = BTreeSet::new();
    for (base, first, last) in found {
        if last.is_empty() {
            names.insert(format!("{base}{first}"));
        } else {
            let (first, last): (u32, u32) = (first.parse().unwrap(), last.parse().unwrap());
            names.extend((first..=last).map(|update| format!("{base}{update}")));
        }
    }
    Some(known.iter().filter(|c| names.contains(c.as_str())).cloned().collect())
}

#[test]
fn the_oracle_has_klp_builds_defects() {
    let known = cs(&[
        "15.3u1", "15.3u2", "15.3u10", "15.3u11", "15.3u100", "15.3u101", "16.1u0", "16.10u1",
    ]);
    assert_eq!(klp_build_reads("15.3u100-101", &known), Some(BTreeSet::new()));
    assert_eq!(klp_build_reads("16.10u1", &known), None);
    let reads = |line| klp_build_reads(line, &known).unwrap().into_iter().collect::<Vec<_>>();
    assert_eq!(reads("15.3u1-2 15.3u10"), cs(&["15.3u1", "15.3u2", "15.3u10"]));
}

#[test]
fn r1_a_run_never_covers_a_codestream_of_another_group() {
    let groups = [cs(&["15.6u9", "15.6u11"]), cs(&["15.6u10"])];
    let file = groups_file(&groups);
    assert_eq!(file, "15.6u9 15.6u11\n15.6u10");
    let known = groups.concat();
    assert_eq!(parse_groups_file(&file, &known).unwrap(), groups);
    for (line, group) in file.lines().zip(&groups) {
        let read: Vec<_> = klp_build_reads(line, &known).unwrap().into_iter().collect();
        assert_eq!(
            &read, group,
            "klp-build builds each codestream from its own group's source"
        );
    }
    // Where nothing is in between, the run is written, and read as what there is.
    let known = cs(&["15.3u10", "15.3u12", "15.2u10", "15.2u11"]);
    let line = compress(&known, &Known::new(&known));
    assert_eq!(line, "15.2u10-11 15.3u10-12");
    assert_eq!(
        expand(&line, &known).unwrap(),
        cs(&["15.2u10", "15.2u11", "15.3u10", "15.3u12"])
    );
}

#[test]
fn r1_what_klp_build_wrote_across_a_named_codestream_is_read_as_it_was_grouped() {
    let known = cs(&["15.6u9", "15.6u10", "15.6u11"]);
    for file in ["15.6u9-11\n15.6u10", "15.6u10\n15.6u9-11\n"] {
        let mut groups = parse_groups_file(file, &known).unwrap();
        groups.sort();
        assert_eq!(groups, [cs(&["15.6u9", "15.6u11"]), cs(&["15.6u10"])]);
    }
}

#[test]
fn r1_what_klp_build_lost_is_not_guessed() {
    let known = cs(&["15.6u9", "15.6u10", "15.6u11", "15.6u12", "15.6u13"]);
    let error = parse_groups_file("15.6u9-13\n15.6u10-12", &known)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("15.6u11 lies within a run of two groups"), "{error}");
    assert!(parse_groups_file("15.6u9-13\n15.6u10-12\n15.6u11", &known).is_ok());
    // Neither end is known any more.
    let error = parse_groups_file("15.6u9-11\n15.6u10", &cs(&["15.6u10"]))
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("nothing is left of the group `15.6u9-11`"), "{error}");
}

#[test]
fn r2_updates_and_minors_of_any_length_are_read() {
    let known = cs(&[
        "15.3u99",
        "15.3u100",
        "15.3u101",
        "15.3u103",
        "16.10u1",
        "16.10u2",
        "16.10rtu2",
        "16.1u1",
    ]);
    assert_eq!(expand("15.3u100-102", &known).unwrap(), cs(&["15.3u100", "15.3u101"]));
    assert_eq!(expand("16.10u1-2", &known).unwrap(), cs(&["16.10u1", "16.10u2"]));
    assert_eq!(expand("15.3u99-1000", &known).unwrap().len(), 4);
}

#[test]
fn r2_no_run_is_written_that_klp_build_cannot_read() {
    assert_eq!(groups_file(&[cs(&["15.3u100", "15.3u101"])]), "15.3u100 15.3u101");
    assert_eq!(
        groups_file(&[cs(&["15.3u98", "15.3u99", "15.3u100"])]),
        "15.3u98-99 15.3u100"
    );
    assert_eq!(groups_file(&[cs(&["16.10u1", "16.10u2"])]), "16.10u1 16.10u2");
}

#[test]
fn names_of_any_other_form_stay_whole() {
    let debian = cs(&["debian12-6.1.0-50", "debian12-6.1.0-56"]);
    let file = groups_file(std::slice::from_ref(&debian));
    assert_eq!(file, "debian12-6.1.0-50 debian12-6.1.0-56");
    assert_eq!(parse_groups_file(&file, &debian).unwrap(), [debian]);
}

#[test]
fn a_codestream_may_be_called_like_a_run() {
    let groups = [cs(&["15.6u1", "15.6u2"]), cs(&["15.6u1-2"])];
    let file = groups_file(&groups);
    assert_eq!(file, "15.6u1 15.6u2\n15.6u1-2");
    assert_eq!(parse_groups_file(&file, &groups.concat()).unwrap(), groups);
}

#[test]
fn nonsense_is_refused_and_named() {
    let known = cs(&["15.6u1", "15.6u2", "15.6u3", "15.6rtu1"]);
    let told = |line: &str| expand(line, &known).unwrap_err().to_string();
    assert!(told("").starts_with("an empty group"));
    assert!(told("15.6u1 ../x").starts_with("`../x` is neither"));
    assert!(told("15.6u1,15.6u2").starts_with("`15.6u1,15.6u2` is neither"));
    assert!(told("15.6u3-1").starts_with("the run `15.6u3-1` ends before"));
    assert!(told("15.6u2-2").starts_with("the run `15.6u2-2` ends before"));
    assert!(told("15.6u7").starts_with("`15.6u7` is none of the known"));
    assert!(told("15.6u7-9").starts_with("`15.6u7-9` is none of the known"));
    assert!(told("15.6u1-").starts_with("`15.6u1-` is none of the known"));
    assert_eq!(told("15.6u1-2 15.6u2"), "15.6u2 is named twice");
    assert!(expand("15.6u1-4294967295", &known).is_ok());
    let error = parse_groups_file("15.6u1\n\n15.6u2 ?\n", &known)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("line 3: `?` is neither"), "{error}");
    let error = parse_groups_file("15.6u1-2\n15.6u1-3", &known).unwrap_err().to_string();
    assert_eq!(error, "line 2: 15.6u1 is in two groups: its own name is in both lines");
}

#[test]
fn thousands_of_codestreams_take_no_time() {
    let names = |rt: &str| {
        (0..5_000)
            .map(|u| format!("15.6{rt}u{u}").parse().unwrap())
            .collect::<Vec<Codestream>>()
    };
    let groups = [names("rt"), names("")];
    assert_eq!(
        parse_groups_file(&groups_file(&groups), &groups.concat()).unwrap(),
        groups
    );
}

prop_compose! {
    /// A name of any form, SUSE-like ones close together more often than not.
    fn any_codestream()(
        suse in any_name(),
        near in (prop_oneof![Just("15.6"), Just("15.6rt"), Just("15.10"), Just("6.0")], 0u32..14, any::<bool>()),
        other in "[a-z0-9][a-z0-9.u+_-]{0,8}",
        which in 0..10,
    ) -> Codestream {
        let (base, update, hundred) = near;
        let text = match which {
            0 => suse.to_string(),
            1 => other,
            2 => format!("{base}u{update}-{}", update + 1),
            _ => format!("{base}u{}", update + if hundred { 94 } else { 0 }),
        };
        text.parse().unwrap()
    }
}

/// Codestreams split into groups, each in natural order, the groups in the order their lines are written in.
fn any_partition(codestream: impl Strategy<Value = Codestream>) -> impl Strategy<Value = Vec<Vec<Codestream>>> {
    proptest::collection::btree_map(codestream, 0..4usize, 1..30).prop_map(|homes| {
        let mut groups = vec![Vec::new(); 4];
        for (codestream, home) in homes {
            groups[home].push(codestream);
        }
        groups.retain(|group| !group.is_empty());
        groups
    })
}

fn sorted(mut groups: Vec<Vec<Codestream>>) -> Vec<Vec<Codestream>> {
    groups.sort();
    groups
}

proptest! {
    #[test]
    fn compress_then_expand_is_the_identity(groups in any_partition(any_codestream())) {
        let known = groups.concat();
        for group in &groups {
            let line = compress(group, &Known::new(&known));
            prop_assert_eq!(&expand(&line, &known).unwrap(), group, "{}", line);
        }
        let read = parse_groups_file(&groups_file(&groups), &known).unwrap();
        prop_assert_eq!(sorted(read), sorted(groups));
    }

    #[test]
    fn klp_build_reads_exactly_the_group(groups in any_partition(
        any_name().prop_map(|n| SuseName { major: n.major % 100, minor: n.minor % 10, update: n.update % 30, ..n }.codestream())
    )) {
        let known = groups.concat();
        for group in &groups {
            let line = compress(group, &Known::new(&known));
            let read = klp_build_reads(&line, &known);
            prop_assert_eq!(read, Some(group.iter().cloned().collect()), "{}", line);
        }
    }

    /// What it can't read it leaves out; it never takes a codestream for one of another group.
    #[test]
    fn klp_build_reads_nothing_of_another_group(groups in any_partition(
        any_name().prop_map(|n| SuseName { update: n.update % 1_000, ..n }.codestream())
    )) {
        let known = groups.concat();
        for group in &groups {
            let line = compress(group, &Known::new(&known));
            let read = klp_build_reads(&line, &known).unwrap_or_default();
            prop_assert!(read.iter().all(|c| group.contains(c)), "{}: {:?}", line, read);
        }
    }

    #[test]
    fn no_line_makes_it_panic(text in "([0-9]{1,2}[.]?[0-9]?(rt)?u?[0-9]{0,4}-?[0-9]{0,3}|[ \n]|.){0,12}", known in proptest::collection::vec(any_codestream(), 0..5)) {
        let _ = expand(&text, &known);
        let _ = parse_groups_file(&text, &known);
    }
}
