//! What a `codestreams.json` says, in types: a livepatch with its codestreams, as klp-build thinks of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::date::Date;
use crate::names::{ConfigName, Cve, FunctionName, InvalidName, KernelVersion, ObjectName, SourcePath, quoted};
use crate::outcome::is_artifact_name;
use crate::report::ConfigValue;
use crate::{Arch, Codestream};

/// What a JSON object holds beside what we know: kept, and written back into the same object, after the known keys.
pub type Extra = Map<String, Value>;

/// One livepatch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Project {
    /// Those that are affected on any codestream.
    pub archs: BTreeSet<Arch>,
    /// The fixes in mainline, as `<12 hexadecimal digits> ("<subject>")`.
    pub upstream: Vec<String>,
    pub cve: Option<Cve>,
    /// Codestreams that have the fix already.
    pub patched: BTreeSet<Codestream>,
    pub codestreams: BTreeMap<Codestream, ProjectCodestream>,
    pub extra: Extra,
}

/// One codestream of a livepatch. Values hold for all its architectures but where said: klp-build has one for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProjectCodestream {
    /// Where its kernel was built; may be empty.
    pub project: String,
    /// The update's id in that project; may be empty.
    pub patchid: String,
    pub kernel: Option<KernelVersion>,
    pub eol: Option<Date>,
    pub archs: BTreeSet<Arch>,
    /// In the file's order, each once.
    pub files: Vec<ProjectFile>,
    /// The object file of each module, and of `vmlinux`.
    pub modules: BTreeMap<ModulePath, DataPath>,
    /// For each architecture; absent: not set there.
    pub configs: BTreeMap<ConfigName, BTreeMap<Arch, ConfigValue>>,
    /// The fixes this codestream lacks.
    pub required_patches: Vec<PatchName>,
    pub extra: Extra,
}

/// A source file with functions to replace.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectFile {
    pub file: SourcePath,
    /// Where the functions are when the CONFIG is `m`; with `y` they are in `vmlinux`.
    pub module: ModulePath,
    /// `None`: klp-build's older versions left it out where it is set on every architecture.
    pub config: Option<ConfigName>,
    pub symbols: Vec<FunctionName>,
    /// Kernels with indirect branch tracking.
    pub ibt: bool,
    /// By the object that provides them; `None` before the extraction.
    pub externalized: Option<BTreeMap<ObjectName, Vec<FunctionName>>>,
    /// The C declaration of each replacement, by the function it replaces; `None` before the extraction.
    pub replacements: Option<BTreeMap<FunctionName, String>>,
    /// Those with namesakes in their object.
    pub duplicated: Vec<FunctionName>,
    pub extra: Extra,
}

/// A module by its path below the kernel's source, without `.ko`, such as `net/bluetooth/bluetooth`; or by its bare name, as
/// people give it; or `vmlinux`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModulePath {
    path: String,
    object: ObjectName,
}

impl ModulePath {
    pub fn vmlinux() -> Self {
        ObjectName::vmlinux().into()
    }

    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// Its last part.
    pub fn object(&self) -> &ObjectName {
        &self.object
    }
}

impl From<ObjectName> for ModulePath {
    fn from(object: ObjectName) -> Self {
        let path = object.to_string();
        Self { path, object }
    }
}

impl FromStr for ModulePath {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, InvalidName> {
        if !is_artifact_name(s) {
            return Err(InvalidName(format!(
                "module {} is not like net/bluetooth/bluetooth",
                quoted(s)
            )));
        }
        let object = s.rsplit('/').next().unwrap_or(s).parse()?;
        let path = s.to_owned();
        Ok(Self { path, object })
    }
}

impl fmt::Display for ModulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.path)
    }
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(s: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(s) {
                    Ok(Self(s.to_owned()))
                } else {
                    Err(InvalidName(format!(concat!("{} is not ", $what), quoted(s))))
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

text_type!(
    /// A file below an architecture's data folder, such as `lib/modules/6.4.0-150600.23.73-default/kernel/net/sched/x.ko.zst`.
    DataPath, is_artifact_name, "a path below the data folder, like boot/vmlinux-6.4.0-150600.23.73-default"
);
text_type!(
    /// A patch's file name, without its folder.
    PatchName, |s| is_artifact_name(s) && !s.contains('/'), "a patch's file name, without a folder"
);
