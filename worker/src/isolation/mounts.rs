//! Makes the file system that a confined tool sees, in a mount namespace of its own that nobody else is in yet.
#![expect(unsafe_code, reason = "mount_setattr(2), which no crate wraps")]

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::layout::{Layout, Node};

/// Where the new root is made. Nothing that is shown lies there.
const BASE: &str = "/proc";

/// The most that goes into /tmp. Tools are told to use their scratch folder.
const TMP: &str = "mode=1777,size=256m,nr_inodes=64k";

/// Of the host's devices, those that hold nothing.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Makes the new root the root. `own_processes`: this process is the first of a process namespace, and /proc can show that.
pub(super) fn enter(layout: &Layout, own_processes: bool) -> io::Result<()> {
    let base = Path::new(BASE);
    let none = None::<&Path>;
    // What is mounted here is nobody else's matter, and what others mount is none of ours.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let tight = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let fresh = |at: &Path, options: &str| mount(Some("tmpfs"), at, Some("tmpfs"), tight, Some(options));
    fresh(base, "mode=755").map_err(|e| at("mount a new root on", base, e.into()))?;
    // First, for some of what is shown may lie in it.
    let (tmp, proc, dev) = (base.join("tmp"), base.join("proc"), base.join("dev"));
    for dir in [&tmp, &proc, &dev] {
        fs::create_dir(dir)?;
    }
    fresh(&tmp, TMP).map_err(|e| at("mount", Path::new("/tmp"), e.into()))?;
    for (path, node) in &layout.nodes {
        let place = below(base, path);
        let made = match node {
            Node::Dir => make_dir(&place),
            Node::Link(target) => symlink(target, &place),
            Node::Folder => make_dir(&place).and_then(|()| bind(path, &place)),
            Node::File => File::create(&place).and_then(|_| bind(path, &place)),
            Node::Hidden => fresh(&place, "mode=755").map_err(io::Error::from),
        };
        made.map_err(|e| at("show", path, e))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        symlink(target, dev.join(name))?;
    }
    for name in DEVICES {
        File::create(dev.join(name))?;
    }
    let tight = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    change(base, tight | libc::MOUNT_ATTR_RDONLY, 0, WITH_ALL_BELOW)
        .map_err(|e| at("make read only", Path::new("/"), e))?;
    change(&tmp, 0, libc::MOUNT_ATTR_RDONLY, ALONE).map_err(|e| at("open", Path::new("/tmp"), e))?;
    for name in DEVICES {
        let device = Path::new("/dev").join(name);
        bind(&device, &dev.join(name)).map_err(|e| at("show", &device, e))?;
    }
    for path in &layout.writable {
        let place = below(base, path);
        let opened = bind(path, &place).and_then(|()| change(&place, tight, 0, WITH_ALL_BELOW));
        opened.map_err(|e| at("show, to be written to,", path, e))?;
    }
    if own_processes {
        let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        // Where the host's own is shown in part only, as within containers, the kernel refuses: it stays empty then.
        match mount(Some("proc"), &proc, Some("proc"), plain, none) {
            Ok(()) | Err(nix::errno::Errno::EPERM) => {}
            Err(e) => return Err(at("mount", Path::new("/proc"), e.into())),
        }
    }
    std::env::set_current_dir(base)?;
    // The old root goes on top of the new one, and away.
    nix::unistd::pivot_root(".", ".").map_err(|e| at("change to the new root", base, e.into()))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| at("leave the old root", base, e.into()))?;
    std::env::set_current_dir("/")
}

fn below(base: &Path, path: &Path) -> PathBuf {
    base.join(path.strip_prefix("/").unwrap_or(path))
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// With what is mounted below, which else would be missing, or seen.
fn bind(from: &Path, to: &Path) -> io::Result<()> {
    let none = None::<&Path>;
    Ok(mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?)
}

const WITH_ALL_BELOW: libc::c_int = libc::AT_RECURSIVE;
const ALONE: libc::c_int = 0;

/// Sets and clears a mount's attributes, and with it those of all mounts below: a remount would reach the uppermost only.
/// Since Linux 5.12.
fn change(path: &Path, set: u64, clear: u64, how_far: libc::c_int) -> io::Result<()> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `text` ends with a zero byte, and the kernel reads as many bytes of `attributes` as are named; both outlive
    // the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            text.as_ptr(),
            how_far,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn at(doing: &str, path: &Path, e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("can't {doing} {}: {e}", path.display()))
}
