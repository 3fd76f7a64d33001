//! `Module.symvers`: read without a panic, a line an export at most.
#![no_main]

use klp_worker::symbols::Symvers;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(symvers) = Symvers::parse(text) {
        assert!(symvers.len() <= text.lines().count());
        assert!(!symvers.get("a").is_some_and(|export| export.module.contains('/')));
    }
});
