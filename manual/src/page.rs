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
    pub text: String,
}

/// The pages of a program that is built: its own, then those of its commands.
pub fn all(program: &Command, date: &str) -> anyhow::Result<Vec<Page>> {
    let mut pages = Vec::new();
    add(program, program, date, &mut pages)?;
    Ok(pages)
}

fn add(program: &Command, command: &Command, date: &str, pages: &mut Vec<Page>) -> anyhow::Result<()> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let name = name(command);
    pages.push(Page {
        text: tidy(&text(program, command, date)?),
        name,
    });
    for command in shown {
        add(program, command, date, pages)?;
    }
    Ok(())
}

/// Without line breaks that clap_mangen sets beside a blank line, where they break nothing.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let is_blank = |at: Option<usize>| at.and_then(|at| lines.get(at)).is_some_and(|line| line.is_empty());
    let kept = lines.iter().enumerate().filter(|(at, line)| {
        let beside_blank = is_blank(at.checked_sub(1)) || is_blank(Some(at + 1));
        **line != ".br" || !beside_blank
    });
    let kept = kept.map(|(_, line)| if line.is_empty() { ".sp" } else { line });
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// `klp-farm tree add` is told in klp-farm-tree-add(1).
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

fn text(program: &Command, command: &Command, date: &str) -> anyhow::Result<String> {
    let title = name(command);
    let man = Man::new(command.clone())
        .title(title.to_uppercase())
        .section("1")
        .date(date)
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
        laid_out("NOTES", &epilogue.rest, &mut out)?;
    }
    // A command's exit codes are its program's, unless it says otherwise in its description.
    let program_help = program.get_after_help().map(ToString::to_string).unwrap_or_default();
    let exit_codes = match epilogue.exit_codes.is_empty() {
        true => Epilogue::of(&program_help).exit_codes,
        false => epilogue.exit_codes,
    };
    if !exit_codes.is_empty() {
        laid_out("EXIT STATUS", &exit_codes, &mut out)?;
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
        laid_out("EXAMPLES", &epilogue.examples, &mut out)?;
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
    Ok(String::from_utf8(out)?)
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

/// A section whose paragraphs are filled, but for those that are laid out: some of their lines are indented.
fn laid_out(title: &str, text: &str, out: &mut dyn Write) -> std::io::Result<()> {
    section(title, out, |roff| {
        for (i, paragraph) in text.split("\n\n").enumerate() {
            let paragraph = paragraph.trim_matches('\n');
            let is_laid_out = paragraph.lines().count() > 1 && paragraph.lines().any(|line| line.starts_with(' '));
            if i > 0 {
                roff.control("PP", []);
            }
            if is_laid_out {
                roff.control("nf", []);
            }
            for line in paragraph.lines() {
                let line = if is_laid_out { line } else { line.trim() };
                roff.text([roman(line)]);
            }
            if is_laid_out {
                roff.control("fi", []);
            }
        }
    })
}
