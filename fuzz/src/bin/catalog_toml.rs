//! Our own catalog: read without a panic, and what was read comes back.
#![no_main]

use klp_livepatch::catalog::Catalog;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(catalog) = Catalog::parse(text) {
        assert_eq!(Catalog::parse(&catalog.to_toml()), Ok(catalog));
    }
});
