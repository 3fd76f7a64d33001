//! What flags and the environment say over a file.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use serde::Serialize;
use toml::Table;

use crate::effective::Origin;
use crate::file::Problem;

/// Settings that were given as flags or in the environment, each with which it was.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub(crate) values: Table,
    pub(crate) origins: BTreeMap<String, Origin>,
}

impl Overrides {
    /// `given` is a struct of options whose fields are called like the settings that they stand before; those that were
    /// not given must not be serialised.
    ///
    /// # Errors
    /// A value has no TOML: a path that is no UTF-8.
    pub fn of(given: &impl Serialize, command: &Command, matches: &ArgMatches) -> Result<Self, Problem> {
        let values = Table::try_from(given).map_err(|error| Problem::Unfit(error.to_string()))?;
        let origins = values.keys().map(|key| (key.clone(), origin(key, command, matches)));
        Ok(Self {
            origins: origins.collect(),
            values,
        })
    }
}

fn origin(key: &str, command: &Command, matches: &ArgMatches) -> Origin {
    let option = command.get_arguments().find(|option| option.get_id() == key);
    let source = matches
        .try_contains_id(key)
        .ok()
        .and_then(|_| matches.value_source(key));
    let variable = option.and_then(|option| option.get_env());
    match (source, variable) {
        (Some(ValueSource::EnvVariable), Some(variable)) => {
            Origin::Environment(variable.to_string_lossy().into_owned())
        }
        _ => Origin::Flag(option.and_then(|option| option.get_long()).unwrap_or(key).to_owned()),
    }
}
