//! `patched_funcs.csv`: read without a panic, and what was read comes back.
#![no_main]

use klp_livepatch::patched_funcs::{parse, print};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(functions) = parse(text) {
        assert_eq!(parse(&print(&functions)), Ok(functions));
    }
});
