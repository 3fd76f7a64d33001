//! Is a tree still what it was when it was added, and does its `make` still answer?

use klp_livepatch::Arch;
use klp_livepatch::outcome::Digest;
use klp_livepatch::words::amount;
use tokio_util::sync::CancellationToken;

use super::kdir::name_table;
use super::{KeyFile, Tree, TreeError, TreeKind, cross, disk, relocate, tools};
use crate::process::{Limits, capture};
use crate::symbols::{NameTable, Symvers};

/// What vmlinux's symbols are listed in when they are listed anew.
const PLACES: &str = "vmlinux.places";

/// Looks for everything that would make a task fail later. An empty list: the tree is good.
///
/// # Errors
/// If `make` can't be run, or the look was interrupted.
pub async fn verify(tree: &Tree, cancel: &CancellationToken) -> Result<Vec<String>, TreeError> {
    let mut problems = files(tree);
    problems.extend(symbols(tree));
    problems.extend(modules(tree));
    if problems.is_empty() {
        problems.extend(place(tree));
    }
    if problems.is_empty() && !has_database(tree) {
        problems.extend(make(tree, cancel).await?);
    }
    Ok(problems)
}

/// What a task would stumble over at once: a look that costs next to nothing, for a worker to take all the time.
pub fn missing(tree: &Tree) -> Vec<String> {
    let again = again(tree);
    let dirs = [&tree.src, &tree.obj, &tree.modules_dir];
    let dirs = dirs.into_iter().filter(|dir| !dir.is_dir());
    let mut problems: Vec<String> = dirs
        .map(|dir| format!("folder {} is missing; {again}", dir.display()))
        .collect();
    let modpost = tree.obj.join("scripts/mod/modpost");
    if !modpost.is_file() && !has_database(tree) {
        problems.push(format!(
            "{} is missing: the tree is not prepared; {again}",
            modpost.display()
        ));
    }
    if !tools::has_program(&tree.compiler) {
        problems.push(format!(
            "its compiler, {}, is not installed; install with: apt install {}",
            tree.compiler,
            cross::package(&tree.compiler, Arch::host())
        ));
    }
    let files = tree.key_files.iter().filter(|file| !file.path.is_file());
    problems.extend(files.map(|file| format!("{} is missing; {again}", file.path.display())));
    problems
}

/// The next step for a tree that is not what it was.
fn again(tree: &Tree) -> &'static str {
    match tree.kind {
        TreeKind::Debian => "remove the tree and add it again",
        TreeKind::Kdir => "if it was built anew, run `tree add kdir` again",
        TreeKind::Suse => "download its packages again",
    }
}

/// Whether compile commands are read from a file: SUSE's packages have one, beside what `make` needs or in its place.
fn has_database(tree: &Tree) -> bool {
    tree.kind == TreeKind::Suse && tree.obj.join("compile_commands.json").is_file()
}

/// What is missing, and which key files are not what they were.
pub fn files(tree: &Tree) -> Vec<String> {
    let again = again(tree);
    let mut problems = missing(tree);
    for file in &tree.key_files {
        match std::fs::read(&file.path) {
            Ok(bytes) if Digest::of(&bytes) == file.digest => {}
            Ok(_) => problems.push(format!(
                "{} has changed since the tree was added; {again}",
                file.path.display()
            )),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => problems.push(format!("{} can't be read: {e}; {again}", file.path.display())),
        }
    }
    problems
}

fn symbols(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(e) = Symvers::open(&tree.symvers) {
        problems.push(e.to_string());
    }
    match tree.vmlinux_symbols() {
        // Every kernel has this function.
        Ok(table) if table.lookup("vprintk").is_none() => problems.push(format!(
            "{} doesn't hold vmlinux's symbols: it lacks vprintk",
            tree.vmlinux_names().display()
        )),
        Ok(_) => {}
        Err(e) => problems.push(e.to_string()),
    }
    problems
}

