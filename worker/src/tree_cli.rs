//! The `tree` commands: what a person types to give a worker its kernel trees. Standard output is data, standard error is
//! talk.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use klp_livepatch::task::Platform;
use klp_livepatch::words::amount;
use klp_livepatch::{Arch, Codestream};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Settings};
use crate::trees::debian::Added;
use crate::trees::suse::SuseData;
use crate::trees::{Tree, TreeKind, TreeStore, debian, kdir, verify};
use crate::worker::known_kernels;

#[derive(Debug, Args)]
pub struct TreeArgs {
    /// The worker's data folder, which holds the trees unless --trees names another place [default: the configured one, or
    /// ~/.local/share/klp-farm]
    #[arg(long, value_name = "DIR", env = "KLP_FARM_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,

    /// Folder that holds the trees [default: DATA_DIR/trees]
    #[arg(long, value_name = "DIR", env = "KLP_FARM_TREES", global = true)]
    trees: Option<PathBuf>,

    /// Folder of SUSE's kernels as klp-build keeps them; it is only read, what is found there is listed and verified
    #[arg(long, value_name = "DIR", env = config::SUSE_DATA_DIR, global = true)]
    suse_data_dir: Option<PathBuf>,
    /// The catalog of codestreams, which says which of them SUSE's kernels are
    #[arg(long, value_name = "FILE", env = "KLP_FARM_CATALOG", global = true)]
    catalog: Option<PathBuf>,

    /// Say nothing but errors
    #[arg(long, short, global = true)]
    quiet: bool,

    #[command(subcommand)]
    command: TreeCommand,
}

