//! Which object holds the target: vmlinux if its CONFIG is y, else the module the spec names.

use std::sync::Arc;

use klp_livepatch::names::ObjectName;
use klp_livepatch::report::ConfigValue;
use klp_livepatch::spec::Target;

use super::{Findings, Kernel, ModuleError, TreeError, near};
use crate::symbols::SymbolTable;

/// An object that is there, with its symbols.
pub(super) struct FoundObject {
    pub name: ObjectName,
    pub symbols: Arc<dyn SymbolTable>,
}

pub(super) fn check(
    kernel: &dyn Kernel,
    target: &Target,
    value: ConfigValue,
    findings: &mut Findings,
) -> Result<Option<FoundObject>, TreeError> {
    let Target { object, config, .. } = target;
    if value == ConfigValue::BuiltIn {
        if !object.is_vmlinux() {
            findings.warning(format!(
                "the spec names module {object}, but {config}=y here, so the functions are looked for in vmlinux"
            ));
        }
        return Ok(Some(FoundObject {
            name: ObjectName::vmlinux(),
            symbols: kernel.vmlinux()?,
        }));
    }
    let here = kernel.modules_in(folder_of(target));
    if object.is_vmlinux() {
        findings.problem(format!(
            "{config}=m, so the code is in a module, but the spec names none; name it with --mod{}",
            built_here(target, &here)
        ));
        return Ok(None);
    }
    match kernel.module(object.as_str()) {
        Ok(symbols) => {
            is_supported(kernel, object, findings);
            Ok(Some(FoundObject {
                name: object.clone(),
                symbols,
            }))
        }
        Err(TreeError::Module(ModuleError::Absent { hint, .. })) if hint.is_empty() => {
            let names = kernel.module_names();
            let near = near::nearest(&object.kernel_name(), names.iter().map(String::as_str));
            let near = if near.is_empty() {
                String::new()
            } else {
                format!("; did you mean {}?", near::or_list(&near))
            };
            findings.problem(format!(
                "this kernel has no module {object}{near}{}",
                built_here(target, &here)
            ));
            Ok(None)
        }
        Err(TreeError::Module(ambiguous @ ModuleError::Ambiguous { .. })) => {
            findings.problem(ambiguous.to_string());
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// SUSE marks its modules with who supports them (scripts/mod/modpost.c of its kernels); others do not.
fn is_supported(kernel: &dyn Kernel, module: &ObjectName, findings: &mut Findings) {
    match kernel.modinfo(module.as_str(), "supported").as_deref() {
        Some("no") => findings.warning(format!(
            "module {module} is not supported by the distribution (supported=no), so nobody may ask for this livepatch"
        )),
        Some("external") => findings.warning(format!(
            "module {module} is supported by a partner, not by the distribution (supported=external)"
        )),
        _ => {}
    }
}

pub(super) fn folder_of(target: &Target) -> &str {
    folder(target.file.as_str())
}

/// A path without its last part.
pub(super) fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn built_here(target: &Target, modules: &[String]) -> String {
    match modules {
        [] => String::new(),
        some => format!("; {} builds {}", folder_of(target), near::and_list(some)),
    }
}
