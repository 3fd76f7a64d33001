//! Compiles a small kernel for one architecture.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use klp_livepatch::Arch;

use super::{Kernel, Layout, Packing, Source, compiler};

pub(super) struct Build<'a> {
    kernel: &'a Kernel,
    arch: Arch,
    config: BTreeMap<String, String>,
    root: &'a Path,
    src: PathBuf,
    obj: PathBuf,
    /// Objects on the way, which no package has.
    work: tempfile::TempDir,
}

/// What holds a file's object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Vmlinux,
    /// Folder and name.
    Module(String, String),
}

impl<'a> Build<'a> {
    pub fn new(kernel: &'a Kernel, arch: Arch, root: &'a Path) -> Self {
        let src = root.join("usr/src").join(kernel.src_name());
        let obj = PathBuf::from(format!("{}-obj", src.display()))
            .join(arch.as_str())
            .join(&kernel.flavour);
        Self {
            kernel,
            arch,
            config: kernel.config(arch),
            root,
            src,
            obj,
            work: tempfile::tempdir().expect("temporary folder"),
        }
    }

    pub fn run(&self) {
        self.write_sources();
        self.write_config();
        let mut held: BTreeMap<Holder, Vec<&Source>> = BTreeMap::new();
        for source in &self.kernel.sources {
            if let Some(holder) = self.holder(source) {
                held.entry(holder).or_default().push(source);
            }
        }
        let mut commands = Vec::new();
        let mut symvers = String::new();
        let mut order = String::new();
        for (holder, sources) in &held {
            let objects: Vec<PathBuf> = sources
                .iter()
                .map(|source| self.compile(source, holder, &mut commands))
                .collect();
            let place = match holder {
                Holder::Vmlinux => "vmlinux".to_owned(),
                Holder::Module(folder, name) => format!("{folder}/{name}"),
            };
            sources
                .iter()
                .for_each(|source| symvers.push_str(&exports(&source.code, &place)));
            match holder {
                Holder::Vmlinux => self.link_vmlinux(&objects),
                Holder::Module(_, name) => {
                    order.push_str(&format!("kernel/{place}.ko\n"));
                    self.link_module(name, &place, &objects);
                }
            }
        }
        let commands = serde_json::to_vec_pretty(&commands).expect("JSON");
        put(&self.obj.join("compile_commands.json"), &commands);
        self.install(&self.installed("symvers"), symvers.as_bytes(), self.kernel.packing);
        put(&self.modules().join("modules.order"), order.as_bytes());
    }

    fn write_sources(&self) {
        for (path, text) in &self.kernel.texts {
            put(&self.src.join(path), text.as_bytes());
        }
        let mut makefiles: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut options = BTreeSet::new();
        for source in &self.kernel.sources {
            let path = Path::new(&source.path);
            put(&self.src.join(path), source.code.as_bytes());
            let object = path.with_extension("o");
            let object = object.file_name().unwrap_or_default().to_string_lossy();
            let lines = match &source.module {
                Some(module) => format!("obj-$({}) += {module}.o\n{module}-y += {object}\n", source.config),
                None => format!("obj-$({}) += {object}\n", source.config),
            };
            makefiles
                .entry(path.with_file_name("Makefile"))
                .or_default()
                .push_str(&lines);
            options.insert(source.config.trim_start_matches("CONFIG_"));
        }
        for (path, text) in makefiles.iter().filter(|(path, _)| *path != Path::new("Makefile")) {
            put(&self.src.join(path), text.as_bytes());
        }
        let kconfig: String = options
            .iter()
            .map(|name| format!("config {name}\n\ttristate\n\n"))
            .collect();
        put(&self.src.join("Kconfig"), kconfig.as_bytes());
    }

    fn write_config(&self) {
        let mut text = format!("CONFIG_CC_VERSION_TEXT=\"{} (own) 1.0\"\n", compiler(self.arch));
        let mut header = String::new();
        for (name, value) in &self.config {
            match value.as_str() {
                "n" => text.push_str(&format!("# {name} is not set\n")),
                _ => text.push_str(&format!("{name}={value}\n")),
            }
            match value.as_str() {
                "n" => {}
                "y" => header.push_str(&format!("#define {name} 1\n")),
                "m" => header.push_str(&format!("#define {name}_MODULE 1\n")),
                other => header.push_str(&format!("#define {name} {other}\n")),
            }
        }
        put(&self.installed("config"), text.as_bytes());
        put(&self.obj.join(".config"), text.as_bytes());
        put(&self.obj.join("include/generated/autoconf.h"), header.as_bytes());
        put(
            &self.obj.join("include/config/kernel.release"),
            self.kernel.release().as_bytes(),
        );
    }

    fn holder(&self, source: &Source) -> Option<Holder> {
        match (self.config.get(&source.config)?.as_str(), &source.module) {
            ("n", _) => None,
            ("m", Some(name)) => {
                let first = self
                    .kernel
                    .sources
                    .iter()
                    .find(|other| other.module.as_ref() == Some(name))?;
                let folder = first.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                Some(Holder::Module(folder.to_owned(), name.clone()))
            }
            _ => Some(Holder::Vmlinux),
        }
    }

