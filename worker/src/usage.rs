//! Wrong usage, told without the environment: what a variable sets is no part of what somebody has to type, though clap shows
//! it among that once something required is missing.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, Command, CommandFactory, Error, Parser};

/// The program's arguments as they were found; where they are wrong, says so and ends the process.
pub fn matches<P: CommandFactory>() -> ArgMatches {
    let args: Vec<OsString> = std::env::args_os().collect();
    let found = P::command().try_get_matches_from(&args);
    found.unwrap_or_else(|error| plain(error, P::command(), &args).exit())
}

/// The program's arguments; where they are wrong, says so and ends the process.
pub fn parse<P: Parser>() -> P {
    let args: Vec<OsString> = std::env::args_os().collect();
    P::try_parse_from(&args).unwrap_or_else(|error| plain(error, P::command(), &args).exit())
}

/// The error with the plain usage of the command that it is about.
fn plain(mut error: Error, mut command: Command, args: &[OsString]) -> Error {
    if error.get(ContextKind::Usage).is_none() {
        return error;
    }
    // Which command is meant shows however wrong the rest is.
    let Ok(matches) = command.clone().ignore_errors(true).try_get_matches_from(args) else {
        return error;
    };
    command.build();
    let (mut meant, mut matches) = (&mut command, &matches);
    while let Some((name, inner)) = matches.subcommand() {
        matches = inner;
        match meant.find_subcommand_mut(name) {
            Some(found) => meant = found,
            None => return error,
        }
    }
    let usage = meant.render_usage();
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    error
}
