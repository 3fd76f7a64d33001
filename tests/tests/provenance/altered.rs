//! A farm that knows who is who, and a folder of its sources that is altered in every way somebody may think of.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use klp_livepatch::provenance::{Envelope, Signature};
use klp_tests::{Farm, Identity, Net, WorkerOptions, command_on, trees, wait_until};
use serde_json::Value;

use super::got::{codestreams, copy, fetch, got, verify};

const STATEMENTS: &str = "provenance/provenance.intoto.jsonl";
const SIGNER: &str = "provenance/signer.pem";
const RAW: &str = "provenance/x86_64/sound/core/pcm.c";

/// What is done to a codestream's folder (the second is another codestream's), and what is said of it.
type Case = (&'static str, fn(&Path, &Path), &'static str);

const CASES: &[Case] = &[
    (
        "a rendered source",
        |cs, _| append(&cs.join("lp/lp_sound_core_pcm.c"), "int x;\n"),
        "not what is rendered",
    ),
    (
        "a makefile",
        |cs, _| append(&cs.join("lp/Makefile"), "all: ; id\n"),
        "not what is rendered",
    ),
    (
        "the source as it was extracted",
        |cs, _| append(&cs.join(RAW), "\n"),
        "not what was signed",
    ),
    (
        "what the tool left",
        |cs, _| append(&cs.join("work_sound_core_pcm.c/compile_commands.json"), " "),
        "not what was signed",
    ),
    (
        "a missing source",
        |cs, _| fs::remove_file(cs.join(RAW)).unwrap(),
        "it is missing",
    ),
    (
        "a missing header",
        |cs, _| fs::remove_file(cs.join("lp/livepatch_lp.h")).unwrap(),
        "it is missing",
    ),
    (
        "a file that make would read first",
        |cs, _| append(&cs.join("lp/GNUmakefile"), "x"),
        "nothing is stated of this file",
    ),
    (
        "sources for an architecture that has none",
        |cs, _| {
            fs::create_dir_all(cs.join("s390x/lp")).unwrap();
            append(&cs.join("s390x/lp/more.c"), "int x;\n");
        },
        "nothing is stated of this file",
    ),
    (
        "a link",
        |cs, _| symlink("/etc/passwd", cs.join("lp/more.c")).unwrap(),
        "symbolic link",
    ),
    (
        "a source behind a link",
        |cs, _| {
            fs::rename(cs.join(RAW), cs.join("pcm.c")).unwrap();
            symlink(cs.join("pcm.c"), cs.join(RAW)).unwrap();
        },
        "symbolic link",
    ),
    (
        "a fix",
        |cs, _| {
            append(
                &cs.parent()
                    .unwrap()
                    .parent()
                    .unwrap()
                    .join("fixes/all/01-limit-streams.patch"),
                "\n",
            )
        },
        "not the fix that was applied",
    ),
    (
        "a statement",
        |cs, _| {
            each(cs, |e| {
                e.payload = String::from_utf8_lossy(&e.payload)
                    .replace("gcc-12", "gcc-13")
                    .into_bytes()
            })
        },
        "is not signed by the key",
    ),
    (
        "a signature",
        |cs, _| each(cs, |e| e.signatures[0].bytes[7] ^= 1),
        "is not signed by the key",
    ),
    (
        "a signature of no length",
        |cs, _| each(cs, |e| e.signatures[0].bytes.clear()),
        "is not signed by the key",
    ),
    (
        "a signature of something else",
        |cs, _| {
            let other = all(cs).swap_remove(0).signatures.swap_remove(0);
            each(cs, |e| e.signatures = vec![other.clone()]);
        },
        "is not signed by the key",
    ),
    (
        "another codestream's statements",
        |cs, other| _ = fs::copy(other.join(STATEMENTS), cs.join(STATEMENTS)).unwrap(),
        "the statements are about lp/native/debian12",
    ),
    (
        "another codestream's folder",
        |cs, other| {
            fs::remove_dir_all(cs).unwrap();
            copy(other, cs);
        },
        "the statements are about lp/native/debian12",
    ),
    (
        "one statement of another codestream",
        |cs, other| write(cs, &[all(other).swap_remove(0), all(cs).swap_remove(1)]),
        "the others are of lp for",
    ),
    (
        "a statement twice",
        |cs, _| write(cs, &[all(cs), all(cs)].concat()),
        "two statements about",
    ),
    (
        "a statement less",
        |cs, _| write(cs, &all(cs)[1..]),
        "the statement about x86_64 is missing",
    ),
    (
        "the other statement less",
        |cs, _| write(cs, &all(cs)[..1]),
        "as a whole is missing",
    ),
    (
        "the end of the statements",
        |cs, _| {
            fs::File::options()
                .write(true)
                .open(cs.join(STATEMENTS))
                .unwrap()
                .set_len(2000)
                .unwrap()
        },
        "no DSSE envelope",
    ),
    (
        "no statements",
        |cs, _| fs::remove_dir_all(cs.join("provenance")).unwrap(),
        "no statements beside it",
    ),
    (
        "brackets without end",
        |cs, _| fs::write(cs.join(STATEMENTS), "[".repeat(1 << 20)).unwrap(),
        "no DSSE envelope",
    ),
    (
        "a statement that is too large",
        |cs, _| {
            fs::File::create(cs.join(STATEMENTS))
                .unwrap()
                .set_len(10 << 30)
                .unwrap()
        },
        "nothing of ours has more",
    ),
    (
        "more statements than there are architectures",
        |cs, _| write(cs, &vec![all(cs).swap_remove(0); 100]),
        "more than 16 envelopes",
    ),
    (
        "no certificate",
        |cs, _| fs::write(cs.join(SIGNER), "").unwrap(),
        "bare key",
    ),
    (
        "a certificate that is none",
        |cs, _| {
            fs::write(
                cs.join(SIGNER),
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            )
            .unwrap()
        },
        "no certificate",
    ),
    (
        "what its writer chose",
        |cs, _| fs::write(cs.join("provenance/written-by.json"), "{}").unwrap(),
        "can't be read",
    ),
];

