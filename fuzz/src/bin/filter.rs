//! A codestream filter, and names behind it: any expression is refused or gives an answer, soon.
#![no_main]

use klp_livepatch::{Codestream, CodestreamFilter};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (filter, names) = text.split_once('\n').unwrap_or((text, "15.6u1 debian12-6.1.0-50"));
    if let Ok(filter) = filter.parse::<CodestreamFilter>() {
        for name in names.split(' ').filter_map(|name| name.parse::<Codestream>().ok()) {
            filter.matches(&name);
        }
    }
});