#[derive(Debug, Subcommand)]
enum TreeCommand {
    /// Add a tree
    #[command(subcommand)]
    Add(AddCommand),
    /// Show the trees
    List {
        #[arg(long, short = 'O', value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Check that trees are what they were when they were added
    Verify {
        /// Only the trees of this codestream
        codestream: Option<Codestream>,
        #[arg(long)]
        arch: Option<Arch>,
        /// Fit trees that were moved to their new place
        #[arg(long)]
        repair: bool,
    },
    /// Remove a tree and all that was made for it; a kernel you built yourself stays
    Remove {
        codestream: Codestream,
        /// [default: this machine's]
        #[arg(long)]
        arch: Option<Arch>,
    },
}

#[derive(Debug, Subcommand)]
enum AddCommand {
    /// Make a tree from Debian's packages of a kernel
    #[command(after_help = "Examples:\n  \
        klp-worker tree add debian 6.1.0-50\n  \
        klp-worker tree add debian 6.1.0-50 --arch s390x\n  \
        klp-worker tree add debian --latest 2 --series 6.1\n\n\
        Fetches linux-source, linux-headers and linux-image with apt and unpacks them in the folder of trees; the host's\n\
        own packages are not touched, nor its list of architectures for --arch. Takes a minute or two, 3 GB while at work and 2 GB afterwards. When interrupted, the\n\
        same command goes on from there.")]
    Debian(DebianArgs),
    /// Take a kernel you built in its own source folder
    #[command(after_help = "Example:\n  \
        klp-worker tree add kdir ~/linux --codestream mainline-6.18 --arch x86_64\n\n\
        The folder must be built (make) and stay where it is; nothing in it is changed.")]
    Kdir(KdirArgs),
}

#[derive(Debug, Args)]
struct DebianArgs {
    /// Kernel version as in Debian's package names, such as 6.1.0-50
    #[arg(required_unless_present = "latest", conflicts_with = "latest")]
    abi: Option<debian::Abi>,
    /// Instead of a version: the newest N that apt has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=20))]
    latest: Option<u8>,
    /// With --latest: of this series, such as 6.12 [default: that of Debian's own linux-source]
    #[arg(long, requires = "latest")]
    series: Option<String>,
    /// [default: this machine's]
    #[arg(long)]
    arch: Option<Arch>,
    /// Name of the codestream [default: debian<release>-<version>, such as debian12-6.1.0-50]
    #[arg(long, conflicts_with = "latest")]
    codestream: Option<Codestream>,
    /// Keep the fetched packages, in the trees' folder under .downloads
    #[arg(long)]
    keep_packages: bool,
}

#[derive(Debug, Args)]
struct KdirArgs {
    /// The kernel's folder
    path: PathBuf,
    #[arg(long)]
    codestream: Codestream,
    /// [default: this machine's]
    #[arg(long)]
    arch: Option<Arch>,
    /// Where the modules are, if not there [default: PATH]
    #[arg(long, value_name = "DIR")]
    mod_dir: Option<PathBuf>,
}

/// What standard output holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

/// Runs a `tree` command to its end; what its options don't say, the settings do. Ctrl-C and SIGTERM stop what it started.
///
/// # Errors
/// What went wrong, for the person who typed it.
pub async fn run(args: TreeArgs, settings: &Settings) -> anyhow::Result<()> {
    let cancel = cancel_on_signals()?;
    let (data_dir, trees) = settings.folders(args.data_dir.as_deref(), args.trees.as_deref());
    let known = known_kernels(
        args.catalog
            .as_ref()
            .or(settings.catalog.as_ref())
            .map(PathBuf::as_path),
    )?;
    let suse = args.suse_data_dir.as_ref().or(settings.suse_data_dir.as_ref());
    let suse = suse.map(|dir| SuseData::open(dir, &data_dir.join(config::SUSE_INDEXES), known));
    let store = TreeStore::open(&trees)?.with_suse(suse.transpose()?);
    let quiet = args.quiet;
    match args.command {
        TreeCommand::Add(AddCommand::Debian(add)) => add_debian(&store, add, quiet, &cancel).await,
        TreeCommand::Add(AddCommand::Kdir(add)) => add_kdir(&store, add, quiet, &cancel).await,
        TreeCommand::List { output } => list(&store, output),
        TreeCommand::Verify {
            codestream,
            arch,
            repair,
        } => verify_trees(&store, codestream.as_ref(), arch, repair, quiet, &cancel).await,
        TreeCommand::Remove { codestream, arch } => {
            let platform = Platform {
                codestream,
                arch: own_arch(arch)?,
            };
            store.remove(&platform, &cancel, &mut |text| tell(quiet, &text)).await?;
            tell(quiet, &format!("removed {platform}"));
            Ok(())
        }
    }
}

async fn add_debian(
    store: &TreeStore,
    args: DebianArgs,
    quiet: bool,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let arch = own_arch(args.arch)?;
    let abis = match (args.abi, args.latest) {
        (Some(abi), _) => vec![abi],
        (None, latest) => {
            let count = latest.unwrap_or(1).into();
            debian::latest(store, count, args.series.as_deref(), arch, quiet, cancel).await?
        }
    };
    for abi in abis {
        let codestream = match &args.codestream {
            Some(codestream) => codestream.clone(),
            None => debian::codestream(&abi)?,
        };
        let request = debian::Request {
            platform: Platform { codestream, arch },
            abi,
            keep_packages: args.keep_packages,
        };
        let (tree, added) = debian::add(store, &request, quiet, cancel)
            .await
            .with_context(|| format!("can't add {}", request.platform))?;
        match added {
            Added::Made => tell(quiet, &format!("{} is ready in {}", tree.platform, tree.dir.display())),
            Added::AlreadyHere => tell(
                quiet,
                &format!("{} is already here, in {}", tree.platform, tree.dir.display()),
            ),
        }
    }
    Ok(())
}

async fn add_kdir(store: &TreeStore, args: KdirArgs, quiet: bool, cancel: &CancellationToken) -> anyhow::Result<()> {
    let request = kdir::Request {
        path: args.path,
        platform: Platform {
            codestream: args.codestream,
            arch: own_arch(args.arch)?,
        },
        mod_dir: args.mod_dir,
    };
    let tree = kdir::add(store, &request, cancel, &mut |text| tell(quiet, &text))
        .await
        .with_context(|| format!("can't add {}", request.platform))?;
    if let Some(warning) = verify::foreign(&tree) {
        tell(quiet, &format!("warning: {warning}"));
    }
    tell(
        quiet,
        &format!("{} is ready, from {}", tree.platform, tree.src.display()),
    );
    Ok(())
}

fn list(store: &TreeStore, output: Output) -> anyhow::Result<()> {
    let listing = store.list();
    match output {
        Output::Json => {
            let trees: Vec<_> = listing.trees.iter().map(as_json).collect();
            let broken: Vec<_> = listing.broken.iter().map(|(_, e)| e.to_string()).collect();
            let all = serde_json::json!({ "trees": trees, "broken": broken });
            print(&serde_json::to_string_pretty(&all)?)?;
        }
        Output::Table => {
            let rows: Vec<_> = listing.trees.iter().map(row).collect();
            let head = ["CODESTREAM", "ARCH", "KIND", "RELEASE", "COMPILER", "MODULES", "PLACE"];
            print(&table(&head, &rows))?;
            for (_, broken) in &listing.broken {
                eprintln!("warning: {broken}");
            }
            for half in store.half_made() {
                eprintln!("note: {half} is half made; run its `tree add` again to go on, or `tree remove` it");
            }
            if listing.trees.is_empty() {
                eprintln!(
                    "no trees in {}; add one, see `klp-worker tree add --help`",
                    store.dir().display()
                );
            }
        }
    }
    Ok(())
}

fn as_json(tree: &Tree) -> serde_json::Value {
    serde_json::json!({
        "codestream": tree.platform.codestream,
        "arch": tree.platform.arch,
        "kind": tree.kind,
        "release": tree.release,
        "compiler": tree.compiler,
        "modules": tree.module_count,
        "vmlinux": tree.vmlinux_file(),
        "src": tree.src,
        "obj": tree.obj,
        "warnings": tree.warnings,
    })
}

fn row(tree: &Tree) -> [String; 7] {
    [
        tree.platform.codestream.to_string(),
        tree.platform.arch.to_string(),
        tree.kind.as_str().to_owned(),
        tree.release.clone(),
        tree.compiler.clone(),
        tree.module_count.to_string(),
        tree.src
            .parent()
            .filter(|_| tree.src != tree.obj && tree.kind != TreeKind::Suse)
            .unwrap_or(&tree.src)
            .display()
            .to_string(),
    ]
}

/// Columns as wide as their widest cell, two spaces between.
fn table<const N: usize>(head: &[&str; N], rows: &[[String; N]]) -> String {
    let width = |i: usize| {
        let cells = rows.iter().map(|row| row[i].chars().count());
        cells.chain([head[i].len()]).max().unwrap_or(0)
    };
    let line = |cells: [&str; N]| {
        let padded: Vec<_> = cells
            .iter()
            .enumerate()
            .map(|(i, cell)| format!("{cell:<0$}", width(i)))
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(*head);
    for row in rows {
        text += &line(row.each_ref().map(String::as_str));
    }
    text
}

async fn verify_trees(
    store: &TreeStore,
    codestream: Option<&Codestream>,
    arch: Option<Arch>,
    repair: bool,
    quiet: bool,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let listing = store.list();
    let wanted = |tree: &&Tree| {
        codestream.is_none_or(|c| *c == tree.platform.codestream) && arch.is_none_or(|a| a == tree.platform.arch)
    };
    let (mut good, mut bad) = (0, 0);
    for tree in listing.trees.iter().filter(wanted) {
        let mut tree = tree.clone();
        if repair {
            verify::repair_place(&mut tree)?;
            if verify::repair_symbols(&mut tree)? {
                tell(quiet, &format!("{}: vmlinux's symbols listed anew", tree.platform));
            }
        }
        let problems = verify::verify(&tree, cancel).await?;
        if problems.is_empty() {
            good += 1;
            tell(quiet, &format!("{}: good", tree.platform));
        } else {
            bad += 1;
        }
        for problem in problems {
            eprintln!("{}: {problem}", tree.platform);
        }
    }
    if codestream.is_none() {
        bad += listing.broken.len();
        listing.broken.iter().for_each(|(_, broken)| eprintln!("{broken}"));
    }
    match (good, bad) {
        (0, 0) => bail!("no such tree in {}; see `klp-worker tree list`", store.dir().display()),
        (_, 0) => Ok(()),
        (_, bad) => bail!("{bad} of {} can't be used", amount(good + bad, "tree", "trees")),
    }
}

fn own_arch(arch: Option<Arch>) -> anyhow::Result<Arch> {
    arch.or_else(Arch::host)
        .context("this machine's architecture is not one of ours; give --arch")
}

/// Prints a text to standard output; a reader that went away ends the program quietly, as `head` expects.
///
/// # Errors
/// Standard output can't be written.
pub fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result,
    }
}

