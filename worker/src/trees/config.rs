//! A kernel's `.config`, as far as livepatches depend on it.
//!
//! Format, from the kernel's scripts/kconfig/confdata.c: `CONFIG_X=y`, `=m`, `="text"` or `=number`, or a comment
//! `# CONFIG_X is not set`.

use std::collections::BTreeMap;
use std::path::Path;

use klp_livepatch::Arch;

use super::TreeError;

/// All options that a `.config` names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelConfig {
    /// Without the `CONFIG_` prefix; `None`: "is not set".
    values: BTreeMap<String, Option<String>>,
}

/// How one option is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting<'a> {
    BuiltIn,
    Module,
    /// A text or number, quotes included.
    Other(&'a str),
    /// Known here, but off.
    NotSet,
    /// Not named at all: off because of another option, or no option of this kernel.
    Unknown,
}

impl KernelConfig {
    /// # Errors
    /// If the file can't be read, or names no option.
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        let bytes = std::fs::read(path).map_err(TreeError::io("read", path))?;
        let config = Self::parse(&String::from_utf8_lossy(&bytes));
        if config.values.is_empty() {
            return Err(TreeError::Refused(format!(
                "{} is no kernel configuration: it names no option",
                path.display()
            )));
        }
        Ok(config)
    }

    /// Reads every line that sets an option and ignores the others, as the kernel does.
    pub fn parse(text: &str) -> Self {
        let mut values = BTreeMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("CONFIG_") {
                if let Some((name, value)) = rest.split_once('=') {
                    values.insert(name.to_owned(), Some(value.to_owned()));
                }
            } else if let Some(name) = line
                .strip_prefix("# CONFIG_")
                .and_then(|rest| rest.strip_suffix(" is not set"))
            {
                values.insert(name.to_owned(), None);
            }
        }
        Self { values }
    }

    /// How `name` is set; the `CONFIG_` prefix may be given or not.
    pub fn get(&self, name: &str) -> Setting<'_> {
        match self.values.get(name.strip_prefix("CONFIG_").unwrap_or(name)) {
            None => Setting::Unknown,
            Some(None) => Setting::NotSet,
            Some(Some(value)) => match value.as_str() {
                "y" => Setting::BuiltIn,
                "m" => Setting::Module,
                other => Setting::Other(other),
            },
        }
    }

    /// Whether the kernel has indirect branch tracking, so that an indirect call must land on a mark.
    pub fn has_ibt(&self) -> bool {
        self.get("CONFIG_X86_KERNEL_IBT") == Setting::BuiltIn
    }

    /// Every option's name without prefix, those that are off included.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The architecture it configures, if that is one of ours.
    pub fn arch(&self) -> Option<Arch> {
        let on = |name| self.get(name) == Setting::BuiltIn;
        if on("X86_64") {
            Some(Arch::X86_64)
        } else if on("ARM64") {
            Some(Arch::Aarch64)
        } else if on("S390") {
            Some(Arch::S390x)
        } else if on("PPC64") && on("CPU_LITTLE_ENDIAN") {
            Some(Arch::Ppc64le)
        } else {
            None
        }
    }

    /// The command that compiled it: the first word of CONFIG_CC_VERSION_TEXT, such as `gcc-12`, which is what the
    /// kernel's own `$(CC) --version` printed.
    ///
    /// # Errors
    /// If it is no plain program name.
    pub fn compiler(&self) -> Result<String, String> {
        if self.get("CC_IS_CLANG") == Setting::BuiltIn {
            return Ok("clang".to_owned());
        }
        let Setting::Other(text) = self.get("CC_VERSION_TEXT") else {
            return Ok("gcc".to_owned());
        };
        let word = text.trim_matches('"').split(' ').next().unwrap_or_default();
        let plain = word.starts_with(|c: char| c.is_ascii_alphanumeric())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-.+".contains(c));
        if plain && word.contains("gcc") {
            Ok(word.to_owned())
        } else {
            Err(format!(
                "CONFIG_CC_VERSION_TEXT={text} doesn't begin with the name of a gcc"
            ))
        }
    }

    /// What of this configuration `other` has differently: each option with the two values. Options that only `other`
    /// has are not told, nor that the same compiler goes by another name.
    pub fn changed_in(&self, other: &Self) -> Vec<Change> {
        let shown = |value: Option<&Option<String>>| match value {
            Some(Some(value)) => value.clone(),
            _ => "n".to_owned(),
        };
        let compiler_version = |text: &str| text.split_once(' ').map(|(_, version)| version.to_owned());
        self.values
            .iter()
            .map(|(name, value)| Change {
                option: format!("CONFIG_{name}"),
                from: shown(Some(value)),
                to: shown(other.values.get(name)),
            })
            .filter(|change| change.from != change.to)
            .filter(|change| {
                change.option != "CONFIG_CC_VERSION_TEXT"
                    || compiler_version(&change.from) != compiler_version(&change.to)
            })
            .collect()
    }
}

/// An option that two configurations set differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub option: String,
    pub from: String,
    pub to: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Automatically generated\nCONFIG_X86_64=y\nCONFIG_SND_PCM=m\n# CONFIG_KASAN is not set\n\
                        CONFIG_NR=64\nCONFIG_CC_VERSION_TEXT=\"gcc-12 (Debian 12.2.0-14) 12.2.0\"\nnonsense\n";

    #[test]
    fn settings_are_told_apart() {
        let config = KernelConfig::parse(TEXT);
        assert_eq!(config.get("CONFIG_X86_64"), Setting::BuiltIn);
        assert_eq!(config.get("SND_PCM"), Setting::Module);
        assert_eq!(config.get("CONFIG_KASAN"), Setting::NotSet);
        assert_eq!(config.get("CONFIG_NR"), Setting::Other("64"));
        assert_eq!(config.get("CONFIG_SND"), Setting::Unknown);
        assert_eq!(config.arch(), Some(Arch::X86_64));
        assert_eq!(config.compiler().unwrap(), "gcc-12");
    }

    #[test]
    fn a_compiler_that_is_no_plain_name_is_refused() {
        for text in ["\"/tmp/gcc x\"", "\"-gcc\"", "\"\"", "\"Debian clang version 14\""] {
            let config = KernelConfig::parse(&format!("CONFIG_CC_VERSION_TEXT={text}\n"));
            assert!(config.compiler().is_err(), "{text}");
        }
        assert_eq!(KernelConfig::parse("CONFIG_CC_IS_CLANG=y").compiler().unwrap(), "clang");
    }

    #[test]
    fn changes_are_those_of_the_shipped_options() {
        let now = KernelConfig::parse(
            "CONFIG_X86_64=y\nCONFIG_NEW=y\nCONFIG_NR=8\n\
             CONFIG_CC_VERSION_TEXT=\"x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14) 12.2.0\"\n",
        );
        let changes = KernelConfig::parse(TEXT).changed_in(&now);
        let told: Vec<_> = changes
            .iter()
            .map(|c| format!("{} {} {}", c.option, c.from, c.to))
            .collect();
        assert_eq!(told, ["CONFIG_NR 64 8", "CONFIG_SND_PCM m n"]);
    }
}
