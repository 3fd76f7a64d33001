//! Is the target's CONFIG set, and how? Where it isn't, the kernel doesn't have the code, and nothing is wrong.

use klp_livepatch::report::ConfigValue;
use klp_livepatch::spec::Target;

use super::{Findings, Kernel, near};
use crate::trees::config::Setting;

/// The options without which a kernel loads no livepatch, whatever is in it.
pub(super) fn warn_of_kernel(kernel: &dyn Kernel, findings: &mut Findings) {
    if kernel.config().get("CONFIG_LIVEPATCH") != Setting::BuiltIn {
        findings.warning("this kernel is built without CONFIG_LIVEPATCH, so that it will load no livepatch; what is made for it serves for review alone");
    }
}

pub(super) fn check(kernel: &dyn Kernel, target: &Target, findings: &mut Findings) -> Option<ConfigValue> {
    let option = &target.config;
    match kernel.config().get(option.as_str()) {
        Setting::BuiltIn => return Some(ConfigValue::BuiltIn),
        Setting::Module => return Some(ConfigValue::Module),
        Setting::Other(value) => findings.problem(format!(
            "{option} is set to {value}, neither y nor m: it doesn't decide whether the file is built; name the option that does, from the Makefile beside the file"
        )),
        Setting::NotSet => findings.leave_out(format!(
            "{option} is not set, so this kernel doesn't have the code and needs no livepatch"
        )),
        Setting::Unknown if kernel.has_option(option) => findings.leave_out(format!(
            "{option} is not set, because something it depends on is off: this kernel doesn't have the code and needs no livepatch"
        )),
        Setting::Unknown => {
            let near: Vec<_> = near::nearest(bare(option.as_str()), kernel.config().names())
                .iter()
                .map(|name| format!("CONFIG_{name}"))
                .collect();
            findings.problem(if near.is_empty() {
                format!("{option} is no option of this kernel; see the Makefile beside the file for its name")
            } else {
                format!("{option} is no option of this kernel; did you mean {}?", near::or_list(&near))
            });
        }
    }
    None
}

fn bare(option: &str) -> &str {
    option.strip_prefix("CONFIG_").unwrap_or(option)
}
