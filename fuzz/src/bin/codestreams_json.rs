//! `codestreams.json` and the `conf.json` that may be beside it, here behind a line of dashes: read without a panic, and what
//! was read is written so that it reads the same.
#![no_main]

use klp_livepatch::klp_build::{Generation, export, import};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (codestreams, conf) = match text.split_once("\n---\n") {
        Some((codestreams, conf)) => (codestreams, Some(conf)),
        None => (text, None),
    };
    if let Ok(imported) = import(codestreams, conf) {
        let written = export(&imported.project);
        let again = import(&written, None).expect("what was written can be read");
        assert_eq!(again.project, imported.project);
        assert_eq!(again.generation, Generation::Current);
        assert_eq!(export(&again.project), written);
    }
});
