//! Which functions are replaced where: the lines of `patched_funcs.csv`, and what upstream modules' tables say.

use std::collections::{BTreeMap, BTreeSet};

use super::condition::{both, enabled, split};
use super::input::SourceFile;
use crate::Arch;
use crate::names::{FunctionName, ObjectName};
use crate::patched_funcs::PatchedFunc;

/// A function to replace in one object, and the condition that it holds under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// By the name the kernel knows it by.
    pub object: ObjectName,
    pub function: FunctionName,
    pub sympos: u32,
    pub replacement: FunctionName,
    pub condition: Option<String>,
}

/// All replaced functions of the files, in the order of files and names. A function has an entry for each object that
/// holds it and each position it has there.
pub fn replaced(files: &[SourceFile], archs: &BTreeSet<Arch>) -> Vec<Replaced> {
    let mut all = Vec::new();
    for file in files {
        let guard = file.guard(archs).map(enabled);
        let mut patched: Vec<_> = file.patched.iter().collect();
        patched.sort_by(|a, b| a.function.cmp(&b.function));
        for function in patched {
            let place = |arch: &Arch| {
                let facts = &file.platforms[arch];
                let sympos = facts.functions.get(&function.function).copied().unwrap_or(0);
                (facts.object.as_loaded(), sympos)
            };
            let places: BTreeMap<Arch, _> = file.platforms.keys().map(|arch| (*arch, place(arch))).collect();
            all.extend(split(places).into_iter().map(|((object, sympos), condition)| Replaced {
                object,
                function: function.function.clone(),
                sympos,
                replacement: function.replacement.clone(),
                condition: both(condition, guard.clone()),
            }));
        }
    }
    all
}

/// The lines of `patched_funcs.csv`.
pub fn patched_funcs(replaced: &[Replaced]) -> Vec<PatchedFunc> {
    let line = |r: &Replaced| PatchedFunc {
        object: r.object.clone(),
        function: r.function.clone(),
        sympos: r.sympos,
        replacement: r.replacement.clone(),
        // Made of checked names, a few words for each architecture: always a plain condition.
        condition: r.condition.as_ref().and_then(|text| text.parse().ok()),
    };
    replaced.iter().map(line).collect()
}
