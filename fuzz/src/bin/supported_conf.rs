//! `supported.conf`: an answer for any module's path in it.
#![no_main]

use klp_livepatch::fix::supported::support;

libfuzzer_sys::fuzz_target!(|text: &str| {
    for module in text.split_whitespace().take(20).chain(["net/sched/sch_taprio"]) {
        support(text, module).may_be_supported();
    }
});
