//! Makefiles of kbuild, one for each folder, between lines of equals signs: how a file is built is found out soon.
#![no_main]

use klp_livepatch::fix::kbuild;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let makefiles: Vec<&str> = text.split("\n===\n").collect();
    let read = |path: &str| {
        let depth = path.matches('/').count();
        makefiles
            .get(depth)
            .filter(|_| path.ends_with("Makefile"))
            .map(|text| (*text).to_owned())
    };
    if let Ok(file) = "d/e/a.c".parse() {
        let found = kbuild::find(&file, &read);
        assert!(!found.built.is_empty() || !found.unclear.is_empty());
        for built in &found.built {
            built.object();
        }
    }
});
