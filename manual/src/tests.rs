//! The manual: every command has its page, and every page what a reader looks for.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is wrong")]

use std::process::Command as Process;

use super::*;

fn written() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for program in programs() {
        write(program, "2026-11-26", folder.path()).unwrap();
    }
    folder
}

#[test]
fn every_program_and_command_has_its_page_with_all_sections() {
    let folder = written();
    let page = |name: &str| fs::read_to_string(folder.path().join("man").join(format!("{name}.1"))).unwrap();
    for (program, said) in [
        (
            "klp-farm",
            [
                "130",
                "KLP_FARM_CONFIG",
                "config.toml",
                "klp-farm submit",
                "klp-farm-submit",
            ],
        ),
        (
            "klp-coordinator",
            [
                "wrong usage",
                "KLP_FARM_LISTEN",
                "/var/lib/klp-farm",
                "init --name",
                "klp-coordinator-init",
            ],
        ),
        (
            "klp-worker",
            [
                "took over",
                "KLP_FARM_TREES",
                "/var/lib/klp-worker",
                "tree add",
                "klp-worker-enroll",
            ],
        ),
    ] {
        let text = page(program).replace("\\-", "-");
        let sections = [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXIT STATUS",
            "ENVIRONMENT",
            "FILES",
            "EXAMPLES",
            "SEE ALSO",
        ];
        for section in sections {
            let heads = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
            assert!(
                heads.iter().any(|head| text.contains(head)),
                "{program}: {section}\n{text}"
            );
        }
        for words in said {
            assert!(text.contains(words), "{program}: {words}\n{text}");
        }
    }
    assert!(page("klp-farm-tree-add-debian").contains("linux"));
    // What a program calls itself is nobody's to type.
    assert!(!folder.path().join("man/klp-worker-native-extract.1").exists());
}

#[test]
fn mandoc_warns_of_nothing() {
    let folder = written();
    let pages = fs::read_dir(folder.path().join("man")).unwrap();
    let pages = pages.map(|page| page.unwrap().path());
    let lint = Process::new("mandoc")
        .args(["-Tlint", "-Wwarning"])
        .args(pages)
        .output();
    let lint = lint.expect("mandoc runs; Debian's package mandoc has it");
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
}

#[test]
fn completions_can_be_read_by_their_shell() {
    let folder = written();
    for program in ["klp-farm", "klp-coordinator", "klp-worker"] {
        let file = folder.path().join("completions").join(format!("{program}.bash"));
        assert!(Process::new("bash").arg("-n").arg(&file).status().unwrap().success());
        let ask = format!("source {}; complete -p {program}", file.display());
        assert!(
            Process::new("bash")
                .args(["-c", &ask])
                .output()
                .unwrap()
                .status
                .success()
        );
    }
}
