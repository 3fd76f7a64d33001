//! Tells a person what a long command is doing: a line when a step begins, one when it ends, and now and then between.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Lines of progress on standard error.
pub struct Progress {
    total: usize,
    number: AtomicUsize,
    quiet: bool,
}

impl Progress {
    pub fn new(total: usize, quiet: bool) -> Self {
        Self {
            total,
            number: AtomicUsize::new(0),
            quiet,
        }
    }

    /// Begins the next step.
    pub fn step(&self, what: &str) -> Step<'_> {
        self.say(&format!("[{}/{}] {what}", self.next(), self.total));
        Step {
            progress: self,
            start: Instant::now(),
            last: Instant::now(),
        }
    }

    /// Counts a step that needn't be done.
    pub fn skip(&self, what: &str) {
        self.say(&format!("[{}/{}] {what}: done before", self.next(), self.total));
    }

    /// Something worth knowing between steps.
    pub fn note(&self, text: &str) {
        self.say(&format!("      {text}"));
    }

    fn next(&self) -> usize {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            // Nobody may be reading; the work is the same.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

/// A step at work.
pub struct Step<'a> {
    progress: &'a Progress,
    start: Instant,
    last: Instant,
}

impl Step<'_> {
    const EVERY: Duration = Duration::from_secs(10);

    /// A sign of life, told every ten seconds at most.
    pub fn alive(&mut self, detail: &str) {
        if self.last.elapsed() >= Self::EVERY {
            self.last = Instant::now();
            let seconds = self.start.elapsed().as_secs();
            self.progress.note(&format!("{seconds} s, {detail}"));
        }
    }

    pub fn note(&self, text: &str) {
        self.progress.note(text);
    }

    pub fn done(self) {
        self.progress
            .note(&format!("done in {:.1} s", self.start.elapsed().as_secs_f64()));
    }
}
