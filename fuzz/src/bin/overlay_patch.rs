//! A client's patch: what is written for other programs reads as what was understood.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| klp_worker::trees::overlay::fuzzing::patch(bytes));