fn modules(tree: &Tree) -> Vec<String> {
    let index = match tree.modules() {
        Ok(index) => index,
        Err(e) => return vec![e.to_string()],
    };
    let mut problems = Vec::new();
    if index.len() != tree.module_count {
        problems.push(format!(
            "{} has {}, {} when the tree was added",
            tree.modules_dir.display(),
            amount(index.len(), "module", "modules"),
            tree.module_count
        ));
    }
    let mut missing: Vec<_> = index.names().filter(|name| index.find(name).is_err()).collect();
    missing.sort_unstable();
    if let [first, ..] = missing[..] {
        problems.push(format!(
            "{} of {} can't be found, the first is {first}",
            missing.len(),
            amount(index.len(), "module", "modules")
        ));
    }
    problems
}

/// The paths in the object folder must be those of the tree.
fn place(tree: &Tree) -> Option<String> {
    let wrong = tree.kind == TreeKind::Debian
        && (tree.built_at != tree.dir || !relocate::mentions(&tree.obj.join("Makefile"), &tree.src).unwrap_or(false));
    wrong.then(|| {
        format!(
            "it was made in {} and is now in {}, but its object folder still names the former; run `tree verify --repair`",
            tree.built_at.display(),
            tree.dir.display()
        )
    })
}

/// Asks for the commands of an object every kernel has.
async fn make(tree: &Tree, cancel: &CancellationToken) -> Result<Option<String>, TreeError> {
    let object = "init/version.o";
    let scratch = tempfile::tempdir().map_err(TreeError::io("make a folder in", &std::env::temp_dir()))?;
    let command = tree.make_command(scratch.path()).args(["-sn", object]);
    let done = capture(&command, &Limits::default(), cancel).await?;
    let compiles = done
        .stdout
        .lines()
        .any(|line| line.contains(&tree.compiler) && line.contains("init/version.c"));
    Ok(if done.finish.end == crate::process::End::Cancelled {
        return Err(TreeError::Interrupted);
    } else if !done.finish.end.success() {
        let first = done.stderr.lines().next().unwrap_or_default();
        Some(format!("`make -sn {object}` {}: {first}", done.finish.describe()))
    } else if !compiles {
        Some(format!(
            "`make -sn {object}` doesn't print how {} compiles it",
            tree.compiler
        ))
    } else {
        None
    })
}

/// Fits a tree that was moved to its new place.
///
/// # Errors
/// If its files can't be rewritten.
pub fn repair_place(tree: &mut Tree) -> Result<(), TreeError> {
    if tree.kind == TreeKind::Debian && tree.built_at != tree.dir {
        relocate::relocate(&tree.obj, &tree.built_at, &tree.dir)?;
        tree.built_at = tree.dir.clone();
        tree.save()?;
    }
    Ok(())
}

/// Lists vmlinux's symbols anew if an older version listed them without their addresses, and says whether it did. The new
/// list has another name, so that tree.json changes from the one to the other at once.
///
/// # Errors
/// If what they were taken from can't be read, or the tree's files can't be written.
pub fn repair_symbols(tree: &mut Tree) -> Result<bool, TreeError> {
    let old = tree.dir.join(&tree.vmlinux.table);
    if tree.vmlinux_names() != old || NameTable::open(&old)?.has_places() {
        return Ok(false);
    }
    let made_from = tree.vmlinux.made_from.as_ref().map(|stamp| stamp.path.clone());
    let Some(source) = made_from.or_else(|| tree.boot_image.clone()) else {
        return Ok(false);
    };
    let new = tree.dir.join(PLACES);
    disk::write_whole(&new, &name_table(&source)?)?;
    for file in &mut tree.key_files {
        if file.path == old {
            *file = KeyFile::of(&new)?;
        }
    }
    tree.vmlinux.table = new;
    tree.save()?;
    // Nobody names it any more; what can't be removed is in nobody's way.
    let _ = std::fs::remove_file(&old);
    Ok(true)
}

/// One line about a tree's architecture that this machine can't compile for, if so.
pub fn foreign(tree: &Tree) -> Option<String> {
    (Arch::host() != Some(tree.platform.arch) && !tree.compiler.contains("-linux-")).then(|| {
        format!(
            "{} is foreign to this machine and its compiler, {}, is not a cross compiler",
            tree.platform.arch, tree.compiler
        )
    })
}
