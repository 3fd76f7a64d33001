//! Landlock: the same rules about files once more, kept by another part of the kernel, and no TCP and no signals to others.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};

use super::layout::Layout;

/// The newest that is asked for; an older kernel does what it can.
const NEWEST: ABI = ABI::V6;

/// Devices that everybody writes to.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/full"];

/// Holds this process and those it starts to the layout.
///
/// `own_root`: the layout is the tool's root, with a /tmp of its own.
pub(super) fn restrict(layout: &Layout, own_root: bool, no_network: bool) -> io::Result<()> {
    let system = ["/dev", "/proc"].map(Path::new);
    let readable = layout.readable().chain(system);
    let places = layout.writable.iter().map(|path| path.as_path());
    let writable = places
        .chain(DEVICES.map(Path::new))
        .chain(own_root.then_some(Path::new("/tmp")));
    let ruled = || {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?;
        if no_network {
            rules = rules.handle_access(AccessNet::from_all(NEWEST))?;
        }
        rules
            .create()?
            .add_rules(path_beneath_rules(readable, AccessFs::from_read(NEWEST)))?
            .add_rules(path_beneath_rules(writable, AccessFs::from_all(NEWEST)))?
            // Folders on the way may be listed: in a root of its own they hold nothing else.
            .add_rules(path_beneath_rules(
                own_root.then_some(Path::new("/")),
                AccessFs::ReadDir,
            ))?
            .restrict_self()
    };
    let status = ruled().map_err(io::Error::other)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(io::Error::other("this kernel has no Landlock, or it is switched off")),
        _ => Ok(()),
    }
}
