//! Each generation of `codestreams.json` as its klp-build wrote it, in and out again.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::date::tests::any_date;
use crate::report::ConfigValue;
use crate::suse::tests::any_name;
use crate::{Arch, Codestream};

const FLAT: &str = include_str!("fixtures/flat.json");
const FLAT_CONF: &str = include_str!("fixtures/flat-conf.json");
const KDIR: &str = include_str!("fixtures/kdir.json");
const PARTS: &str = include_str!("fixtures/parts.json");
const NAMES: &str = include_str!("fixtures/names.json");
const CURRENT: &str = include_str!("fixtures/current.json");

fn cs(name: &str) -> Codestream {
    name.parse().unwrap()
}

fn read(text: &str, conf: Option<&str>) -> Imported {
    let imported = import(text, conf).unwrap();
    let written = export(&imported.project);
    let again = import(&written, None).unwrap();
    assert_eq!(again.project, imported.project, "what is written is read");
    assert_eq!(again.generation, Generation::Current);
    assert_eq!(export(&again.project), written);
    imported
}

#[test]
fn version_2_comes_back_to_the_byte() {
    let imported = read(CURRENT, None);
    assert_eq!(imported.generation, Generation::Current);
    assert_eq!(imported.notes, Vec::<String>::new());
    assert_eq!(export(&imported.project), CURRENT.trim_end());

    let project = imported.project;
    assert_eq!(project.cve.unwrap().as_str(), "2024-26923");
    assert_eq!(project.patched, BTreeSet::from([cs("15.7u2"), cs("15.7u10")]));
    let names: Vec<_> = project.codestreams.keys().map(Codestream::as_str).collect();
    assert_eq!(names, ["6.0rtu5", "15.6u9", "15.6u10"]);
    let codestream = &project.codestreams[&cs("15.6u9")];
    assert_eq!(codestream.eol.unwrap().to_string(), "2026-04-13");
    let config = &codestream.configs[&"CONFIG_NET_SCH_TAPRIO".parse().unwrap()];
    assert_eq!(config[&Arch::S390x], ConfigValue::BuiltIn);
    assert!(!config.contains_key(&Arch::Ppc64le), "not set there");
    let file = &codestream.files[0];
    assert_eq!(file.module.object().as_str(), "sch_taprio");
    assert!(file.ibt);
    assert_eq!(
        file.externalized.as_ref().unwrap()[&"vmlinux".parse().unwrap()].len(),
        2
    );
}

