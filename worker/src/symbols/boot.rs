//! Takes the kernel out of its boot image, whichever architecture's.
//!
//! Told by their content, after the kernel's Documentation/arch/x86/boot.rst (bzImage), Documentation/arch/arm64/booting.rst
//! (Image), drivers/firmware/efi/libstub/zboot-header.S (an Image that decompresses itself under EFI) and
//! arch/s390/boot/head.S (s390x, whose image doesn't say where in it the compressed kernel is). powerpc boots the plain
//! vmlinux.

use std::borrow::Cow;

use object::{Endian, Endianness};

use super::image::{Compression, ELF_MAGIC};

/// An uncompressed kernel.
pub(super) struct Kernel<'a> {
    pub bytes: Cow<'a, [u8]>,
    pub order: Endianness,
}

impl Kernel<'_> {
    pub fn view(&self) -> View<'_> {
        View {
            bytes: &self.bytes,
            order: self.order,
        }
    }
}

/// Bytes with the order of the numbers in them.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub bytes: &'a [u8],
    pub order: Endianness,
}

impl View<'_> {
    pub fn u16_at(self, at: usize) -> Option<u16> {
        array(self.bytes, at).map(|bytes| self.order.read_u16(bytes))
    }

    pub fn u32_at(self, at: usize) -> Option<u32> {
        array(self.bytes, at).map(|bytes| self.order.read_u32(bytes))
    }

    pub fn u64_at(self, at: usize) -> Option<u64> {
        array(self.bytes, at).map(|bytes| self.order.read_u64(bytes))
    }
}

/// `S390EP`, for boot loaders, and where it is.
const S390_MARK: &[u8] = b"S390EP";
const S390_MARK_AT: usize = 0x10008;
/// No kernel is smaller; what an s390x image holds besides is.
const MIN_KERNEL: usize = 1 << 20;

/// The kernel in a boot image: bzImage (x86), Image (arm64; also compressed, or self-decompressing), vmlinux (ELF), or
/// the image of s390x.
///
/// # Errors
/// If the file is none of these, is cut short, or is compressed in a way that isn't supported.
pub(super) fn kernel(image: &[u8]) -> Result<Kernel<'_>, String> {
    if let Some(kernel) = plain(image) {
        return Ok(kernel);
    }
    if at(image, 0x202, b"HdrS") {
        let bytes = decompress(x86_payload(image)?)?;
        return Ok(little(bytes));
    }
    if at(image, 4, b"zimg") {
        let bytes = decompress(zboot_payload(image)?)?;
        return Ok(little(bytes));
    }
    if at(image, S390_MARK_AT, S390_MARK) {
        return s390_kernel(image);
    }
    if Compression::detect(image).is_some() {
        let bytes = decompress(image)?;
        let order = plain(&bytes).map(|kernel| kernel.order);
        return order
            .map(|order| Kernel {
                bytes: Cow::Owned(bytes),
                order,
            })
            .ok_or_else(|| "is compressed, but holds no kernel (Image or vmlinux)".to_owned());
    }
    Err("is no kernel boot image that is known here (x86's bzImage, arm64's Image, s390x's image, vmlinux)".to_owned())
}

/// A kernel that isn't compressed.
fn plain(image: &[u8]) -> Option<Kernel<'_>> {
    let big = if image.starts_with(ELF_MAGIC) {
        *image.get(5)? == 2
    } else if at(image, 0x38, b"ARMd") {
        // The lowest bit of its flags, which are little-endian in either case.
        *image.get(0x18)? & 1 == 1
    } else {
        return None;
    };
    Some(Kernel {
        bytes: Cow::Borrowed(image),
        order: if big { Endianness::Big } else { Endianness::Little },
    })
}

fn little(bytes: Vec<u8>) -> Kernel<'static> {
    Kernel {
        bytes: Cow::Owned(bytes),
        order: Endianness::Little,
    }
}

/// The compressed kernel inside a bzImage: its setup header gives offset and length from the protected-mode code.
fn x86_payload(image: &[u8]) -> Result<&[u8], String> {
    let version = u16::from_le_bytes(array(image, 0x206).ok_or(CUT)?);
    if version < 0x208 {
        return Err(
            "is a boot image of a protocol before 2.08 (kernel 2.6.26), which doesn't say where the kernel is".into(),
        );
    }
    // 0 means 4, for old boot loaders' sake.
    let setup_sectors = match image.get(0x1f1) {
        None | Some(0) => 4,
        Some(n) => usize::from(*n),
    };
    part(image, (setup_sectors + 1) * 512, 0x248, 0x24c)
}

fn zboot_payload(image: &[u8]) -> Result<&[u8], String> {
    part(image, 0, 8, 12)
}

const CUT: &str = "is cut short: the kernel it announces lies beyond its end";

/// The bytes whose offset from `base` and whose length stand at the two places.
fn part(image: &[u8], base: usize, offset_at: usize, length_at: usize) -> Result<&[u8], String> {
    let number = |at| array(image, at).map(|bytes| u32::from_le_bytes(bytes) as usize);
    let found = || {
        let start = base.checked_add(number(offset_at)?)?;
        image.get(start..start.checked_add(number(length_at)?)?)
    };
    found().ok_or_else(|| CUT.to_owned())
}

