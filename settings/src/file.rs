//! A file of settings: its text, and the line of each.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::slip::{self, Slip};

/// The longest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("can't read the configuration {path}: {error}")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the configuration {path} has more than {MAX_FILE} bytes")]
    TooLong { path: PathBuf },
    #[error("the configuration {path}, {slip}")]
    Malformed { path: PathBuf, slip: Slip },
    /// What flags or the environment say does not go with the rest.
    #[error("the settings can't be put together: {0}")]
    Unfit(String),
}

/// A file of settings that was read.
#[derive(Clone, Debug)]
pub struct File {
    pub path: PathBuf,
    pub text: String,
}

impl File {
    /// The file that is named, which must be there, or the usual one if it is.
    ///
    /// # Errors
    /// It can't be read.
    pub fn find(named: Option<&Path>, usual: Option<&Path>) -> Result<Option<Self>, Problem> {
        match (named, usual) {
            (Some(path), _) => Self::read(path).map(Some),
            (None, None) => Ok(None),
            (None, Some(path)) => match Self::read(path) {
                Err(Problem::Unreadable { error, .. }) if is_absence(&error) => Ok(None),
                read => read.map(Some),
            },
        }
    }

    /// # Errors
    /// It can't be read.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let unreadable = |error| Problem::Unreadable {
            path: path.to_owned(),
            error,
        };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
        let path = path.to_owned();
        match text.len() as u64 > MAX_FILE {
            true => Err(Problem::TooLong { path }),
            false => Ok(Self { path, text }),
        }
    }

    /// # Errors
    /// The first slip, with its line.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        slip::parse(&self.text).map_err(|slip| Problem::Malformed {
            path: self.path.clone(),
            slip,
        })
    }

    /// The line of each setting, by its path from table to table.
    pub(crate) fn lines(&self) -> BTreeMap<Vec<String>, usize> {
        let mut lines = BTreeMap::new();
        // A text that is no TOML was refused before.
        if let Ok(table) = DeTable::parse(&self.text) {
            note(&self.text, table.get_ref(), &mut Vec::new(), &mut lines);
        }
        lines
    }
}

fn note(text: &str, table: &DeTable<'_>, path: &mut Vec<String>, lines: &mut BTreeMap<Vec<String>, usize>) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        match Spanned::get_ref(value) {
            DeValue::Table(inner) => note(text, inner, path, lines),
            _ => {
                let before = &text.as_bytes()[..key.span().start.min(text.len())];
                lines.insert(path.clone(), before.iter().filter(|byte| **byte == b'\n').count() + 1);
            }
        }
        path.pop();
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_must_be_there_and_the_usual_one_may() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent.toml");
        assert!(File::find(None, Some(&absent)).unwrap().is_none());
        let error = File::find(Some(&absent), None).unwrap_err().to_string();
        assert!(error.contains("absent.toml"), "{error}");
        let there = folder.path().join("there.toml");
        std::fs::write(&there, "a = 1").unwrap();
        assert_eq!(File::find(None, Some(&there)).unwrap().unwrap().path, there);
        // What is there and can't be read is not passed over.
        assert!(File::find(None, Some(folder.path())).is_err());
        std::fs::write(&there, "#".repeat(MAX_FILE as usize + 1)).unwrap();
        assert!(matches!(File::read(&there), Err(Problem::TooLong { .. })));
    }

    #[test]
    fn each_setting_has_its_line() {
        let file = File {
            path: PathBuf::new(),
            text: "# first\na = 1\nb.c = 2\n\n[d]\n\"15.8\" = \"x\"\n".to_owned(),
        };
        let lines = file.lines();
        let line = |path: &[&str]| lines[&path.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>()];
        assert_eq!([line(&["a"]), line(&["b", "c"]), line(&["d", "15.8"])], [2, 3, 6]);
    }
}
