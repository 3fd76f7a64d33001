//! What a SUSE codestream's name says: `15.6rtu2` is the second update of the real-time kernel of SLE 15 SP6.
//!
//! The facts are those of SUSE's products as SUSE klp-build knows them: which folders hold fixes, how a kernel's source
//! folder is called, what its livepatches must look like. A codestream of another distribution has none of it.

use std::collections::BTreeSet;
use std::fmt;

use crate::names::KernelVersion;
use crate::{Arch, Codestream};

/// A codestream's name in its parts, ordered as the codestreams themselves are.
///
/// Numbers of any length that fit 32 bits, without leading zeros: so that each value has one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SuseName {
    /// 12, 15, 16 for SLE; 6 for SLE Micro.
    pub major: u32,
    /// The service pack, or Micro's minor version.
    pub minor: u32,
    pub rt: bool,
    pub update: u32,
}

/// A kernel's flavour: the configuration it is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flavour {
    Default,
    Rt,
}

impl Flavour {
    pub const ALL: [Flavour; 2] = [Flavour::Default, Flavour::Rt];

    pub fn as_str(self) -> &'static str {
        match self {
            Flavour::Default => "default",
            Flavour::Rt => "rt",
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl SuseName {
    /// The parts of a name of the form `<major>.<minor>[rt]u<update>`, all of it; `None` for any other name.
    pub fn of(codestream: &Codestream) -> Option<Self> {
        Self::parse(codestream.as_str())
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (base, update) = name.rsplit_once('u')?;
        let (base, rt) = match base.strip_suffix("rt") {
            Some(base) => (base, true),
            None => (base, false),
        };
        let (major, minor) = base.split_once('.')?;
        Some(Self {
            major: number(major)?,
            minor: number(minor)?,
            rt,
            update: number(update)?,
        })
    }

    /// As a product's update is called in supported.csv: `SLE15-SP6-RT_Update_2`, `MICRO-6-0_Update_1`.
    pub fn parse_product(product: &str) -> Option<Self> {
        let (base, update) = product.split_once("_Update_")?;
        let (base, rt) = match base.strip_suffix("-RT") {
            Some(base) => (base, true),
            None => (base, false),
        };
        let (major, minor) = if let Some(version) = base.strip_prefix("MICRO-") {
            version.split_once('-')?
        } else {
            let version = base.strip_prefix("SLE")?;
            version.split_once("-SP").unwrap_or((version, "0"))
        };
        let name = Self {
            major: number(major)?,
            minor: number(minor)?,
            rt,
            update: number(update)?,
        };
        // One product has one text: neither SLE6 nor SLE15-SP0 is one.
        (name.product() == product).then_some(name)
    }

    pub fn codestream(self) -> Codestream {
        // Four numbers of at most ten digits and three letters: always a valid name.
        #[expect(clippy::unwrap_used)]
        self.to_string().parse().unwrap()
    }

    /// The codestream's name without its update: `15.6rt`.
    pub fn base(self) -> String {
        format!("{}.{}{}", self.major, self.minor, if self.rt { "rt" } else { "" })
    }

    /// SLE Micro, whose products are called after it.
    pub fn is_micro(self) -> bool {
        self.major == 6
    }

    /// Built from SUSE's framework one (SLE Micro 6 and SLE 16 on): everything of a kernel is below `usr/lib/modules`, and
    /// its files' names don't repeat its version.
    pub fn is_slfo(self) -> bool {
        self.is_micro() || self.major > 15
    }

    /// Whether kernels are built with indirect branch tracking, so that livepatches reach hidden symbols by relocations
    /// (`KLP_RELOC_SYMBOL`) instead of looked-up pointers.
    pub fn needs_ibt(self) -> bool {
        self.is_slfo() || (self.major == 15 && self.minor >= 6)
    }

    /// Whether modules are still looked up under `module_mutex`, which later kernels don't export: before SLE 15 SP4.
    pub fn has_module_mutex(self) -> bool {
        !self.is_slfo() && (self.major, self.minor) < (15, 4)
    }

    /// The architectures SUSE supports livepatches on.
    pub fn default_archs(self) -> BTreeSet<Arch> {
        if self.rt {
            BTreeSet::from([Arch::X86_64])
        } else if self.is_micro() {
            BTreeSet::from([Arch::X86_64, Arch::S390x])
        } else {
            BTreeSet::from([Arch::X86_64, Arch::S390x, Arch::Ppc64le])
        }
    }

    /// The product's name without the update: `SLE15-SP6-RT`, `MICRO-6-0`; service pack 0 is not written.
    pub fn base_product(self) -> String {
        let rt = if self.rt { "-RT" } else { "" };
        match (self.is_micro(), self.minor) {
            (true, minor) => format!("MICRO-{}-{minor}{rt}", self.major),
            (false, 0) => format!("SLE{}{rt}", self.major),
            (false, minor) => format!("SLE{}-SP{minor}{rt}", self.major),
        }
    }

    /// The product's update, as supported.csv and the released livepatches' branches call it.
    pub fn product(self) -> String {
        format!("{}_Update_{}", self.base_product(), self.update)
    }

    /// The folders below `fixes/` that may hold this codestream's patches; the first that is there counts.
    pub fn patch_dirs(self) -> Vec<String> {
        let plain = Self { rt: false, ..self };
        let mut dirs = Vec::new();
        if self.rt {
            dirs.extend([self.to_string(), self.base()]);
        }
        dirs.extend([plain.to_string(), plain.base()]);
        match (self.major, self.minor) {
            (15, 0..=3) => dirs.push("cve-5.3".to_owned()),
            (15, 4..=5) => dirs.push("cve-5.14".to_owned()),
            _ => {}
        }
        dirs
    }

    pub fn flavour(self) -> Flavour {
        if self.rt { Flavour::Rt } else { Flavour::Default }
    }

    /// The kernel's version with its flavour, as `uname -r` tells it: `6.4.0-150600.23.73-default`. Micro's newer real-time
    /// kernels already have the flavour in their version.
    pub fn release(self, kernel: &KernelVersion) -> String {
        if kernel.as_str().contains("-rt") {
            kernel.to_string()
        } else {
            format!("{kernel}-{}", self.flavour())
        }
    }

    /// The name of the source folder below `usr/src`. Before SLE 16 real-time kernels had sources of their own.
    pub fn source_dir(self, kernel: &KernelVersion) -> String {
        if self.rt && self.major < 16 {
            format!("linux-{}", self.release(kernel))
        } else {
            format!("linux-{kernel}")
        }
    }

    /// Where modules are, below an architecture's data folder.
    pub fn modules_dir(self, kernel: &KernelVersion) -> String {
        let usr = if self.is_slfo() { "usr/" } else { "" };
        format!("{usr}lib/modules/{}", self.release(kernel))
    }
}

/// The tag of a kernel's source in SUSE's kernel repositories.
pub fn kernel_tag(kernel: &KernelVersion) -> String {
    format!("rpm-{kernel}")
}

/// A decimal number without leading zeros.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

impl fmt::Display for SuseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rt = if self.rt { "rt" } else { "" };
        write!(f, "{}.{}{rt}u{}", self.major, self.minor, self.update)
    }
}

