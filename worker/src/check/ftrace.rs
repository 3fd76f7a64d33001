//! Can the kernel divert a function's calls?

use klp_livepatch::names::{FunctionName, ObjectName};
use klp_livepatch::report::Traced;

use super::Findings;
use crate::symbols::{Place, SymbolKind};

/// `untold`: why the object's table does not tell what is traced.
pub(super) fn check(
    function: &FunctionName,
    object: &ObjectName,
    place: &Place,
    untold: Option<&str>,
    findings: &mut Findings,
) -> Traced {
    if place.init {
        findings.doubt(format!(
            "{function} in {object} is init code: it has run and its memory is freed long before a livepatch is loaded; patch what uses its results instead"
        ));
    }
    match place.traced {
        Traced::Unknown if place.kind == SymbolKind::Function => findings.warning(format!(
            "whether {function} in {object} can be traced, and so patched, is not known: {}",
            untold.map_or("its table doesn't tell".to_owned(), |why| format!("{object} {why}"))
        )),
        // What is no function has been told already.
        Traced::Unknown => {}
        Traced::No if !place.init => findings.doubt(format!(
            "{function} in {object} has no ftrace location, so the kernel can't divert its calls: it is marked notrace or noinstr, or its file is built without tracing; patch the functions that call it instead"
        )),
        Traced::No | Traced::Yes => {}
    }
    place.traced
}
