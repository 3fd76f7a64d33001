//! Runs one of the kernel build's own programs, make or the compiler, and takes what it says, up to a limit.

use std::io::{self, Read};
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
