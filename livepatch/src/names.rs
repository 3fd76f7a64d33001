//! Names as their own types: each is checked once, where it enters, and trusted afterwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a valid name of its kind, in words for the person who typed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(pub String);

/// Quotes what a user typed for an error message: control characters escaped, cut at 80 characters.
pub fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{}`", short.escape_debug())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(s: &str) -> Result<Self, InvalidName> {
                $check(s).map(|()| Self(s.to_owned())).map_err(InvalidName)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(s: String) -> Result<Self, InvalidName> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// A livepatch's name, such as `bsc1197597`: 1 to 64 letters, digits, `_`, `-` or `.`, starting with a letter or
    /// digit. It becomes a folder and part of C file names.
    LivepatchName, check_livepatch_name
);
name_type!(
    /// A CVE number without its prefix, such as `2022-1048`.
    Cve, check_cve
);
name_type!(
    /// A source file, relative to the kernel's root, such as `sound/core/pcm.c`: no `..`, no leading `/` or `-`.
    SourcePath, check_source_path
);
name_type!(
    /// Any file of a kernel's sources, relative to the kernel's root: no `..`, no leading `/` or `-`.
    TreePath, check_tree_path
);
name_type!(
    /// A C function's name: an identifier of at most 255 bytes.
    FunctionName, check_identifier
);
name_type!(
    /// A symbol of a kernel object: an identifier of at most 255 bytes, which may hold the dots that compilers put into
    /// the names of what they make, as in `seed.12`.
    SymbolName, check_symbol
);
name_type!(
    /// Which codestreams a fix patch is for, as klp-build names the folders below `fixes`: a codestream such as `15.6u3`,
    /// the product it is an update of (`15.6`, `15.6rt`), a branch (`cve-5.14`), or `all`.
    FixScope, check_fix_scope
);
name_type!(
    /// A fix patch's file name, such as `01-fix-use-after-free.patch`: 1 to 200 letters, digits, `_`, `-`, `.` or `+`,
    /// starting with a letter or digit.
    FixName, check_fix_name
);
name_type!(
    /// A kernel configuration symbol with its prefix, such as `CONFIG_SND_PCM`.
    ConfigName, check_config
);
name_type!(
    /// The object that holds a target: `vmlinux`, or a module's name such as `snd-pcm`, without folder or `.ko`.
    ObjectName, check_object
);
name_type!(
    /// A kernel's version as its distribution writes it, without the flavour, such as `6.4.0-150600.23.73`. It becomes part
    /// of folder names.
    KernelVersion, check_kernel_version
);
name_type!(
    /// A line of products that share their patches, such as `15.6rt` or `cve-5.14`. It becomes a folder's name.
    Product, check_product
);
name_type!(
    /// A branch's or tag's name that can't be taken for an option, a range or a path: letters, digits, `_ - . + /`.
    RefName, check_ref_name
);
name_type!(
    /// A worker's name on the farm, such as its host's name: 1 to 64 letters, digits, `_`, `-` or `.`.
    WorkerName, check_plain_name
);

impl LivepatchName {
    /// The name with `-` and `.` turned into `_`, for where it must be an identifier or part of one.
    pub fn as_identifier(&self) -> String {
        identifier_like(&self.0)
    }
}

impl FixScope {
    pub const ALL: &'static str = "all";

    /// Of fixes that are for every codestream that has none of its own.
    pub fn all() -> Self {
        Self(Self::ALL.to_owned())
    }
}

impl SourcePath {
    /// `sound/core/pcm.c` as `sound_core_pcm.c`: what klp-build calls a file's output (`/` and `-` become `_`).
    pub fn flattened(&self) -> String {
        self.0.replace(['/', '-'], "_")
    }
}

impl TreePath {
    /// The same path, if it names a C source file.
    pub fn as_source(&self) -> Option<SourcePath> {
        self.0.parse().ok()
    }
}

impl ObjectName {
    pub const VMLINUX: &'static str = "vmlinux";

    pub fn vmlinux() -> Self {
        Self(Self::VMLINUX.to_owned())
    }

    pub fn is_vmlinux(&self) -> bool {
        self.0 == Self::VMLINUX
    }

    /// The name the kernel gives the loaded module: dashes become underscores.
    pub fn kernel_name(&self) -> String {
        self.0.replace('-', "_")
    }

    /// The object by that name: the same for all ways to write it.
    pub fn as_loaded(&self) -> Self {
        Self(self.kernel_name())
    }
}

/// Every character that can't be in a C identifier turned into `_`.
pub fn identifier_like(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

fn check_plain(s: &str, what: &str, max: usize) -> Result<(), String> {
    if s.is_empty() {
        return Err(format!("{what} is empty"));
    }
    if s.len() > max {
        return Err(format!("{what} is {} bytes long; at most {max}", s.len()));
    }
    if !s.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("{what} {} must start with a letter or a digit", quoted(s)));
    }
    match s.chars().find(|c| !(c.is_ascii_alphanumeric() || "_-.+".contains(*c))) {
        Some(c) => Err(format!(
            "{what} {} holds {:?}; letters, digits, _ - . + are allowed",
            quoted(s),
            c
        )),
        None => Ok(()),
    }
}

fn check_livepatch_name(s: &str) -> Result<(), String> {
    check_plain(s, "livepatch name", 64)
}

fn check_ref_name(s: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.+/".contains(c);
    let part = |part: &str| {
        !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with('.') && !part.ends_with(".lock")
    };
    if s.len() <= 200 && s.chars().all(plain) && !s.contains("..") && s.split('/').all(part) {
        return Ok(());
    }
    Err(format!(
        "{} is no branch's or tag's name; letters, digits and _ - . + / are allowed",
        quoted(s)
    ))
}

fn check_plain_name(s: &str) -> Result<(), String> {
    check_plain(s, "worker name", 64)
}

fn check_kernel_version(s: &str) -> Result<(), String> {
    check_plain(s, "kernel version", 64)
}

fn check_product(s: &str) -> Result<(), String> {
    check_plain(s, "product", 64)
}

pub(crate) fn check_codestream(s: &str) -> Result<(), String> {
    check_plain(s, "codestream name", 64)
}

fn check_fix_scope(s: &str) -> Result<(), String> {
    check_plain(s, "scope of a fix", 64)
}

fn check_fix_name(s: &str) -> Result<(), String> {
    check_plain(s, "name of a fix patch", 200)
}

fn check_cve(s: &str) -> Result<(), String> {
    let ok = s.split_once('-').is_some_and(|(year, number)| {
        year.len() == 4
            && (1999..=2099).contains(&year.parse::<u32>().unwrap_or(0))
            && (4..=7).contains(&number.len())
            && number.bytes().all(|b| b.is_ascii_digit())
    });
    if ok {
        Ok(())
    } else {
        Err(format!(
            "CVE {} is not like 2022-1048 (year, dash, 4 to 7 digits)",
            quoted(s)
        ))
    }
}

fn check_source_path(s: &str) -> Result<(), String> {
    check_tree_path(s)?;
    if s.ends_with(".c") {
        return Ok(());
    }
    Err(format!(
        "file {} is not a .c file; functions in headers are patched through the .c files that use them",
        quoted(s)
    ))
}

fn check_tree_path(s: &str) -> Result<(), String> {
    let shown = quoted(s);
    if s.is_empty() {
        return Err("file name is empty".into());
    }
    if s.len() > 512 {
        return Err(format!("file name is {} bytes long; at most 512", s.len()));
    }
    if s.starts_with('/') {
        return Err(format!(
            "file {shown} is absolute; give it relative to the kernel's root, like sound/core/pcm.c"
        ));
    }
    if let Some(c) = s
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || "_-./+,".contains(*c)))
    {
        return Err(format!(
            "file {shown} holds {c:?}, which no kernel source file name has"
        ));
    }
    for part in s.split('/') {
        match part {
            "" | "." | ".." => {
                return Err(format!(
                    "file {shown} holds the path component {part:?}; give it relative to the kernel's root"
                ));
            }
            p if p.starts_with('-') => {
                return Err(format!("file {shown} has a component that starts with `-`"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_identifier(s: &str) -> Result<(), String> {
    let ok = s.len() <= 255
        && s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if ok {
        Ok(())
    } else {
        Err(format!("function {} is not a C identifier", quoted(s)))
    }
}

fn check_symbol(s: &str) -> Result<(), String> {
    match check_identifier(&s.replace('.', "_")) {
        Ok(()) if !s.starts_with('.') => Ok(()),
        _ => Err(format!("{} is not a symbol's name", quoted(s))),
    }
}

fn check_config(s: &str) -> Result<(), String> {
    let ok = s.len() <= 128
        && s.strip_prefix("CONFIG_")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    if ok {
        Ok(())
    } else {
        Err(format!("config {} is not like CONFIG_SND_PCM", quoted(s)))
    }
}

fn check_object(s: &str) -> Result<(), String> {
    if s.ends_with(".ko") || s.contains(".ko.") || s.contains('/') {
        return Err(format!(
            "module {} must be a bare name like snd-pcm, without folder or .ko",
            quoted(s)
        ));
    }
    check_plain(s, "module", 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_paths_that_could_escape_a_tree_are_refused() {
        for bad in [
            "",
            "/etc/passwd.c",
            "../x.c",
            "a/../b.c",
            "a//b.c",
            "./a.c",
            "-x.c",
            "a/-o.c",
            "a b.c",
            "a\n.c",
            "a;b.c",
            "x.h",
            "a$(b).c",
        ] {
            assert!(bad.parse::<SourcePath>().is_err(), "{bad:?}");
        }
        for good in [
            "sound/core/pcm.c",
            "lib/842/842_compress.c",
            "drivers/net/wireless/a-b.c",
            "a+b,c.c",
        ] {
            assert!(good.parse::<SourcePath>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn functions_are_identifiers() {
        for bad in ["", "9a", "a-b", "a b", "f()", "-f", "é", &"a".repeat(256)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad:?}");
        }
        assert!("__x64_sys_read".parse::<FunctionName>().is_ok());
    }

    #[test]
    fn cves_and_configs_and_modules() {
        assert!("2022-1048".parse::<Cve>().is_ok());
        for bad in [
            "CVE-2022-1048",
            "2022",
            "2022-1",
            "1022-1048",
            "2022-12345678",
            "2022-10a8",
        ] {
            assert!(bad.parse::<Cve>().is_err(), "{bad:?}");
        }
        assert!("CONFIG_SND_PCM".parse::<ConfigName>().is_ok());
        for bad in ["SND_PCM", "CONFIG_", "CONFIG_A-B", "config_x"] {
            assert!(bad.parse::<ConfigName>().is_err(), "{bad:?}");
        }
        for bad in ["snd-pcm.ko", "sound/snd", "-x", "snd-pcm.ko.xz"] {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad:?}");
        }
        assert_eq!("snd-pcm".parse::<ObjectName>().unwrap().kernel_name(), "snd_pcm");
    }

    #[test]
    fn quoting_is_bounded_and_printable() {
        assert_eq!(quoted("a\u{7}b"), "`a\\u{7}b`");
        assert!(quoted(&"x".repeat(500)).len() < 100);
    }
}
