//! `supported.csv`: read without a panic, and what was read survives our own format.
#![no_main]

use klp_livepatch::catalog::Catalog;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let header = "Update ID,Maintenance Project,Kernel version,Supported until,LTSS until\n";
    if let Ok(catalog) = Catalog::parse(&format!("{header}{text}")) {
        assert_eq!(Catalog::parse(&catalog.to_toml()), Ok(catalog));
    }
});