#[test]
fn what_we_do_not_know_stays_where_it_was() {
    let mut value: Value = serde_json::from_str(CURRENT).unwrap();
    let odd = json!({ "z": [1, 2.5, null, { "b": 1, "a": "é\u{7f}😀" }], "a": -1e300 });
    value["odd"] = odd.clone();
    value["codestreams"]["15.6u9"]["odd"] = odd.clone();
    value["codestreams"]["15.6u9"]["files"]["net/sched/sch_taprio.c"]["odd"] = odd.clone();
    let imported = import(&value.to_string(), None).unwrap();
    let written = export(&imported.project);
    assert!(written.is_ascii());
    let again: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(again, value);
    let order = |value: &Value| value["odd"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(order(&again), ["z", "a"]);
}

#[test]
fn the_first_generation_has_a_file_beside_it() {
    let Imported {
        project,
        generation,
        notes,
    } = read(FLAT, Some(FLAT_CONF));
    assert_eq!(generation, Generation::Flat);
    assert_eq!(project.cve.as_ref().unwrap().as_str(), "2022-1048");
    assert_eq!(project.upstream, ["0a1b2c3d4e5f (\"ALSA: pcm: Fix a race\")"]);
    assert_eq!(
        project.archs,
        BTreeSet::from([Arch::X86_64, Arch::Ppc64le, Arch::S390x])
    );
    assert_eq!(project.patched, BTreeSet::from([cs("15.5u3")]));
    let old = &project.codestreams[&cs("15.3u30")];
    assert_eq!(old.files[0].config, None, "set everywhere");
    assert_eq!(old.files[0].module.as_str(), "snd-pcm");
    assert_eq!(old.extra["build-counter"], "1");
    assert_eq!(old.extra["sle"], "15");
    assert!(old.modules.is_empty(), "its path is of another layout");
    assert_eq!(project.codestreams[&cs("15.5rtu4")].extra["rt"], true);
    assert_eq!(
        project.extra["conf.json"]["work_dir"],
        "/home/john/livepatches/bsc1197597"
    );
    for told in [
        "no `eol` in 15.3u30-31 15.5rtu4: taken for unknown",
        "no `patchid` in",
        "no `configs` in",
        "no `required_patches` in",
        "no `files: klpp_symbols` in 15.3u30: extract again",
        "left out of 15.3u30: a module's path",
    ] {
        assert!(notes.iter().any(|note| note.starts_with(told)), "{told}: {notes:#?}");
    }
}

#[test]
fn the_first_generation_without_its_other_file_says_so() {
    let imported = read(FLAT, None);
    assert!(imported.notes[0].starts_with("no conf.json"));
    assert_eq!(imported.project.cve, None);
    assert_eq!(imported.project.archs.len(), 3, "those of its codestreams");
}

#[test]
fn a_kernel_folder_has_one_codestream_that_klp_build_can_no_longer_read() {
    let imported = read(KDIR, None);
    let linux = &imported.project.codestreams[&cs("linux")];
    assert_eq!(linux.archs, BTreeSet::from([Arch::X86_64]));
    let written: Value = serde_json::from_str(&export(&imported.project)).unwrap();
    assert_eq!(written["codestreams"], json!({}));
    assert_eq!(written["klp_farm_codestreams"]["linux"]["name"], "linux");
}

#[test]
fn the_second_generation_has_names_in_parts() {
    let imported = read(PARTS, None);
    assert_eq!(imported.generation, Generation::Parts);
    let project = imported.project;
    assert_eq!(project.upstream.len(), 2);
    assert_eq!(project.extra["patched_kernels"], json!(["5.14.21-150400.24.100"]));
    assert_eq!(project.extra["commits"]["15.4"]["commits"][0], "Not affected");
    let codestream = &project.codestreams[&cs("15.4u30")];
    assert_eq!(codestream.extra["lp_name"], "bsc1227320");
    assert_eq!(codestream.extra["sp"], 4);
    assert_eq!(codestream.patchid, "");
    assert!(
        imported
            .notes
            .iter()
            .any(|n| n.starts_with("no `required_patches` in 12.5u60 15.4u30"))
    );
}

#[test]
fn the_third_generation_lacks_two_keys() {
    let imported = read(NAMES, None);
    assert_eq!(imported.generation, Generation::Names);
    assert_eq!(imported.project.codestreams[&cs("16.0u0")].required_patches, []);
    assert_eq!(
        imported.notes,
        [
            "no `eol` in 15.6u12-13 16.0u0: taken for unknown",
            "no `required_patches` in 15.6u12-13 16.0u0: taken for empty"
        ]
    );
}

#[test]
fn klp_build_finds_every_key_it_asks_for() {
    for (text, conf) in [
        (FLAT, Some(FLAT_CONF)),
        (PARTS, None),
        (NAMES, None),
        (CURRENT, None),
        ("{}", None),
    ] {
        let written: Value = serde_json::from_str(&export(&read(text, conf).project)).unwrap();
        for key in ["archs", "upstream", "cve", "patched_cs", "codestreams"] {
            assert!(written.get(key).is_some(), "{key}");
        }
        for codestream in written["codestreams"].as_object().unwrap().values() {
            let keys: Vec<_> = codestream.as_object().unwrap().keys().take(10).collect();
            assert_eq!(
                keys,
                [
                    "name",
                    "project",
                    "patchid",
                    "kernel",
                    "eol",
                    "archs",
                    "files",
                    "modules",
                    "configs",
                    "required_patches"
                ]
            );
            for file in codestream["files"].as_object().unwrap().values() {
                let keys: Vec<_> = file.as_object().unwrap().keys().take(3).collect();
                assert_eq!(keys, ["module", "conf", "symbols"]);
            }
        }
    }
}

#[test]
fn what_is_of_another_form_is_told_with_its_place() {
    let told = |pointer: &str, value: Value| {
        let mut file: Value = serde_json::from_str(CURRENT).unwrap();
        *file.pointer_mut(pointer).unwrap() = value;
        import(&file.to_string(), None).unwrap_err().to_string()
    };
    let codestream = "codestreams.json[`codestreams`][`15.6u9`]";
    let file = format!("{codestream}[`files`][`net/sched/sch_taprio.c`]");
    let in_file = "/codestreams/15.6u9/files/net~1sched~1sch_taprio.c";
    for (pointer, value, place, message) in [
        (
            "/archs",
            json!("x86_64"),
            "codestreams.json[`archs`]",
            "a list is wanted, not a text",
        ),
        (
            "/archs/0",
            json!(5),
            "codestreams.json[`archs`]",
            "a text is wanted, not a number",
        ),
        (
            "/archs/0",
            json!("vax"),
            "codestreams.json[`archs`]",
            "unknown architecture `vax`",
        ),
        ("/cve", json!("26923"), "codestreams.json[`cve`]", "CVE `26923`"),
        (
            "/codestreams/15.6u9",
            json!([]),
            codestream,
            "an object is wanted, not a list",
        ),
        (
            "/codestreams/15.6u9/name",
            json!("15.6u8"),
            &format!("{codestream}[`name`]"),
            "`15.6u8` stands under 15.6u9",
        ),
        (
            "/codestreams/15.6u9/eol",
            json!("soon"),
            &format!("{codestream}[`eol`]"),
            "`soon` is not a day",
        ),
        (
            "/codestreams/15.6u9/kernel",
            json!("../x"),
            &format!("{codestream}[`kernel`]"),
            "kernel version `../x`",
        ),
        (
            "/codestreams/15.6u9/required_patches",
            json!(["../x"]),
            &format!("{codestream}[`required_patches`]"),
            "`../x` is not a patch",
        ),
        (
            "/codestreams/15.6u9/configs/CONFIG_NET_SCH_TAPRIO/x86_64",
            json!("n"),
            &format!("{codestream}[`configs`][`CONFIG_NET_SCH_TAPRIO`][`x86_64`]"),
            "`n` is neither y nor m",
        ),
        (
            &format!("{in_file}/module"),
            json!("a/../b"),
            &format!("{file}[`module`]"),
            "module `a/../b`",
        ),
        (
            &format!("{in_file}/ibt"),
            json!("yes"),
            &format!("{file}[`ibt`]"),
            "true or false is wanted",
        ),
        (
            &format!("{in_file}/symbols/0"),
            json!("a b"),
            &format!("{file}[`symbols`]"),
            "function `a b`",
        ),
        (
            &format!("{in_file}/ext_symbols/vmlinux"),
            json!({}),
            &format!("{file}[`ext_symbols`][`vmlinux`]"),
            "a list is wanted, not an object",
        ),
    ] {
        let told = told(pointer, value);
        assert!(told.starts_with(&format!("{place}: {message}")), "{told}");
    }
    assert!(
        import("[]", None)
            .unwrap_err()
            .to_string()
            .starts_with("codestreams.json: an object is wanted")
    );
    assert!(import("{", None).unwrap_err().to_string().contains("not JSON: EOF"));
    assert!(
        import("{}", Some("{"))
            .unwrap_err()
            .to_string()
            .starts_with("conf.json: ")
    );
    assert!(import("{\"x\": 5}", None).is_err(), "a flat file has codestreams only");
    let twice = r#"{"codestreams": {"a": {}}, "klp_farm_codestreams": {"a": {}}}"#;
    assert!(import(twice, None).unwrap_err().to_string().contains("a second time"));
    assert!(
        import(&"[".repeat(100_000), None).is_err(),
        "and does not end the program"
    );
}

/// JSON as deep as it takes to see that order and values are kept.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[a-z]{0,3}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_extra() -> impl Strategy<Value = Extra> {
    proptest::collection::vec(("x_[a-z]{0,4}", any_json()), 0..3).prop_map(|members| members.into_iter().collect())
}

