//! Hosts of their own for a farm's parts: network namespaces joined by one cable, which a test can pull.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Two hosts, `here` (where the coordinator is) and `away`. Gone when dropped.
pub struct Net {
    pub here: String,
    pub away: String,
    cable: String,
}

/// The address of `here`.
pub const ADDRESS: &str = "10.77.0.1";

impl Net {
    /// `None`, saying why, where namespaces can't be made: not root, or no `ip`.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let net = Self {
            here: format!("klp-here-{tag}"),
            away: format!("klp-away-{tag}"),
            cable: "cable".to_owned(),
        };
        for name in [&net.here, &net.away] {
            if let Err(why) = ip(&["netns", "add", name]) {
                eprintln!("skipped: no network namespaces here ({why})");
                return None;
            }
        }
        let Self { here, away, cable } = &net;
        let steps: [&[&str]; 7] = [
            &[
                "-n", here, "link", "add", cable, "type", "veth", "peer", "name", cable, "netns", away,
            ],
            &["-n", here, "addr", "add", "10.77.0.1/24", "dev", cable],
            &["-n", away, "addr", "add", "10.77.0.2/24", "dev", cable],
            &["-n", here, "link", "set", "lo", "up"],
            &["-n", away, "link", "set", "lo", "up"],
            &["-n", here, "link", "set", cable, "up"],
            &["-n", away, "link", "set", cable, "up"],
        ];
        for step in steps {
            ip(step).expect("a network namespace can be set up");
        }
        Some(net)
    }

    /// Nothing gets through, and nobody is told.
    pub fn cut(&self) {
        ip(&["-n", &self.away, "link", "set", &self.cable, "down"]).expect("the cable can be pulled");
    }

    pub fn join(&self) {
        ip(&["-n", &self.away, "link", "set", &self.cable, "up"]).expect("the cable can be plugged in");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.here, &self.away] {
            // One that was never made can't be removed.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
