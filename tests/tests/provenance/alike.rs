//! The same livepatch on two farms, whose workers keep tree and scratch folder elsewhere: the same bytes come out, and the same
//! is stated but for who did it and when.

use std::path::{Path, PathBuf};
use std::process::Command;

use klp_livepatch::provenance::Envelope;
use klp_tests::{Farm, WorkerOptions, command_on, one_codestream, trees};
use serde_json::Value;

use super::got::{codestreams, got, verify};

/// A copy of one tree at another place, made fit for it.
fn moved(trees: &Path, codestream: &str, to: &Path) -> PathBuf {
    let there = to.join("quite/another/place");
    std::fs::create_dir_all(there.join("x86_64")).unwrap();
    // Files are replaced where they change, never written to: the original stays as it is.
    let copied = Command::new("cp")
        .arg("-al")
        .arg(trees.join("x86_64").join(codestream))
        .arg(there.join("x86_64"))
        .status()
        .unwrap();
    assert!(copied.success());
    let fitted = command_on(None, "klp-worker")
        .args(["tree", "verify", "--repair", "--trees"])
        .arg(&there)
        .output()
        .unwrap();
    assert!(fitted.status.success(), "{fitted:?}");
    there
}

fn livepatch_of(farm: &mut Farm, worker: &str, trees: &Path, codestream: &str) -> PathBuf {
    farm.add_worker(WorkerOptions {
        name: worker,
        trees,
        codestreams: codestream,
        ..WorkerOptions::default()
    });
    let livepatch = got(farm, trees);
    let key = farm.dir.path().join("coordinator/signer.pem");
    let told = verify(&livepatch, &["--key", key.to_str().unwrap()]);
    assert_eq!(told.code, Some(0), "{told:?}");
    livepatch
}

/// What is stated, without who did it and when.
fn stated(codestream: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(codestream.join("provenance/provenance.intoto.jsonl")).unwrap();
    let mut statements: Vec<Value> = Envelope::parse_all(&text)
        .unwrap()
        .iter()
        .map(|envelope| serde_json::from_slice(&envelope.payload).unwrap())
        .collect();
    let run = statements[0]["predicate"]["runDetails"].as_object_mut().unwrap();
    for (part, field) in [
        ("builder", "id"),
        ("metadata", "invocationId"),
        ("metadata", "startedOn"),
        ("metadata", "finishedOn"),
    ] {
        assert!(run[part].as_object_mut().unwrap().remove(field).is_some(), "{field}");
    }
    // The kernel's own command, with this machine's paths, for whoever compiles by hand.
    let byproducts = run.remove("byproducts").unwrap();
    assert_eq!(byproducts.as_array().unwrap().len(), 1, "{byproducts}");
    let whole = statements[1]["predicate"].as_object_mut().unwrap();
    for field in ["livepatch", "createdOn"] {
        assert!(whole.remove(field).is_some(), "{field}");
    }
    statements
}

#[test]
fn two_workers_make_the_same_of_the_same() {
    let Some(trees) = trees() else { return };
    let codestream = one_codestream(&trees);
    let elsewhere = tempfile::Builder::new().tempdir_in(trees.parent().unwrap()).unwrap();
    let (mut one, mut two) = (Farm::start(), Farm::start());
    let first = livepatch_of(&mut one, "a", &trees, &codestream);
    let other_trees = moved(&trees, &codestream, elsewhere.path());
    let second = livepatch_of(&mut two, "elsewhere", &other_trees, &codestream);
    let (first, second) = (codestreams(&first).remove(0), codestreams(&second).remove(0));
    for file in [
        "provenance/x86_64/sound/core/pcm.c",
        "lp/lp_sound_core_pcm.c",
        "lp/livepatch_lp.c",
    ] {
        let bytes = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert_eq!(bytes(&first), bytes(&second), "{file}");
    }
    let (first, second) = (stated(&first), stated(&second));
    assert_eq!(first.len(), 2);
    for (a, b) in first.iter().zip(&second) {
        assert_eq!(format!("{a:#}"), format!("{b:#}"));
    }
}
