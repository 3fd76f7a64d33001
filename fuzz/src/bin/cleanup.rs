//! A tool's source: cleaned up without a panic, and clean then.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| klp_worker::extract::fuzzing::cleanup(text));