/// The first compressed kernel in the image: the decompressor, which comes before, holds such signatures, too, but
/// nothing that decompresses.
fn s390_kernel(image: &[u8]) -> Result<Kernel<'_>, String> {
    let kernel = (S390_MARK_AT..image.len()).find_map(|at| {
        let rest = &image[at..];
        let bytes = Compression::detect(rest)?.decompress(rest).ok()?;
        (bytes.len() >= MIN_KERNEL).then_some(bytes)
    });
    // Not compressed at all (CONFIG_KERNEL_UNCOMPRESSED): then it is in there as it is.
    Ok(Kernel {
        bytes: kernel.map_or(Cow::Borrowed(image), Cow::Owned),
        order: Endianness::Big,
    })
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, String> {
    if let Some(compression) = Compression::detect(payload) {
        return compression.decompress(payload);
    }
    let name = match payload {
        [b'B', b'Z', b'h', ..] => "bzip2",
        [0x02, 0x21, 0x4c, 0x18, ..] => "lz4",
        [0x5d, 0, 0, ..] => "lzma",
        [0x89, b'L', b'Z', b'O', ..] => "lzo",
        _ => "an unknown method",
    };
    Err(format!(
        "holds a kernel compressed with {name}, which is not supported (xz, zstd and gzip are); \
         install the package with the unstripped vmlinux, such as linux-image-<version>-dbg"
    ))
}

fn at(image: &[u8], at: usize, mark: &[u8]) -> bool {
    image.get(at..).is_some_and(|rest| rest.starts_with(mark))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    /// An image with `marks` and, from `payload_at` on, a payload.
    fn image(marks: &[(usize, &[u8])], payload_at: usize, payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; payload_at];
        for (at, mark) in marks {
            image[*at..at + mark.len()].copy_from_slice(mark);
        }
        image.extend_from_slice(payload);
        image.extend_from_slice(&[0; 64]);
        image
    }

    fn arm64_image() -> Vec<u8> {
        image(&[(0, b"MZ"), (0x38, b"ARMd")], 0x40, b"the kernel itself")
    }

    #[test]
    fn each_architectures_kernel_is_found() {
        let inside = b"\x7fELF an x86 kernel".as_slice();
        let packed = xz(inside);
        let bzimage = image(
            &[
                (0x1f1, &[1]),
                (0x202, b"HdrS"),
                (0x206, &0x20fu16.to_le_bytes()),
                (0x248, &76u32.to_le_bytes()),
                (0x24c, &(packed.len() as u32).to_le_bytes()),
            ],
            1024 + 76,
            &packed,
        );
        let found = kernel(&bzimage).unwrap();
        assert_eq!((&*found.bytes, found.order), (inside, Endianness::Little));

        let plain = arm64_image();
        assert_eq!(&*kernel(&plain).unwrap().bytes, plain);
        assert_eq!(&*kernel(&gzip(&plain)).unwrap().bytes, plain, "Image.gz");
        let packed = gzip(&plain);
        let zboot = image(
            &[
                (0, b"MZ"),
                (4, b"zimg"),
                (8, &512u32.to_le_bytes()),
                (12, &(packed.len() as u32).to_le_bytes()),
            ],
            512,
            &packed,
        );
        assert_eq!(&*kernel(&zboot).unwrap().bytes, plain, "vmlinuz.efi");

        for (class, order) in [(1, Endianness::Little), (2, Endianness::Big)] {
            let vmlinux = [b"\x7fELF\x02", [class].as_slice(), b"\x01"].concat();
            assert_eq!(kernel(&vmlinux).unwrap().order, order);
        }
    }

    #[test]
    fn an_s390x_kernel_is_found_behind_a_signature_without_data() {
        let inside = vec![7; MIN_KERNEL];
        let mut start = vec![0; 0x20000];
        start[S390_MARK_AT..][..S390_MARK.len()].copy_from_slice(S390_MARK);
        start.extend_from_slice(b"\xfd7zXZ\0 is what the decompressor looks for");
        let small = xz(b"something small");
        let packed = [&start[..], &small, &xz(&inside)].concat();
        let found = kernel(&packed).unwrap();
        assert_eq!((found.bytes.len(), found.order), (MIN_KERNEL, Endianness::Big));
        // Without compression it is the whole image.
        assert_eq!(kernel(&start).unwrap().bytes.len(), start.len());
    }

    #[test]
    fn images_that_lie_are_errors() {
        let problem = |image: &[u8]| kernel(image).err().unwrap();
        assert!(problem(b"").contains("no kernel boot image"));
        assert!(problem(b"MZ\0\0zimg").contains("cut short"));
        assert!(problem(&gzip(b"no kernel")).contains("holds no kernel"));
        let mut image = vec![0; 4096];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(problem(&image).contains("before 2.08"));
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&u32::MAX.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(problem(&image).contains("cut short"));
        assert!(decompress(b"BZh91AY").unwrap_err().contains("bzip2"));
        for cut in 0..0x206 {
            assert!(kernel(&image[..cut]).is_err(), "{cut}");
        }
    }
}
