//! What `make -sn` prints, shell words, and `compile_commands.json`: only the command asked for is found.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| klp_worker::extract::fuzzing::compile_command(text));
