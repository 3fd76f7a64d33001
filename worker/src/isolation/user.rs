//! Whom tools run as, and by what means this worker can confine them.

use nix::unistd::{User, getegid, geteuid};
use rustix::thread::CapabilitySet;

use super::fence::Fence;
use super::plan::Means;
use super::settings::Settings;

/// The user that a package or an operator makes for tools.
const TOOL_USER: &str = "klp-farm-tool";

/// Owns nothing anywhere, by custom; but other services may run as the same.
const NOBODY: u32 = 65534;

/// The means, and why the fence `user` is not to be had by them.
///
/// # Errors
/// The settings name a user that tools can't be.
pub(super) fn means(settings: &Settings) -> Result<(Means, Option<String>), String> {
    let (user, group) = (geteuid(), getegid());
    let own = Means::UserNamespace {
        user: user.as_raw(),
        group: group.as_raw(),
    };
    if !user.is_root() {
        if let Some(name) = &settings.tool_user {
            tracing::warn!("the setting `tool_user = {name}` has no effect: only root can run tools as somebody else");
        }
        return Ok((own, None));
    }
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::CHOWN;
    let has_all = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    if !has_all {
        let why = "the worker is root, but without CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID and CAP_CHOWN";
        return Ok((own, Some(why.to_owned())));
    }
    let named = settings.tool_user.as_deref().unwrap_or(TOOL_USER);
    let found = find(named).map_err(|e| format!("can't look up the user {named}: {e}"))?;
    match (found, &settings.tool_user) {
        (Some((0, _)), _) => Err(format!(
            "tools can't run as {named}, who is root; name another by --tool-user"
        )),
        (Some((user, group)), _) => Ok((Means::Root { user, group }, None)),
        (None, Some(name)) => Err(format!("there is no user {name}, whom --tool-user names")),
        (None, None) => {
            let nobody = Means::Root {
                user: NOBODY,
                group: NOBODY,
            };
            let why = settings
                .policy
                .requires(Fence::User)
                .then(|| format!("there is no user {TOOL_USER}, and {NOBODY} may be other services' user, too"));
            Ok((nobody, why))
        }
    }
}

/// User and group, by name or number.
fn find(name: &str) -> nix::Result<Option<(u32, u32)>> {
    if let Some(user) = User::from_name(name)? {
        return Ok(Some((user.uid.as_raw(), user.gid.as_raw())));
    }
    // Who has a number need not have a name.
    Ok(name.parse().ok().map(|number: u32| (number, number)))
}
