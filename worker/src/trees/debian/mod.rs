//! Makes a tree from Debian's own packages: linux-source, linux-headers and linux-image of one version, fetched with apt,
//! unpacked beside the host's own packages without touching them, configured as shipped. Those of a foreign architecture
//! are fetched by an apt with a root of its own, and prepared with Debian's cross compiler for it.
//!
//! The steps are those of [`add`]. Each that is done is recorded, so that an interrupted run goes on where it was, and
//! the finished folder is moved into place at once.

mod apt;
mod fetch;
mod prepare;
mod root;

use std::path::Path;

use klp_livepatch::task::Platform;
use klp_livepatch::words::amount;
use klp_livepatch::{Arch, Codestream};
use tokio_util::sync::CancellationToken;

pub use apt::Abi;
use apt::Packages;
use root::Apt;

use super::lock::TreeLock;
use super::partial::{self, Partial};
use super::progress::Progress;
use super::record::{KeyFile, VmlinuxNames};
use super::tools::{self, Tools};
use super::{KernelConfig, ModuleIndex, Tree, TreeError, TreeKind, TreeStore, disk, relocate};
use crate::process::Command;
use crate::symbols::{NameTable, kernel_names};

/// MiB that making a tree takes at its peak, and what is left to take once the source is unpacked.
const SPACE: u64 = 3000;
const SPACE_AFTER_SOURCE: u64 = 1000;

const DEBS: &str = "debs";
const LOG: &str = "log";
const NAMES: &str = "vmlinux.symbols";

/// What to make.
pub struct Request {
    pub abi: Abi,
    pub platform: Platform,
    /// Leave the packages in `.downloads`, for another time.
    pub keep_packages: bool,
}

/// Which kernels `--latest` means.
///
/// # Errors
/// If apt has fewer than `count`, or can't be asked.
pub async fn latest(
    store: &TreeStore,
    count: usize,
    series: Option<&str>,
    arch: Arch,
    quiet: bool,
    cancel: &CancellationToken,
) -> Result<Vec<Abi>, TreeError> {
    let progress = Progress::new(0, quiet);
    let apt = Apt::open(store.dir(), arch, cancel, &mut |text| progress.note(&text)).await?;
    let series = match series {
        Some(series) => {
            apt::check_series(series)?;
            series.to_owned()
        }
        None => apt::own_series(&apt, cancel).await?,
    };
    let mut abis = apt::abis(&apt, &series, arch, cancel).await?;
    if abis.len() < count {
        return Err(TreeError::Refused(format!(
            "apt has {} of series {series} with headers and source, not {count}; ask for fewer, or run `apt-get update`",
            amount(abis.len(), "kernel", "kernels")
        )));
    }
    abis.truncate(count);
    Ok(abis)
}

/// What a kernel of this Debian is called: `debian12-6.1.0-50`.
///
/// # Errors
/// If this is no Debian.
pub fn codestream(abi: &Abi) -> Result<Codestream, TreeError> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
    };
    match (field("ID"), field("VERSION_ID")) {
        (Some("debian"), Some(version)) => format!("debian{version}-{abi}")
            .parse()
            .map_err(|e| TreeError::Refused(format!("{e}; give --codestream"))),
        _ => Err(TreeError::Refused(
            "this is no Debian release (/etc/os-release); debian trees are made on Debian, with its apt; give --codestream if it is one all the same".into(),
        )),
    }
}

/// Whether [`add`] found the tree or made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Made,
    AlreadyHere,
}

/// Makes the tree, unless it is here.
///
/// # Errors
/// What is in the way, and what to do about it. What was done so far is kept for the next run.
pub async fn add(
    store: &TreeStore,
    request: &Request,
    quiet: bool,
    cancel: &CancellationToken,
) -> Result<(Tree, Added), TreeError> {
    let Request { abi, platform, .. } = request;
    let progress = Progress::new(7, quiet);
    let mut waiting = |text: String| progress.note(&text);
    let _lock = TreeLock::take(store.dir(), platform, cancel, &mut waiting).await?;
    match store.get(platform) {
        Ok(tree) => return Ok((tree, Added::AlreadyHere)),
        Err(TreeError::NotFound { .. }) => {}
        Err(e) => return Err(e),
    }
    let apt = Apt::open(store.dir(), platform.arch, cancel, &mut |text| progress.note(&text)).await?;
    let packages = apt::find(&apt, abi, platform.arch, cancel).await?;
    if let Some(compiler) = &packages.compiler {
        // Asked before anything is fetched, and again when the configuration says for certain which compiler it is.
        tools::check(compiler, cancel).await?;
    }
    let place = partial::dir(store.dir(), platform);
    let mut partial = Partial::open(place.clone(), plan(&packages, &place), DEBS)?;
    if partial.anything_done() {
        progress.note("going on where an interrupted run was");
    }
    if !partial.is_done("source") {
        // What a broken-off unpacking left would be counted as space that is lacking.
        partial.tidy_but_state(&["src", prepare::UNPACKED])?;
    }
    let needed = if partial.is_done("source") {
        SPACE_AFTER_SOURCE
    } else {
        SPACE
    };
    disk::need_space(&place, needed, &format!("the tree {platform}"))?;
    let tools = Tools {
        cancel,
        log: partial.path(LOG),
    };

    let mut making = Making {
        request,
        apt,
        packages,
        store,
        partial: &mut partial,
        tools,
        progress: &progress,
    };
    making.make().await?;
    let tree = making.put_in_place()?;
    Ok((tree, Added::Made))
}

