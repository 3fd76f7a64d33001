//! The variables a `make` in an object folder must be given.
//!
//! A configuration remembers the tools it was made with, in include/config/auto.conf.cmd: lines such as
//! `ifneq "$(CC)" "gcc-12"`, which the kernel's scripts/kconfig/preprocess.c (`env_write_dep`) writes, followed by a rule
//! that makes the configuration anew. `make` does that even under `-n`, because the file is part of its own program: with
//! another compiler's name, or after that compiler was updated, merely asking for commands would write into the tree. So
//! each call gets the values that are remembered.

use std::path::Path;

use klp_livepatch::Arch;

/// Those whose values are passed on. The others follow from them or from the source.
const PASSED: [&str; 11] = [
    "CC",
    "LD",
    "AR",
    "NM",
    "OBJCOPY",
    "PAHOLE",
    "RUSTC",
    "BINDGEN",
    "PYTHON3",
    "CC_VERSION_TEXT",
    "RUSTC_VERSION_TEXT",
];

/// Variables for configuring with a compiler: no Rust, which trees are not prepared for, and the architecture where it is
/// not the machine's own.
pub(super) fn for_configuring(compiler: &str, arch: Arch) -> Vec<String> {
    let mut variables = vec![format!("CC={compiler}"), "RUSTC=/bin/false".to_owned()];
    variables.extend(foreign_arch(compiler, arch));
    variables
}

/// Variables for a folder that is configured.
pub(super) fn for_folder(obj: &Path, compiler: &str, arch: Arch) -> Vec<String> {
    let remembered = std::fs::read(obj.join("include/config/auto.conf.cmd")).unwrap_or_default();
    let remembered = remembered_values(&String::from_utf8_lossy(&remembered));
    if remembered.is_empty() {
        return for_configuring(compiler, arch);
    }
    let mut variables = remembered;
    variables.extend(foreign_arch(compiler, arch));
    variables
}

fn foreign_arch(compiler: &str, arch: Arch) -> Vec<String> {
    if Arch::host() == Some(arch) {
        return Vec::new();
    }
    let mut variables = vec![format!("ARCH={}", arch.kernel_dir())];
    if let Some((prefix, _)) = compiler.rsplit_once("gcc")
        && prefix.ends_with('-')
    {
        variables.push(format!("CROSS_COMPILE={prefix}"));
    }
    variables
}

fn remembered_values(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.strip_prefix("ifneq \"$(")?.split_once(")\" \"")?;
            let value = value.strip_suffix('"')?;
            // What make would take for its own syntax can't be passed as it is.
            let plain = PASSED.contains(&name) && !value.is_empty() && !value.contains(['$', '#', '\\']);
            plain.then(|| format!("{name}={value}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_of_the_configuration_are_passed() {
        let text = "deps_config := \\\n\tKconfig\n\nifneq \"$(ARCH)\" \"x86\"\ninclude/config/auto.conf: FORCE\nendif\n\
                    ifneq \"$(CC)\" \"gcc-12\"\ninclude/config/auto.conf: FORCE\nendif\n\
                    ifneq \"$(srctree)\" \"/a b\"\nifneq \"$(CC_VERSION_TEXT)\" \"gcc-12 (Debian 12) 12.2.0\"\n\
                    ifneq \"$(RUSTC)\" \"$(evil)\"\nifneq \"$(LD)\" \"\"\nifneq \"$(NM)\" \"nm\n";
        assert_eq!(
            remembered_values(text),
            ["CC=gcc-12", "CC_VERSION_TEXT=gcc-12 (Debian 12) 12.2.0"]
        );
        assert!(remembered_values("").is_empty());
    }

    #[test]
    fn a_foreign_architecture_is_named() {
        let foreign = Arch::ALL.into_iter().find(|arch| Some(*arch) != Arch::host()).unwrap();
        let variables = for_configuring("s390x-linux-gnu-gcc-12", foreign);
        assert!(variables.contains(&format!("ARCH={}", foreign.kernel_dir())));
        assert!(variables.contains(&"CROSS_COMPILE=s390x-linux-gnu-".to_owned()));
    }
}
