//! Settings: their defaults, the sample file, and what is refused.

use std::collections::BTreeSet;

use klp_settings::sample;

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
    let all: toml::Table = toml::from_str(&sample::with_everything(sample)).unwrap();
    let named: BTreeSet<_> = all.keys().cloned().collect();
    assert_eq!(named, klp_settings::keys::<Config>().into_iter().collect());
    let set = sample::with_defaults(sample);
    let defaults: toml::Table = toml::from_str(&Config::default().to_toml()).unwrap();
    let named: toml::Table = toml::from_str(&set).unwrap();
    assert_eq!(named.keys().collect::<Vec<_>>(), defaults.keys().collect::<Vec<_>>());
    let mut config: Config = toml::from_str(&set).unwrap();
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
fn settings_of_artifacts_that_dont_fit_are_named_and_no_secret_is_repeated() {
    let of = |text: &str| toml::from_str::<Config>(text).unwrap().validate();
    let bucket = "artifacts = \"s3://farm/klp\"\n";
    for right in [
        "",
        bucket,
        &format!("{bucket}artifacts_endpoint = \"https://s3.example.org:9000/\"\nartifacts_region = \"garage\"\n"),
        &format!("{bucket}artifacts_endpoint = \"http://10.0.0.1:9000\"\nartifacts_plain_http = true\n"),
        "artifacts = \"file:///srv/artifacts\"\n",
    ] {
        of(right).unwrap();
    }
    for (wrong, said) in [
        (
            "artifacts_endpoint = \"https://s3.example.org\"",
            "setting artifacts_endpoint is for artifacts in a bucket",
        ),
        (
            "artifacts_credentials = \"/c\"",
            "setting artifacts_credentials is for artifacts in a bucket",
        ),
        (
            "artifacts = \"file:///srv/a\"\nartifacts_plain_http = true",
            "setting artifacts_plain_http is for artifacts in a bucket, and artifacts is \"file:///srv/a\"",
        ),
        (
            &format!("{bucket}artifacts_endpoint = \"http://10.0.0.1:9000\""),
            "setting artifacts_endpoint is asked without TLS",
        ),
        (
            &format!("{bucket}artifacts_endpoint = \"s3.example.org\""),
            "setting artifacts_endpoint is no server's address",
        ),
        (
            &format!("{bucket}artifacts_endpoint = \"ftp://s3.example.org\""),
            "setting artifacts_endpoint is no server's address",
        ),
        (
            &format!("{bucket}artifacts_endpoint = \"https://s3.example.org/farm\""),
            "setting artifacts_endpoint is no server's address",
        ),
        (
            &format!("{bucket}artifacts_endpoint = \"https://a:hunter2@s3\""),
            "setting artifacts_endpoint holds a user or password",
        ),
        (
            &format!("{bucket}artifacts_region = \"\""),
            "setting artifacts_region is",
        ),
    ] {
        let error = of(wrong).unwrap_err().to_string();
        assert!(
            error.contains(said) && error.lines().count() == 1 && !error.contains("hunter2"),
            "{error}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    for (place, said) in [
        ("gs://farm", "artifacts can't be kept at gs://"),
        ("s3://AKIA:hunter2@farm/x", "holds no user, password or parameters"),
    ] {
        std::fs::write(&path, format!("readers = 4\nartifacts = \"{place}\"\n")).unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains(said) && !error.contains("hunter2"),
            "{error}"
        );
    }
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
    assert!(
        error.contains("c.toml, line 1: unknown setting `leese_ms`; did you mean `lease_ms`?"),
        "{error}"
    );
}

#[test]
fn the_sample_says_what_a_reload_takes_over() {
    let sample = include_str!("../../../deploy/coordinator.toml");
    let (_, list) = sample.split_once("these over:").unwrap();
    let (list, _) = list.split_once(".\n").unwrap();
    let told: BTreeSet<&str> = list
        .split([',', ' ', '#', '\n'])
        .filter(|word| !word.is_empty())
        .collect();
    assert_eq!(told, RELOADABLE.iter().copied().collect());
}
