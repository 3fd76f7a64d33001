//! The fences around a tool, what a policy asks of them, and the pure decision which ones are put up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One kind of confinement. Each can be had or not, whatever the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fence {
    /// Tools run as another user than this worker, or where it is none that could change users, in a user namespace; without
    /// capabilities, and without a way to get any.
    User,
    /// Tools see the system, their kernel's tree and their own scratch folder, and write to the latter.
    Files,
    /// Tools see no process but their own family, which ends with them.
    Processes,
    /// Tools have no network, not even loopback.
    Network,
    /// Shared memory, message queues and the host's name are tools' own.
    Ipc,
    /// Landlock: a second fence around files, and one around network and signals.
    Landlock,
    /// What no compiler asks of the kernel is refused (seccomp).
    Syscalls,
    /// Memory and processes of a tool's whole family are limited (cgroup v2).
    Cgroup,
}

impl Fence {
    pub const ALL: [Fence; 8] = [
        Fence::User,
        Fence::Files,
        Fence::Processes,
        Fence::Network,
        Fence::Ipc,
        Fence::Landlock,
        Fence::Syscalls,
        Fence::Cgroup,
    ];

    /// What `required` requires. The others stand behind these: Landlock behind `files`, control groups behind the limits of
    /// each process.
    pub const ESSENTIAL: [Fence; 6] = [
        Fence::User,
        Fence::Files,
        Fence::Processes,
        Fence::Network,
        Fence::Ipc,
        Fence::Syscalls,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fence::User => "user",
            Fence::Files => "files",
            Fence::Processes => "processes",
            Fence::Network => "network",
            Fence::Ipc => "ipc",
            Fence::Landlock => "landlock",
            Fence::Syscalls => "syscalls",
            Fence::Cgroup => "cgroup",
        }
    }

    /// What an operator can do where the host doesn't give it.
    fn advice(self) -> &'static str {
        match self {
            Fence::User => {
                "run the worker as root with a system user klp-farm-tool (useradd --system --shell \
                 /usr/sbin/nologin klp-farm-tool) or another that --tool-user names, or as a user that may make user namespaces"
            }
            Fence::Files | Fence::Processes | Fence::Network | Fence::Ipc => {
                "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
                 kernel.apparmor_restrict_unprivileged_userns; RestrictNamespaces= of the unit), or run the worker as root"
            }
            Fence::Landlock => "boot a kernel with CONFIG_SECURITY_LANDLOCK and landlock among its lsm=",
            Fence::Syscalls => "boot a kernel with CONFIG_SECCOMP_FILTER",
            Fence::Cgroup => "start the worker by a unit with Delegate=yes, on a host with cgroup v2",
        }
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|fence| fence.name() == text);
        found.ok_or_else(|| format!("there is no fence `{text}`; one of {}", names(Self::ALL)))
    }
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Policy {
    /// No fence at all.
    None,
    /// These must be there, the others are put up where they can be.
    Required(BTreeSet<Fence>),
}

impl Policy {
    /// Whatever the host gives.
    pub fn best() -> Self {
        Self::Required(BTreeSet::new())
    }

    pub(super) fn requires(&self, fence: Fence) -> bool {
        matches!(self, Self::Required(fences) if fences.contains(&fence))
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::best()
    }
}

impl FromStr for Policy {
    type Err = String;

    /// `required`, `best`, `none`, or the names of fences that are required, with commas between.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "none" => Ok(Self::None),
            "best" => Ok(Self::best()),
            "required" => Ok(Self::Required(Fence::ESSENTIAL.into())),
            list => {
                let fences: Result<BTreeSet<Fence>, String> = list.split(',').map(|name| name.trim().parse()).collect();
                fences
                    .map(Self::Required)
                    .map_err(|why| format!("{why}; or required, best, none"))
            }
        }
    }
}

impl TryFrom<String> for Policy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        policy.to_string()
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Required(fences) if fences.is_empty() => f.write_str("best"),
            Self::Required(fences) if *fences == BTreeSet::from(Fence::ESSENTIAL) => f.write_str("required"),
            Self::Required(fences) => f.write_str(&names(fences.iter().copied())),
        }
    }
}

fn names(fences: impl IntoIterator<Item = Fence>) -> String {
    fences.into_iter().map(Fence::name).collect::<Vec<_>>().join(",")
}

/// Which fences are put up, and why the others are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub up: BTreeSet<Fence>,
    pub down: BTreeMap<Fence, String>,
}

/// Decides by what the policy asks and by what was found to be missing on the host.
///
/// # Errors
/// Every fence that is required and missing, with the reason and what can be done.
pub fn decide(policy: &Policy, missing: &BTreeMap<Fence, String>) -> Result<Decision, String> {
    if *policy == Policy::None {
        let why = "the setting `isolation` is none";
        let down = Fence::ALL.into_iter().map(|fence| (fence, why.to_owned()));
        return Ok(Decision {
            up: BTreeSet::new(),
            down: down.collect(),
        });
    }
    let lacking: Vec<String> = missing
        .iter()
        .filter(|(fence, _)| policy.requires(**fence))
        .map(|(fence, why)| format!("{fence}: {why}. To have it: {}", fence.advice()))
        .collect();
    if lacking.is_empty() {
        let up = Fence::ALL.into_iter().filter(|fence| !missing.contains_key(fence));
        return Ok(Decision {
            up: up.collect(),
            down: missing.clone(),
        });
    }
    Err(format!(
        "this host can't confine tools as the setting `isolation = {policy}` requires:\n  {}\nOr take what the host gives, with \
         `isolation = best`",
        lacking.join("\n  ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(fences: &[Fence]) -> BTreeMap<Fence, String> {
        fences
            .iter()
            .map(|fence| (*fence, "it is not there".to_owned()))
            .collect()
    }

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["none", "best", "required", "files,network"] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
        let wrong = "files,walls".parse::<Policy>().unwrap_err();
        assert!(
            wrong.contains("`walls`") && wrong.contains("network") && wrong.contains("best"),
            "{wrong}"
        );
    }

    #[test]
    fn what_is_missing_stops_only_who_requires_it() {
        let lacking = missing(&[Fence::Network, Fence::Landlock]);
        let best = decide(&Policy::best(), &lacking).unwrap();
        assert!(best.up.contains(&Fence::Files) && !best.up.contains(&Fence::Network));
        assert_eq!(best.down, lacking);
        let refused = decide(&"required".parse().unwrap(), &lacking).unwrap_err();
        assert!(
            refused.contains("network: it is not there") && refused.contains("user namespaces"),
            "{refused}"
        );
        assert!(!refused.contains("landlock:"), "{refused}");
        assert!(decide(&"landlock".parse().unwrap(), &lacking).is_err());
        assert!(decide(&"files,user".parse().unwrap(), &lacking).is_ok());
        assert!(decide(&Policy::None, &lacking).unwrap().up.is_empty());
    }
}
