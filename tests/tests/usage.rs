//! Wrong usage of the programs: told in a few words that fit what was typed, whatever the environment sets.

use std::process::Output;

use klp_tests::command_on;

/// Runs a program where every variable is set that one of its options can come from.
fn run(program: &str, args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command_on(None, program)
        .env("KLP_FARM_COORDINATOR", "http://127.0.0.1:1")
        .env("KLP_FARM_TREES", "/nowhere")
        .env("KLP_FARM_CATALOG", "/nowhere")
        .args(args)
        .output()
        .expect("it runs");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn usage_shows_nothing_that_the_environment_sets() {
    for (program, args, wanted) in [
        ("klp-farm", &["status"][..], "Usage: klp-farm status [OPTIONS] <NAME>\n"),
        (
            "klp-farm",
            &["extract"],
            "Usage: klp-farm extract [OPTIONS] --name <NAME>\n",
        ),
        (
            "klp-farm",
            &["--output", "json", "tree", "remove"],
            "Usage: klp-farm tree remove [OPTIONS] <CODESTREAM>\n",
        ),
        (
            "klp-farm",
            &["status", "a", "--nope"],
            "Usage: klp-farm status [OPTIONS] <NAME>\n",
        ),
        (
            "klp-worker",
            &["tree", "remove"],
            "Usage: klp-worker tree remove [OPTIONS] <CODESTREAM>\n",
        ),
    ] {
        let (code, said) = run(program, args);
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.contains(wanted), "{args:?}: {said}");
    }
}

#[test]
fn a_list_of_none_is_no_list() {
    let (code, said) = run("klp-farm", &["list", "--limit", "0"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--limit") && said.contains("1.."), "{said}");
}

#[test]
fn a_picture_of_the_farm_is_not_taken_all_the_time() {
    for wrong in ["0", "0.01", "4000", "often"] {
        let (code, said) = run("klp-farm", &["top", "--interval", wrong]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--interval") && said.contains("seconds"), "{said}");
    }
}
