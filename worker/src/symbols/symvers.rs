//! Module.symvers: which symbols a module may link to, and who provides them.
//!
//! Format, from the kernel's Documentation/kbuild/modules.rst ("Module Versioning"): one export a line, the fields
//! CRC, symbol, module, export type and namespace separated by tabs.

use std::collections::HashMap;
use std::path::Path;

use super::SymbolError;
use super::image::Image;

/// One exported symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// `vmlinux`, or the module's file name without folder and `.ko`, such as `snd-pcm`.
    pub module: String,
    /// Only modules with a GPL-compatible licence may use it.
    pub gpl: bool,
    /// The namespace a module must import; empty: none.
    pub namespace: String,
}

/// All exports of a kernel build.
#[derive(Debug, Default)]
pub struct Symvers {
    exports: HashMap<Box<str>, Export>,
}

impl Symvers {
    /// Reads the file, or one compressed with xz, zstd or gzip.
    ///
    /// # Errors
    /// If the file can't be read, or a line is not an export, which is named.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        let image = Image::open(path)?;
        let text = std::str::from_utf8(image.bytes()).map_err(|_| SymbolError::broken(path, "is not text"))?;
        let symvers = Self::parse(text).map_err(|problem| SymbolError::broken(path, problem))?;
        if symvers.exports.is_empty() {
            return Err(SymbolError::broken(
                path,
                "holds no exports; run `make` in the kernel tree, or copy the distribution's Module.symvers",
            ));
        }
        Ok(symvers)
    }

    /// # Errors
    /// The first line that is not an export.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut exports = HashMap::with_capacity(text.len() / 48);
        for (i, line) in text.lines().enumerate() {
            if line.is_empty() {
                continue;
            }
            let (name, export) =
                parse_line(line).ok_or_else(|| format!("line {} is not an export (5 fields, tabs between)", i + 1))?;
            // Two modules that are never loaded together may export one name; the first stands, as for modpost.
            exports.entry(name.into()).or_insert(export);
        }
        Ok(Self { exports })
    }

    pub fn get(&self, name: &str) -> Option<&Export> {
        self.exports.get(name)
    }

    pub fn len(&self) -> usize {
        self.exports.len()
    }

    pub fn is_empty(&self) -> bool {
        self.exports.is_empty()
    }
}

fn parse_line(line: &str) -> Option<(&str, Export)> {
    let mut fields = line.split('\t');
    let _crc = fields.next().filter(|crc| crc.starts_with("0x"))?;
    let name = fields.next().filter(|name| !name.is_empty())?;
    let module = fields.next()?.rsplit('/').next().filter(|module| !module.is_empty())?;
    let export_type = fields.next().filter(|t| t.starts_with("EXPORT_"))?;
    let export = Export {
        module: module.to_owned(),
        gpl: export_type.ends_with("_GPL"),
        // Kernels before 5.4 have no namespace field.
        namespace: fields.next().unwrap_or_default().to_owned(),
    };
    Some((name, export))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_name_their_module_licence_and_namespace() {
        let text = "0x1\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n\
                    0x2\tsnd_pcm_new\tsound/core/snd-pcm\tEXPORT_SYMBOL_GPL\t\n\
                    0x3\tdma_x\tdrivers/dma/a_b\tEXPORT_SYMBOL_GPL\tDMA_BUF\n";
        let symvers = Symvers::parse(text).unwrap();
        assert_eq!(symvers.len(), 3);
        assert_eq!(symvers.get("printk").unwrap().module, "vmlinux");
        assert!(!symvers.get("printk").unwrap().gpl);
        let pcm = symvers.get("snd_pcm_new").unwrap();
        assert_eq!((pcm.module.as_str(), pcm.gpl), ("snd-pcm", true));
        assert_eq!(symvers.get("dma_x").unwrap().namespace, "DMA_BUF");
        assert_eq!(symvers.get("nothing"), None);
    }

    #[test]
    fn a_broken_line_is_named() {
        for bad in ["0x1\tprintk\n", "hello\n", "0x1\tprintk\tvmlinux\tnonsense\t\n"] {
            let text = format!("0x0\ta\tvmlinux\tEXPORT_SYMBOL\t\n{bad}");
            assert!(Symvers::parse(&text).unwrap_err().contains("line 2"), "{bad:?}");
        }
    }
}
