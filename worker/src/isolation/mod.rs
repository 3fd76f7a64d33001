//! What tools are kept from: each runs in a cell that shows it the system, its kernel's tree and a scratch folder, and nothing
//! else of the host.
//!
//! [`fence`] names the fences and decides which are put up; [`host`] finds out, by trying to get through, which can be. An
//! [`Isolation`] is the result, one for the worker; a [`Cell`] is that with the paths that one tool needs. [`layout`] turns
//! these into a file system, and [`confine`] is the process that puts all up around itself and becomes the tool. A [`Room`]
//! is a folder that tools write to, and from which the worker takes nothing that is not really in it.

mod cgroup;
mod confine;
mod fence;
mod host;
mod landlock;
mod layout;
mod mounts;
mod plan;
pub(crate) mod quota;
mod room;
mod settings;
mod syscalls;
mod trial;
mod user;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cgroup::Group;
pub use confine::become_tool;
pub use fence::{Decision, Fence, Policy, decide};
pub use room::Room;
pub use settings::{SCRATCH_LIMIT, Settings};

use crate::config::ToolPaths;
use cgroup::Groups;
use layout::Layout;
use plan::{CONFINE, Means, Plan, Trouble};

/// How this worker confines tools.
#[derive(Clone, Debug)]
pub struct Isolation {
    decision: Decision,
    means: Means,
    /// What every tool may read beside the system.
    read: Vec<PathBuf>,
    /// What is shown by its own name only, whatever else is shown.
    hidden: Vec<PathBuf>,
    groups: Option<Groups>,
    /// Our own program, which becomes the tool.
    program: PathBuf,
    pub scratch_limit: u64,
}

impl Isolation {
    /// None at all: tools may do what the worker may.
    pub fn none() -> Arc<Self> {
        Arc::new(Self {
            decision: Decision::default(),
            means: Means::UserNamespace { user: 0, group: 0 },
            read: Vec::new(),
            hidden: Vec::new(),
            groups: None,
            program: PathBuf::new(),
            scratch_limit: settings::SCRATCH_LIMIT,
        })
    }

    /// Finds out what this host gives, and decides. `program` is one of ours that begins with [`become_tool`].
    ///
    /// # Errors
    /// The settings ask for what can't be.
    pub async fn look(
        settings: &Settings,
        tools: &ToolPaths,
        data_dir: &Path,
        program: &Path,
    ) -> Result<Arc<Self>, String> {
        host::look(settings, tools, data_dir, program).await.map(Arc::new)
    }

    /// Which fences are up, and why the others are not.
    pub fn fences(&self) -> &Decision {
        &self.decision
    }

    /// Whom what is handed over to tools must belong to; `None`: they are who the worker is.
    fn owner(&self) -> Option<(u32, u32)> {
        match self.means {
            Means::Root { user, group } if self.decision.up.contains(&Fence::User) => Some((user, group)),
            _ => None,
        }
    }

    /// Whether tools are somebody else, who has to be able to read what the worker makes for them.
    pub fn changes_user(&self) -> bool {
        self.owner().is_some()
    }

    /// What of these paths tools can't read because they are somebody else, with what to do.
    pub fn unreadable<'p>(&self, paths: impl IntoIterator<Item = &'p Path>) -> Option<String> {
        let (user, _) = self.owner()?;
        let lacks = |path: &Path, to_dir: u32| {
            path.metadata().is_ok_and(|found| {
                let needed = if found.is_dir() { to_dir } else { 0o004 };
                found.uid() != user && found.mode() & needed != needed
            })
        };
        // In a file system of their own they are shown what is there, whatever is around it on the host.
        let come_by = !self.decision.up.contains(&Fence::Files);
        let shut = |path: &'p Path| match lacks(path, 0o005) {
            true => Some((path, "read", "-R o+rX")),
            false => {
                let dir = path.ancestors().skip(1).find(|dir| come_by && lacks(dir, 0o001));
                dir.map(|dir| (dir, "pass through", "o+x"))
            }
        };
        let (path, what, mode) = paths.into_iter().find_map(shut)?;
        let path = path.display();
        Some(format!(
            "tools run as another user ({user}), who can't {what} {path}; allow it with chmod {mode} {path}"
        ))
    }

    /// A cell whose tools may read these paths.
    pub fn cell<'p>(self: &Arc<Self>, read: impl IntoIterator<Item = &'p Path>) -> Cell {
        Cell {
            isolation: self.clone(),
            read: read.into_iter().map(Path::to_owned).collect(),
            write: Vec::new(),
        }
    }
}

/// What a tool may reach.
#[derive(Clone, Debug)]
pub struct Cell {
    isolation: Arc<Isolation>,
    read: Vec<PathBuf>,
    /// The first is its folder for temporary files.
    write: Vec<PathBuf>,
}

