//! Finds the compile command of one source file: from compile_commands.json if the object directory has one, else from `make -sn`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::{Error, tool, words};

/// How the kernel's build compiles one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileCommand {
    /// The compiler's name or path, as the build runs it.
    pub compiler: String,
    /// Its arguments, the compiler's name not among them.
    pub args: Vec<String>,
    /// The directory the build runs it in.
    pub directory: PathBuf,
}

impl CompileCommand {
    /// True if the file is built as (part of) a module.
    pub fn is_module(&self) -> bool {
        self.args.iter().any(|a| a == "-DMODULE")
    }

    /// The value of a `-DNAME=VALUE` argument, the last one winning.
    pub fn define(&self, name: &str) -> Option<&str> {
        self.args
            .iter()
            .rev()
            .find_map(|a| a.strip_prefix("-D")?.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Where to look for a file's command, and with what.
#[derive(Debug, Clone)]
pub struct CommandSource<'a> {
    pub src_dir: &'a Path,
    pub obj_dir: &'a Path,
    /// The C compiler handed to make, such as `gcc-12`; a name or path, no arguments.
    pub cc: &'a str,
    /// What every `make` call for this kernel needs, so that with `-sn` it writes nothing into the tree.
    pub make_args: &'a [String],
}

#[derive(Deserialize)]
struct Entry {
    directory: PathBuf,
    file: PathBuf,
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    command: String,
}

/// The compile command of `file` (relative to the source directory).
///
/// # Errors
/// When neither compile_commands.json nor make knows how to build the file.
pub fn compile_command(from: &CommandSource<'_>, file: &str) -> Result<CompileCommand, Error> {
    plain_path(file).map_err(|why| Error::BadPath {
        file: file.to_owned(),
        why,
    })?;
    let database = from.obj_dir.join("compile_commands.json");
    if database.is_file()
        && let Some(command) = command_from_database(&database, &from.src_dir.join(file))?
    {
        return Ok(command);
    }
    from_make(from, file)
}

/// A file name becomes a goal of make's, where `=` would set a variable and `$` run a program: only harmless ones pass.
pub(crate) fn plain_path(file: &str) -> Result<(), &'static str> {
    if !file.ends_with(".c") {
        return Err("only .c files can be extracted from");
    }
    if file.starts_with('-') || file.starts_with('/') || file.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("it must be relative to the source directory, without `..`");
    }
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '.' | ',' | '/');
    if file.chars().all(harmless) {
        Ok(())
    } else {
        Err("it has a character no kernel source file has")
    }
}

/// The command of a source file that a compilation database has, if it has one.
pub(crate) fn command_from_database(database: &Path, source: &Path) -> Result<Option<CompileCommand>, Error> {
    let shown = database.display().to_string();
    match std::fs::read(database) {
        Ok(text) => command_in_database(&text, &shown, source),
        Err(e) => Err(Error::Command {
            file: shown,
            why: e.to_string(),
        }),
    }
}

/// The command that a database's text has; `shown` names the database in errors.
pub(super) fn command_in_database(text: &[u8], shown: &str, source: &Path) -> Result<Option<CompileCommand>, Error> {
    let fail = |why: String| Error::Command {
        file: shown.to_owned(),
        why,
    };
    let entries: Vec<Entry> =
        serde_json::from_slice(text).map_err(|e| fail(format!("not a compilation database: {e}")))?;
    let same = |entry: &Entry| {
        let path = entry.directory.join(&entry.file);
        // Resolving links takes system calls: only for entries whose file has the right name.
        path == source
            || (path.file_name() == source.file_name()
                && path
                    .canonicalize()
                    .is_ok_and(|p| source.canonicalize().is_ok_and(|s| p == s)))
    };
    let Some(entry) = entries.into_iter().find(same) else {
        return Ok(None);
    };
    let mut argv = if entry.arguments.is_empty() {
        words::split(&entry.command).map_err(fail)?
    } else {
        entry.arguments
    };
    if argv.is_empty() {
        return Err(fail(format!("the entry of {} is empty", source.display())));
    }
    let compiler = argv.remove(0);
    Ok(Some(CompileCommand {
        compiler,
        args: argv,
        directory: entry.directory,
    }))
}

