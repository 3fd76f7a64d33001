//! Makes one version of a file out of the other, in memory: to compare the two, never to write them.

use super::patch::{FilePatch, Hunk, Side};

/// Line comparisons that one file may take; a hostile file of equal lines would take the product of both lengths.
const MAX_WORK: usize = 10_000_000;

/// A file's other version, as far as the hunks fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub text: String,
    /// The hunks that did not fit, by their number from 0.
    pub missed: Vec<Missed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    pub hunk: usize,
    /// Its result is there already.
    pub already: bool,
}

impl FilePatch {
    /// The file after the patch. Hunks are looked for around where they should be, in order, every line of context the
    /// same: what takes guessing is a prerequisite that is missing, and is told as that.
    pub fn apply(&self, old: &str) -> Applied {
        let old: Vec<&str> = old.lines().collect();
        let mut out: Vec<&str> = Vec::with_capacity(old.len());
        let mut missed = Vec::new();
        let (mut taken, mut drift, mut work) = (0_usize, 0_isize, MAX_WORK);
        for (number, hunk) in self.hunks.iter().enumerate() {
            let before = side(hunk, Side::Old);
            let expected = expected(hunk.old_start, before.is_empty()).saturating_add_signed(drift);
            let Some(at) = find(&old, taken, expected, &before, &mut work) else {
                let after = side(hunk, Side::New);
                let already = find(&old, taken, expected, &after, &mut work).is_some();
                missed.push(Missed { hunk: number, already });
                continue;
            };
            out.extend(&old[taken..at]);
            out.extend(side(hunk, Side::New));
            taken = at + before.len();
            drift += at as isize - expected as isize;
        }
        out.extend(&old[taken..]);
        let mut text = out.join("\n");
        if !out.is_empty() {
            text.push('\n');
        }
        Applied { text, missed }
    }

    /// The patch that undoes this one.
    pub fn reversed(&self) -> FilePatch {
        let mut reversed = self.clone();
        std::mem::swap(&mut reversed.old, &mut reversed.new);
        for hunk in &mut reversed.hunks {
            std::mem::swap(&mut hunk.old_start, &mut hunk.new_start);
            for line in &mut hunk.lines {
                line.side = match line.side {
                    Side::Both => Side::Both,
                    Side::Old => Side::New,
                    Side::New => Side::Old,
                };
            }
        }
        reversed
    }
}

/// The lines that one version has of a hunk.
fn side(hunk: &Hunk, version: Side) -> Vec<&str> {
    hunk.lines
        .iter()
        .filter(|line| line.side == Side::Both || line.side == version)
        .map(|line| line.text.as_str())
        .collect()
}

/// The number of lines before a hunk. One without old lines names the line before it, not its first.
fn expected(start: usize, empty: bool) -> usize {
    if empty { start } else { start.saturating_sub(1) }
}

/// The place nearest to `expected`, not before `from`, where `wanted` stands.
fn find(lines: &[&str], from: usize, expected: usize, wanted: &[&str], work: &mut usize) -> Option<usize> {
    let last = lines.len().checked_sub(wanted.len()).filter(|last| *last >= from)?;
    let expected = expected.clamp(from, last);
    if wanted.is_empty() {
        return Some(expected);
    }
    // Or each of many hunks would still be held against each line, if only to count a miss.
    if *work == 0 {
        return None;
    }
    let mut fits = |at: usize| {
        wanted.iter().zip(&lines[at..]).all(|(wanted, line)| {
            *work = work.saturating_sub(1);
            *work > 0 && wanted == line
        })
    };
    (0..=last - from).find_map(|distance| {
        let back = expected.checked_sub(distance).filter(|at| *at >= from);
        let ahead = Some(expected + distance).filter(|at| *at <= last && distance > 0);
        back.into_iter().chain(ahead).find(|at| fits(*at))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::patch::{HunkLine, Patch};
    use super::*;

    fn file(text: &str) -> FilePatch {
        text.parse::<Patch>().unwrap().files.remove(0)
    }

    #[test]
    fn hunks_are_found_where_lines_have_moved() {
        let patch = file("--- a/x\n+++ b/x\n@@ -2,3 +2,3 @@\n b\n-c\n+C\n d\n@@ -9,2 +9,3 @@\n i\n+I\n j\n");
        let old = "0\n0\na\nb\nc\nd\ne\ni\nj\n";
        let new = patch.apply(old);
        assert_eq!(new.text, "0\n0\na\nb\nC\nd\ne\ni\nI\nj\n");
        assert_eq!(new.missed, []);
        assert_eq!(patch.reversed().apply(&new.text).text, old);
    }

    #[test]
    fn hunks_that_do_not_fit_are_named() {
        let patch =
            file("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n a\n-b\n+B\n@@ -5,2 +5,2 @@\n e\n-f\n+F\n@@ -8 +8 @@\n-h\n+H\n");
        let new = patch.apply("a\nB\nc\nd\ne\nX\ng\nh\n");
        let already = |hunk, already| Missed { hunk, already };
        assert_eq!(new.missed, [already(0, true), already(1, false)]);
        assert_eq!(new.text, "a\nB\nc\nd\ne\nX\ng\nH\n");
    }

    #[test]
    fn an_only_line_may_be_blank() {
        let blank = file("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+\n");
        assert_eq!(blank.apply("a\n").text, "\n");
    }

    #[test]
    fn added_and_emptied_files() {
        let added = file("--- /dev/null\n+++ b/x\n@@ -0,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(added.apply("").text, "a\nb\n");
        assert_eq!(added.reversed().apply("a\nb\n").text, "");
    }

    #[test]
    fn a_file_of_equal_lines_takes_no_for_ever() {
        let mut patch = file("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-y\n+z\n");
        let line = |text: &str| HunkLine {
            side: Side::Old,
            text: text.into(),
        };
        patch.hunks[0].lines = std::iter::repeat_n(line("x"), 20_000).chain([line("y")]).collect();
        assert_eq!(patch.apply(&"x\n".repeat(100_000)).missed.len(), 1);
    }

    proptest! {
        #[test]
        fn applying_and_undoing_is_the_identity(
            old in prop::collection::vec("[a-f]{1,2}", 1..20), at in 0_usize..20, take in 0_usize..4,
            put in prop::collection::vec("[g-k]{1,2}", 0..4),
        ) {
            let at = at.min(old.len() - 1);
            let end = (at + take).min(old.len());
            let line = |side| move |text: &String| HunkLine { side, text: text.clone() };
            let lines = old[..at].iter().map(line(Side::Both))
                .chain(old[at..end].iter().map(line(Side::Old)))
                .chain(put.iter().map(line(Side::New)))
                .chain(old[end..].iter().map(line(Side::Both)))
                .collect();
            let patch = FilePatch {
                hunks: vec![Hunk { line: 1, old_start: 1, new_start: 1, lines }],
                ..FilePatch::default()
            };
            let text = old.join("\n") + "\n";
            let new = patch.apply(&text);
            prop_assert_eq!(&new.missed, &vec![]);
            let back = patch.reversed().apply(&new.text);
            prop_assert_eq!(back.text, text);
        }
    }
}
