//! Settings: their defaults, the sample file, and what is refused.

use super::*;

#[test]
fn the_defaults_are_valid_and_survive_a_file() {
    let config = Config::default();
    config.validate().unwrap();
    assert_eq!(toml::from_str::<Config>(&config.to_toml()).unwrap(), config);
}

#[test]
fn the_sample_names_every_setting_with_its_default() {
    let sample = include_str!("../../../deploy/coordinator.toml");
    // As shipped, nothing is set.
    assert_eq!(toml::from_str::<Config>(sample).unwrap(), Config::default());
    let uncommented: String = sample
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let set: toml::Table = toml::from_str(&uncommented).unwrap();
    let all: toml::Table = toml::from_str(&Config::default().to_toml()).unwrap();
    assert_eq!(set.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
    let mut config: Config = toml::from_str(&uncommented).unwrap();
    assert_eq!(config.data_dir, Path::new("/var/lib/klp-farm"));
    config.data_dir = Config::default().data_dir;
    assert_eq!(config, Config::default());
}

#[test]
fn every_bad_setting_is_named() {
    let config = Config {
        lease_ms: 9_000,
        heartbeat_ms: 3_000,
        fault_limit: 0,
        backoff_max_ms: 1,
        data_dir: PathBuf::new(),
        otlp_endpoint: Some("http://jane:hunter2@collector:4317".to_owned()),
        ..Config::default()
    };
    let error = config.validate().unwrap_err().to_string();
    for setting in [
        "heartbeat_ms",
        "fault_limit",
        "backoff_max_ms",
        "data_dir",
        "otlp_endpoint",
    ] {
        assert!(error.contains(&format!("setting {setting} ")), "{error}");
    }
    assert_eq!(error.lines().count(), 5, "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn branches_are_read_and_bad_names_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    };
    let config = read("readers = 4\n[branches]\n\"15.8\" = \"SLE15-SP8\"\n\"15.7\" = \"mine/15.7\"\n").unwrap();
    config.validate().unwrap();
    assert_eq!(toml::from_str::<Config>(&config.to_toml()).unwrap(), config);
    let all = config.all_branches();
    let branch = |product: &str| {
        let found = all.iter().find(|(name, _)| *name == product);
        found.map(|(_, branch)| branch.as_str()).unwrap_or_default()
    };
    assert_eq!(
        [branch("15.8"), branch("15.7"), branch("15.6")],
        ["SLE15-SP8", "mine/15.7", "SLE15-SP6-LTSS"]
    );
    for (bad, said) in [
        ("\"15.8\" = \"--output=x\"", "--output=x"),
        ("\"../x\" = \"SLE15-SP8\"", "../x"),
        ("\"15.8\" = 15", "15"),
    ] {
        let error = read(&format!("[branches]\n{bad}\n")).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains(said), "{error}");
    }
    let many = (0..=MAX_BRANCHES).map(|i| (format!("15.{i}").parse().unwrap(), "b".parse().unwrap()));
    let config = Config {
        branches: many.collect(),
        ..Config::default()
    };
    let error = config.validate().unwrap_err().to_string();
    assert!(error.contains("setting branches "), "{error}");
}

#[test]
fn an_unknown_setting_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "leese_ms = 3\n").unwrap();
    let error = Config::read(&path).unwrap_err().to_string();
    assert!(error.contains("c.toml") && error.contains("leese_ms"), "{error}");
}