fn from_make(from: &CommandSource<'_>, file: &str) -> Result<CompileCommand, Error> {
    let fail = |why: String| Error::Command {
        file: file.to_owned(),
        why,
    };
    let target = file
        .strip_suffix(".c")
        .ok_or_else(|| fail("only .c files can be extracted from".into()))?;
    let output = tool::output(
        Command::new("make")
            .arg("-sn")
            .args(from.make_args)
            .arg("--")
            .arg(format!("{target}.o"))
            .current_dir(from.obj_dir)
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL"),
    )?;
    let text = String::from_utf8_lossy(&output.stdout);
    command_in(&text, from.cc, &format!("{target}.o"), file, from.obj_dir).ok_or_else(|| {
        let talk = String::from_utf8_lossy(&output.stderr);
        let last = talk.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no message");
        let limit = tool::limited(output.status);
        fail(format!("`make -sn CC={} {target}.o` in the object directory names no compile command for it (make said: {last}){limit}; is the tree configured?", from.cc))
    })
}

/// Picks the command that compiles `source` into `object` out of what `make -sn` prints.
///
/// A line holds several commands joined by `;`, among them fixdep's and objtool's, and the same arguments once more inside
/// quotes; so the line is split as a shell would, and a command must begin with the compiler and hold `-c -o OBJECT SOURCE`.
pub fn command_in(text: &str, cc: &str, object: &str, source: &str, directory: &Path) -> Option<CompileCommand> {
    for line in text.lines().filter(|l| l.contains(object) && l.contains(" -c ")) {
        // A line that is no whole shell command (a heredoc, a quote spanning lines) can't be the one.
        let Ok(commands) = words::commands(line) else { continue };
        for argv in commands {
            let starts = argv.first().is_some_and(|a| a == cc);
            let to_object = argv.windows(2).any(|w| w[0] == "-o" && w[1] == object);
            let from_source = argv
                .last()
                .is_some_and(|a| a == source || a.ends_with(&format!("/{source}")));
            if starts && to_object && from_source && argv.iter().any(|a| a == "-c") {
                let args = argv.into_iter().skip(1).collect();
                return Some(CompileCommand {
                    compiler: cc.to_owned(),
                    args,
                    directory: directory.to_owned(),
                });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_compile_command_is_found_between_objtool_and_the_quoted_copy() {
        let text = "make -f scripts/Makefile.build obj=a\n\
            set -e; exec >/dev/null; trap 'rm -f a/b.o; exit' INT; gcc-12 -Wp,-MMD,a/.b.o.d -DKBUILD_MODNAME='\"snd_pcm\"' '-DX=a b' -c -o a/b.o /src/a/b.c ; \
            ./tools/objtool/objtool --orc a/b.o; scripts/basic/fixdep a/.b.o.d a/b.o 'gcc-12 -DWRONG -c -o a/b.o /src/a/b.c' > a/.b.o.cmd\n";
        let found = command_in(text, "gcc-12", "a/b.o", "a/b.c", Path::new("/o")).unwrap();
        assert_eq!(
            found.args,
            [
                "-Wp,-MMD,a/.b.o.d",
                "-DKBUILD_MODNAME=\"snd_pcm\"",
                "-DX=a b",
                "-c",
                "-o",
                "a/b.o",
                "/src/a/b.c"
            ]
        );
        assert_eq!(found.define("KBUILD_MODNAME"), Some("\"snd_pcm\""));
        assert!(
            command_in(text, "gcc-12", "b.o", "b.c", Path::new("/o")).is_none(),
            "another object's command must not match"
        );
    }

    #[test]
    fn a_file_name_cannot_set_a_variable_or_leave_the_tree() {
        for bad in [
            "CC=touch x;.c",
            "$(shell id).c",
            "../a.c",
            "/etc/a.c",
            "-f.c",
            "a//b.c",
            "a.S",
            "a b.c",
        ] {
            assert!(plain_path(bad).is_err(), "{bad}");
        }
        assert_eq!(plain_path("drivers/net/ethernet/a-b_c.c"), Ok(()));
    }

    #[test]
    fn a_database_entry_is_matched_by_its_whole_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("compile_commands.json");
        std::fs::write(
            &file,
            r#"[{"directory":"/o","file":"/s/x/pcm.c","command":"gcc -DA -c /s/x/pcm.c"},
            {"directory":"/o","file":"/s/pcm.c","command":"gcc -DB='1 2' -c /s/pcm.c"}]"#,
        )
        .unwrap();
        let found = command_from_database(&file, Path::new("/s/pcm.c")).unwrap().unwrap();
        assert_eq!(found.args[0], "-DB=1 2");
        assert!(command_from_database(&file, Path::new("/s/other.c")).unwrap().is_none());
    }
}
