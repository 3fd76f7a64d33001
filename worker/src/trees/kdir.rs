//! Takes a kernel that somebody built in its own source folder as a tree. Nothing is copied but the names of vmlinux's
//! symbols; the folder must stay where it is, and built.

use std::path::{Path, PathBuf};

use klp_livepatch::Arch;
use klp_livepatch::task::Platform;
use tokio_util::sync::CancellationToken;

use super::lock::TreeLock;
use super::record::{KeyFile, Stamp, VmlinuxNames};
use super::{KernelConfig, ModuleIndex, Tree, TreeError, TreeKind, TreeStore, disk};
use crate::symbols::{NameTable, Symvers, kernel_names};

const NAMES: &str = "vmlinux.symbols";

/// What to take.
pub struct Request {
    pub path: PathBuf,
    pub platform: Platform,
    /// Where the modules are, if not in `path`: an installed `/lib/modules/<release>`.
    pub mod_dir: Option<PathBuf>,
}

/// Takes the folder as the tree of a platform. A tree of the same name that came from the same folder is renewed.
///
/// # Errors
/// Everything that is missing, at once, with the command that makes it.
pub async fn add(
    store: &TreeStore,
    request: &Request,
    cancel: &CancellationToken,
    told: &mut (dyn FnMut(String) + Send),
) -> Result<Tree, TreeError> {
    let path = request
        .path
        .canonicalize()
        .map_err(TreeError::io("open", &request.path))?;
    let _lock = TreeLock::take(store.dir(), &request.platform, cancel, told).await?;
    if let Ok(present) = store.get(&request.platform)
        && present.src != path
    {
        return Err(TreeError::Refused(format!(
            "there is a tree {} already, from {}; remove it first (`klp-worker tree remove {} --arch {}`) or give another --codestream",
            request.platform,
            present.src.display(),
            request.platform.codestream,
            request.platform.arch
        )));
    }
    let modules_dir = match &request.mod_dir {
        Some(dir) => dir.canonicalize().map_err(TreeError::io("open", dir))?,
        None => path.clone(),
    };
    let (config, vmlinux) = inspect(&path, &modules_dir, request.platform.arch)?;

    // Everything is read before anything is written, so that what can't be read leaves no trace.
    let dir = store.tree_dir(&request.platform);
    let stamp = Stamp::of(&vmlinux).map_err(TreeError::io("read", &vmlinux))?;
    let names = name_table(&vmlinux)?;
    let release_file = path.join("include/config/kernel.release");
    let release = std::fs::read_to_string(&release_file).map_err(TreeError::io("read", &release_file))?;
    let tree = Tree {
        platform: request.platform.clone(),
        kind: TreeKind::Kdir,
        src: path.clone(),
        obj: path.clone(),
        config: path.join(".config"),
        symvers: path.join("Module.symvers"),
        module_count: ModuleIndex::read(&modules_dir)?.len(),
        modules_dir,
        release: release.trim().to_owned(),
        compiler: config.compiler().map_err(TreeError::Refused)?,
        boot_image: boot_image(&path),
        warnings: Vec::new(),
        key_files: ["Makefile", ".config", "Module.symvers", "include/generated/autoconf.h"]
            .iter()
            .map(|name| KeyFile::of(&path.join(name)))
            .collect::<Result<_, _>>()?,
        built_at: path,
        vmlinux: VmlinuxNames {
            table: dir.join(NAMES),
            made_from: Some(stamp),
        },
        dir,
    };
    disk::make_dir(&tree.dir)?;
    disk::write_whole(&tree.dir.join(NAMES), &names)?;
    tree.save()?;
    store.get(&request.platform)
}

/// Checks that the folder is a built kernel of the architecture; returns its configuration and what holds its symbols.
fn inspect(path: &Path, modules_dir: &Path, arch: Arch) -> Result<(KernelConfig, PathBuf), TreeError> {
    let refuse = |text: String| Err(TreeError::Refused(format!("{}: {text}", path.display())));
    if !path.join("Kbuild").is_file() || !path.join("scripts/Kbuild.include").is_file() {
        return refuse("is not the top folder of a kernel's source".into());
    }
    let file = path.join(".config");
    if !file.is_file() {
        return refuse(
            "has no .config: configure the kernel and build it (make olddefconfig && make), in this same folder".into(),
        );
    }
    let config = KernelConfig::open(&file)?;
    if config.arch() != Some(arch) {
        let is = config
            .arch()
            .map_or("another architecture".to_owned(), |a| a.to_string());
        return refuse(format!("its .config is for {is}, not {arch}; give --arch as it is"));
    }
    let mut missing = Vec::new();
    for (name, goal) in [
        ("include/generated/autoconf.h", "make modules_prepare"),
        ("include/config/kernel.release", "make modules_prepare"),
        ("scripts/mod/modpost", "make modules_prepare"),
        ("Module.symvers", "make"),
    ] {
        if !path.join(name).is_file() {
            missing.push(format!("{name} (run `{goal}`)"));
        }
    }
    if ModuleIndex::read(modules_dir)?.is_empty() && config.get("MODULES") == super::config::Setting::BuiltIn {
        missing.push(format!(
            "modules in {} (run `make modules`, or give --mod-dir)",
            modules_dir.display()
        ));
    }
    let vmlinux = Some(path.join("vmlinux"))
        .filter(|file| file.is_file())
        .or_else(|| boot_image(path));
    if vmlinux.is_none() {
        missing.push("vmlinux (run `make`)".to_owned());
    }
    match vmlinux {
        Some(vmlinux) if missing.is_empty() => {
            Symvers::open(&path.join("Module.symvers"))?;
            Ok((config, vmlinux))
        }
        _ => refuse(format!("is not built; missing: {}", missing.join(", "))),
    }
}

fn boot_image(path: &Path) -> Option<PathBuf> {
    [
        "arch/x86/boot/bzImage",
        "arch/s390/boot/bzImage",
        "arch/arm64/boot/Image",
    ]
    .map(|file| path.join(file))
    .into_iter()
    .find(|file| file.is_file())
}

/// The names of an unstripped vmlinux, or of a boot image, as a name table.
pub(super) fn name_table(vmlinux: &Path) -> Result<Vec<u8>, TreeError> {
    let symbols = kernel_names(vmlinux)?;
    let mut table = Vec::new();
    NameTable::write(symbols, &mut table).map_err(TreeError::io("read", vmlinux))?;
    Ok(table)
}
