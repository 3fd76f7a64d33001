//! Who holds a copy of a function's code, which stays as it is when only the function is replaced?

use std::collections::BTreeSet;

use klp_livepatch::names::FunctionName;
use klp_livepatch::spec::Target;

use super::inlining::Inlining;
use super::ipa_clones::IpaClones;
use super::{Findings, near};
use crate::symbols::SymbolTable;

/// Functions at most that a sentence names.
const NAMED: usize = 8;

/// What is known about one target's file.
pub(super) struct Copies<'a> {
    clones: Option<&'a IpaClones>,
}

impl<'a> Copies<'a> {
    /// `wanted`: somebody wants to hear if nothing is known.
    pub(super) fn of(inlining: &'a Inlining, target: &Target, wanted: bool, findings: &mut Findings) -> Self {
        let clones = match inlining.of(&target.file) {
            Some(Ok(clones)) => Some(clones),
            Some(Err(why)) => {
                if wanted {
                    findings.warning(format!(
                        "which functions were inlined into others is not known: {why}; look at the callers yourself"
                    ));
                }
                None
            }
            None => None,
        };
        Self { clones }
    }

    /// The functions of the object that hold a copy, by their names in the source.
    pub(super) fn holders(&self, function: &FunctionName, object: &dyn SymbolTable) -> Vec<String> {
        let Some(clones) = self.clones else { return Vec::new() };
        let exist: BTreeSet<String> = clones
            .holders(function.as_str())
            .into_iter()
            .filter(|name| object.lookup(name).is_some())
            .map(|name| name.split('.').next().unwrap_or(name).to_owned())
            .filter(|name| name != function.as_str())
            .collect();
        exist.into_iter().collect()
    }
}

/// What a reviewer should know about copies of a function that is there.
pub(super) fn warn(
    function: &FunctionName,
    target: &Target,
    clones: &[String],
    holders: &[String],
    findings: &mut Findings,
) {
    // A `.cold` part is reached from the function itself only.
    let copies: Vec<String> = clones
        .iter()
        .filter(|clone| !clone.contains(".cold"))
        .cloned()
        .collect();
    if !copies.is_empty() {
        findings.warning(format!(
            "the compiler made {} of {function} for certain callers, which a replaced {function} does not reach; patch these callers too",
            near::and_list(&shortened(&copies))
        ));
    }
    let missed: Vec<String> = holders
        .iter()
        .filter(|holder| {
            !target
                .functions
                .iter()
                .any(|patched| patched.as_str() == holder.as_str())
        })
        .cloned()
        .collect();
    if !missed.is_empty() {
        findings.warning(format!(
            "{} {} inlined code of {function}, which stays as it is; patch {} too",
            near::and_list(&shortened(&missed)),
            if missed.len() == 1 { "holds" } else { "hold" },
            if missed.len() == 1 { "it" } else { "them" },
        ));
    }
}

pub(super) fn shortened(names: &[String]) -> Vec<String> {
    let mut named: Vec<String> = names.iter().take(NAMED).cloned().collect();
    if names.len() > NAMED {
        named.push(format!("{} more", names.len() - NAMED));
    }
    named
}
