//! Which apt is asked: the host's own, or for a foreign architecture one with a root of its own, so that nothing on the
//! host changes (no `dpkg --add-architecture`). Sources, keys and proxies are the host's in both.
//!
//! The options are apt.conf(5)'s.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use klp_livepatch::Arch;
use tokio_util::sync::CancellationToken;

use crate::process::Command;
use crate::trees::lock::TreeLock;
use crate::trees::{TreeError, disk, tools};

/// Holds the roots, in the folder of trees.
const FOLDER: &str = ".apt";
/// As new as the last time all lists were fetched.
const STAMP: &str = "updated";
const HOST_LISTS: [&str; 2] = ["/var/lib/apt/lists", "/var/lib/apt/lists/partial"];

/// An apt that can be asked.
pub(super) struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// The apt that knows packages of `arch`, with lists at least as new as the host's.
    ///
    /// # Errors
    /// If lists are needed and can't be fetched.
    pub(super) async fn open(
        trees_dir: &Path,
        arch: Arch,
        cancel: &CancellationToken,
        say: &mut (dyn FnMut(String) + Send),
    ) -> Result<Self, TreeError> {
        if Arch::host() == Some(arch) {
            return Ok(Self { options: Vec::new() });
        }
        let root = trees_dir.join(FOLDER).join(arch.debian_name());
        let apt = Self {
            options: options(&root, arch),
        };
        let _lock = TreeLock::take_named(trees_dir, &format!("apt-{arch}"), cancel, say).await?;
        if is_current(&root.join(STAMP)) {
            return Ok(apt);
        }
        for folder in ["lists/partial", "cache/archives/partial"] {
            disk::make_dir(&root.join(folder))?;
        }
        // What is installed: nothing.
        disk::write_whole(&root.join("status"), b"")?;
        say(format!("fetching apt's lists of packages for {}", arch.debian_name()));
        apt.update(&root, cancel, say).await?;
        Ok(apt)
    }

    async fn update(
        &self,
        root: &Path,
        cancel: &CancellationToken,
        say: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), TreeError> {
        // Names of programs and icons are of no use here.
        let command = self.command("apt-get", Path::new("/")).args([
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "update",
        ]);
        match tools::ask(&command, cancel).await {
            Ok(_) => disk::write_whole(&root.join(STAMP), b""),
            // One of several sources may be amiss; what the others have can be used. Tried again the next time.
            Err(TreeError::Refused(problem)) if has_packages(&root.join("lists")) => {
                let first = problem.lines().find_map(|line| Some(line.split_once("E: ")?.1));
                let first = first.unwrap_or(&problem);
                say(format!("warning: not all of apt's lists could be fetched: {first}"));
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// `apt-get` or `apt-cache`; add what it is to do.
    pub(super) fn command(&self, program: &str, dir: &Path) -> Command {
        let command = Command::new(program, dir).arg("-q").args(&self.options);
        if runs_as_root() {
            // apt would like to fetch as a user who can't write here, and warns that it does not.
            command.args(["-o", "APT::Sandbox::User=root"])
        } else {
            command
        }
    }
}

fn options(root: &Path, arch: Arch) -> Vec<String> {
    let place = |name: &str| root.join(name).display().to_string();
    let settings = [
        ("APT::Architecture", arch.debian_name().to_owned()),
        ("APT::Architectures", arch.debian_name().to_owned()),
        ("Dir::State", root.display().to_string()),
        ("Dir::State::lists", place("lists")),
        ("Dir::State::status", place("status")),
        ("Dir::Cache", place("cache")),
    ];
    settings
        .into_iter()
        .flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
        .collect()
}

/// Whether the lists are at least as new as the host's, so that `apt-get update` on the host brings new ones here, too.
fn is_current(stamp: &Path) -> bool {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    let host: Option<SystemTime> = HOST_LISTS.iter().filter_map(|path| changed(Path::new(path))).max();
    changed(stamp).is_some_and(|ours| host.is_none_or(|theirs| ours >= theirs))
}

fn has_packages(lists: &Path) -> bool {
    let files = std::fs::read_dir(lists).into_iter().flatten().flatten();
    let mut names = files.map(|entry| PathBuf::from(entry.file_name()));
    names.any(|name| name.to_string_lossy().contains("_Packages"))
}

fn runs_as_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_apt_touches_nothing_of_the_hosts() {
        let options = options(Path::new("/trees/.apt/s390x"), Arch::S390x);
        let set: Vec<_> = options.iter().filter(|o| *o != "-o").collect();
        assert_eq!(set.len() * 2, options.len());
        for option in set.iter().filter(|o| o.starts_with("Dir::")) {
            assert!(option.contains("=/trees/.apt/s390x"), "{option}");
        }
        assert!(set.iter().any(|o| *o == "APT::Architectures=s390x"));
    }

    #[test]
    fn lists_are_current_once_they_are_stamped() {
        let dir = tempfile::tempdir().unwrap();
        let stamp = dir.path().join(STAMP);
        assert!(!is_current(&stamp));
        disk::write_whole(&stamp, b"").unwrap();
        assert!(is_current(&stamp));
        std::fs::File::open(&stamp)
            .unwrap()
            .set_modified(SystemTime::UNIX_EPOCH)
            .unwrap();
        let host_has_lists = HOST_LISTS.iter().any(|path| Path::new(path).exists());
        assert_eq!(is_current(&stamp), !host_has_lists, "older than the host's");
    }
}
