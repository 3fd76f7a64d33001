//! Symbol tables and ftrace locations of an ELF file: refused, or numbered as the kernel does.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| klp_worker::symbols::fuzzing::elf(bytes));
