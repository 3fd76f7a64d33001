//! A virtual machine that boots a kernel to a script of the test's. It needs qemu-system-x86_64 and a static busybox, and
//! no acceleration: a boot takes some seconds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::proc::wait_until;

/// How long a machine may run.
const LIMIT: Duration = Duration::from_secs(180);

/// What a machine starts with: its kernel, and files by their names in its root folder.
pub struct Machine {
    kernel: PathBuf,
    archive: Vec<u8>,
    inode: u32,
}

impl Machine {
    /// `None` only for who does not ask for it: booting takes longer than all other tests of its kind.
    pub fn wanted(kernel: &Path) -> Option<Self> {
        std::env::var_os("KLP_FARM_QEMU")?;
        let mut machine = Self {
            kernel: kernel.to_owned(),
            archive: Vec::new(),
            inode: 1,
        };
        for folder in ["bin", "proc", "sys", "dev"] {
            machine.entry(folder, 0o040_755, &[]);
        }
        let busybox = std::env::var_os("PATH").expect("PATH");
        let busybox = std::env::split_paths(&busybox).map(|dir| dir.join("busybox"));
        let busybox = busybox
            .into_iter()
            .find(|path| path.is_file())
            .expect("busybox: install busybox-static");
        machine.file("bin/busybox", &std::fs::read(busybox).expect("busybox"));
        Some(machine)
    }

    pub fn file(&mut self, name: &str, bytes: &[u8]) {
        self.entry(name, 0o100_755, bytes);
    }

    /// An entry of a cpio archive in the "newc" format of the kernel's initramfs: numbers of eight hexadecimal digits, name
    /// and content padded to four bytes.
    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        let size = |len: usize| u32::try_from(len).expect("small");
        let numbers = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            size(bytes.len()),
            0,
            0,
            0,
            0,
            size(name.len() + 1),
            0,
        ];
        self.inode += 1;
        let digits: String = numbers.iter().map(|n| format!("{n:08x}")).collect();
        self.archive.extend(format!("070701{digits}{name}\0").as_bytes());
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
        self.archive.extend(bytes);
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }

    /// Runs the shell script with all of busybox and returns what the console showed. It ends with the script.
    pub fn run(mut self, script: &str) -> String {
        let init = format!(
            "#!/bin/busybox sh\nexport PATH=/bin\n/bin/busybox --install -s /bin\n\
             mount -t proc proc /proc\nmount -t sysfs sys /sys\n{script}\npoweroff -f\n"
        );
        self.file("init", init.as_bytes());
        self.entry("TRAILER!!!", 0, &[]);
        let dir = tempfile::tempdir().expect("temporary folder");
        let (initrd, console) = (dir.path().join("initrd"), dir.path().join("console"));
        std::fs::write(&initrd, &self.archive).expect("initrd");
        let out = std::fs::File::create(&console).expect("console");
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(["-m", "512", "-nographic", "-no-reboot", "-nic", "none", "-append"])
            .arg("console=ttyS0 panic=-1 quiet")
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&initrd)
            .stdin(Stdio::null())
            .stdout(out)
            .spawn()
            .expect("qemu-system-x86_64: install qemu-system-x86");
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until(LIMIT, "the machine powers off", || qemu.try_wait().expect("qemu"))
        }));
        let _ = qemu.kill();
        let _ = qemu.wait();
        let said = String::from_utf8_lossy(&std::fs::read(&console).expect("console")).into_owned();
        assert!(ended.is_ok(), "the machine did not power off: {said}");
        said
    }
}
