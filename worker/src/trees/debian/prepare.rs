//! The steps between packages and a usable tree. Each begins by removing what an interrupted run of it left.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use klp_livepatch::Arch;

use super::apt::{self, Packages};
use super::{Abi, Command, DEBS, KernelConfig, NAMES, NameTable, Partial, Tools, kernel_names};
use crate::trees::config::Setting;
use crate::trees::progress::Step;
use crate::trees::{TreeError, cross, disk, kbuild, tools};

/// Where packages are unpacked before the parts that are needed are moved out.
pub(super) const UNPACKED: &str = "unpacked";
pub(super) const BOOT_IMAGE: &str = "boot/vmlinuz";
pub(super) const SHIPPED_CONFIG: &str = "boot/config";

/// A tree's folder while it is filled.
pub(super) struct Place<'a> {
    pub partial: &'a Partial,
    pub abi: &'a Abi,
    pub arch: Arch,
    pub packages: &'a Packages,
    pub tools: &'a Tools<'a>,
}

impl Place<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.partial.path(name)
    }

    fn deb(&self, package: &apt::Package) -> PathBuf {
        self.path(DEBS).join(package.file_name())
    }

    /// linux-source holds one archive, which holds the source.
    pub(super) async fn unpack_source(&self, step: &mut Step<'_>) -> Result<(), TreeError> {
        let unpacked = self.partial.fresh_dir(UNPACKED)?;
        let src = self.partial.fresh_dir("src")?;
        self.dpkg_deb(&self.packages.source, &unpacked, step).await?;
        let archive = unpacked.join(format!("usr/src/linux-source-{}.tar.xz", self.abi.series()));
        if !archive.is_file() {
            return Err(self.unexpected(&self.packages.source, &archive));
        }
        let tar = Command::new("tar", &src)
            .args(["--extract", "--no-same-owner", "--strip-components=1", "--file"])
            .arg(&archive);
        self.tools.run(&tar, step, &|| "unpacking".to_owned()).await?;
        disk::remove_dir(&unpacked)?;
        // Nothing writes into a kernel's source from here on; this makes mistakes visible (to all but root).
        for file in disk::files_below(&src).map_err(TreeError::io("read", &src))? {
            let mode = file
                .metadata()
                .map_err(TreeError::io("read", &file))?
                .permissions()
                .mode();
            let read_only = std::fs::Permissions::from_mode(mode & !0o222);
            std::fs::set_permissions(&file, read_only).map_err(TreeError::io("protect", &file))?;
        }
        Ok(())
    }

    /// Of image and headers: the modules, the boot image, the configuration, and Module.symvers.
    pub(super) async fn unpack_image(&self, step: &mut Step<'_>) -> Result<(), TreeError> {
        let release = apt::release(self.abi, self.arch);
        let unpacked = self.partial.fresh_dir(UNPACKED)?;
        let boot = self.partial.fresh_dir("boot")?;
        let modules = self.partial.fresh_dir("modules")?;
        self.dpkg_deb(&self.packages.image, &unpacked, step).await?;
        self.dpkg_deb(&self.packages.headers, &unpacked, step).await?;
        let image = &self.packages.image;
        // What boots is compressed on most architectures, and then called so.
        let booted = [format!("boot/vmlinuz-{release}"), format!("boot/vmlinux-{release}")]
            .map(|file| unpacked.join(file))
            .into_iter()
            .find(|file| file.is_file())
            .ok_or_else(|| self.unexpected(image, &unpacked.join(format!("boot/vmlinuz-{release}"))))?;
        self.take(image, &booted, &self.path(BOOT_IMAGE))?;
        self.take(
            image,
            &unpacked.join(format!("boot/config-{release}")),
            &self.path(SHIPPED_CONFIG),
        )?;
        // Debian moved modules below /usr after bookworm.
        let shipped = [format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")]
            .map(|dir| unpacked.join(dir))
            .into_iter()
            .find(|dir| dir.join("kernel").is_dir())
            .ok_or_else(|| self.unexpected(image, &unpacked.join(format!("lib/modules/{release}/kernel"))))?;
        self.take(image, &shipped.join("kernel"), &modules.join("kernel"))?;
        self.take(image, &shipped.join("modules.order"), &modules.join("modules.order"))?;
        let symvers = unpacked.join(format!("usr/src/linux-headers-{release}/Module.symvers"));
        self.take(&self.packages.headers, &symvers, &boot.join("Module.symvers"))?;
        disk::remove_dir(&unpacked)
    }

    /// An object folder with the shipped configuration, as far as the source accepts it.
    pub(super) async fn configure(&self, step: &mut Step<'_>) -> Result<(), TreeError> {
        let compiler = self.compiler()?;
        tools::check(&compiler, self.tools.cancel).await?;
        let obj = self.partial.fresh_dir("obj")?;
        copy(&self.path(SHIPPED_CONFIG), &obj.join(".config"))?;
        self.make(&compiler, &["olddefconfig"], step).await
    }

    /// Generated headers and the programs a module's build needs, and the folders it writes to: those kbuild would make even
    /// when it is only asked for its commands.
    pub(super) async fn modules_prepare(&self, step: &mut Step<'_>) -> Result<(), TreeError> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        self.make(&self.compiler()?, &[&format!("-j{jobs}"), "modules_prepare"], step)
            .await?;
        let obj = self.path("obj");
        copy(&self.path("boot/Module.symvers"), &obj.join("Module.symvers"))?;
        mirror_folders(&self.path("src"), &obj, self.arch)
    }

    pub(super) fn recover_symbols(&self) -> Result<(), TreeError> {
        let image = self.path(BOOT_IMAGE);
        let symbols = kernel_names(&image)?;
        let mut table = Vec::new();
        NameTable::write(symbols, &mut table).map_err(TreeError::io("write", &image))?;
        disk::write_whole(&self.path(NAMES), &table)
    }

    fn compiler(&self) -> Result<String, TreeError> {
        let shipped = KernelConfig::open(&self.path(SHIPPED_CONFIG))?
            .compiler()
            .map_err(TreeError::Refused)?;
        Ok(cross::compiler(&shipped, self.arch, Arch::host()))
    }

    async fn make(&self, compiler: &str, goals: &[&str], step: &mut Step<'_>) -> Result<(), TreeError> {
        let command = Command::new("make", self.path("src"))
            .arg("--no-print-directory")
            .arg(format!("O={}", self.path("obj").display()))
            .args(kbuild::for_configuring(compiler, self.arch))
            .args(goals);
        self.tools.run(&command, step, &|| "at work".to_owned()).await
    }

    async fn dpkg_deb(&self, package: &apt::Package, into: &Path, step: &mut Step<'_>) -> Result<(), TreeError> {
        let command = Command::new("dpkg-deb", into)
            .arg("--extract")
            .arg(self.deb(package))
            .arg(into);
        self.tools.run(&command, step, &|| "unpacking".to_owned()).await
    }

    fn take(&self, package: &apt::Package, from: &Path, to: &Path) -> Result<(), TreeError> {
        if !from.exists() {
            return Err(self.unexpected(package, from));
        }
        std::fs::rename(from, to).map_err(TreeError::io("move", to))
    }

    fn unexpected(&self, package: &apt::Package, path: &Path) -> TreeError {
        let inside = path.strip_prefix(self.path(UNPACKED)).unwrap_or(path);
        TreeError::Refused(format!(
            "{} {} has no /{}: it is not laid out as Debian's kernel packages were when this was written; please report it",
            package.name,
            package.version,
            inside.display()
        ))
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), TreeError> {
    let bytes = std::fs::read(from).map_err(TreeError::io("read", from))?;
    disk::write_whole(to, &bytes)
}

/// Makes each of the source's folders that objects may come from.
fn mirror_folders(src: &Path, obj: &Path, arch: Arch) -> Result<(), TreeError> {
    let folders = disk::folders_below(src).map_err(TreeError::io("read", src))?;
    for folder in &folders {
        let Ok(inside) = folder.strip_prefix(src) else { continue };
        if wants_mirror(inside, arch) {
            disk::make_dir(&obj.join(inside))?;
        }
    }
    Ok(())
}

fn wants_mirror(folder: &Path, arch: Arch) -> bool {
    let mut parts = folder.iter().filter_map(|part| part.to_str());
    match parts.next() {
        None | Some("Documentation" | "include" | "scripts" | "tools" | "LICENSES" | "samples" | "rust") => false,
        Some("arch") => match parts.next() {
            // Built for arm64, too.
            Some("arm") => arch == Arch::Aarch64 && parts.next() == Some("xen"),
            other => other == Some(arch.kernel_dir()) && !folder.ends_with("include"),
        },
        Some(_) => true,
    }
}

/// What a reader should know about options that are not as shipped.
pub(super) fn config_warnings(shipped: &KernelConfig, used: &KernelConfig) -> Vec<String> {
    let lacking = |option: &str, so: &str| {
        (used.get(option) != Setting::BuiltIn).then(|| format!("CONFIG_{option} is not set, as shipped: {so}"))
    };
    let lacks = [
        lacking(
            "LIVEPATCH",
            "this kernel can't load livepatches, but they can be extracted and compiled for it",
        ),
        lacking(
            "KALLSYMS_ALL",
            "neither this kernel nor its boot image tells where variables are, so a livepatch reaches only exported ones",
        ),
    ];
    let changed = shipped.changed_in(used).into_iter().map(|change| {
        let hint = match change.option.as_str() {
            "CONFIG_CC_VERSION_TEXT" => "; the kernel was built by another version of the compiler",
            option if option.contains("BTF") || option.contains("PAHOLE") => "; is another pahole installed?",
            _ => "",
        };
        format!(
            "{} is {}, not {} as shipped{hint}",
            change.option, change.to, change.from
        )
    });
    lacks.into_iter().flatten().chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_with_objects_are_mirrored() {
        let wants = |folder: &str| wants_mirror(Path::new(folder), Arch::X86_64);
        for folder in ["sound", "sound/core", "arch/x86/kvm/vmx", "drivers/net"] {
            assert!(wants(folder), "{folder}");
        }
        for folder in [
            "",
            "Documentation/x",
            "arch",
            "arch/arm64/kvm",
            "tools/testing",
            "include/linux",
            "arch/x86/include",
        ] {
            assert!(!wants(folder), "{folder}");
        }
    }

    #[test]
    fn lost_options_are_told() {
        const CAN: &str = "CONFIG_LIVEPATCH=y\nCONFIG_KALLSYMS_ALL=y\n";
        let shipped = KernelConfig::parse(&format!("{CAN}CONFIG_DEBUG_INFO_BTF=y\nCONFIG_A=y\n"));
        let warnings = config_warnings(
            &shipped,
            &KernelConfig::parse(&format!("{CAN}CONFIG_A=y\nCONFIG_B=y\n")),
        );
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].starts_with("CONFIG_DEBUG_INFO_BTF is n, not y as shipped"),
            "{warnings:?}"
        );
        let lacking = KernelConfig::parse("CONFIG_LIVEPATCH=y\n# CONFIG_KALLSYMS_ALL is not set\n");
        let warnings = config_warnings(&lacking, &lacking);
        assert!(
            warnings.len() == 1 && warnings[0].contains("where variables are"),
            "{warnings:?}"
        );
    }
}
