//! `.config`: every option that is named can be asked for, and a configuration is as it is.
#![no_main]

use klp_worker::trees::KernelConfig;
use klp_worker::trees::config::Setting;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let config = KernelConfig::parse(text);
    assert!(
        config
            .names()
            .all(|name| config.get(&format!("CONFIG_{name}")) != Setting::Unknown)
    );
    assert!(config.changed_in(&config).is_empty());
    if let Ok(compiler) = config.compiler() {
        assert!(!compiler.contains(['/', ' ']) && !compiler.starts_with('-'));
    }
    let _ = (config.arch(), config.has_ibt());
});
