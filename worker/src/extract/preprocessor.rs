//! What the preprocessor says of a file, asked with the file's own compiler and flags.

use std::path::Path;
use std::process::Command;

use super::{Error, Request, compile_check, tool};

/// Preprocesses the request's file with further arguments, and answers what is said on standard output.
///
/// # Errors
/// The compiler can't be started, or refuses the file: its first error.
pub(super) fn ask(request: &Request, arguments: &[&str]) -> Result<String, Error> {
    let file = request.src_dir.join(&request.file);
    run(request, compile_check::own_args(request), arguments, &file)
}

/// As [`ask`], of a livepatch's source made of the request's file.
///
/// # Errors
/// As [`ask`], and if the scratch folder can't be written to.
pub(super) fn ask_of(request: &Request, source: &str, arguments: &[&str]) -> Result<String, Error> {
    let file = request.scratch.join("asked.c");
    std::fs::write(&file, source).map_err(|source| Error::Io {
        action: "write",
        path: file.clone(),
        source,
    })?;
    run(request, compile_check::module_args(request), arguments, &file)
}

fn run(request: &Request, args: Vec<String>, arguments: &[&str], file: &Path) -> Result<String, Error> {
    let run = tool::output(
        Command::new(&request.command.compiler)
            .args(args)
            .arg("-w")
            .args(arguments)
            .arg(file)
            .current_dir(&request.command.directory)
            .env("LC_ALL", "C"),
    )?;
    if !run.status.success() {
        let talk = String::from_utf8_lossy(&run.stderr);
        let first = talk.lines().find(|l| l.contains("error")).unwrap_or("no message");
        return Err(Error::Preprocess {
            file: request.file.clone(),
            why: format!("{first}{}", tool::limited(run.status)),
        });
    }
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}