prop_compose! {
    fn any_file()(
        file in "[a-z]{1,4}/[a-z-]{0,3}[a-z]{1,3}",
        module in "[a-z]{1,4}(/[a-z_-]{0,3}[a-z]){0,2}",
        config in proptest::option::of("CONFIG_[A-Z0-9_]{1,6}"),
        symbols in proptest::collection::vec("[a-z_]{1,6}", 0..3),
        ibt: bool,
        externalized in proptest::option::of(proptest::collection::btree_map("[a-z]{1,4}", proptest::collection::vec("[a-z_]{1,6}", 0..3), 0..3)),
        replacements in proptest::option::of(proptest::collection::btree_map("[a-z_]{1,6}", any::<String>(), 0..3)),
        duplicated in proptest::collection::vec("[a-z_]{1,6}", 0..2),
        extra in any_extra(),
    ) -> ProjectFile {
        let functions = |list: Vec<String>| list.iter().map(|s| s.parse().unwrap()).collect::<Vec<_>>();
        ProjectFile {
            file: format!("{}.c", file.replace("/-", "/x")).parse().unwrap(),
            module: module.replace("/-", "/x").replace("/_", "/x").parse().unwrap(),
            config: config.map(|c| c.parse().unwrap()),
            symbols: functions(symbols),
            ibt,
            externalized: externalized.map(|all| all.into_iter().map(|(o, s)| (o.parse().unwrap(), functions(s))).collect()),
            replacements: replacements.map(|all| all.into_iter().map(|(f, p)| (f.parse().unwrap(), p)).collect()),
            duplicated: functions(duplicated),
            extra,
        }
    }
}

