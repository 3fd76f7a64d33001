//! What to run: program, arguments and surroundings, put together step by step.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::isolation::Cell;

/// What to run.
#[derive(Clone, Debug)]
pub struct Command {
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
    pub(super) dir: PathBuf,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) input: Option<PathBuf>,
    pub(super) output: Option<PathBuf>,
    pub(super) cell: Option<Cell>,
}

impl Command {
    /// `program` is a path, or a name looked up in PATH; it runs in `dir`.
    pub fn new(program: impl AsRef<OsStr>, dir: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            dir: dir.as_ref().to_owned(),
            env: Vec::new(),
            input: None,
            output: None,
            cell: None,
        }
    }

    /// Runs within a cell: behind this worker's fences, with what the cell shows. Its folder must be one of these.
    pub fn within(mut self, cell: &Cell) -> Self {
        self.cell = Some(cell.clone()).filter(Cell::is_closed);
        self
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// A file that is its standard input; without one it has none.
    pub fn input(mut self, path: impl AsRef<Path>) -> Self {
        self.input = Some(path.as_ref().to_owned());
        self
    }

    /// A new file that takes its standard output as it is, up to [`super::Limits::output`]: for what is not lines of text.
    pub fn output(mut self, path: impl AsRef<Path>) -> Self {
        self.output = Some(path.as_ref().to_owned());
        self
    }

    /// The program's name without its folder.
    pub(super) fn name(&self) -> String {
        let name = Path::new(&self.program).file_name().unwrap_or(&self.program);
        name.to_string_lossy().into_owned()
    }

    /// Program and arguments for a log, quoted where a shell would need it.
    pub fn shown(&self) -> String {
        std::iter::once(&self.program)
            .chain(&self.args)
            .map(|word| quote(&word.to_string_lossy()))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=+,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
