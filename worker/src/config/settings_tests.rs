//! Settings: their defaults, the sample file, and what is refused.

use std::collections::BTreeSet;

use klp_settings::{File, Reload, keys, parse, sample};

use super::*;

const SAMPLE: &str = include_str!("../../../deploy/worker.toml");

#[test]
fn the_sample_names_every_setting_with_its_default() {
    // As shipped, only the service's own folder is set.
    let shipped: Settings = parse(SAMPLE).unwrap();
    let service = Settings {
        data_dir: "/var/lib/klp-worker".into(),
        ..Settings::default()
    };
    assert_eq!(shipped, service);
    let everything: toml::Table = toml::from_str(&sample::with_everything(SAMPLE)).unwrap();
    let named: BTreeSet<_> = everything.keys().cloned().collect();
    assert_eq!(named, keys::<Settings>().into_iter().collect());
    // The examples are valid, too.
    parse::<Settings>(&sample::with_everything(SAMPLE))
        .unwrap()
        .validate()
        .unwrap();
    let defaults: Settings = parse(&sample::with_defaults(SAMPLE)).unwrap();
    assert_eq!(defaults, service);
    let set: toml::Table = toml::from_str(&sample::with_defaults(SAMPLE)).unwrap();
    let mut expected: BTreeSet<_> = toml::Table::try_from(&service).unwrap().keys().cloned().collect();
    // Its default is the machine's.
    expected.remove("slots");
    assert_eq!(set.keys().cloned().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn the_sample_says_what_a_reload_takes_over() {
    let (_, list) = SAMPLE.split_once("these over:").unwrap();
    let (list, _) = list.split_once(".\n").unwrap();
    let told: BTreeSet<&str> = list
        .split([',', ' ', '#', '\n'])
        .filter(|word| !word.is_empty())
        .collect();
    assert_eq!(told, RELOADABLE.iter().copied().collect());
    let fresh = Settings {
        grace: 1,
        slots: 1024,
        ..Settings::default()
    };
    let reload = Reload::new(&Settings::default(), &fresh, RELOADABLE).unwrap();
    assert_eq!(reload.summary(), "in force now: grace; only after a restart: slots");
}

#[test]
fn slips_are_told_with_their_line() {
    for (text, said) in [
        (
            "\ncordinator = \"x\"",
            "line 2: unknown setting `cordinator`; did you mean `coordinator`?",
        ),
        (
            "coordinator = \"ftp://x\"",
            "line 1: coordinator: give it like https://",
        ),
        ("codestreams = \"(\"", "line 1: codestreams: "),
        (
            "memory = \"12X\"",
            "line 1: memory: a number of bytes, or a text such as \"12G\"",
        ),
        ("name = \"../x\"", "line 1: name: "),
    ] {
        let file = File {
            path: "w.toml".into(),
            text: text.to_owned(),
        };
        let error = file.parse::<Settings>().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let bad = Settings {
        slots: 0,
        grace: 100_000,
        ..Settings::default()
    };
    let error = bad.validate().unwrap_err().to_string();
    assert!(
        error.contains("slots is 0") && error.contains("grace is 100000"),
        "{error}"
    );
}

#[test]
fn sizes_are_numbers_or_texts() {
    let memory = |text: &str| parse::<Settings>(&format!("memory = {text}")).unwrap().tuned().memory;
    assert_eq!((memory("4096"), memory("\"12G\"")), (4096, 12 << 30));
}

#[test]
fn a_command_that_is_told_of_a_folder_means_that_folders_trees() {
    let settings = Settings {
        data_dir: "/d".into(),
        trees: Some("/t".into()),
        ..Settings::default()
    };
    let folders = |data: Option<&str>, trees: Option<&str>| {
        let (data, trees) = settings.folders(data.map(Path::new), trees.map(Path::new));
        (data.display().to_string(), trees.display().to_string())
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(folders(None, None), pair("/d", "/t"));
    assert_eq!(folders(Some("/e"), None), pair("/e", "/e/trees"));
    assert_eq!(folders(None, Some("/u")), pair("/d", "/u"));
}
