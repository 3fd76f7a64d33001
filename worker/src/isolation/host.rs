//! Which fences this host gives: all are put up around a tool of our own that tries to get out. What can't be put up, or
//! doesn't hold, is missing, with the reason.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use tokio_util::sync::CancellationToken;

use super::cgroup::Groups;
use super::fence::{Decision, Fence, Policy, decide};
use super::plan::Means;
use super::settings::Settings;
use super::trial::{Questions, TRY_FENCES, Ways};
use super::{Isolation, Room, user};
use crate::config::ToolPaths;
use crate::process::{self, Command, Limits, ProcessError};

/// Finds out, and decides by the policy.
///
/// # Errors
/// What is required and missing, or wrong with the settings.
pub(super) async fn look(
    settings: &Settings,
    tools: &ToolPaths,
    data_dir: &Path,
    program: &Path,
) -> Result<Isolation, String> {
    let (means, no_user) = user::means(settings)?;
    let mut isolation = Isolation {
        decision: Decision::default(),
        means,
        read: known_places(settings, tools, program),
        hidden: vec![data_dir.to_owned()],
        groups: None,
        program: program.to_owned(),
        scratch_limit: settings.scratch_limit,
    };
    let mut missing = BTreeMap::new();
    if settings.policy != Policy::None {
        missing.extend(no_user.map(|why| (Fence::User, why)));
        match Groups::find() {
            Ok(groups) => isolation.groups = Some(groups),
            Err(why) => drop(missing.insert(Fence::Cgroup, why)),
        }
        // Reached as an attempt's own folder is, by tools that are somebody else.
        let passable = Permissions::from_mode(0o711);
        let base = tempfile::Builder::new().permissions(passable).tempdir_in(data_dir);
        let base = base.map_err(|e| format!("can't try the fences: {e}"))?;
        isolation = try_all(isolation, &mut missing, base.path()).await?;
    }
    isolation.decision = decide(&settings.policy, &missing)?;
    Ok(isolation)
}

/// Tries the fences that are not known to be missing, until those that are left are all up and hold.
async fn try_all(
    mut isolation: Isolation,
    missing: &mut BTreeMap<Fence, String>,
    base: &Path,
) -> Result<Isolation, String> {
    let failed = |e: std::io::Error| format!("can't try the fences: {e}");
    let secret = base.join("secret");
    std::fs::write(&secret, "of the worker").map_err(failed)?;
    let room = Room::new(base.join("room")).map_err(failed)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    // Each time at least one fence is given up.
    for _ in 0..=Fence::ALL.len() {
        isolation.decision = decide(&Policy::best(), missing)?;
        let fences = isolation.decision.up.clone();
        if fences.is_empty() {
            break;
        }
        let questions = Questions {
            fences,
            secret: secret.clone(),
            room: room.path().to_owned(),
            port,
            process: std::process::id().try_into().unwrap_or(i32::MAX),
            not_user: matches!(isolation.means, Means::Root { .. }).then(|| geteuid().as_raw()),
            ipc: std::fs::read_link("/proc/self/ns/ipc").unwrap_or_default(),
        };
        let new = tried(Arc::new(isolation.clone()), &questions, &room).await?;
        if new.is_empty() {
            break;
        }
        missing.extend(new);
    }
    Ok(isolation)
}

/// What was found to be missing.
async fn tried(
    isolation: Arc<Isolation>,
    questions: &Questions,
    room: &Room,
) -> Result<BTreeMap<Fence, String>, String> {
    let cell = isolation.cell([]).writing(room).map_err(|e| e.to_string())?;
    let text = serde_json::to_string(questions).map_err(|e| e.to_string())?;
    let command = Command::new(&isolation.program, room.path())
        .arg(TRY_FENCES)
        .arg(text)
        .within(&cell);
    let limits = Limits {
        wall: Duration::from_secs(20),
        ..Limits::default()
    };
    let done = match process::capture(&command, &limits, &CancellationToken::new()).await {
        Ok(done) => done,
        Err(ProcessError::Fence { fence, why, .. }) => return Ok(BTreeMap::from([(fence, why)])),
        Err(e) => {
            // It is there, so a fence is in its way.
            let up = &questions.fences;
            let order = [Fence::User, Fence::Files, Fence::Landlock, Fence::Syscalls];
            let fence = order.into_iter().find(|fence| up.contains(fence));
            return match fence {
                Some(fence) => Ok(BTreeMap::from([(fence, format!("behind it, tools don't start: {e}"))])),
                None => Err(e.to_string()),
            };
        }
    };
    match serde_json::from_str::<Ways>(done.stdout.trim()) {
        Ok(ways) => Ok(ways),
        Err(_) => Err(format!(
            "the trial of the fences {}: {}",
            done.finish.describe(),
            done.stderr.trim()
        )),
    }
}

/// Where the operator has programs and libraries: what the environment names, and what the settings do.
fn known_places(settings: &Settings, tools: &ToolPaths, program: &Path) -> Vec<PathBuf> {
    let folder = |path: PathBuf| path.parent().map(Path::to_owned);
    let list = |name: &str| std::env::var_os(name).unwrap_or_default();
    let lists = ["PATH", "LD_LIBRARY_PATH", "LIBCLANG_PATH"].map(list);
    let mut places: Vec<PathBuf> = lists.iter().flat_map(std::env::split_paths).collect();
    places.extend(std::env::split_paths(&tools.policy.clone().unwrap_or_default()));
    places.extend(
        [tools.ccp(), tools.clang_extract()]
            .into_iter()
            .flatten()
            .filter_map(folder),
    );
    places.push(program.to_owned());
    places.extend(settings.expose.iter().cloned());
    // Who names the root shows everything; that takes --isolation none.
    places.retain(|place| place.is_absolute() && place.parent().is_some());
    places
}
