//! A `groups` file behind a line of known codestreams: read without a panic, and what was read is written so that it reads
//! the same.
#![no_main]

use klp_livepatch::Codestream;
use klp_livepatch::compression::{groups_file, parse_groups_file};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (known, file) = text.split_once('\n').unwrap_or((text, ""));
    let known: Vec<Codestream> = known.split(' ').filter_map(|name| name.parse().ok()).collect();
    if let Ok(mut groups) = parse_groups_file(file, &known) {
        let grouped = groups.concat();
        let mut again = parse_groups_file(&groups_file(&groups), &grouped).expect("what was written can be read");
        groups.sort();
        again.sort();
        assert_eq!(again, groups);
    }
});
