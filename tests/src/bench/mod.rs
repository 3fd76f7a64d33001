//! What the farm's speed is made of: the coordinator as a child process, simulated workers, yardsticks, and the table.

pub mod cell;
pub mod coordinator;
pub mod dashboard;
pub mod pollers;
pub mod scenario;
mod still;
pub mod table;
pub mod worker;
pub mod yardstick;

/// Sizes of all measurements.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Simulated workers, one measurement each.
    pub workers: Vec<usize>,
    /// Queued tasks at which cost per attempt is measured.
    pub queues: Vec<usize>,
    /// Queued tasks of the large farm.
    pub tasks: usize,
    /// Workers of the large farm.
    pub fleet: usize,
    /// Seconds of each measurement of throughput.
    pub seconds: u64,
    /// Times a latency is measured.
    pub samples: usize,
    /// Real processes.
    pub processes: usize,
    /// Dashboards that poll.
    pub pollers: usize,
}

/// Platforms that every simulated worker claims.
pub const PLATFORMS: usize = 100;

/// A large livepatch: so many codestreams, `15.5u0` and on, each on these architectures.
pub const LARGE_CODESTREAMS: usize = 60;
pub const LARGE_ARCHS: [&str; 4] = ["x86_64", "ppc64le", "s390x", "aarch64"];

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
