//! A C file's functions and data, and what differs between two: a file is as it is.
#![no_main]

use klp_livepatch::fix::functions::compare;
use klp_livepatch::fix::outline::Outline;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (old, new) = text.split_once("\n===\n").unwrap_or((text, ""));
    if let Ok(outline) = Outline::new(old) {
        let lines = old.lines().count().max(1);
        for item in &outline.items {
            assert!(item.lines.0 >= 1 && item.lines.0 <= item.lines.1 && item.lines.1 <= lines + 1);
        }
        assert!(compare(old, old).is_ok_and(|changes| changes.is_empty()));
    }
    let _ = compare(old, new);
});
