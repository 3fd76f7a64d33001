//! klp-ccp's `fun_exts`, `obj_exts`, `patched_funcs`, log and source: no odd name gets through.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| klp_worker::extract::fuzzing::ccp(text));
