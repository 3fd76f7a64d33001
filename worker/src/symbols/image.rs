//! A file's bytes for reading ELF: a memory map if it is plain, its decompressed content if it is not.
#![expect(unsafe_code, reason = "maps files")]

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memmap2::Mmap;

use super::SymbolError;

/// What a compressed file may grow to, in bytes. A vmlinux without debug information has about 70 MiB; this keeps a
/// wicked file from eating the machine's memory.
pub const MAX_DECOMPRESSED: u64 = 512 << 20;

pub(super) const ELF_MAGIC: &[u8] = b"\x7fELF";

/// The compressions kernels and modules come in, told by their first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Xz,
    Zstd,
    Gzip,
}

impl Compression {
    pub fn detect(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            _ => None,
        }
    }

    /// Decompresses one stream; what follows it is ignored (a boot image's payload is followed by its size).
    ///
    /// # Errors
    /// If the data is broken, or grows beyond [`MAX_DECOMPRESSED`].
    pub fn decompress(self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Xz => read_bounded(liblzma::read::XzDecoder::new(bytes)),
            Self::Gzip => read_bounded(flate2::read::GzDecoder::new(bytes)),
            Self::Zstd => {
                let decoder =
                    ruzstd::decoding::StreamingDecoder::new(bytes).map_err(|e| format!("broken zstd data: {e}"))?;
                read_bounded(decoder)
            }
        }
    }
}

fn read_bounded(reader: impl Read) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    reader
        .take(MAX_DECOMPRESSED + 1)
        .read_to_end(&mut out)
        .map_err(|e| format!("can't decompress it: {e}"))?;
    if out.len() as u64 > MAX_DECOMPRESSED {
        return Err(format!("decompresses to more than {} MiB", MAX_DECOMPRESSED >> 20));
    }
    Ok(out)
}

/// A file's content, decompressed where needed.
pub enum Image {
    Mapped(Mmap),
    Memory(Vec<u8>),
}

impl Image {
    /// # Errors
    /// If the file can't be read or decompressed.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        let map = map_file(path)?;
        match Compression::detect(&map) {
            None => Ok(Self::Mapped(map)),
            Some(compression) => compression
                .decompress(&map)
                .map(Self::Memory)
                .map_err(|problem| SymbolError::broken(path, problem)),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}

/// Maps a regular file for reading.
pub(crate) fn map_file(path: &Path) -> Result<Mmap, SymbolError> {
    let file = File::open(path).map_err(SymbolError::io(path))?;
    let metadata = file.metadata().map_err(SymbolError::io(path))?;
    if !metadata.is_file() {
        return Err(SymbolError::broken(path, "is not a regular file"));
    }
    // SAFETY: the map is only read. Trees are immutable once they are in place; whoever truncates a kernel build while
    // it is read can at worst end this process, which a worker survives as a lost attempt.
    unsafe { Mmap::map(&file) }.map_err(SymbolError::io(path))
}

/// Whether a file begins as ELF files do.
pub(crate) fn starts_with_elf_magic(path: &Path) -> Result<bool, SymbolError> {
    Ok(first_bytes(path)?.starts_with(ELF_MAGIC))
}

/// Whether a file begins as ELF files do, or as a compressed one does.
pub(crate) fn may_hold_elf(path: &Path) -> Result<bool, SymbolError> {
    let first = first_bytes(path)?;
    Ok(first.starts_with(ELF_MAGIC) || Compression::detect(&first).is_some())
}

fn first_bytes(path: &Path) -> Result<Vec<u8>, SymbolError> {
    let mut first = Vec::new();
    File::open(path)
        .and_then(|file| file.take(8).read_to_end(&mut first))
        .map_err(SymbolError::io(path))?;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn each_compression_is_recognised_and_undone() {
        let plain = b"kernel".repeat(1000);
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&plain).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest);
        for (mut packed, is) in [
            (xz.finish().unwrap(), Compression::Xz),
            (gz.finish().unwrap(), Compression::Gzip),
            (zstd, Compression::Zstd),
        ] {
            assert_eq!(Compression::detect(&packed), Some(is));
            let cut = packed.len() / 2;
            assert!(is.decompress(&packed[..cut]).is_err(), "{is:?} cut");
            packed.extend_from_slice(&[0x10, 0x20, 0, 0]);
            assert_eq!(is.decompress(&packed).unwrap(), plain, "{is:?}");
        }
        assert_eq!(Compression::detect(b""), None);
        assert_eq!(Compression::detect(b"\x7fELF"), None);
    }

    #[test]
    fn a_bomb_is_stopped() {
        let bomb = std::io::repeat(0).take(MAX_DECOMPRESSED + 10);
        assert!(read_bounded(bomb).unwrap_err().contains("more than 512 MiB"));
    }
}
