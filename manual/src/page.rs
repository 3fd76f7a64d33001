//! One man page: what clap_mangen makes of a command, and the sections that it has not.

use std::io::Write;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::epilogue::Epilogue;
use crate::lore::{self, Entry};

pub struct Page {
    /// As in `klp-farm-submit`.
    pub name: String,
    pub text: Vec<u8>,
}

/// The pages of a program that is built: its own, then those of its commands.
pub fn all(program: &Command) -> anyhow::Result<Vec<Page>> {
    let mut pages = Vec::new();
    add(program, program, &mut pages)?;
    Ok(pages)
}

fn add(program: &Command, command: &Command, pages: &mut Vec<Page>) -> anyhow::Result<()> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let name = name(command);
    pages.push(Page {
        text: text(program, command)?,
        name,
    });
    for command in shown {
        add(program, command, pages)?;
    }
    Ok(())
}

/// `klp-farm tree add` is told in klp-farm-tree-add(1).
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

fn text(program: &Command, command: &Command) -> anyhow::Result<Vec<u8>> {
    let title = name(command);
    let man = Man::new(command.clone())
        .title(title.to_uppercase())
        .section("1")
        .manual("klp-farm")
        .source(format!("klp-farm {}", env!("CARGO_PKG_VERSION")));
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let about = about.lines().next().unwrap_or_default().trim_end_matches('.');
    section("NAME", &mut out, |roff| {
        roff.text([roman(format!("{title} - {about}"))]);
    })?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.get_subcommands().any(|inner| !inner.is_hide_set()) {
        man.render_subcommands_section(&mut out)?;
    }
    let lore = lore::of(program.get_name());
    let is_program = command.get_name() == program.get_name();
    let help = command.get_after_long_help().or(command.get_after_help());
    let epilogue = Epilogue::of(&help.map(ToString::to_string).unwrap_or_default());
    if !epilogue.rest.is_empty() {
        verbatim("NOTES", &epilogue.rest, &mut out)?;
    }
    // A command's exit codes are its program's, unless it says otherwise in its description.
    let program_help = program.get_after_help().map(ToString::to_string).unwrap_or_default();
    let exit_codes = match epilogue.exit_codes.is_empty() {
        true => Epilogue::of(&program_help).exit_codes,
        false => epilogue.exit_codes,
    };
    if !exit_codes.is_empty() {
        verbatim("EXIT STATUS", exit_codes.trim_start_matches(' '), &mut out)?;
    }
    let own: Vec<_> = variables(command).collect();
    let general = if is_program { lore.environment } else { &[] };
    if !own.is_empty() || !general.is_empty() {
        section("ENVIRONMENT", &mut out, |roff| {
            for (variable, option) in &own {
                entry(roff, variable, &format!("Stands for {option}."));
            }
            entries(roff, general);
        })?;
    }
    if is_program {
        section("FILES", &mut out, |roff| entries(roff, lore.files))?;
    }
    if !epilogue.examples.is_empty() {
        verbatim("EXAMPLES", &epilogue.examples, &mut out)?;
    }
    section("SEE ALSO", &mut out, |roff| {
        let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set()).map(name);
        let above = Some(program.get_name().to_owned()).filter(|_| !is_program);
        let beside = lore.see_also.iter().map(|name| (*name).to_owned());
        let names: Vec<_> = above.into_iter().chain(inner).chain(beside).collect();
        let mut words = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let comma = if i + 1 == names.len() { "(1)" } else { "(1), " };
            words.extend([bold(name), roman(comma)]);
        }
        roff.text(words);
    })?;
    Ok(out)
}

/// The variables that stand for options, with the options.
fn variables(command: &Command) -> impl Iterator<Item = (String, String)> {
    let options = command.get_arguments().filter(|option| !option.is_hide_set());
    options.filter_map(|option| {
        let variable = option.get_env()?.to_string_lossy().into_owned();
        Some((variable, format!("--{}", option.get_long()?)))
    })
}

fn entries(roff: &mut Roff, entries: &[Entry]) {
    for (name, what) in entries {
        entry(roff, name, what);
    }
}

fn entry(roff: &mut Roff, name: &str, what: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    roff.text([roman(what)]);
}

fn section(title: &str, out: &mut dyn Write, fill: impl FnOnce(&mut Roff)) -> std::io::Result<()> {
    let mut roff = Roff::default();
    roff.control("SH", [title]);
    fill(&mut roff);
    roff.to_writer(out)
}

/// Lines as they are laid out.
fn verbatim(title: &str, text: &str, out: &mut dyn Write) -> std::io::Result<()> {
    section(title, out, |roff| {
        roff.control("nf", []);
        for line in text.lines() {
            match line.is_empty() {
                // A blank line is none of roff's.
                true => drop(roff.control("sp", [])),
                false => drop(roff.text([roman(line)])),
            }
        }
        roff.control("fi", []);
    })
}
