//! Whose the data folder is: what root leaves in another user's folder that user can't read, and the coordinator would not
//! start again.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use nix::unistd::{Uid, User, geteuid};

/// # Errors
/// We are root, and the folder is another user's; or whose it is can't be told.
pub fn check(dir: &Path) -> anyhow::Result<()> {
    let owner = match std::fs::metadata(dir) {
        Ok(folder) => folder.uid(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("can't use the data folder {}", dir.display())),
    };
    if geteuid().is_root() && owner != 0 {
        let name = User::from_uid(Uid::from_raw(owner)).ok().flatten();
        let name = name.map_or_else(|| format!("#{owner}"), |user| user.name);
        bail!(
            "the data folder {} is {name}'s, who could not read what root leaves there: run this as that user, as in `runuser \
             -u {name} -- klp-coordinator ...`",
            dir.display()
        );
    }
    Ok(())
}
