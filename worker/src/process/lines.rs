//! A child's output as lines of bounded length and bounded sum.

/// Cuts a stream of bytes into lines; what is no UTF-8 is replaced, lines that are too long are split.
pub(super) struct LineSplitter {
    max: usize,
    pending: Vec<u8>,
}

impl LineSplitter {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            pending: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8], each: &mut dyn FnMut(&str)) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut rest = text;
            while self.pending.len() + rest.len() > self.max {
                let (now, later) = rest.split_at(self.max - self.pending.len());
                self.pending.extend_from_slice(now);
                // A character is not torn in two, unless it is no character.
                let whole = whole_characters(&self.pending);
                let torn = self.pending.split_off(whole);
                self.emit(each);
                self.pending = torn;
                rest = later;
            }
            self.pending.extend_from_slice(rest);
            if ended {
                self.emit(each);
            }
        }
    }

    /// The last line, if it has no end.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(&str)) {
        if !self.pending.is_empty() {
            self.emit(each);
        }
    }

    fn emit(&mut self, each: &mut dyn FnMut(&str)) {
        let line = self.pending.strip_suffix(b"\r").unwrap_or(&self.pending);
        each(&String::from_utf8_lossy(line));
        self.pending.clear();
    }
}

/// How many leading bytes make whole characters, if an unfinished one ends the text; at least 1.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => e.valid_up_to(),
        _ => bytes.len(),
    }
}

/// How much output may still be handed on.
pub(super) struct Budget {
    kept: u64,
    seen: u64,
    cut: u64,
}

impl Budget {
    pub(super) fn new(kept: u64) -> Self {
        Self { kept, seen: 0, cut: 0 }
    }

    pub(super) fn pass(&mut self, line: &str, on: impl FnOnce(&str)) {
        let size = line.len() as u64 + 1;
        self.seen += size;
        // Once a line was cut all that follow are, so that what is kept is a beginning without holes.
        if self.seen <= self.kept {
            on(line);
        } else {
            self.cut += size;
        }
    }

    /// Bytes seen, newlines included.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Bytes not handed on.
    pub(super) fn cut(&self) -> u64 {
        self.cut
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(max: usize, chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::new(max);
        for chunk in chunks {
            splitter.push(chunk, &mut |line| lines.push(line.to_owned()));
        }
        splitter.finish(&mut |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_are_put_together_and_long_ones_split() {
        assert_eq!(split(100, &[b"a\nb", b"c\r\n", b"\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(split(4, &[b"abcdefghij\nk\n"]), ["abcd", "efgh", "ij", "k"]);
        assert_eq!(split(4, &["abcäö\n".as_bytes()]), ["abc", "äö"]);
        assert_eq!(split(9, &[b"\xff\xfe\n"]), ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn what_is_kept_is_a_beginning() {
        let mut budget = Budget::new(10);
        let mut kept = Vec::new();
        for line in ["12345", "too long", "x"] {
            budget.pass(line, |l| kept.push(l.to_owned()));
        }
        assert_eq!(kept, ["12345"]);
        assert_eq!((budget.seen(), budget.cut()), (17, 11));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_whatever_the_chunks(text in "[a-zäß\n]{0,60}", max in 2usize..9, at in 0usize..60) {
            let bytes = text.as_bytes();
            let at = at.min(bytes.len());
            let whole = split(max, &[bytes]);
            prop_assert_eq!(&whole, &split(max, &[&bytes[..at], &bytes[at..]]));
            prop_assert_eq!(whole.concat(), text.replace('\n', ""));
            prop_assert!(whole.iter().all(|line| line.len() <= max));
        }
    }
}
