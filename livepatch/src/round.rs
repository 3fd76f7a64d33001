//! Rounds: what a task is told beyond its livepatch's spec, because earlier tasks of its codestream found it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::names::{ObjectName, SourcePath, SymbolName};
use crate::report::{ExtractReport, VerifyReport};

/// How often a codestream is extracted from at most, for symbols that some architecture lacks.
pub const MAX_ROUNDS: u32 = 6;

/// How many symbols of one source are looked for elsewhere. No livepatch released so far needs a tenth of it.
const MAX_WANTED: usize = 2000;

/// What a task is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Input {
    /// Extract with these symbols copied rather than externalized, beside those that the spec names.
    Avoid(BTreeSet<SymbolName>),
    /// Verify that these are there.
    Verify(BTreeSet<WantedSymbol>),
}

/// A symbol that a source needs at run time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WantedSymbol {
    /// The object that provides it where the source was extracted.
    pub object: ObjectName,
    pub symbol: SymbolName,
    /// The target that needs it: of several symbols of one name, its own file's is meant.
    pub file: SourcePath,
}

impl WantedSymbol {
    /// Whether the symbol could be copied instead: what the kernel makes for static calls and tracepoints could not.
    pub fn can_be_copied(&self) -> bool {
        const MADE: [&str; 4] = ["__SCT__", "__SCK__", "__traceiter_", "__tracepoint_"];
        !MADE.iter().any(|prefix| self.symbol.as_str().starts_with(prefix))
    }
}

impl ExtractReport {
    /// All that its sources need at run time. A name that no object could have is left out: nobody could look for it.
    pub fn wanted(&self) -> BTreeSet<WantedSymbol> {
        let wanted = self.targets.iter().flat_map(|target| {
            target.externalized.iter().filter_map(|symbol| {
                Some(WantedSymbol {
                    object: symbol.object.clone(),
                    symbol: symbol.symbol.parse().ok()?,
                    file: target.file.clone(),
                })
            })
        });
        wanted.take(MAX_WANTED).collect()
    }
}

impl VerifyReport {
    /// The symbols that are not there, by object and name.
    pub fn missing(&self) -> BTreeSet<(&ObjectName, &str)> {
        let missing = self.symbols.iter().filter(|s| s.found_in.is_none());
        missing.map(|s| (&s.object, s.symbol.as_str())).collect()
    }
}
