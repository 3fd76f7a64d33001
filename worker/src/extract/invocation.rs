//! How an extraction tool is started: decided in one place, run by whoever needs it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::process;

/// A program with all that it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Variables beside those every child keeps.
    pub env: Vec<(&'static str, OsString)>,
    pub dir: PathBuf,
}

impl Invocation {
    pub fn new(program: &Path, dir: &Path) -> Self {
        Self {
            program: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            dir: dir.to_owned(),
        }
    }

    pub fn arg(&mut self, arg: impl Into<OsString>) {
        self.args.push(arg.into());
    }

    /// An argument of the form `NAME=PATH`.
    pub fn path_arg(&mut self, name: &str, path: &Path) {
        let mut arg = OsString::from(name);
        arg.push("=");
        arg.push(path);
        self.args.push(arg);
    }

    pub fn env(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.env.push((name, value.into()));
    }

    /// For a log: where, with which variables, and the command as a shell would take it.
    pub fn shown(&self) -> String {
        let mut out = format!("in {}\n", self.dir.display());
        for (name, value) in &self.env {
            // Writing to a String can't fail.
            let _ = writeln!(out, "{name}={}", value.to_string_lossy());
        }
        let _ = writeln!(out, "{}", self.to_child().shown());
        out
    }

    /// The command line in one list, variables first.
    pub fn words(&self) -> Vec<String> {
        let variables = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_string_lossy()));
        let program = self.program.file_name().unwrap_or(self.program.as_os_str());
        let words = std::iter::once(program).chain(self.args.iter().map(OsString::as_os_str));
        variables
            .chain(words.map(|word| word.to_string_lossy().into_owned()))
            .collect()
    }

    /// As a child of the worker.
    pub fn to_child(&self) -> process::Command {
        let command = process::Command::new(&self.program, &self.dir).args(&self.args);
        self.env
            .iter()
            .fold(command, |command, (name, value)| command.env(name, value))
    }

    /// As a child of the process that does one extraction.
    pub fn to_command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args).envs(self.env.clone()).current_dir(&self.dir);
        command
    }
}
