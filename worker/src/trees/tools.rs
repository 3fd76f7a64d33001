//! The programs and libraries that making a tree takes, and running them so that a failure explains itself.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use klp_livepatch::Arch;
use tokio_util::sync::CancellationToken;

use super::progress::Step;
use super::{TreeError, cross, disk};
use crate::process::{self, Command, End, Limits, Stream};

/// Lines of a failed program's output that its error shows.
const TAIL: usize = 15;

/// Runs programs for one tree.
pub(super) struct Tools<'a> {
    pub cancel: &'a CancellationToken,
    /// All output goes here.
    pub log: PathBuf,
}

impl Tools<'_> {
    /// Runs a program that must succeed; `detail` says how far it is, for the sign of life.
    pub(super) async fn run(
        &self,
        command: &Command,
        step: &mut Step<'_>,
        detail: &(dyn Fn() -> String + Sync),
    ) -> Result<(), TreeError> {
        let mut log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|e| disk::full_or_io("open", &self.log, e))?;
        let _ = writeln!(log, "$ {}", command.shown());
        let mut tail = VecDeque::new();
        let limits = Limits {
            wall: Duration::from_secs(2 * 3600),
            ..Limits::default()
        };
        let mut sink = |_: Stream, line: &str| {
            // A log that can't be written must not stop the work; the tail is there for the error.
            let _ = writeln!(log, "{line}");
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line.to_owned());
        };
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let finish = {
            let mut run = std::pin::pin!(process::run(command, &limits, self.cancel, &mut sink));
            loop {
                tokio::select! {
                    finish = &mut run => break finish?,
                    _ = tick.tick() => step.alive(&detail()),
                }
            }
        };
        match finish.end {
            End::Exited(0) => Ok(()),
            End::Cancelled => Err(TreeError::Interrupted),
            _ if tail.iter().any(|line| line.contains("No space left on device")) => Err(TreeError::DiskFull {
                path: self.log.parent().unwrap_or(&self.log).to_owned(),
                what: format!("`{}` couldn't write", command.shown()),
                free: disk::free_mib(&self.log).unwrap_or(0),
            }),
            _ => Err(TreeError::Refused(format!(
                "`{}` {}:\n{}\nthe whole log is {}",
                command.shown(),
                finish.describe(),
                Vec::from(tail)
                    .iter()
                    .map(|line| format!("    {line}"))
                    .collect::<Vec<_>>()
                    .join("\n"),
                self.log.display()
            ))),
        }
    }
}

/// Runs a program that must succeed and returns its standard output.
pub(super) async fn ask(command: &Command, cancel: &CancellationToken) -> Result<String, TreeError> {
    let limits = Limits {
        wall: Duration::from_secs(300),
        output_kept: 64 << 20,
        ..Limits::default()
    };
    let done = process::capture(command, &limits, cancel).await?;
    match done.finish.end {
        End::Exited(0) => Ok(done.stdout),
        End::Cancelled => Err(TreeError::Interrupted),
        _ => Err(TreeError::Refused(format!(
            "`{}` {}: {}",
            command.shown(),
            done.finish.describe(),
            done.stderr.trim()
        ))),
    }
}

/// The kernel's default for programs that run while it is built (HOSTCC).
const HOST_COMPILER: &str = "gcc";

/// Whether a program is in PATH.
pub(super) fn has_program(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// Checks for everything that preparing a kernel of this compiler takes; one error names all that is missing.
pub(super) async fn check(compiler: &str, cancel: &CancellationToken) -> Result<(), TreeError> {
    // Program and the Debian package that has it.
    let programs = [
        ("make", "make"),
        ("flex", "flex"),
        ("bison", "bison"),
        ("bc", "bc"),
        ("pahole", "pahole"),
        ("python3", "python3"),
        ("tar", "tar"),
        ("xz", "xz-utils"),
        ("sha256sum", "coreutils"),
    ];
    let mut missing: Vec<(String, String)> = programs
        .iter()
        .filter(|(program, _)| !has_program(program))
        .map(|(program, package)| ((*program).to_owned(), (*package).to_owned()))
        .collect();
    let package = |compiler: &str| cross::package(compiler, Arch::host());
    if !has_program(compiler) {
        missing.push((compiler.to_owned(), package(compiler)));
    }
    // The kernel's build makes programs for this machine with it, whatever the kernel's own compiler is.
    let has_compiler = has_program(HOST_COMPILER);
    if !has_compiler {
        missing.push((HOST_COMPILER.to_owned(), package(HOST_COMPILER)));
    }
    for (header, package) in [("libelf.h", "libelf-dev"), ("openssl/ssl.h", "libssl-dev")] {
        let found = if has_compiler {
            has_header(HOST_COMPILER, header, cancel).await?
        } else {
            Path::new("/usr/include").join(header).is_file()
        };
        if !found {
            missing.push((header.to_owned(), package.to_owned()));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let (things, packages): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
    Err(TreeError::Refused(format!(
        "preparing a kernel tree needs {}, missing here; install with: apt install {}",
        things.join(", "),
        packages.join(" ")
    )))
}

async fn has_header(compiler: &str, header: &str, cancel: &CancellationToken) -> Result<bool, TreeError> {
    let command = Command::new(compiler, "/").args(["-fsyntax-only", "-include", header, "-x", "c", "/dev/null"]);
    let limits = Limits::default();
    let done = process::capture(&command, &limits, cancel).await?;
    match done.finish.end {
        End::Cancelled => Err(TreeError::Interrupted),
        end => Ok(end.success()),
    }
}

/// The SHA-256 digest of a file, in hexadecimal digits.
pub(super) async fn sha256(path: &Path, cancel: &CancellationToken) -> Result<String, TreeError> {
    let out = ask(&Command::new("sha256sum", "/").arg("--").arg(path), cancel).await?;
    // A name with a backslash is announced by one before the digest; ours have none.
    Ok(out.split(' ').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_missing_is_named_with_its_package() {
        let none = CancellationToken::new();
        let error = check("gcc-99", &none).await.unwrap_err().to_string();
        assert!(error.contains("needs gcc-99") || error.contains(", gcc-99"), "{error}");
        assert!(
            error.contains("apt install gcc-99") || error.contains(" gcc-99 "),
            "{error}"
        );
    }

    #[tokio::test]
    async fn sha256_is_that_of_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abc").unwrap();
        assert_eq!(
            sha256(file.path(), &CancellationToken::new()).await.unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
