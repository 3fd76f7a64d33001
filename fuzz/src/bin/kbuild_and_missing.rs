//! `Kbuild.inc` and `missing_syms`: read without a panic.
#![no_main]

use klp_livepatch::klp_build::{kbuild, missing_syms};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(livepatch) = "bsc1".parse() {
        let _ = kbuild::parse(&livepatch, text);
    }
    if let Ok(missing) = missing_syms::parse(text) {
        assert_eq!(missing_syms::parse(&missing_syms::print(&missing)), Ok(missing));
    }
});