/// Everything that decides what the steps do; if any of it changes, they must be done again.
fn plan(packages: &Packages, place: &Path) -> String {
    let files: Vec<_> = packages
        .all()
        .iter()
        .map(|p| format!("{}:{}", p.file_name(), p.sha256))
        .collect();
    format!("1 {} in {}", files.join(" "), place.display())
}

/// A tree being made.
struct Making<'a> {
    request: &'a Request,
    apt: Apt,
    packages: Packages,
    store: &'a TreeStore,
    partial: &'a mut Partial,
    tools: Tools<'a>,
    progress: &'a Progress,
}

impl Making<'_> {
    async fn make(&mut self) -> Result<(), TreeError> {
        let [source, headers, image] = self.packages.all().map(Clone::clone);
        let size = source.size_mb() + headers.size_mb() + image.size_mb();
        let fetching = format!(
            "fetching {} {} and its headers and image ({size} MB)",
            source.name, source.version
        );
        if self.partial.is_done("source") && self.partial.is_done("image") {
            self.progress.skip(&fetching);
        } else {
            let mut step = self.progress.step(&fetching);
            let kept = self.store.dir().join(".downloads");
            fetch::fetch(
                &self.apt,
                &self.packages,
                &self.partial.path(DEBS),
                &kept,
                &self.tools,
                &mut step,
            )
            .await?;
            step.done();
        }
        self.step(
            "source",
            &format!("unpacking {} {}", source.name, source.version),
            Doing::Source,
        )
        .await?;
        self.step(
            "image",
            &format!("unpacking {} and {}", image.name, headers.name),
            Doing::Image,
        )
        .await?;
        self.step("configure", "configuring as shipped", Doing::Configure)
            .await?;
        self.step(
            "prepare",
            "preparing for modules (make modules_prepare)",
            Doing::Prepare,
        )
        .await?;
        self.step(
            "symbols",
            "recovering vmlinux's symbols from the boot image",
            Doing::Symbols,
        )
        .await
    }

    async fn step(&mut self, name: &str, what: &str, doing: Doing) -> Result<(), TreeError> {
        if self.partial.is_done(name) {
            self.progress.skip(what);
            return Ok(());
        }
        let mut step = self.progress.step(what);
        let place = prepare::Place {
            partial: self.partial,
            abi: &self.request.abi,
            arch: self.request.platform.arch,
            packages: &self.packages,
            tools: &self.tools,
        };
        match doing {
            Doing::Source => place.unpack_source(&mut step).await?,
            Doing::Image => place.unpack_image(&mut step).await?,
            Doing::Configure => place.configure(&mut step).await?,
            Doing::Prepare => place.modules_prepare(&mut step).await?,
            Doing::Symbols => place.recover_symbols()?,
        }
        step.done();
        self.partial.mark_done(name)
    }

    /// Writes tree.json and moves the folder to where trees are found.
    fn put_in_place(&mut self) -> Result<Tree, TreeError> {
        let step = self.progress.step("putting it in place");
        let platform = &self.request.platform;
        let (here, there) = (self.partial.dir.clone(), self.store.tree_dir(platform));
        if self.request.keep_packages {
            fetch::keep(&self.partial.path(DEBS), &self.store.dir().join(".downloads"))?;
        }
        relocate::relocate(&here.join("obj"), &here, &there)?;
        let tree = self.describe(&here, &there)?;
        tree.save()?;
        self.partial.tidy_but_state(&[DEBS, LOG, prepare::UNPACKED])?;
        disk::sync_all(&here)?;
        if let Some(parent) = there.parent() {
            disk::make_dir(parent)?;
        }
        std::fs::rename(&here, &there).map_err(TreeError::io("move the tree to", &there))?;
        Partial::forget_state(&there);
        step.done();
        self.store.get(platform)
    }

    fn describe(&self, dir: &Path, built_at: &Path) -> Result<Tree, TreeError> {
        let release = apt::release(&self.request.abi, self.request.platform.arch);
        let config = dir.join("obj/.config");
        let symvers = dir.join("obj/Module.symvers");
        let modules_dir = dir.join("modules");
        let parsed = KernelConfig::open(&config)?;
        let warnings = prepare::config_warnings(&KernelConfig::open(&dir.join(prepare::SHIPPED_CONFIG))?, &parsed);
        for warning in &warnings {
            self.progress.note(&format!("warning: {warning}"));
        }
        let key_files = [
            config.clone(),
            symvers.clone(),
            dir.join("obj/include/generated/autoconf.h"),
            dir.join("obj/include/config/kernel.release"),
            dir.join("src/Makefile"),
            dir.join(NAMES),
            modules_dir.join("modules.order"),
        ]
        .iter()
        .map(|path| KeyFile::of(path))
        .collect::<Result<_, _>>()?;
        Ok(Tree {
            platform: self.request.platform.clone(),
            kind: TreeKind::Debian,
            dir: dir.to_owned(),
            src: dir.join("src"),
            obj: dir.join("obj"),
            config,
            symvers,
            module_count: ModuleIndex::read(&modules_dir)?.len(),
            modules_dir,
            boot_image: Some(dir.join(prepare::BOOT_IMAGE)),
            release,
            compiler: parsed.compiler().map_err(TreeError::Refused)?,
            warnings,
            key_files,
            built_at: built_at.to_owned(),
            vmlinux: VmlinuxNames {
                table: dir.join(NAMES),
                made_from: None,
            },
        })
    }
}

#[derive(Clone, Copy)]
enum Doing {
    Source,
    Image,
    Configure,
    Prepare,
    Symbols,
}
