//! What is in force: file, environment and flags put together, each value with where it comes from.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::file::{File, Problem};
use crate::overrides::Overrides;

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { path, line } => write!(out, "{}:{line}", path.display()),
            Self::Environment(variable) => write!(out, "environment: {variable}"),
            Self::Flag(flag) => write!(out, "--{flag}"),
        }
    }
}

/// Settings that are in force.
#[derive(Clone, Debug)]
pub struct Effective<T> {
    pub settings: T,
    lines: BTreeMap<Vec<String>, usize>,
    path: Option<PathBuf>,
    overrides: BTreeMap<String, Origin>,
}

impl<T: Serialize + DeserializeOwned> Effective<T> {
    /// # Errors
    /// The file holds what is no setting or no value for one.
    pub fn new(file: Option<&File>, overrides: &Overrides) -> Result<Self, Problem> {
        let mut table = Table::new();
        if let Some(file) = file {
            // By itself first: what is wrong with it is told with its line.
            file.parse::<T>()?;
            table = file.parse()?;
        }
        table.extend(overrides.values.clone());
        Ok(Self {
            settings: table.try_into().map_err(|error| Problem::Unfit(error.to_string()))?,
            lines: file.map(File::lines).unwrap_or_default(),
            path: file.map(|file| file.path.clone()),
            overrides: overrides.origins.clone(),
        })
    }

    /// Where the setting with this path, from table to table, comes from.
    pub fn origin(&self, path: &[String]) -> Origin {
        let over = path.first().and_then(|key| self.overrides.get(key));
        match (over, &self.path, self.lines.get(path)) {
            (Some(origin), ..) => origin.clone(),
            (None, Some(path), Some(line)) => Origin::File {
                path: path.clone(),
                line: *line,
            },
            _ => Origin::Default,
        }
    }

    /// As a configuration file with a note at each setting where it comes from.
    ///
    /// # Errors
    /// A value has no TOML: a path that is no UTF-8.
    pub fn explained(&self) -> Result<String, Problem> {
        let table = Table::try_from(&self.settings).map_err(|error| Problem::Unfit(error.to_string()))?;
        let mut text = String::new();
        self.explain(&table, &mut Vec::new(), &mut text);
        Ok(text)
    }

    fn explain(&self, table: &Table, path: &mut Vec<String>, text: &mut String) {
        let (tables, plain): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
        let line = |key: &str, value: &Value| format!("{} = {value}", bare(key));
        let width = plain.iter().map(|(key, value)| line(key, value).chars().count());
        // One long list of names is not to move all notes out of sight.
        let width = width.filter(|width| *width <= 60).max().unwrap_or(0);
        for (key, value) in plain {
            path.push(key.clone());
            let origin = self.origin(path);
            // Writing to a String can't fail.
            let _ = writeln!(text, "{:<width$}  # {origin}", line(key, value));
            path.pop();
        }
        for (key, value) in tables {
            let Value::Table(inner) = value else { continue };
            path.push(key.clone());
            let name: Vec<_> = path.iter().map(|key| bare(key)).collect();
            let _ = writeln!(text, "\n[{}]", name.join("."));
            self.explain(inner, path, text);
            path.pop();
        }
    }
}

/// A key as TOML wants it.
fn bare(key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    match !key.is_empty() && key.chars().all(plain) {
        true => key.to_owned(),
        false => Value::String(key.to_owned()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _, Parser};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        listen: String,
        slots: u32,
        memory: u64,
        branches: BTreeMap<String, String>,
    }

    #[derive(Parser, Serialize)]
    struct Options {
        #[arg(long, env = "KLP_SETTINGS_TEST_LISTEN")]
        #[serde(skip_serializing_if = "Option::is_none")]
        listen: Option<String>,
        #[arg(long)]
        #[serde(skip_serializing_if = "Option::is_none")]
        slots: Option<u32>,
    }

    fn effective(text: &str, words: &[&str]) -> Effective<Settings> {
        let matches = Options::command().get_matches_from([&["program"], words].concat());
        let given = Options::from_arg_matches(&matches).unwrap();
        let overrides = Overrides::of(&given, &Options::command(), &matches).unwrap();
        let file = File {
            path: "/etc/x.toml".into(),
            text: text.to_owned(),
        };
        Effective::new(Some(&file), &overrides).unwrap()
    }

    #[test]
    fn a_flag_counts_before_the_file_and_each_value_says_whence_it_is() {
        let found = effective(
            "listen = \"a\"\nslots = 1\n[branches]\n\"15.8\" = \"b\"\n",
            &["--slots", "7"],
        );
        assert_eq!((found.settings.listen.as_str(), found.settings.slots), ("a", 7));
        let text = found.explained().unwrap();
        let notes: Vec<_> = text.lines().filter_map(|line| line.split_once("  # ")).collect();
        let notes: Vec<_> = notes.iter().map(|(value, note)| (value.trim(), note.trim())).collect();
        assert_eq!(
            notes,
            [
                ("listen = \"a\"", "/etc/x.toml:1"),
                ("memory = 0", "default"),
                ("slots = 7", "--slots"),
                ("\"15.8\" = \"b\"", "/etc/x.toml:4"),
            ]
        );
        // What is shown can be used as a file.
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), found.settings);
    }

    #[test]
    fn a_slip_in_the_file_is_told_even_where_a_flag_counts() {
        let file = File {
            path: "/etc/x.toml".into(),
            text: "\nslots = \"many\"\n".to_owned(),
        };
        let mut overrides = Overrides::default();
        overrides.values.insert("slots".to_owned(), Value::Integer(3));
        let error = Effective::<Settings>::new(Some(&file), &overrides)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("the configuration /etc/x.toml, line 2: slots: "),
            "{error}"
        );
    }
}