impl PartialOrd for SuseName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SuseName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // `rt` sorts before `u`: real-time kernels come first within a version.
        let key = |name: &Self| (name.major, name.minor, !name.rt, name.update);
        key(self).cmp(&key(other))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(s: &str) -> SuseName {
        SuseName::of(&s.parse().unwrap()).unwrap_or_else(|| panic!("{s} is a SUSE name"))
    }

    fn kernel(s: &str) -> KernelVersion {
        s.parse().unwrap()
    }

    #[test]
    fn only_whole_names_are_taken_apart() {
        let rt = name("15.6rtu2");
        assert_eq!((rt.major, rt.minor, rt.rt, rt.update), (15, 6, true, 2));
        assert_eq!(name("16.10u100").minor, 10);
        for other in [
            "debian12-6.1.0-50",
            "15.6",
            "15.6u",
            "15.6rt2",
            "x15.6u1",
            "15.6u1x",
            "15.6u1-2",
            "15.06u1",
            "15.6u01",
            "15.6.1u1",
            "15.6rtrtu1",
            "15.6u99999999999",
            "linux",
        ] {
            assert_eq!(SuseName::of(&other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn products_are_named_as_suse_names_them() {
        for (codestream, product) in [
            ("15.6rtu2", "SLE15-SP6-RT_Update_2"),
            ("15.6u16", "SLE15-SP6_Update_16"),
            ("6.0u1", "MICRO-6-0_Update_1"),
            ("6.0rtu11", "MICRO-6-0-RT_Update_11"),
            ("16.0u0", "SLE16_Update_0"),
            ("16.0rtu0", "SLE16-RT_Update_0"),
            ("12.5u3", "SLE12-SP5_Update_3"),
        ] {
            assert_eq!(name(codestream).product(), product);
            assert_eq!(SuseName::parse_product(product), Some(name(codestream)));
        }
        for bad in [
            "SLE15-SP0_Update_1",
            "SLE6_Update_1",
            "MICRO-15-6_Update_1",
            "SLE15_Update_",
            "SLES15_Update_1",
        ] {
            assert_eq!(SuseName::parse_product(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_a_codestream_needs_follows_from_its_version() {
        let facts = |s: &str| {
            let n = name(s);
            (n.is_micro(), n.is_slfo(), n.needs_ibt(), n.has_module_mutex())
        };
        assert_eq!(facts("12.5u3"), (false, false, false, true));
        assert_eq!(facts("15.3u1"), (false, false, false, true));
        assert_eq!(facts("15.4u1"), (false, false, false, false));
        assert_eq!(facts("15.5u1"), (false, false, false, false));
        assert_eq!(facts("15.6u1"), (false, false, true, false));
        assert_eq!(facts("6.0u1"), (true, true, true, false));
        assert_eq!(facts("16.0u0"), (false, true, true, false));
        let archs = |s: &str| {
            name(s)
                .default_archs()
                .into_iter()
                .map(Arch::as_str)
                .collect::<Vec<_>>()
        };
        assert_eq!(archs("15.6rtu2"), ["x86_64"]);
        assert_eq!(archs("6.0rtu2"), ["x86_64"]);
        assert_eq!(archs("6.0u2"), ["x86_64", "s390x"]);
        assert_eq!(archs("16.0u0"), ["x86_64", "s390x", "ppc64le"]);
    }

    #[test]
    fn patches_are_looked_for_from_the_special_to_the_general() {
        assert_eq!(
            name("15.4rtu7").patch_dirs(),
            ["15.4rtu7", "15.4rt", "15.4u7", "15.4", "cve-5.14"]
        );
        assert_eq!(name("15.3u2").patch_dirs(), ["15.3u2", "15.3", "cve-5.3"]);
        assert_eq!(name("15.5u2").patch_dirs(), ["15.5u2", "15.5", "cve-5.14"]);
        assert_eq!(name("15.6u2").patch_dirs(), ["15.6u2", "15.6"]);
        assert_eq!(name("12.5u2").patch_dirs(), ["12.5u2", "12.5"]);
        assert_eq!(name("16.0rtu0").patch_dirs(), ["16.0rtu0", "16.0rt", "16.0u0", "16.0"]);
    }

    #[test]
    fn a_kernels_folders_are_named_by_version_and_flavour() {
        let plain = kernel("6.4.0-150600.23.73");
        assert_eq!(kernel_tag(&plain), "rpm-6.4.0-150600.23.73");
        assert_eq!(name("15.6u16").release(&plain), "6.4.0-150600.23.73-default");
        assert_eq!(name("15.6u16").source_dir(&plain), "linux-6.4.0-150600.23.73");
        assert_eq!(name("15.6rtu1").source_dir(&plain), "linux-6.4.0-150600.23.73-rt");
        assert_eq!(
            name("15.6u16").modules_dir(&plain),
            "lib/modules/6.4.0-150600.23.73-default"
        );
        let micro = kernel("6.4.0-25-rt");
        assert_eq!(name("6.0rtu5").release(&micro), "6.4.0-25-rt");
        assert_eq!(name("6.0rtu5").source_dir(&micro), "linux-6.4.0-25-rt");
        assert_eq!(name("6.0rtu5").modules_dir(&micro), "usr/lib/modules/6.4.0-25-rt");
        // SLE 16 builds both flavours from one source, in object folders of their own.
        let shared = kernel("6.12.0-160000.5");
        assert_eq!(name("16.0rtu0").source_dir(&shared), name("16.0u0").source_dir(&shared));
        assert_ne!(name("16.0rtu0").release(&shared), name("16.0u0").release(&shared));
    }

    prop_compose! {
        pub(crate) fn any_name()(
            major in prop_oneof![Just(6u32), Just(15), 1u32..100],
            minor in prop_oneof![4 => 0u32..10, 1 => 10u32..200],
            rt: bool,
            update in prop_oneof![4 => 0u32..30, 2 => 95u32..112, 1 => any::<u32>()],
        ) -> SuseName {
            SuseName { major, minor, rt, update }
        }
    }

    proptest! {
        #[test]
        fn names_and_products_come_back(name in any_name()) {
            prop_assert_eq!(SuseName::of(&name.codestream()), Some(name));
            prop_assert_eq!(SuseName::parse_product(&name.product()), Some(name));
        }

        #[test]
        fn any_text_is_taken_for_a_name_only_if_it_is_its_own(text in "[0-9]{0,3}[.x]?[0-9]{0,3}(rt)?u?[0-9-]{0,4}") {
            if let Some(name) = SuseName::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn the_order_is_the_codestreams(a in any_name(), b in any_name()) {
            prop_assert_eq!(a.cmp(&b), a.codestream().cmp(&b.codestream()));
        }
    }
}
