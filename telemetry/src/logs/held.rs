//! Keeps log lines back while a program draws on the terminal that they would go to.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that are kept; what comes after them is counted only.
const MOST: usize = 64 << 10;

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

#[derive(Default)]
struct Kept {
    lines: Vec<u8>,
    omitted: usize,
}

fn kept() -> MutexGuard<'static, Option<Kept>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Log lines are kept back until this is dropped, and are written then.
#[must_use]
pub struct Hold(());

/// Keeps log lines back from now on.
pub fn hold() -> Hold {
    kept().get_or_insert_default();
    Hold(())
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(Kept { lines, omitted }) = kept().take() else {
            return;
        };
        let mut stderr = io::stderr().lock();
        // Nobody can be told that nothing can be said.
        let _ = stderr.write_all(&lines);
        if omitted > 0 {
            let _ = writeln!(stderr, "… and {omitted} more log lines");
        }
    }
}

/// Standard error, or where lines are kept.
pub(super) struct Out;

impl Write for Out {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match kept().as_mut() {
            None => return io::stderr().write(line),
            Some(kept) if kept.lines.len() + line.len() <= MOST => kept.lines.extend_from_slice(line),
            Some(kept) => kept.omitted += 1,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_up_to_a_bound() {
        let hold = hold();
        Out.write_all(b"first\n").unwrap();
        Out.write_all(&[b'x'; MOST]).unwrap();
        let seen = kept().as_ref().map(|kept| (kept.lines.clone(), kept.omitted));
        assert_eq!(seen, Some((b"first\n".to_vec(), 1)));
        drop(hold);
        assert!(kept().is_none());
    }
}
