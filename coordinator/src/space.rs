//! Room on the disk: what is refused first when it gets scarce, so that what runs can still be recorded.

use std::path::PathBuf;

use nix::sys::statvfs::statvfs;

/// The disk that holds the data. Of the free room, the last `min_free` bytes are not for new livepatches, and the last
/// half of that not for logs either: outcomes and their artifacts go on longest. Room is judged by what the system
/// says; with the last byte gone, whatever is asked is refused by the disk itself.
#[derive(Clone, Debug, Default)]
pub struct Space {
    dir: PathBuf,
    min_free: u64,
}

/// What a disk has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub free: u64,
    pub size: u64,
}

impl Space {
    pub fn new(dir: PathBuf, min_free: u64) -> Self {
        Self { dir, min_free }
    }

    /// Why a new livepatch can't be taken; `None` if it can.
    pub fn refusal(&self) -> Option<String> {
        if self.has(self.min_free) {
            return None;
        }
        let left = self.free().unwrap_or_default() >> 20;
        Some(format!(
            "the coordinator's disk has {left} MiB left; new livepatches are refused below {} (min_free_bytes): make room \
             in its data_dir",
            bytes(self.min_free)
        ))
    }

    pub fn has_room_for_logs(&self) -> bool {
        self.has(self.min_free / 2)
    }

    fn has(&self, bytes: u64) -> bool {
        // A system that won't say does not stop the farm.
        bytes == 0 || self.free().is_none_or(|free| free >= bytes)
    }

    fn free(&self) -> Option<u64> {
        self.room().map(|room| room.free)
    }

    /// What the disk has; `None` if the system won't say.
    pub fn room(&self) -> Option<Room> {
        let disk = statvfs(&self.dir).ok()?;
        Some(Room {
            free: disk.blocks_available() * disk.fragment_size(),
            size: disk.blocks() * disk.fragment_size(),
        })
    }

    /// Below this, livepatches are refused.
    pub fn min_free(&self) -> u64 {
        self.min_free
    }
}

fn bytes(n: u64) -> String {
    match n >> 20 {
        0 => format!("{n} bytes"),
        mib => format!("{mib} MiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn livepatches_are_refused_before_logs() {
        let dir = std::env::temp_dir();
        let free = Space::new(dir.clone(), 0).free().unwrap();
        let space = |min_free| Space::new(dir.clone(), min_free);
        assert!(space(0).refusal().is_none() && space(1).refusal().is_none());
        let scarce = space(free + free / 2);
        assert!(scarce.refusal().unwrap().contains("min_free_bytes"));
        assert!(scarce.has_room_for_logs());
        assert!(!space(free * 3).has_room_for_logs());
        assert!(Space::new("/nowhere".into(), 1).refusal().is_none());
    }
}
