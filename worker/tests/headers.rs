//! Fixes that change the headers of real kernels: what changed is in the livepatch source, and that compiles against the kernel
//! as it is.
//!
//! Reads the trees in the folder KLP_FARM_TREES names, as trees.rs does.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use klp_worker::extract::{CompileCheck, Extraction, Form, Job};
use klp_worker::isolation::Cell;
use klp_worker::trees::overlay::{Patch, View};
use klp_worker::trees::{Tree, TreeKind, TreeStore};
use tokio_util::sync::CancellationToken;

/// A Debian tree, of which there must be one if the variable is set.
fn debian_tree() -> Option<Tree> {
    let Some(dir) = std::env::var_os("KLP_FARM_TREES") else {
        assert!(
            std::env::var_os("KLP_FARM_SKIP_REAL").is_some(),
            "KLP_FARM_TREES is not set: run `make test`, or set KLP_FARM_SKIP_REAL=1 to go without real kernels"
        );
        return None;
    };
    let trees = TreeStore::open(Path::new(&dir)).unwrap().list().trees;
    let tree = trees.into_iter().rev().find(|tree| tree.kind == TreeKind::Debian);
    assert!(tree.is_some(), "no debian tree in {dir:?}");
    tree
}

/// A fix made of a file's text by replacing parts of it, each of which it must have once.
fn fix(tree: &Tree, file: &str, parts: &[(&str, &str)]) -> Patch {
    let text = std::fs::read_to_string(tree.src.join(file)).unwrap();
    let mut fixed = text.clone();
    for (from, to) in parts {
        assert_eq!(text.matches(from).count(), 1, "{from:?} in {file}");
        fixed = fixed.replace(from, to);
    }
    let dir = tempfile::tempdir().unwrap();
    for (side, text) in [("a", &text), ("b", &fixed)] {
        let path = dir.path().join(side).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let done = Command::new("diff")
        .args(["-u", &format!("a/{file}"), &format!("b/{file}")])
        .current_dir(&dir)
        .output()
        .unwrap();
    Patch {
        name: "fix.patch".to_owned(),
        bytes: done.stdout,
    }
}

/// Extracts in a view of the tree with the fixes, as an attempt does.
async fn extract(
    tree: &Tree,
    fixes: &[Patch],
    file: &str,
    object: &str,
    functions: &[&str],
) -> (Extraction, CompileCheck) {
    let scratch = tempfile::tempdir().unwrap();
    let view = View::new(tree, scratch.path(), fixes, &Cell::open(), &CancellationToken::new()).await;
    let view = view.unwrap().unwrap();
    let names = functions.iter().map(|f| (*f).to_owned()).collect();
    let job = Job::for_tree(tree, file, names, object, scratch.path()).unwrap();
    let job = job.in_view(&view).unwrap();
    let symbols = job.symbols().unwrap();
    let start = Instant::now();
    let (extraction, check, _) = job.run(&symbols).unwrap();
    println!("{file}: {functions:?} in {:?}\n{}", start.elapsed(), extraction.source);
    println!("{:#?}\n{check:#?}", extraction.warnings);
    (extraction, check)
}

fn has(extraction: &Extraction, text: &str) {
    assert!(extraction.source.contains(text), "{text} is missing");
}

#[tokio::test]
#[ignore = "makes some ten thousand links"]
async fn changed_inline_functions_of_a_real_header_are_in_the_source() {
    let Some(tree) = debian_tree() else { return };
    let header = fix(
        &tree,
        "include/sound/pcm.h",
        &[
            (
                "static inline int snd_pcm_running(struct snd_pcm_substream *substream)\n{\n",
                "#define PCM_NOT_RUNNING\tSNDRV_PCM_STATE_SUSPENDED\n\nstruct pcm_running_note {\n\tsnd_pcm_state_t seen;\n};\n\n\
                 static inline int snd_pcm_running(struct snd_pcm_substream *substream)\n{\n\
                 \tstruct pcm_running_note note = { substream->runtime->state };\n\n\
                 \tif (note.seen == PCM_NOT_RUNNING)\n\t\treturn 0;\n",
            ),
            (
                "static inline snd_pcm_uframes_t snd_pcm_playback_avail(struct snd_pcm_runtime *runtime)\n{\n",
                "static inline snd_pcm_uframes_t snd_pcm_playback_avail(struct snd_pcm_runtime *runtime)\n{\n\
                 \tif (!runtime->status)\n\t\treturn 0;\n",
            ),
        ],
    );
    let functions = ["snd_pcm_pre_prepare", "snd_pcm_pre_start"];
    let (x, check) = extract(&tree, &[header], "sound/core/pcm_native.c", "snd-pcm", &functions).await;
    assert!(check.ok, "{check:#?}");
    assert_eq!(x.form, Form::Sliced, "{:?}", x.warnings);
    for text in [
        "#define PCM_NOT_RUNNING\tSNDRV_PCM_STATE_SUSPENDED",
        "struct pcm_running_note {",
        "klpr_snd_pcm_running(struct snd_pcm_substream *substream)\n{\n\tstruct pcm_running_note note",
        "klpr_snd_pcm_playback_avail(struct snd_pcm_runtime *runtime)\n{\n\tif (!runtime->status)",
        // It calls the one above.
        "klpr_snd_pcm_playback_data(substream)",
        "if (klpr_snd_pcm_running(substream))",
    ] {
        has(&x, text);
    }
    // Nothing else of the header is touched.
    assert!(!x.source.contains("klpr_snd_pcm_stream_linked"), "{}", x.source);
    assert!(x.warnings.is_empty(), "{:#?}", x.warnings);
}

#[tokio::test]
#[ignore = "makes some ten thousand links"]
async fn macros_layouts_and_constants_of_real_headers_are_seen_to() {
    let Some(tree) = debian_tree() else { return };
    let fixes = [
        fix(
            &tree,
            "include/linux/list.h",
            &[(
                "static inline int list_empty(const struct list_head *head)\n{\n",
                "static inline int list_empty(const struct list_head *head)\n{\n\tif (!head)\n\t\treturn 1;\n",
            )],
        ),
        fix(
            &tree,
            "include/sound/pcm.h",
            &[
                (
                    "#define SNDRV_PCM_TRIGGER_STOP\t\t0",
                    "#define SNDRV_PCM_TRIGGER_STOP\t\t(1 - 1)",
                ),
                (
                    "struct snd_pcm_group {\t\t/* keep linked substreams */\n",
                    "struct snd_pcm_group {\t\t/* keep linked substreams */\n\tint kept;\n",
                ),
            ],
        ),
    ];
    let functions = ["snd_pcm_unlink", "snd_pcm_do_stop"];
    let (x, check) = extract(&tree, &fixes, "sound/core/pcm_native.c", "snd-pcm", &functions).await;
    assert!(check.ok, "{check:#?}");
    has(
        &x,
        "#undef SNDRV_PCM_TRIGGER_STOP\n#define SNDRV_PCM_TRIGGER_STOP\t\t(1 - 1)",
    );
    let layouts = x.warnings.iter().filter(|w| w.contains("another layout"));
    let told: Vec<&String> = layouts.collect();
    assert!(
        told.iter()
            .any(|w| w.contains("struct snd_pcm_group ") && w.contains("include/sound/pcm.h:")),
        "{told:#?}"
    );
}
