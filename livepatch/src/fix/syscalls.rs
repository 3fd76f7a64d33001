//! Which symbols a system call's function has on each architecture, and so what a livepatch has to name.
//!
//! `SYSCALL_DEFINEn(x)` makes a chain: the entry that the system call table holds, `__se_sys_x` and `__do_sys_x`. The inner ones
//! are inlined into the entry, which alone is traced, and which alone can be replaced. The names are those of the kernels'
//! `arch/*/include/asm/syscall_wrapper.h` and, before Linux 4.17, `include/linux/syscalls.h`.

use serde::{Deserialize, Serialize};

use crate::Arch;

/// One symbol that may have to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbol {
    pub name: String,
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Always there: replace it.
    Entry,
    /// A second entry with the same code in it, for 32-bit programs: replace it too where the kernel has it.
    Entry32,
    /// The entry's name in kernels before 4.17 (or where the architecture then had no wrapper): the first of them that the
    /// kernel has.
    Older,
    /// A guess: a macro that is not known made the function.
    Unsure,
}

/// The symbols of `SYSCALL_DEFINEn(name)`, or of `COMPAT_SYSCALL_DEFINEn(name)`.
pub fn symbols(name: &str, compat: bool, arch: Arch) -> Vec<Symbol> {
    let symbol = |name: String, role| Symbol { name, role };
    let sys = if compat { "compat_sys" } else { "sys" };
    let old = if compat { "C_SyS" } else { "SyS" };
    let mut symbols = match (arch, compat) {
        (Arch::X86_64, false) => vec![
            symbol(format!("__x64_sys_{name}"), Role::Entry),
            symbol(format!("__ia32_sys_{name}"), Role::Entry32),
        ],
        (Arch::X86_64, true) => vec![
            symbol(format!("__ia32_compat_sys_{name}"), Role::Entry32),
            // For the x32 ABI, under its name since 5.7 and the one before.
            symbol(format!("__x64_compat_sys_{name}"), Role::Entry32),
            symbol(format!("__x32_compat_sys_{name}"), Role::Entry32),
        ],
        (Arch::S390x, false) => vec![
            symbol(format!("__s390x_sys_{name}"), Role::Entry),
            symbol(format!("__s390_sys_{name}"), Role::Entry32),
        ],
        (Arch::S390x, true) => vec![symbol(format!("__s390_compat_sys_{name}"), Role::Entry32)],
        (Arch::Aarch64, false) => vec![symbol(format!("__arm64_sys_{name}"), Role::Entry)],
        (Arch::Aarch64, true) => vec![symbol(format!("__arm64_compat_sys_{name}"), Role::Entry32)],
        (Arch::Ppc64le, _) => vec![symbol(
            format!("{sys}_{name}"),
            if compat { Role::Entry32 } else { Role::Entry },
        )],
    };
    symbols.push(symbol(format!("__se_{sys}_{name}"), Role::Older));
    symbols.push(symbol(format!("{old}_{name}"), Role::Older));
    if arch != Arch::Ppc64le {
        symbols.push(symbol(format!("{sys}_{name}"), Role::Older));
    }
    symbols
}

/// The functions a compiler sees once the macro is expanded, outermost first: what to look for in preprocessed source.
pub fn source_functions(name: &str, compat: bool) -> [String; 2] {
    let sys = if compat { "compat_sys" } else { "sys" };
    [format!("__se_{sys}_{name}"), format!("__do_{sys}_{name}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_those_of_the_architecture() {
        let of = |arch, compat| -> Vec<String> {
            let all = symbols("openat2", compat, arch).into_iter();
            all.filter(|s| s.role != Role::Older).map(|s| s.name).collect()
        };
        assert_eq!(of(Arch::X86_64, false), ["__x64_sys_openat2", "__ia32_sys_openat2"]);
        assert_eq!(of(Arch::Aarch64, false), ["__arm64_sys_openat2"]);
        assert_eq!(of(Arch::S390x, false), ["__s390x_sys_openat2", "__s390_sys_openat2"]);
        assert_eq!(of(Arch::Ppc64le, false), ["sys_openat2"]);
        assert_eq!(of(Arch::S390x, true), ["__s390_compat_sys_openat2"]);
    }
}