fn tell(quiet: bool, text: &str) {
    if !quiet {
        eprintln!("{text}");
    }
}

/// Cancelled by the first SIGINT or SIGTERM.
fn cancel_on_signals() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let cancel = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = cancel.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        token.cancel();
    });
    Ok(cancel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [
            ["debian12-6.1.0-50".to_owned(), "x".to_owned()],
            ["a".to_owned(), "yy".to_owned()],
        ];
        assert_eq!(
            table(&["CODESTREAM", "B"], &rows),
            "CODESTREAM         B\ndebian12-6.1.0-50  x\na                  yy\n"
        );
    }

    #[test]
    fn names_that_are_paths_or_options_are_refused() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: TreeArgs,
        }
        let parse = |words: &[&str]| {
            <Cli as clap::Parser>::try_parse_from([&["klp-worker"], words].concat()).map(|cli| cli.args)
        };
        for bad in [
            &["add", "debian", "../../etc"][..],
            &["add", "debian", "--", "-o=Dir::Cache=/"],
            &["add", "debian", "6.1.0-50", "--codestream", "../x"],
            &["add", "debian"],
            &["add", "debian", "6.1.0-50", "--latest", "2"],
            &["add", "debian", "--latest", "0"],
            &["remove", "../.."],
            &["remove", "x", "--arch", "vax"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&["add", "debian", "6.1.0-50", "--arch", "x86_64"]).is_ok());
    }
}