fn append(path: &Path, text: &str) {
    let mut now = fs::read(path).unwrap_or_default();
    now.extend_from_slice(text.as_bytes());
    fs::write(path, now).unwrap();
}

fn all(codestream: &Path) -> Vec<Envelope> {
    Envelope::parse_all(&fs::read_to_string(codestream.join(STATEMENTS)).unwrap()).unwrap()
}

fn write(codestream: &Path, envelopes: &[Envelope]) {
    let lines: String = envelopes.iter().map(|e| e.to_line() + "\n").collect();
    fs::write(codestream.join(STATEMENTS), lines).unwrap();
}

fn each(codestream: &Path, change: impl Fn(&mut Envelope)) {
    let mut envelopes = all(codestream);
    envelopes.iter_mut().for_each(change);
    write(codestream, &envelopes);
}

#[test]
fn whatever_is_changed_afterwards_is_noticed() {
    let Some(net) = Net::new() else { return };
    let Some(trees) = trees() else { return };
    let mut farm = Farm::start_on(Some(&net), "lease_ms = 20000\n");
    farm.add_worker_on(
        Some(&net.away),
        WorkerOptions {
            trees: &trees,
            codestreams: "debian12-6.1",
            slots: 2,
            ..WorkerOptions::default()
        },
    );
    let livepatch = got(&farm, &trees);
    let folders = codestreams(&livepatch);
    assert!(folders.len() > 1, "{folders:?}");
    let ca = farm.identity.as_ref().unwrap().ca.to_str().unwrap().to_owned();

    let good = verify(&livepatch, &["--ca", &ca]);
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(
        good.stdout
            .ends_with("not covered: codestreams.json\nnot covered: commit.msg\nverified\n"),
        "{good:?}"
    );
    let strict = verify(&livepatch, &["--ca", &ca, "--strict"]);
    assert_eq!(strict.code, Some(3), "{strict:?}");
    for part in [livepatch.join("native"), folders[0].clone()] {
        let strict = verify(&part, &["--ca", &ca, "--strict"]);
        assert_eq!(strict.code, Some(0), "{strict:?}");
    }
    tells_inputs(&folders[0]);

    for (what, alter, said) in CASES {
        let scratch = tempfile::tempdir().unwrap();
        let copy = copy(&livepatch, scratch.path());
        let names: Vec<_> = folders.iter().map(|f| f.file_name().unwrap()).collect();
        let (codestream, other) = (copy.join("native").join(names[0]), copy.join("native").join(names[1]));
        alter(&codestream, &other);
        let told = verify(&copy, &["--ca", &ca]);
        assert_eq!(told.code, Some(1), "{what}: {told:?}");
        assert!(told.stdout.contains(said), "{what}: {said}: {told:?}");
        assert!(told.stdout.contains("NOT verified"), "{what}: {told:?}");
    }

    // Where bytes differ, both digests are told.
    let scratch = tempfile::tempdir().unwrap();
    let altered = copy(&folders[0], &{
        let native = scratch.path().join("lp/native");
        fs::create_dir_all(&native).unwrap();
        native
    });
    append(&altered.join(RAW), "\n");
    let told = verify(&altered, &["--ca", &ca, "--output", "json"]).json();
    assert_eq!(told["verified"], false);
    let problem = &told["problems"][0];
    let sha256 = |text: Vec<u8>| klp_livepatch::provenance::Sha256::of(&text).to_string();
    assert_eq!(
        problem["expected"],
        sha256(fs::read(folders[0].join(RAW)).unwrap()),
        "{told}"
    );
    assert_eq!(problem["found"], sha256(fs::read(altered.join(RAW)).unwrap()), "{told}");

    others_are_not_believed(&livepatch, &folders[0], &ca);
    keys_change(&mut farm, &net, &ca, &livepatch);
}

