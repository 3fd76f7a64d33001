//! `series.conf`: each path is in one of its lines.
#![no_main]

use klp_livepatch::fix::series::Series;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(series) = text.parse::<Series>() {
        let lines: Vec<&str> = text.lines().collect();
        for entry in &series.entries {
            assert!(lines[entry.line - 1].contains(entry.path.as_str()));
        }
        assert!(series.odd.iter().all(|line| *line <= lines.len()));
    }
});
