//! Runs a program for an extraction, and takes what it says, up to a limit: one of the kernel build's own, make or the
//! compiler, or an extraction tool.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Output, Stdio};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::Error;

/// The most that is taken of either kind of output, in bytes. A preprocessed kernel file has some 10 MiB.
const MOST: u64 = 64 << 20;

/// # Errors
/// It can't be started, or says more than anybody would read.
pub fn output(command: &mut Command) -> Result<Output, Error> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let failed = |source| Error::Tool {
        tool: tool.clone(),
        source,
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Side by side, for a full pipe holds the tool up.
    let talk = child.stderr.take().map(|pipe| std::thread::spawn(|| bounded(pipe)));
    let said = child.stdout.take().map_or(Ok(Vec::new()), bounded);
    if !matches!(&said, Ok(stdout) if stdout.len() as u64 <= MOST) {
        let _ = child.kill();
        let _ = child.wait();
    }
    let stdout = within(&tool, said.map_err(failed)?)?;
    let talk = talk.map_or(Ok(Vec::new()), |reading| reading.join().unwrap_or(Ok(Vec::new())));
    let stderr = within(&tool, talk.map_err(failed)?)?;
    let status = child.wait().map_err(failed)?;
    Ok(Output { status, stdout, stderr })
}

fn within(tool: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    if bytes.len() as u64 <= MOST {
        return Ok(bytes);
    }
    Err(Error::Flood {
        tool: tool.to_owned(),
        most: MOST >> 20,
    })
}

/// Runs an extraction tool with both kinds of output in one, as they come: kept in `log`, and handed on line by line to
/// this process's own errors, so that what it said before it was killed is known too.
///
/// # Errors
/// It can't be started, or says more than anybody would read.
pub fn logged(command: Command, log: &mut Vec<u8>) -> Result<ExitStatus, Error> {
    logged_up_to(MOST, command, log)
}

fn logged_up_to(most: u64, mut command: Command, log: &mut Vec<u8>) -> Result<ExitStatus, Error> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let failed = |source| Error::Tool {
        tool: tool.clone(),
        source,
    };
    let (said, pipe) = io::pipe().map_err(failed)?;
    let other = pipe.try_clone().map_err(failed)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(pipe)
        .stderr(other)
        .spawn()
        .map_err(failed)?;
    // It holds our ends of the pipe, which would never end.
    drop(command);
    let read = hand_on(said.take(most + 1), log);
    if !matches!(&read, Ok(bytes) if *bytes <= most) {
        let _ = child.kill();
        let _ = child.wait();
    }
    let bytes = read.map_err(failed)?;
    if bytes > most {
        return Err(Error::Flood { tool, most: most >> 20 });
    }
    child.wait().map_err(failed)
}

fn hand_on(said: impl Read, log: &mut Vec<u8>) -> io::Result<u64> {
    let mut said = BufReader::new(said);
    let mut bytes = 0;
    loop {
        let start = log.len();
        let read = said.read_until(b'\n', log)?;
        if read == 0 {
            return Ok(bytes);
        }
        bytes += read as u64;
        // Who doesn't listen misses nothing: it is all in the log.
        let _ = io::stderr().write_all(&log[start..]);
    }
}

/// One byte more than may be, so that it shows.
fn bounded(pipe: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.take(MOST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// For a tool that failed, in brackets, the limit that may be the reason: running out of memory looks like any failure.
pub fn limited(status: ExitStatus) -> String {
    match getrlimit(Resource::RLIMIT_AS) {
        Ok((limit, _)) if !status.success() && limit != RLIM_INFINITY => {
            format!(" (its memory was limited to {} MiB)", limit >> 20)
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_output_are_kept_in_their_order() {
        let mut log = b"command\n".to_vec();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo one; echo two >&2; printf three; exit 7"]);
        let status = logged(shell, &mut log).unwrap();
        assert_eq!(status.code(), Some(7));
        assert_eq!(log, b"command\none\ntwo\nthree");
    }

    #[test]
    fn a_flood_is_stopped() {
        let mut flood = Command::new("yes");
        flood.arg("more");
        let said = logged_up_to(5000, flood, &mut Vec::new());
        assert!(matches!(said, Err(Error::Flood { .. })), "{said:?}");
    }
}
