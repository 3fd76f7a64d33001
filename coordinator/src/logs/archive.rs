//! A log that has ended, compressed: gzip members of 64 KiB of text each, so that `zcat` shows it whole and a reader may
//! begin anywhere with one member in memory. The last member is empty; its header carries the index of the others.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Bytes of text in each member but the last.
const MEMBER: usize = 64 << 10;
/// Begins the index member: gzip with an extra field, no time, no system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
/// Ends it: nothing, compressed, with its checksum and length.
const TRAILER: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The kind of the extra field.
const KIND: [u8; 2] = *b"KF";
/// As many as the lengths of fit into an extra field, whose own is a u16.
const MOST_MEMBERS: usize = (u16::MAX as usize - 4 - 12) / 4;

/// Compresses all of `text`; answers how many bytes it had.
///
/// # Errors
/// Either side's, or the text is too long.
pub fn write(mut text: impl Read, mut to: impl Write) -> io::Result<u64> {
    let mut lengths = Vec::new();
    let mut size = 0;
    let mut piece = Vec::with_capacity(MEMBER);
    loop {
        piece.clear();
        text.by_ref().take(MEMBER as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&piece)?;
        let member = encoder.finish()?;
        to.write_all(&member)?;
        size += piece.len() as u64;
        // 64 KiB never grow to 4 GiB.
        lengths.push(member.len() as u32);
    }
    let field = 4 * lengths.len() + 12;
    let Some(extra) = u16::try_from(field + 4).ok().filter(|_| lengths.len() <= MOST_MEMBERS) else {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the log is too long"));
    };
    let mut index = HEADER.to_vec();
    index.extend(extra.to_le_bytes());
    index.extend(KIND);
    // Less than `extra`.
    index.extend((extra - 4).to_le_bytes());
    lengths.iter().for_each(|length| index.extend(length.to_le_bytes()));
    index.extend(size.to_le_bytes());
    index.extend((lengths.len() as u32).to_le_bytes());
    index.extend(TRAILER);
    to.write_all(&index)?;
    Ok(size)
}

/// A compressed log, opened.
pub struct Archive {
    file: File,
    /// Where each member begins; the last is the index.
    starts: Vec<u64>,
    size: u64,
}

impl Archive {
    /// # Errors
    /// The disk's, or the file is not such a log.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut end = [0; 22];
        file.seek(SeekFrom::Start(length.checked_sub(22).ok_or_else(broken)?))?;
        file.read_exact(&mut end)?;
        // The slices have the lengths of their types.
        let size = u64::from_le_bytes(end[..8].try_into().map_err(|_| broken())?);
        let count = u32::from_le_bytes(end[8..12].try_into().map_err(|_| broken())?) as usize;
        if end[12..] != TRAILER || count > MOST_MEMBERS || size.div_ceil(MEMBER as u64) != count as u64 {
            return Err(broken());
        }
        let mut index = vec![0; HEADER.len() + 6 + 4 * count];
        let start = length.checked_sub(22 + index.len() as u64).ok_or_else(broken)?;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut index)?;
        if !index.starts_with(&HEADER) || index[12..14] != KIND {
            return Err(broken());
        }
        let mut starts = vec![0];
        let mut at = 0;
        for length in index[16..].chunks_exact(4) {
            at += u64::from(u32::from_le_bytes(length.try_into().map_err(|_| broken())?));
            starts.push(at);
        }
        if at != start {
            return Err(broken());
        }
        Ok(Self { file, starts, size })
    }

    /// How many bytes of text it holds.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Text from `offset` on: up to `limit` bytes, and fewer where a member ends; none at or past the end.
    ///
    /// # Errors
    /// The disk's, or the member is damaged.
    pub fn read(&mut self, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
        if offset >= self.size {
            return Ok(Vec::new());
        }
        // Below the number of members, which is a usize.
        let number = (offset / MEMBER as u64) as usize;
        let (start, end) = (self.starts[number], self.starts[number + 1]);
        self.file.seek(SeekFrom::Start(start))?;
        let expected = (self.size - (number * MEMBER) as u64).min(MEMBER as u64);
        let mut text = Vec::with_capacity(MEMBER);
        let member = (&mut self.file).take(end - start);
        // One byte more than there should be tells a member that is too long.
        GzDecoder::new(member).take(expected + 1).read_to_end(&mut text)?;
        if text.len() as u64 != expected {
            return Err(broken());
        }
        let from = (offset % MEMBER as u64) as usize;
        text.drain(..from);
        text.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(text)
    }

    /// All of the text, piece by piece.
    ///
    /// # Errors
    /// The disk's, a member is damaged, or `take` answers one.
    pub fn each(&mut self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut offset = 0;
        while offset < self.size {
            let piece = self.read(offset, MEMBER as u64)?;
            take(&piece)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the compressed log is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that does not compress to nothing.
    fn text(length: usize) -> Vec<u8> {
        let words = (0u32..).flat_map(|n| format!("{:x} ", n.wrapping_mul(2_654_435_761)).into_bytes());
        words.take(length).collect()
    }

    fn archived(folder: &Path, text: &[u8]) -> Archive {
        let path = folder.join("x.gz");
        assert_eq!(write(text, File::create(&path).unwrap()).unwrap(), text.len() as u64);
        Archive::open(&path).unwrap()
    }

    #[test]
    fn any_part_reads_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1, MEMBER - 1, MEMBER, MEMBER + 1, 5 * MEMBER + 77] {
            let text = text(length);
            let mut archive = archived(folder.path(), &text);
            assert_eq!(archive.size(), length as u64);
            let mut whole = Vec::new();
            archive
                .each(|piece| {
                    whole.extend_from_slice(piece);
                    Ok(())
                })
                .unwrap();
            assert!(whole == text, "{length}");
            for offset in [0, 1, length / 2, length.saturating_sub(1), length, length + 9] {
                let part = archive.read(offset as u64, 100).unwrap();
                assert_eq!(part.is_empty(), offset >= length, "{offset} of {length}");
                assert!(text[offset.min(length)..].starts_with(&part), "{offset} of {length}");
            }
        }
    }

    #[test]
    fn zcat_shows_it_whole() {
        let folder = tempfile::tempdir().unwrap();
        let text = text(3 * MEMBER + 5);
        archived(folder.path(), &text);
        let shown = std::process::Command::new("zcat")
            .arg(folder.path().join("x.gz"))
            .output()
            .unwrap();
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        assert!(shown.stdout == text);
    }

    #[test]
    fn damage_anywhere_is_an_error_and_never_a_panic_or_other_text() {
        let folder = tempfile::tempdir().unwrap();
        let text = text(MEMBER + 500);
        archived(folder.path(), &text);
        let path = folder.path().join("x.gz");
        let sound = std::fs::read(&path).unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let mut whole = Vec::new();
            Archive::open(&path)?.each(|piece| {
                whole.extend_from_slice(piece);
                Ok(())
            })?;
            Ok::<_, io::Error>(whole)
        };
        // A byte in a gzip header may mean nothing; then the text is as it was.
        for at in (0..sound.len()).step_by(61).chain(sound.len() - 60..sound.len()) {
            let mut damaged = sound.clone();
            damaged[at] ^= 0x55;
            assert!(
                read(&damaged).is_ok_and(|w| w == text) || read(&damaged).is_err(),
                "{at}"
            );
        }
        for length in (0..sound.len()).step_by(97) {
            assert!(read(&sound[..length]).is_err(), "{length}");
        }
    }
}
