//! Small kernels in SUSE's layout, of our own making: a few lines of C that real compilers turn into a vmlinux, modules,
//! symvers and all else that a worker looks for in a data folder.
//!
//! A [`Kernel`] says what is in one; [`DataDir::add`] compiles it for each of its architectures that this machine has a
//! compiler for. Differences between architectures are written into the code (`#ifndef __s390x__`) or set by
//! [`Kernel::set`]; two files with a `static` function of one name make a duplicated symbol.

mod build;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klp_livepatch::Arch;

/// Where a kernel's installed files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `boot` and `lib/modules`: up to SLE 15.
    Boot,
    /// `usr/lib/modules`: SLE 16 and SL Micro.
    Usr,
}

/// How vmlinux, symvers and modules are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Xz,
    Zstd,
}

impl Packing {
    pub fn suffix(self) -> &'static str {
        match self {
            Packing::Plain => "",
            Packing::Gzip => ".gz",
            Packing::Xz => ".xz",
            Packing::Zstd => ".zst",
        }
    }
}

/// What is in a kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    version: String,
    flavour: String,
    layout: Layout,
    packing: Packing,
    archs: Vec<Arch>,
    sources: Vec<Source>,
    /// Headers and the like, by path.
    texts: BTreeMap<String, String>,
    /// Options by name and architecture, where they differ from what the sources say.
    settings: BTreeMap<(String, Arch), String>,
    flags: Vec<String>,
    modinfo: BTreeMap<String, Vec<String>>,
}

/// A `.c` file.
#[derive(Clone, Debug)]
struct Source {
    path: String,
    config: String,
    /// The module it is in where its option is `m`; `None`: always built in.
    module: Option<String>,
    code: String,
}

impl Kernel {
    /// A kernel of a version such as `6.4.0-150600.23.73` and a flavour, `default` or `rt`, for x86_64, uncompressed.
    /// It has a few functions of its own; `vprintk` is exported.
    pub fn new(version: &str, flavour: &str) -> Self {
        let kernel = Self {
            version: version.to_owned(),
            flavour: flavour.to_owned(),
            layout: Layout::Boot,
            packing: Packing::Plain,
            archs: vec![Arch::X86_64],
            sources: Vec::new(),
            texts: BTreeMap::new(),
            settings: BTreeMap::new(),
            flags: Vec::new(),
            modinfo: BTreeMap::new(),
        };
        kernel
            .text("Makefile", "VERSION = 6\n")
            .text("Kbuild", "obj-y += init/\n")
            .text("include/linux/kconfig.h", "#include <generated/autoconf.h>\n")
            .text("include/linux/types.h", "typedef unsigned int u32;\ntypedef unsigned long size_t;\n#define NULL ((void *)0)\n")
            .text(
                "include/linux/export.h",
                "#define EXPORT_SYMBOL(name) extern typeof(name) name\n#define EXPORT_SYMBOL_GPL(name) extern typeof(name) name\n",
            )
            .text("include/linux/printk.h", "int vprintk(const char *text, unsigned long n);\n")
            .built_in("init/main.c", "CONFIG_MODULES", MAIN)
    }

