//! A service manager in systemd's place: hears what a program tells by NOTIFY_SOCKET.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub struct Manager {
    socket: UnixDatagram,
    address: PathBuf,
}

impl Manager {
    /// Listens in this folder.
    pub fn new(folder: &Path) -> Self {
        let address = folder.join("notify");
        let socket = UnixDatagram::bind(&address).expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a time-out");
        Self { socket, address }
    }

    /// Has a command tell us, as often as this watchdog asks.
    pub fn manages(&self, command: &mut Command, watchdog: Duration) {
        command
            .env("NOTIFY_SOCKET", &self.address)
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string());
    }

    /// The next message that has what is wanted.
    pub fn hears(&self, wanted: &str) -> String {
        let (begin, mut heard) = (Instant::now(), Vec::new());
        while begin.elapsed() < Duration::from_secs(30) {
            match self.told() {
                Some(told) if told.contains(wanted) => return told,
                told => heard.extend(told),
            }
        }
        panic!("never told {wanted:?}, but {heard:?}");
    }

    /// What is told next, if something is within a moment.
    pub fn told(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Waits for nothing to be told for as long as `length`; `None` if that does not happen within this time.
    pub fn silence(&self, length: Duration, within: Duration) -> Option<()> {
        let begin = Instant::now();
        let mut last = begin;
        while begin.elapsed() < within {
            if self.told().is_some() {
                last = Instant::now();
            } else if last.elapsed() >= length {
                return Some(());
            }
        }
        None
    }
}
