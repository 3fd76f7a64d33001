//! Points where a test has the process die, as by a power cut. Release builds have none.
//!
//! `KLP_FARM_FAILPOINT=after-commit:3` ends the process the third time it gets to that point. A simulation, whose
//! coordinators share its process, [`watch`]es the points instead.

/// Where it can die. Each lies between two steps whose order a promise rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A transaction's work is done and nothing of it is durable.
    BeforeCommit,
    /// It is durable, and nobody has been told.
    AfterCommit,
    /// The farm has been told, and nobody has been answered.
    BeforeAnswer,
    /// An artifact's bytes are on the disk, under no name that counts.
    BeforeRename,
    /// It has its name, and whoever sent it has not been answered.
    AfterRename,
}

/// Passes a point, or dies there.
#[cfg(not(debug_assertions))]
pub fn pass(_: Point) {}

/// Passes a point, or dies there.
#[cfg(debug_assertions)]
pub fn pass(point: Point) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(Point, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    WATCHER.with_borrow(|watcher| watcher.iter().for_each(|watcher| watcher(point)));
    let wanted = WANTED.get_or_init(|| parse(&std::env::var("KLP_FARM_FAILPOINT").ok()?));
    if let Some((at, count)) = *wanted
        && at == point
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == count
    {
        // What was answered before its time gets to whoever asked.
        std::thread::sleep(std::time::Duration::from_millis(20));
        // No destructor runs and no buffer is flushed.
        std::process::abort();
    }
}

#[cfg(debug_assertions)]
type Watcher = Box<dyn Fn(Point)>;

#[cfg(debug_assertions)]
thread_local! {
    static WATCHER: std::cell::RefCell<Option<Watcher>> = const { std::cell::RefCell::new(None) };
}

/// Has `watcher` called at each point that this thread passes, in place of who watched before.
#[cfg(debug_assertions)]
pub fn watch(watcher: impl Fn(Point) + 'static) {
    WATCHER.set(Some(Box::new(watcher)));
}

#[cfg(debug_assertions)]
fn parse(text: &str) -> Option<(Point, u64)> {
    let (name, count) = text.split_once(':')?;
    let point = match name {
        "before-commit" => Point::BeforeCommit,
        "after-commit" => Point::AfterCommit,
        "before-answer" => Point::BeforeAnswer,
        "before-rename" => Point::BeforeRename,
        "after-rename" => Point::AfterRename,
        _ => return None,
    };
    Some((point, count.parse().ok()?))
}