    /// Compiles one file as its command in compile_commands.json says, to a place beside.
    fn compile(&self, source: &Source, holder: &Holder, commands: &mut Vec<serde_json::Value>) -> PathBuf {
        let file = self.src.join(&source.path);
        let object = Path::new(&source.path).with_extension("o");
        let modname = match holder {
            Holder::Module(_, name) => name.as_str(),
            Holder::Vmlinux => source.module.as_deref().unwrap_or("main"),
        };
        let mut args = vec![
            "-nostdinc".to_owned(),
            format!("-I{}/include", self.src.display()),
            "-I./include".to_owned(),
            "-include".to_owned(),
            format!("{}/include/linux/kconfig.h", self.src.display()),
            "-D__KERNEL__".to_owned(),
            format!("-DKBUILD_MODNAME=\"{}\"", modname.replace('-', "_")),
        ];
        args.extend(
            "-std=gnu11 -O2 -fno-pie -fno-common -fno-strict-aliasing -ffreestanding -fno-asynchronous-unwind-tables"
                .split(' ')
                .map(str::to_owned),
        );
        if self.arch == Arch::X86_64 {
            args.extend(["-mcmodel=kernel".to_owned(), "-mno-red-zone".to_owned()]);
        }
        if *holder != Holder::Vmlinux {
            args.push("-DMODULE".to_owned());
        }
        args.extend(self.kernel.flags.iter().cloned());
        let mut listed = vec![compiler(self.arch)];
        listed.extend(args.iter().cloned());
        listed.extend([
            "-c".to_owned(),
            "-o".to_owned(),
            object.display().to_string(),
            file.display().to_string(),
        ]);
        commands.push(serde_json::json!({
            "directory": self.obj,
            "file": file,
            "command": listed.iter().map(|arg| arg.replace('"', "\\\"")).collect::<Vec<_>>().join(" "),
        }));
        let made = self.work.path().join(source.path.replace('/', "_")).with_extension("o");
        self.cc(&self.obj, |cc| cc.args(&args).arg("-c").arg("-o").arg(&made).arg(&file));
        made
    }

    fn cc(&self, dir: &Path, with: impl FnOnce(&mut Command) -> &mut Command) {
        let mut command = Command::new(compiler(self.arch));
        let done = with(command.current_dir(dir)).output().expect("a compiler");
        assert!(
            done.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    fn link_vmlinux(&self, objects: &[PathBuf]) {
        let made = self.work.path().join("vmlinux");
        self.cc(self.work.path(), |cc| {
            cc.args([
                "-nostdlib",
                "-static",
                "-no-pie",
                "-Wl,-e,0,--build-id=none,--unresolved-symbols=ignore-all",
            ]);
            if self.arch == Arch::X86_64 {
                // Where -mcmodel=kernel takes it to be.
                cc.arg("-Wl,-Ttext=0xffffffff81000000");
            }
            cc.arg("-o").arg(&made).args(objects)
        });
        let bytes = std::fs::read(made).expect("vmlinux");
        self.install(&self.installed("vmlinux"), &bytes, self.kernel.packing);
    }

    fn link_module(&self, name: &str, place: &str, objects: &[PathBuf]) {
        let mut lines = vec![
            "license=GPL".to_owned(),
            format!("name={}", name.replace('-', "_")),
            format!("vermagic={} SMP mod_unload", self.kernel.release()),
        ];
        let further = self.kernel.modinfo.get(name);
        lines.extend(further.cloned().unwrap_or_else(|| vec!["supported=yes".to_owned()]));
        let infos = lines.iter().enumerate().map(|(i, line)| {
            format!(
                "static const char info{i}[] __attribute__((section(\".modinfo\"), used, aligned(1))) = \"{line}\";\n"
            )
        });
        let (info, info_object) = (self.work.path().join("info.c"), self.work.path().join("info.o"));
        put(&info, infos.collect::<String>().as_bytes());
        self.cc(self.work.path(), |cc| {
            cc.args(["-fno-pie", "-c", "-o"]).arg(&info_object).arg(&info)
        });
        let made = self.work.path().join("module.ko");
        self.cc(self.work.path(), |cc| {
            cc.args(["-r", "-nostdlib", "-no-pie", "-o"])
                .arg(&made)
                .args(objects)
                .arg(&info_object)
        });
        let bytes = std::fs::read(made).expect("module");
        self.install(
            &self.modules().join(format!("kernel/{place}.ko")),
            &bytes,
            self.kernel.packing,
        );
    }

    fn modules(&self) -> PathBuf {
        let folder = match self.kernel.layout {
            Layout::Boot => "lib/modules",
            Layout::Usr => "usr/lib/modules",
        };
        self.root.join(folder).join(self.kernel.release())
    }

    /// Where `vmlinux`, `config` or `symvers` goes, but for its suffix.
    fn installed(&self, name: &str) -> PathBuf {
        match self.kernel.layout {
            Layout::Boot => self.root.join("boot").join(format!("{name}-{}", self.kernel.release())),
            Layout::Usr => self.modules().join(name),
        }
    }

    fn install(&self, place: &Path, bytes: &[u8], packing: Packing) {
        let place = PathBuf::from(format!("{}{}", place.display(), packing.suffix()));
        put(&place, &packed(bytes, packing));
    }
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, bytes).expect("written");
}

fn packed(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).and_then(|()| out.finish()).expect("packed")
        }
        Packing::Xz => {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
            out.write_all(bytes).and_then(|()| out.finish()).expect("packed")
        }
        Packing::Zstd => ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest),
    }
}

/// The lines of Module.symvers for what a file exports.
fn exports(code: &str, place: &str) -> String {
    let lines = code.lines().filter_map(|line| {
        let (kind, rest) = line.trim().strip_prefix("EXPORT_SYMBOL")?.split_once('(')?;
        let (name, _) = rest.split_once(')')?;
        Some(format!(
            "0x{:08x}\t{name}\t{place}\tEXPORT_SYMBOL{kind}\t\n",
            name.len()
        ))
    });
    lines.collect()
}
