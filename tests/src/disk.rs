//! A small disk of its own for a test: a tmpfs, which fills up and has room again as the test says. Gone when dropped.
//! The coordinator's tests include this file too.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Disk {
    place: PathBuf,
    /// Removed with the disk, where the disk's place is nobody else's.
    folder: Option<tempfile::TempDir>,
}

impl Disk {
    /// Mounts a disk in a folder that is made for it. `None`, having said why, where it can't be mounted.
    pub fn mount(mib: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut disk = Self::mount_at(folder.path(), mib)?;
        disk.folder = Some(folder);
        Some(disk)
    }

    /// As [`Disk::mount`], in a folder that is made if absent and outlives the disk.
    pub fn mount_at(place: &Path, mib: u64) -> Option<Self> {
        fs::create_dir_all(place).expect("a folder can be made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(place)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self {
                place: place.to_owned(),
                folder: None,
            }),
            other => {
                eprintln!("skipped: can't mount a tmpfs, which takes root: {other:?}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.place
    }

    fn filler(&self) -> PathBuf {
        self.place.join("filler")
    }

    /// Takes all room but `left` bytes.
    pub fn fill(&self, left: u64) {
        let mut filler = File::options()
            .create(true)
            .append(true)
            .open(self.filler())
            .expect("filler");
        while filler.write_all(&[7; 4096]).is_ok() {}
        let length = filler.metadata().expect("filler").len();
        let length = length.checked_sub(left).expect("a disk larger than that");
        filler.set_len(length).expect("filler");
    }

    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("filler");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
        self.folder.take();
    }
}