prop_compose! {
    fn any_project_codestream()(
        project in "[A-Za-z:.0-9]{0,12}",
        patchid in "[a-z.0-9]{0,8}",
        kernel in "[1-6][.][0-9]{1,2}[.]0-[0-9]{1,5}",
        eol in proptest::option::of(any_date()),
        archs in proptest::sample::subsequence(Arch::ALL.to_vec(), 0..=4),
        files in proptest::collection::vec(any_file(), 0..3),
        modules in proptest::collection::btree_map("[a-z]{1,4}", "[a-z]{1,6}", 0..3),
        configs in proptest::collection::btree_map("CONFIG_[A-Z]{1,4}", proptest::collection::btree_map(
            proptest::sample::select(Arch::ALL.to_vec()), any::<bool>(), 0..3), 0..3),
        patches in proptest::collection::vec("[0-9]{2}-[a-z-]{1,9}[.]patch", 0..3),
        extra in any_extra(),
    ) -> ProjectCodestream {
        let mut seen = BTreeSet::new();
        let value = |y| if y { ConfigValue::BuiltIn } else { ConfigValue::Module };
        ProjectCodestream {
            project,
            patchid,
            eol,
            archs: archs.into_iter().collect(),
            files: files.into_iter().filter(|f| seen.insert(f.file.clone())).collect(),
            modules: modules.into_iter().map(|(m, p)| (m.parse().unwrap(), format!("boot/{p}-{kernel}").parse().unwrap())).collect(),
            configs: configs.into_iter().map(|(c, values)| (c.parse().unwrap(), values.into_iter().map(|(a, y)| (a, value(y))).collect())).collect(),
            required_patches: patches.iter().map(|p| p.parse().unwrap()).collect(),
            kernel: Some(kernel.parse().unwrap()),
            extra,
        }
    }
}

prop_compose! {
    fn any_project()(
        archs in proptest::sample::subsequence(Arch::ALL.to_vec(), 0..=4),
        upstream in proptest::collection::vec(any::<String>(), 0..3),
        cve in proptest::option::of("20[12][0-9]-[0-9]{4,7}"),
        patched in proptest::collection::vec(any_name(), 0..3),
        codestreams in proptest::collection::vec((prop_oneof![
            any_name().prop_map(|n| n.codestream()),
            "[a-z][a-z0-9.-]{0,8}".prop_map(|n| n.parse().unwrap()),
        ], any_project_codestream()), 0..3),
        extra in any_extra(),
    ) -> Project {
        Project {
            archs: archs.into_iter().collect(),
            upstream,
            cve: cve.map(|c| c.parse().unwrap()),
            patched: patched.into_iter().map(|n| n.codestream()).collect(),
            codestreams: codestreams.into_iter().collect(),
            extra,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_was_exported_is_imported(project in any_project()) {
        let text = export(&project);
        prop_assert!(text.is_ascii() && !text.ends_with('\n'));
        let imported = import(&text, None).unwrap();
        prop_assert_eq!(&imported.project, &project);
        prop_assert_eq!(imported.generation, Generation::Current);
        prop_assert_eq!(export(&imported.project), text);
    }

    #[test]
    fn no_json_makes_it_panic(value in any_json(), key in "(codestreams|15.6u1|commits|cve)") {
        let _ = import(&value.to_string(), Some(&value.to_string()));
        let _ = import(&json!({ key: value }).to_string(), None);
    }
}
