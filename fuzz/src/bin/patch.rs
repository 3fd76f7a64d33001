//! A fix: its patch behind a line of dashes and the file it is for. What fits is undone by its reverse.
#![no_main]

use klp_livepatch::fix::lint;
use klp_livepatch::fix::patch::Patch;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (old, patch) = text.split_once("\n===\n").unwrap_or(("", text));
    let Ok(patch) = patch.parse::<Patch>() else { return };
    for file in &patch.files {
        let new = file.apply(old);
        assert!(new.missed.len() <= file.hunks.len());
        assert_eq!(file.reversed().reversed(), *file);
        // Hunks out of order may leave a file that others fit, too.
        // Of two carriage returns at a line's end, reading it takes one.
        if new.text.contains('\r') || new.text.is_empty() {
            continue;
        }
        if let ([_], []) = (&file.hunks[..], &new.missed[..]) {
            assert_eq!(file.reversed().apply(&new.text).missed, []);
        }
    }
    let _ = (patch.cves(), lint::review(&patch, &|_| Some(old.to_owned())));
});