/// The statement names what went in, by digest.
fn tells_inputs(codestream: &Path) {
    let statement: Value = serde_json::from_slice(&all(codestream)[0].payload).unwrap();
    let build = &statement["predicate"]["buildDefinition"];
    let names: Vec<&str> = build["resolvedDependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| {
            assert_eq!(d["digest"]["sha256"].as_str().unwrap().len(), 64, "{d}");
            d["name"].as_str().unwrap()
        })
        .collect();
    for name in [
        "config",
        "Module.symvers",
        "fix/limit-streams.patch",
        "source/sound/core/pcm.c",
        "command/sound/core/pcm.c",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let target = &build["internalParameters"]["targets"][0];
    for words in ["command", "compile"] {
        let all = target[words].as_array().unwrap();
        let machine = |word: &&Value| {
            ["/tmp", "/root", "/home"]
                .iter()
                .any(|dir| word.as_str().unwrap().contains(dir))
        };
        assert_eq!(all.iter().find(machine), None, "{words}");
        assert!(all.len() > 20, "{words}: {all:?}");
    }
    assert!(target["compiler"].as_str().unwrap().contains("gcc"), "{target}");
    let builder = statement["predicate"]["runDetails"]["builder"]["id"].as_str().unwrap();
    assert_eq!(builder, "klp-farm:farm/10.77.0.1/worker/a");
}

/// Neither another farm nor a worker can sign, and nobody is believed unasked.
fn others_are_not_believed(livepatch: &Path, codestream: &Path, ca: &str) {
    let nobody = verify(livepatch, &[]);
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(
        nobody.stderr.contains("--ca") && nobody.stderr.contains("--key"),
        "{nobody:?}"
    );
    let nothing = verify(&livepatch.join("fixes"), &["--ca", ca]);
    assert!(
        nothing.code == Some(1) && nothing.stdout.contains("there is no"),
        "{nothing:?}"
    );
    let absent = verify(&livepatch.join("absent"), &["--ca", ca]);
    assert!(absent.code == Some(1) && absent.stderr.contains("absent"), "{absent:?}");

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("coordinator.toml"), "").unwrap();
    let stranger = Identity::make(None, other.path());
    let told = verify(livepatch, &["--ca", stranger.ca.to_str().unwrap()]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stdout.contains("not made by the CA that you trust"), "{told:?}");
    let told = verify(
        livepatch,
        &[
            "--key",
            other.path().join("coordinator/tls/signer.pem").to_str().unwrap(),
        ],
    );
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stdout.contains("is not signed by the key"), "{told:?}");

    // By the right key itself, without its CA.
    let pinned = codestream.join(SIGNER);
    let told = verify(livepatch, &["--key", pinned.to_str().unwrap()]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("no certificate was asked"), "{told:?}");

    // The server's certificate is the CA's, too, and its key is another.
    let scratch = tempfile::tempdir().unwrap();
    let copy = copy(livepatch, scratch.path());
    let server = Path::new(ca).with_file_name("server.pem");
    fs::copy(server, codestreams(&copy)[0].join(SIGNER)).unwrap();
    let told = verify(&copy, &["--ca", ca]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stdout.contains("not one for signing statements"), "{told:?}");
}

/// What an old key signed stays verified; what is fetched later is signed by the new one, and says so.
fn keys_change(farm: &mut Farm, net: &Net, ca: &str, livepatch: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let before = copy(livepatch, scratch.path());
    fetch(farm);
    let statements = |livepatch: &Path| fs::read(codestreams(livepatch)[0].join(STATEMENTS)).unwrap();
    assert_eq!(
        statements(livepatch),
        statements(&before),
        "the same, each time it is asked for"
    );

    let data = farm.dir.path().join("coordinator");
    let rotated = command_on(Some(&net.here), "klp-coordinator")
        .args(["init", "--rotate-signer", "--data-dir", data.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(rotated.status.success(), "{rotated:?}");
    fetch(farm);
    assert_ne!(statements(livepatch), statements(&before));
    for folder in [livepatch, &before] {
        let told = verify(folder, &["--ca", ca]);
        assert_eq!(told.code, Some(0), "{told:?}");
    }

    // A farm of a former version has no such key, and gets one when it is started.
    fs::remove_file(data.join("tls/signer.pem")).unwrap();
    farm.restart_coordinator();
    wait_until(Duration::from_secs(5), "there is a key again", || {
        data.join("tls/signer.pem").exists().then_some(())
    });
    let envelopes = all(&codestreams(&fetch(farm))[0]);
    let Signature { keyid, bytes } = &envelopes[0].signatures[0];
    assert_eq!((keyid.len(), bytes.len()), (64, 64));
    assert_eq!(verify(livepatch, &["--ca", ca]).code, Some(0));
}
