//! Compilers for kernels of another architecture: what Debian calls them, and which package has them.

use klp_livepatch::Arch;

/// The GNU name of an architecture's Linux: Debian's cross compilers begin with it, and clang takes it for a target.
pub fn triple(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "x86_64-linux-gnu",
        Arch::S390x => "s390x-linux-gnu",
        Arch::Ppc64le => "powerpc64le-linux-gnu",
        Arch::Aarch64 => "aarch64-linux-gnu",
    }
}

/// What to call here the compiler that a kernel's configuration names: `gcc-12`, of a kernel that was built on its own
/// architecture, is `s390x-linux-gnu-gcc-12` elsewhere.
pub(super) fn compiler(shipped: &str, arch: Arch, host: Option<Arch>) -> String {
    if host == Some(arch) || shipped.contains("-linux-") {
        shipped.to_owned()
    } else {
        format!("{}-{shipped}", triple(arch))
    }
}

/// The Debian package that has a compiler: `gcc-12` is in the one of that name, and so is `x86_64-linux-gnu-gcc-12` on
/// x86_64; elsewhere that is in `gcc-12-x86-64-linux-gnu`.
pub(super) fn package(compiler: &str, host: Option<Arch>) -> String {
    let cross = Arch::ALL.into_iter().find_map(|arch| {
        let native = compiler.strip_prefix(triple(arch))?.strip_prefix('-')?;
        Some((arch, native))
    });
    match cross {
        None => compiler.to_owned(),
        Some((arch, native)) if host == Some(arch) => native.to_owned(),
        Some((arch, native)) => format!("{native}-{}", triple(arch).replace('_', "-")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_and_their_packages_go_by_debians_names() {
        let x86 = Some(Arch::X86_64);
        let s390 = compiler("gcc-12", Arch::S390x, x86);
        assert_eq!(s390, "s390x-linux-gnu-gcc-12");
        assert_eq!(compiler("gcc-12", Arch::X86_64, x86), "gcc-12");
        assert_eq!(compiler(&s390, Arch::S390x, x86), s390, "named in full already");
        assert_eq!(package(&s390, x86), "gcc-12-s390x-linux-gnu");
        assert_eq!(package(&s390, Some(Arch::S390x)), "gcc-12");
        assert_eq!(package("x86_64-linux-gnu-gcc-12", x86), "gcc-12");
        assert_eq!(package("x86_64-linux-gnu-gcc-12", None), "gcc-12-x86-64-linux-gnu");
        assert_eq!(package("gcc-12", x86), "gcc-12");
    }
}