    /// `6.4.0-150600.23.73-default`.
    pub fn release(&self) -> String {
        format!("{}-{}", self.version, self.flavour)
    }

    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    #[must_use]
    pub fn packing(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    #[must_use]
    pub fn archs(mut self, archs: &[Arch]) -> Self {
        self.archs = archs.to_vec();
        self
    }

    /// Compiler flags for all files.
    #[must_use]
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// A file that is no object.
    #[must_use]
    pub fn text(mut self, path: &str, text: &str) -> Self {
        self.texts.insert(path.to_owned(), text.to_owned());
        self
    }

    /// A `.c` file in vmlinux, whose option is `y`. A file of the same path is replaced.
    #[must_use]
    pub fn built_in(self, path: &str, config: &str, code: &str) -> Self {
        self.source(path, config, None, code)
    }

    /// A `.c` file in a module, whose option is `m`. The module is in the folder of its first file.
    #[must_use]
    pub fn module(self, path: &str, config: &str, module: &str, code: &str) -> Self {
        self.source(path, config, Some(module), code)
    }

    fn source(mut self, path: &str, config: &str, module: Option<&str>, code: &str) -> Self {
        self.sources.retain(|source| source.path != path);
        self.sources.push(Source {
            path: path.to_owned(),
            config: config.to_owned(),
            module: module.map(str::to_owned),
            code: code.to_owned(),
        });
        self
    }

    /// Sets an option to `y`, `m`, `n` or a text on one architecture. With `n` its files are not built there; with `y` those
    /// of a module are built in.
    #[must_use]
    pub fn set(mut self, arch: Arch, config: &str, value: &str) -> Self {
        self.settings.insert((config.to_owned(), arch), value.to_owned());
        self
    }

    /// A further line of a module's `.modinfo`, such as `supported=no`.
    #[must_use]
    pub fn modinfo(mut self, module: &str, line: &str) -> Self {
        self.modinfo.entry(module.to_owned()).or_default().push(line.to_owned());
        self
    }

    /// The value of each option on an architecture.
    fn config(&self, arch: Arch) -> BTreeMap<String, String> {
        let of_arch: &[&str] = match arch {
            Arch::X86_64 => &["CONFIG_X86_64"],
            Arch::S390x => &["CONFIG_S390"],
            Arch::Ppc64le => &["CONFIG_PPC64", "CONFIG_CPU_LITTLE_ENDIAN"],
            Arch::Aarch64 => &["CONFIG_ARM64"],
        };
        let mut config: BTreeMap<String, String> = of_arch
            .iter()
            .map(|name| ((*name).to_owned(), "y".to_owned()))
            .collect();
        for source in &self.sources {
            let value = if source.module.is_some() { "m" } else { "y" };
            config.entry(source.config.clone()).or_insert_with(|| value.to_owned());
        }
        let set = self.settings.iter().filter(|((_, on), _)| *on == arch);
        config.extend(set.map(|((name, _), value)| (name.clone(), value.clone())));
        config
    }
}

const MAIN: &str = "#include <linux/export.h>\n#include <linux/printk.h>\n\n\
    int vprintk(const char *text, unsigned long n)\n{\n\treturn text[n];\n}\nEXPORT_SYMBOL(vprintk);\n\n\
    static int verbose;\n\nint start_kernel(void)\n{\n\treturn vprintk(\"hello\", verbose++);\n}\n";

/// A data folder, removed when it is dropped.
pub struct DataDir {
    dir: tempfile::TempDir,
}

impl DataDir {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Builds a kernel for each of its architectures that this machine can compile for; returns those.
    pub fn add(&self, kernel: &Kernel) -> Vec<Arch> {
        let can: Vec<Arch> = kernel
            .archs
            .iter()
            .copied()
            .filter(|arch| has_compiler(*arch))
            .collect();
        for arch in &can {
            build::Build::new(kernel, *arch, &self.dir.path().join(arch.as_str())).run();
        }
        can
    }

    /// A kernel's source folder. Flavours of one version share it, but for real time up to SLE 15.
    pub fn src(&self, kernel: &Kernel, arch: Arch) -> PathBuf {
        self.path().join(arch.as_str()).join("usr/src").join(kernel.src_name())
    }
}

impl Default for DataDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Kernel {
    fn src_name(&self) -> String {
        let own = self.flavour == "rt" && self.layout == Layout::Boot;
        format!("linux-{}{}", self.version, if own { "-rt" } else { "" })
    }
}

/// The compiler for an architecture, by Debian's names.
pub fn compiler(arch: Arch) -> String {
    let triple = match arch {
        own if Arch::host() == Some(own) => return "gcc".to_owned(),
        Arch::X86_64 => "x86_64-linux-gnu",
        Arch::S390x => "s390x-linux-gnu",
        Arch::Ppc64le => "powerpc64le-linux-gnu",
        Arch::Aarch64 => "aarch64-linux-gnu",
    };
    format!("{triple}-gcc")
}

/// Whether this machine can compile for an architecture.
pub fn has_compiler(arch: Arch) -> bool {
    let name = compiler(arch);
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(&name).is_file()))
}
