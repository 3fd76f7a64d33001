//! `modules.order`: a module is below the folder, or there is none.
#![no_main]

use std::path::Path;

use klp_worker::trees::ModuleIndex;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let index = ModuleIndex::listed(Path::new("/nonexistent"), text);
    assert!(index.len() <= text.lines().count());
    for name in index.names().take(20) {
        assert!(!name.contains('/') && index.find(name).is_err());
        index.in_folder(name);
    }
});
