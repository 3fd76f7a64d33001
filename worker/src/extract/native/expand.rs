//! Asks the kernel's compiler what macro uses expand to.

use std::process::Command;

use crate::extract::compile_check::module_args;
use crate::extract::{Error, Request, tool};

/// Preprocesses `probe` with the file's own command.
pub fn preprocess(request: &Request, probe: &str) -> Result<String, Error> {
    let path = request.scratch.join("probe.c");
    super::write(&path, probe)?;
    let output = tool::output(
        Command::new(&request.command.compiler)
            .args(module_args(request))
            .args(["-E", "-P"])
            .arg(&path)
            .current_dir(&request.command.directory),
    )?;
    // Errors in it come back with the compile check, where they can be told against the whole source.
    if output.stdout.is_empty() {
        let talk = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Preprocess {
            file: request.file.clone(),
            why: talk.lines().next().unwrap_or("no output").to_owned() + &tool::limited(output.status),
        });
    }
    Ok(super::lexer::same_length_text(output.stdout))
}
