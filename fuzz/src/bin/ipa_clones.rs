//! gcc's dump of what it inlined and cloned: no function holds a copy of itself.
#![no_main]

use klp_worker::check::IpaClones;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let clones = IpaClones::parse(text);
    for function in text.split(';').take(50) {
        assert!(!clones.holders(function).contains(&function));
    }
});
