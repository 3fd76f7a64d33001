//! The architectures a livepatch can be made for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A kernel architecture, by the name users and distributions give it.
///
/// The order is the order of preference: where one architecture's source must stand for a codestream, the first that
/// has one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    #[serde(rename = "x86_64")]
    X86_64,
    S390x,
    Ppc64le,
    Aarch64,
}

impl Arch {
    pub const ALL: [Arch; 4] = [Arch::X86_64, Arch::S390x, Arch::Ppc64le, Arch::Aarch64];

    pub fn as_str(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::S390x => "s390x",
            Arch::Ppc64le => "ppc64le",
            Arch::Aarch64 => "aarch64",
        }
    }

    /// The name of this architecture's folder below the kernel's `arch/`, which is also what its Makefile calls `ARCH`.
    pub fn kernel_dir(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86",
            Arch::S390x => "s390",
            Arch::Ppc64le => "powerpc",
            Arch::Aarch64 => "arm64",
        }
    }

    /// What Debian calls this architecture in package names.
    pub fn debian_name(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::S390x => "s390x",
            Arch::Ppc64le => "ppc64el",
            Arch::Aarch64 => "arm64",
        }
    }

    /// The architecture this program was built for, if it is one of ours.
    pub fn host() -> Option<Arch> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Arch::X86_64),
            "s390x" => Some(Arch::S390x),
            "powerpc64" => Some(Arch::Ppc64le),
            "aarch64" => Some(Arch::Aarch64),
            _ => None,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown architecture `{0}`; one of x86_64, ppc64le, s390x, aarch64")]
pub struct UnknownArch(String);

impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Arch::ALL
            .into_iter()
            .find(|a| a.as_str() == s)
            .ok_or_else(|| UnknownArch(s.chars().take(40).collect()))
    }
}