impl Cell {
    /// One that keeps nobody from anything.
    pub fn open() -> Self {
        Isolation::none().cell([])
    }

    pub fn isolation(&self) -> &Arc<Isolation> {
        &self.isolation
    }

    /// With further paths to read.
    pub fn reading<'p>(&self, paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let mut cell = self.clone();
        cell.read.extend(paths.into_iter().map(Path::to_owned));
        cell
    }

    /// With a folder to write to, which is handed over to the tools.
    ///
    /// # Errors
    /// It can't be handed over.
    pub fn writing(&self, room: &Room) -> io::Result<Self> {
        room.hand_over(self.isolation.owner())?;
        let mut cell = self.clone();
        cell.write.push(room.path().to_owned());
        Ok(cell)
    }

    /// Where temporary files go.
    pub(crate) fn scratch(&self) -> Option<&Path> {
        self.write.first().map(PathBuf::as_path)
    }

    /// The largest file that a tool may write, in bytes.
    pub(crate) fn file_size(&self) -> Option<u64> {
        self.is_closed().then_some(self.isolation.scratch_limit)
    }

    /// Whether there is a fence at all.
    pub(crate) fn is_closed(&self) -> bool {
        !self.isolation.decision.up.is_empty()
    }

    /// A control group for a tool, where such are to be had.
    pub(crate) fn group(&self, memory: Option<u64>) -> io::Result<Option<Group>> {
        let groups = self.isolation.groups.as_ref();
        let groups = groups.filter(|_| self.isolation.decision.up.contains(&Fence::Cgroup));
        groups.map(|groups| groups.make(memory)).transpose()
    }

    /// What to start in place of a tool in `dir`: our program and its first arguments, which the tool's own follow. Trouble is
    /// told to the pipe `tell`.
    pub(crate) fn command(&self, dir: &Path, group: Option<&Group>, tell: RawFd) -> io::Result<(&Path, [OsString; 2])> {
        let isolation = &*self.isolation;
        let read: Vec<PathBuf> = isolation.read.iter().chain(&self.read).cloned().collect();
        let plan = Plan {
            fences: isolation.decision.up.clone(),
            means: isolation.means,
            layout: Layout::new(&read, &self.write, &isolation.hidden)?,
            dir: dir.to_owned(),
            cgroup: group.map(|group| group.path().to_owned()),
            tell,
        };
        let text = serde_json::to_string(&plan)?;
        Ok((&isolation.program, [CONFINE.into(), text.into()]))
    }

    /// What was told to the pipe.
    pub(crate) fn trouble(told: &[u8]) -> Option<NoTool> {
        match serde_json::from_slice(told).ok()? {
            Trouble::Fence { fence, why } => Some(NoTool::Fence(fence, why)),
            Trouble::Start { errno } => Some(NoTool::Start(io::Error::from_raw_os_error(errno))),
        }
    }
}

/// Why there came to be no tool.
pub(crate) enum NoTool {
    Fence(Fence, String),
    Start(io::Error),
}

/// The fences with what keeps them down, for whom it may concern.
pub fn announced(isolation: &Isolation) -> BTreeMap<Fence, Option<String>> {
    let Decision { up, down } = isolation.fences();
    let up = up.iter().map(|fence| (*fence, None));
    up.chain(down.iter().map(|(fence, why)| (*fence, Some(why.clone()))))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn another_user(up: &[Fence]) -> Isolation {
        Isolation {
            decision: Decision {
                up: BTreeSet::from_iter(up.iter().copied()),
                down: BTreeMap::new(),
            },
            means: Means::Root {
                user: 65_533,
                group: 65_533,
            },
            ..Isolation::clone(&Isolation::none())
        }
    }

    #[test]
    fn what_another_user_can_t_reach_is_told_with_what_opens_that_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let (home, tree) = (dir.path().join("home"), dir.path().join("home/tree"));
        fs::create_dir_all(&tree).unwrap();
        let allow = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        allow(dir.path(), 0o755);
        allow(&home, 0o700);
        allow(&tree, 0o755);
        let told = |up: &[Fence]| another_user(up).unreadable([tree.as_path()]);
        let through = told(&[Fence::User]).unwrap();
        assert!(through.ends_with(&format!("chmod o+x {}", home.display())), "{through}");
        assert_eq!(
            told(&[Fence::User, Fence::Files]),
            None,
            "it is shown without its surroundings"
        );
        assert_eq!(told(&[]), None, "tools are who the worker is");
        allow(&home, 0o711);
        assert_eq!(told(&[Fence::User]), None);
        allow(&tree, 0o711);
        let read = told(&[Fence::User, Fence::Files]).unwrap();
        assert!(read.ends_with(&format!("chmod -R o+rX {}", tree.display())), "{read}");
    }
}
