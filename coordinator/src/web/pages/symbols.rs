//! The symbols that a livepatch's sources need at run time, gathered over codestreams and architectures.

use std::collections::BTreeMap;

use klp_proto::v1;
use klp_proto::v1::report::Report;
use klp_proto::view::findings::newest;

/// A symbol, the object that provides it, who needs it and where it is missing.
#[derive(Debug, PartialEq, Eq)]
pub struct Symbol {
    pub symbol: String,
    pub object: String,
    pub needed: Vec<String>,
    pub missing: Vec<String>,
}

/// What the newest sources need. Those that are missing somewhere come first.
pub fn symbols(tasks: &[v1::Task]) -> Vec<Symbol> {
    let mut gone: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for task in tasks {
        let Some(platform) = &task.platform else { continue };
        if let Some(Report::Verify(report)) = task.report.as_ref().and_then(|r| r.report.as_ref()) {
            for symbol in report.symbols.iter().filter(|s| s.found_in.is_empty()) {
                let places = gone.entry((&symbol.object, &symbol.symbol)).or_default();
                add(places, &platform.codestream, &platform.arch);
            }
        }
    }
    let mut found: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for ((codestream, arch), (_, report)) in newest(tasks) {
        for symbol in report.targets.iter().flat_map(|t| &t.externalized) {
            let needed = found.entry((&symbol.object, &symbol.symbol)).or_default();
            add(needed, codestream, arch);
        }
    }
    let mut symbols: Vec<Symbol> = found
        .into_iter()
        .map(|(key @ (object, symbol), needed)| Symbol {
            symbol: symbol.to_owned(),
            object: object.to_owned(),
            needed,
            missing: gone.remove(&key).unwrap_or_default(),
        })
        .collect();
    symbols.sort_by_key(|s| s.missing.is_empty());
    symbols
}

fn add(places: &mut Vec<String>, codestream: &str, arch: &str) {
    let place = format!("{codestream}/{arch}");
    if !places.contains(&place) {
        places.push(place);
    }
}
