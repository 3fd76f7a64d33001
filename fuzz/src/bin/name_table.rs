//! vmlinux's name table, damaged in any way: odd answers, nothing worse.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| klp_worker::symbols::fuzzing::name_table(bytes));
