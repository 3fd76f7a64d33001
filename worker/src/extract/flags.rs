//! Turns gcc's arguments for a file into ones another parser accepts, by rule: what shapes the meaning of the source stays, the
//! rest goes.

use klp_livepatch::Arch;

use crate::trees::cross::triple;

/// The arguments for parsing with libclang.
pub fn for_clang(args: &[String], directory: &str, arch: Arch) -> Vec<String> {
    let mut out: Vec<String> = vec![
        "clang".into(),
        format!("--target={}", triple(arch)),
        format!("-working-directory={directory}"),
    ];
    out.extend(meaningful(args));
    out
}

/// Preprocessor, language and ABI-shaping flags, and the source. Warnings, debug information, code generation, dependency
/// output and the output file are of no use to a parse.
pub fn meaningful(args: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match kind(arg) {
            Kind::Keep => out.push(arg.clone()),
            Kind::KeepWithNext => {
                out.push(arg.clone());
                out.extend(rest.next().cloned());
            }
            Kind::Drop => {}
            Kind::DropWithNext => {
                rest.next();
            }
        }
    }
    out
}

enum Kind {
    Keep,
    KeepWithNext,
    Drop,
    DropWithNext,
}

fn kind(arg: &str) -> Kind {
    const SPACED: [&str; 9] = [
        "-I",
        "-D",
        "-U",
        "-include",
        "-imacros",
        "-isystem",
        "-iquote",
        "-idirafter",
        "-x",
    ];
    if SPACED.contains(&arg) {
        return Kind::KeepWithNext;
    }
    if matches!(arg, "-o" | "-MF" | "-MT" | "-MQ" | "--param" | "-aux-info") {
        return Kind::DropWithNext;
    }
    let keep = ["-I", "-D", "-U", "-i", "-std=", "-nostdinc", "-O"]
        .iter()
        .any(|p| arg.starts_with(p))
        || matters(arg);
    if keep || !arg.starts_with('-') {
        Kind::Keep
    } else {
        Kind::Drop
    }
}

/// The `-f` and `-m` flags that change types, predefined macros or what is valid C; code generation flags do not.
fn matters(arg: &str) -> bool {
    if let Some(f) = arg.strip_prefix("-f") {
        let f = f.strip_prefix("no-").unwrap_or(f);
        return [
            "short-wchar",
            "short-enums",
            "signed-char",
            "unsigned-char",
            "ms-extensions",
            "plan9-extensions",
            "gnu89-inline",
            "freestanding",
            "builtin",
        ]
        .iter()
        .any(|p| f.starts_with(p));
    }
    if let Some(m) = arg.strip_prefix("-m") {
        // Word size, byte order, instruction sets: they decide predefined macros. -mcmodel= and the like do not matter to a
        // parse; -mabi= follows from the target, and the compilers call it by different names (lp64, aapcs).
        return matches!(
            m,
            "32" | "64" | "x32" | "big-endian" | "little-endian" | "general-regs-only"
        ) || m.starts_with("arch=")
            || m.starts_with("cpu=")
            || is_instruction_set(m);
    }
    false
}

fn is_instruction_set(m: &str) -> bool {
    let m = m.strip_prefix("no-").unwrap_or(m);
    ["sse", "mmx", "avx", "3dnow", "ssse", "aes", "altivec", "vsx", "mma"]
        .iter()
        .any(|p| m.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meaning_stays_and_the_rest_goes() {
        let args = [
            "-Wp,-MMD,a.d",
            "-nostdinc",
            "-I./inc",
            "-include",
            "k.h",
            "-DX=1",
            "-Wall",
            "-std=gnu11",
            "-mno-sse",
            "-mrecord-mcount",
            "-mabi=lp64",
            "-mcpu=power8",
            "-fshort-wchar",
            "-fconserve-stack",
            "-O2",
            "-g",
            "-c",
            "-o",
            "a.o",
            "a.c",
        ];
        let got = for_clang(&args.map(String::from), "/obj", Arch::S390x);
        assert_eq!(
            got,
            [
                "clang",
                "--target=s390x-linux-gnu",
                "-working-directory=/obj",
                "-nostdinc",
                "-I./inc",
                "-include",
                "k.h",
                "-DX=1",
                "-std=gnu11",
                "-mno-sse",
                "-mcpu=power8",
                "-fshort-wchar",
                "-O2",
                "a.c"
            ]
        );
    }
}
