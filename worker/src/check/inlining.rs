//! Gets the dumps that tell what was inlined where: the distribution's own where the object folder has them, else made by
//! compiling the file once more, with its own command, in the attempt's scratch folder.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use klp_livepatch::names::SourcePath;
use klp_livepatch::spec::Target;
use tokio_util::sync::CancellationToken;

use super::ipa_clones::{IpaClones, MAX_DUMP};
use crate::extract::command::{CompileCommand, command_from_database, command_in, plain_path};
use crate::isolation::{Cell, Room};
use crate::process::{Captured, Command, End, Limits, capture};
use crate::trees::config::Setting;
use crate::trees::{Tree, TreeError};

/// What gcc calls a dump, behind the source file's name: the number of the pass is the same since gcc 5.
const SUFFIX: &str = ".000i.ipa-clones";

/// Where and within which limits files are compiled.
pub struct Lab<'a> {
    /// A folder without spaces in its path, which only this attempt uses.
    pub room: &'a Room,
    /// What the programs may see.
    pub cell: &'a Cell,
    /// For each `make` or compiler that is run.
    pub limits: Limits,
    pub cancel: &'a CancellationToken,
}

impl Lab<'_> {
    async fn capture(&self, command: Command) -> Result<Captured, String> {
        let cell = self.cell.writing(self.room);
        let cell = cell.map_err(|e| format!("can't hand over {}: {e}", self.room.path().display()))?;
        let done = capture(&command.within(&cell), &self.limits, self.cancel).await;
        done.map_err(|e| e.to_string())
    }
}

/// What is known about inlining, file by file: copies, or why they are not known.
#[derive(Debug, Default)]
pub struct Inlining {
    by_file: HashMap<SourcePath, Result<IpaClones, String>>,
}

impl Inlining {
    /// `None`: nobody looked.
    pub(super) fn of(&self, file: &SourcePath) -> Option<Result<&IpaClones, &str>> {
        let found = self.by_file.get(file)?;
        Some(found.as_ref().map_err(String::as_str))
    }

    #[cfg(test)]
    pub(super) fn with(file: SourcePath, found: Result<IpaClones, String>) -> Self {
        Self {
            by_file: HashMap::from([(file, found)]),
        }
    }
}

/// Gets the dumps of all targets that this kernel builds. What can't be had is noted, for inlining is one question of many.
///
/// # Errors
/// It was interrupted, or the tree can't be read.
pub async fn gather(tree: &Tree, targets: &[Target], lab: &Lab<'_>) -> Result<Inlining, TreeError> {
    let config = tree.kernel_config()?;
    let mut inlining = Inlining::default();
    for target in targets {
        // make prints a command for a file that isn't built, too, and its dump would be of no kernel.
        let built = matches!(config.get(target.config.as_str()), Setting::BuiltIn | Setting::Module);
        if built && tree.src.join(target.file.as_str()).is_file() {
            let found = dump(tree, &target.file, lab).await;
            if lab.cancel.is_cancelled() {
                return Err(TreeError::Interrupted);
            }
            inlining.by_file.insert(target.file.clone(), found);
        }
    }
    Ok(inlining)
}

async fn dump(tree: &Tree, file: &SourcePath, lab: &Lab<'_>) -> Result<IpaClones, String> {
    let shipped = tree.obj.join(format!("{file}{SUFFIX}"));
    // klp-build makes an empty one where there is none.
    if shipped
        .metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
    {
        return read(std::fs::File::open(&shipped), &shipped);
    }
    let command = compile_command(tree, file, lab).await?;
    if command.compiler.contains("clang") {
        return Err(format!("{} writes no ipa-clones", command.compiler));
    }
    let room = lab.room.path();
    let dir = tempfile::tempdir_in(room).map_err(|e| format!("can't make a folder in {}: {e}", room.display()))?;
    let args = dump_args(&command.args, &dir.path().join("dump.o"));
    let compile = Command::new(&command.compiler, &command.directory)
        .env("TMPDIR", dir.path())
        .args(args);
    let done = lab.capture(compile).await?;
    if !done.finish.end.success() {
        let errors = done.stderr.lines().find(|line| line.contains("error")).unwrap_or("");
        return Err(format!("compiling it {}: {errors}", done.finish.describe()));
    }
    let made = std::fs::read_dir(dir.path())
        .map_err(|e| e.to_string())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(SUFFIX))
        .ok_or_else(|| format!("{} wrote no ipa-clones", command.compiler))?;
    read(lab.room.open(&made), &made)
}

fn read(file: std::io::Result<std::fs::File>, path: &Path) -> Result<IpaClones, String> {
    let mut bytes = Vec::new();
    file.and_then(|file| file.take(MAX_DUMP + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("can't read {}: {e}", path.display()))?;
    if bytes.len() as u64 > MAX_DUMP {
        return Err(format!("{} has more than {} MiB", path.display(), MAX_DUMP >> 20));
    }
    Ok(IpaClones::parse(&String::from_utf8_lossy(&bytes)))
}

/// The file's own compile command, as the tree's `make` or its compile_commands.json has it.
pub(crate) async fn compile_command(tree: &Tree, file: &SourcePath, lab: &Lab<'_>) -> Result<CompileCommand, String> {
    plain_path(file.as_str()).map_err(str::to_owned)?;
    let database = tree.obj.join("compile_commands.json");
    if database.is_file() {
        let source = tree.src.join(file.as_str());
        let found = tokio::task::spawn_blocking(move || command_from_database(&database, &source));
        if let Some(command) = found.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())? {
            return Ok(command);
        }
    }
    let object = format!("{}.o", file.as_str().trim_end_matches(".c"));
    let make = tree.make_command(lab.room.path()).args(["-sn", "--", &object]);
    let done = lab.capture(make).await?;
    if done.finish.end == End::Cancelled {
        return Err("interrupted".to_owned());
    }
    command_in(&done.stdout, &tree.compiler, &object, file.as_str(), &tree.obj).ok_or_else(|| {
        let last = done.stderr.lines().rev().find(|line| !line.trim().is_empty());
        format!(
            "`make -sn {object}` names no compile command for it ({})",
            last.unwrap_or("no message")
        )
    })
}

/// The command's arguments, writing to `output` and nowhere else: no dependency file goes into the tree.
fn dump_args(args: &[String], output: &Path) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = Vec::with_capacity(args.len() + 4);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-o" | "-MF" | "-MT" | "-MQ" => {
                rest.next();
            }
            "-MD" | "-MMD" | "-MP" | "-Werror" => {}
            a if a.starts_with("-Wp,-M") || a.starts_with("-fdump-") || a.starts_with("-save-temps") => {}
            a => out.push(a.into()),
        }
    }
    out.extend(["-w", "-fdump-ipa-clones", "-o"].map(PathBuf::from));
    out.push(output.to_owned());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_leaves_nothing_beside_its_output() {
        let words = "-Wp,-MMD,a/.b.o.d -O2 -MF x -fdump-ipa-clones -Werror -DX=1 -c -o a/b.o /src/a/b.c";
        let args: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let shown: Vec<_> = dump_args(&args, Path::new("/s/dump.o"))
            .iter()
            .map(|a| a.display().to_string())
            .collect();
        assert_eq!(
            shown.join(" "),
            "-O2 -DX=1 -c /src/a/b.c -w -fdump-ipa-clones -o /s/dump.o"
        );
    }
}
