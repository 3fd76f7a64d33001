//! clang-extract's `lp.dsc` and prototypes: no odd name gets through.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| klp_worker::extract::fuzzing::clang_extract(text));
