//! Boot images: those that lie about their kernel are refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| klp_worker::symbols::fuzzing::boot_image(bytes));
