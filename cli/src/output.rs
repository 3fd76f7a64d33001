//! How results and errors leave the program.

use std::io::IsTerminal;
use std::process::ExitCode;

use klp_livepatch::spec::Violation;
use klp_proto::convert::violations_of;
use klp_telemetry::redact;
use serde::Serialize;

use crate::plain;

pub use klp_proto::view::words::{ago, duration};

/// One type for all commands, `tree` included: clap hands a global option down by name and type.
pub use klp_worker::tree_cli::Output as Mode;

/// Why a command did not succeed; decides the exit code.
#[derive(Debug)]
pub enum Failed {
    /// What was asked is not valid: exit code 2.
    Invalid(Vec<Violation>),
    /// The livepatch ended, and not every codestream succeeded: exit code 3. Everything was said already.
    NotAllSucceeded,
    /// Wrong usage that the command line alone does not show: exit code 2.
    Usage(String),
    /// Exit code 1. Everything was said already.
    Told,
    /// Ctrl-C: exit code 130.
    Interrupted,
    /// All else: exit code 1.
    Error(anyhow::Error),
}

impl Failed {
    pub fn report(self) -> ExitCode {
        match self {
            Failed::Invalid(violations) => {
                eprintln!("error: this request is not valid; nothing was stored:");
                for violation in violations {
                    eprintln!("  {}", plain::lines(&violation.to_string()));
                }
                ExitCode::from(2)
            }
            Failed::Usage(message) => {
                eprintln!("error: {}", plain::lines(&message));
                ExitCode::from(2)
            }
            Failed::Told => ExitCode::FAILURE,
            Failed::NotAllSucceeded => ExitCode::from(3),
            Failed::Interrupted => ExitCode::from(130),
            Failed::Error(error) => {
                eprintln!("error: {}", plain::lines(&redact::scrub(&format!("{error:#}"))));
                ExitCode::FAILURE
            }
        }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failed::Invalid(violations) => violations.iter().try_for_each(|violation| write!(f, "{violation}; ")),
            Failed::Usage(message) => f.write_str(message),
            Failed::Told => f.write_str("failed"),
            Failed::NotAllSucceeded => f.write_str("not all succeeded"),
            Failed::Interrupted => f.write_str("interrupted"),
            Failed::Error(error) => f.write_str(&redact::scrub(&format!("{error:#}"))),
        }
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Failed::Error(error)
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Failed::Error(error.into())
    }
}

impl From<tonic::Status> for Failed {
    fn from(status: tonic::Status) -> Self {
        match violations_of(&status) {
            violations if !violations.is_empty() => Failed::Invalid(violations),
            _ => Failed::Error(anyhow::anyhow!("{}", status.message())),
        }
    }
}

/// Prints a value as JSON; a closed pipe is not an error.
pub fn json(value: &impl Serialize) -> Result<(), Failed> {
    let text = serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?;
    print(&text)
}

/// Prints a value as one line of JSON.
pub fn json_line(value: &impl Serialize) -> Result<(), Failed> {
    let text = serde_json::to_string(value).map_err(anyhow::Error::from)?;
    print(&text)
}

/// Says something on standard error that others have worded. None of it steers a terminal.
pub fn tell(text: &str) {
    eprintln!("{}", plain::lines(text));
}

/// Prints a text and ends its last line. A terminal gets none of it that would steer it, but for colours.
pub fn print(text: &str) -> Result<(), Failed> {
    match std::io::stdout().is_terminal() {
        true => Ok(klp_worker::tree_cli::print(&plain::coloured(text))?),
        false => Ok(klp_worker::tree_cli::print(text)?),
    }
}

/// Whether whoever looks wants colours.
pub fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Whether standard output takes colours.
pub fn colours() -> bool {
    std::io::stdout().is_terminal() && wants_colours()
}

/// An empty table in the style of all our tables.
pub fn table(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_header(header.iter().copied());
    if !colours() {
        table.force_no_tty();
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

pub fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
