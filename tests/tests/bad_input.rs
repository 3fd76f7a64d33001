//! Bad input: each a clear error, an exit code that is not 0, and nothing stored.

use klp_tests::{Farm, WorkerOptions, trees};

/// A good submission with some of its arguments replaced.
fn submit(farm: &Farm, changes: &[(&str, &[&str])]) -> klp_tests::CommandResult {
    let mut options: Vec<(&str, Vec<&str>)> = vec![
        ("--name", vec!["bad"]),
        ("--cve", vec!["2022-1048"]),
        ("--mod", vec!["snd-pcm"]),
        ("--conf", vec!["CONFIG_SND_PCM"]),
        ("--file-funcs", vec!["sound/core/pcm.c", "snd_pcm_attach_substream"]),
        ("--codestreams", vec![""]),
    ];
    for (option, values) in changes {
        options.retain(|(name, _)| name != option);
        options.push((option, values.to_vec()));
    }
    let mut args = vec!["submit"];
    for (option, values) in &options {
        args.push(option);
        args.extend(values);
    }
    farm.cli(args)
}

#[test]
fn a_spec_that_is_not_valid_is_refused_without_a_farm() {
    let farm = Farm::start();
    let cases: [(&str, &[&str], &str); 9] = [
        ("--name", &["../etc"], "name"),
        ("--cve", &["2022-1"], "CVE"),
        ("--conf", &["SND_PCM"], "CONFIG_SND_PCM"),
        ("--mod", &["snd-pcm.ko"], "bare name"),
        ("--file-funcs", &["../../etc/passwd.c", "f"], "`../../etc/passwd.c`"),
        ("--file-funcs", &["sound/-x.c", "f"], "starts with `-`"),
        (
            "--file-funcs",
            &["sound/core/pcm.c", "not-an-identifier"],
            "`not-an-identifier`",
        ),
        ("--codestreams", &["15.6u("], "regular expression"),
        ("--archs", &["vax"], "unknown architecture `vax`"),
    ];
    for (option, values, expected) in cases {
        let result = submit(&farm, &[(option, values)]);
        assert_eq!(result.code, Some(2), "{option} {values:?}: {result:?}");
        assert!(result.stderr.contains(expected), "{option} {values:?}: {result:?}");
    }
    let dashed = submit(&farm, &[("--file-funcs", &["-x.c", "f"])]);
    assert_eq!(dashed.code, Some(2), "{dashed:?}");
    assert!(dashed.stderr.contains("-x"), "{dashed:?}");

    let twice = farm.cli([
        "submit",
        "--name",
        "bad",
        "--conf",
        "CONFIG_A",
        "--file-funcs",
        "a.c",
        "f",
        "--file-funcs",
        "a.c",
        "g",
    ]);
    assert_eq!(twice.code, Some(2), "{twice:?}");
    assert!(twice.stderr.contains("targets[1].file"), "{twice:?}");

    let none = submit(&farm, &[]);
    assert_eq!(none.code, Some(2), "a farm without trees has no codestream: {none:?}");
    assert!(farm.livepatches().is_empty());
}

#[test]
fn an_absent_coordinator_is_named_with_the_next_step() {
    let mut farm = Farm::start();
    farm.kill_coordinator();
    let result = farm.cli(["list"]);
    assert_eq!(result.code, Some(1), "{result:?}");
    assert!(
        result.stderr.contains(&farm.url.replace("http://", "")) && result.stderr.contains("klp-farm up"),
        "{result:?}"
    );
}

#[test]
fn what_no_kernel_has_is_refused_and_not_stored() {
    let Some(trees) = trees() else { return };
    // On a busy machine to name what a tree lacks takes longer than a user may want to wait.
    let mut farm = Farm::with_settings("tryout_ms = 60000\n");
    farm.add_worker(WorkerOptions {
        name: "w",
        trees: &trees,
        codestreams: "debian12-6.1",
        slots: 1,
        ..WorkerOptions::default()
    });
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("--conf", &["CONFIG_SND_PCMX"], &["CONFIG_SND_PCMX"]),
        ("--file-funcs", &["sound/core/pcmx.c", "f"], &["sound/core/pcmx.c"]),
        (
            "--file-funcs",
            &["sound/core/pcm.c", "snd_pcm_no_such"],
            &["snd_pcm_no_such", "sound/core/pcm.c"],
        ),
        ("--mod", &["snd-pcmx"], &["snd-pcmx"]),
        ("--codestreams", &["15.6u1"], &["15.6u1", "debian12-6.1"]),
    ];
    for (option, values, expected) in cases {
        let result = submit(&farm, &[(option, values)]);
        assert_eq!(result.code, Some(2), "{option} {values:?}: {result:?}");
        for words in expected {
            assert!(
                result.stderr.contains(words),
                "{option} {values:?} should say {words}: {result:?}"
            );
        }
        assert!(farm.livepatches().is_empty(), "{option} {values:?} stored something");
    }

    // More problems than a message holds are still told, as far as they fit.
    let many: Vec<String> = (0..150).map(|i| format!("snd_pcm_absent_{i:03}")).collect();
    let mut values = vec!["sound/core/pcm.c"];
    values.extend(many.iter().map(String::as_str));
    let result = submit(&farm, &[("--file-funcs", &values)]);
    assert_eq!(result.code, Some(2), "{result:?}");
    assert!(
        result.stderr.contains("snd_pcm_absent_000") && result.stderr.contains("more"),
        "{result:?}"
    );
    assert!(farm.livepatches().is_empty());

    assert_eq!(submit(&farm, &[]).code, Some(0));
    let again = submit(&farm, &[]);
    assert_ne!(again.code, Some(0), "{again:?}");
    assert!(again.stderr.contains("the name `bad` is used"), "{again:?}");
    assert_eq!(farm.livepatches(), ["bad"]);
}
