//! A kernel's kallsyms tables: refused, or symbols in the order of their addresses.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| klp_worker::symbols::fuzzing::kallsyms(bytes));
