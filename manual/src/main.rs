//! Writes the man pages and shell completions of all programs into a folder, from their own command lines:
//! `klp-manual FOLDER DATE`. What can't be read from a command line is in [`lore`].

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _, Parser};
use clap_complete::Shell;

mod epilogue;
mod lore;
mod page;

/// Writes man pages to FOLDER/man and shell completions to FOLDER/completions
#[derive(Parser)]
struct Args {
    folder: PathBuf,
    /// What the pages say they are of, as in 2026-11-26
    date: String,
}

fn main() -> anyhow::Result<()> {
    let Args { folder, date } = Args::parse();
    for program in programs() {
        write(program, &date, &folder).with_context(|| format!("can't write to {}", folder.display()))?;
    }
    Ok(())
}

fn programs() -> [Command; 3] {
    [
        klp_farm::command(),
        klp_coordinator::cli::Args::command(),
        klp_worker::cli::Cli::command(),
    ]
}

/// Writes a program's pages, one for itself and one for each of its commands, and its completions.
fn write(mut program: Command, date: &str, folder: &Path) -> anyhow::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    // With all that clap adds by itself, but for the command `help`.
    program = program.disable_help_subcommand(true);
    program.build();
    for page in page::all(&program, date)? {
        fs::write(man.join(format!("{}.1", page.name)), page.text)?;
    }
    let name = program.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut program, &name, &completions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
