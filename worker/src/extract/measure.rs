//! Measures what an extraction was made from and with. It is done where the extraction is, right behind it: what another
//! process looks at later may be something else.
//!
//! What the command lines say of this machine's folders is replaced by words, so that two workers measure alike.

use std::path::{Path, PathBuf};
use std::process::Command;

use klp_livepatch::provenance::{Digests, Sha256};
use serde::{Deserialize, Serialize};

use super::{Engine, Error, Extraction, Request, compile_check, tool};
use crate::trees::overlay::replaced;

/// What was measured of one target's extraction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The source file as it was read.
    pub source: Digests,
    pub command: Vec<String>,
    pub compile: Vec<String>,
    /// The compiler, as it names itself.
    pub compiler: String,
    /// Of the tool's executable, if it is a program of its own.
    pub tool: Option<Sha256>,
}

/// # Errors
/// A file can't be read, or the compiler not be started.
pub(super) fn measure(
    request: &Request,
    engine: &Engine,
    symvers: &Path,
    extraction: &Extraction,
) -> Result<Measured, Error> {
    let (program, policy) = match engine {
        Engine::Native => (None, None),
        Engine::Ccp(ccp) => (Some(&ccp.program), ccp.policy.as_deref()),
        Engine::ClangExtract(tool) => (Some(&tool.program), None),
    };
    let places = Places::of(request, symvers, policy);
    Ok(Measured {
        source: Digests::of(&read(&request.src_dir.join(&request.file))?),
        command: places.stable(&extraction.command),
        compile: places.stable(&compile_check::command_line(request)),
        compiler: compiler(&request.command.compiler)?,
        tool: program
            .map(|program| read(program).map(|bytes| Sha256::of(&bytes)))
            .transpose()?,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// The first line of what it says of its version.
fn compiler(program: &str) -> Result<String, Error> {
    let said = tool::output(Command::new(program).arg("--version").env("LC_ALL", "C"))?;
    let said = String::from_utf8_lossy(&said.stdout);
    Ok(said.lines().next().unwrap_or_default().chars().take(200).collect())
}

/// Folders of this machine, and what they are called instead; those within another come before it.
struct Places(Vec<(String, &'static str)>);

impl Places {
    fn of(request: &Request, symvers: &Path, policy: Option<&str>) -> Self {
        let mut places: Vec<(PathBuf, &'static str)> = Vec::new();
        let source = match &request.unpatched {
            Some(unpatched) => {
                places.push((request.src_dir.clone(), "${patched}"));
                &unpatched.src_dir
            }
            None => &request.src_dir,
        };
        places.push((source.clone(), "${source}"));
        if request.obj_dir != request.src_dir {
            places.push((request.obj_dir.clone(), "${objects}"));
        }
        places.push((request.scratch.clone(), "${scratch}"));
        places.push((symvers.to_owned(), "${symvers}"));
        let folders = policy.into_iter().flat_map(|folders| folders.split(':'));
        places.extend(folders.map(|folder| (folder.into(), "${policy}")));
        // The build may name a folder by where it really is.
        let real: Vec<_> = places
            .iter()
            .filter_map(|(path, word)| Some((path.canonicalize().ok()?, *word)))
            .collect();
        places.extend(real);
        // An empty path is in everything.
        places.retain(|(path, _)| path.is_absolute() && path.parent().is_some());
        places.sort_by_key(|(path, _)| std::cmp::Reverse(path.as_os_str().len()));
        let places = places.into_iter();
        Self(
            places
                .map(|(path, word)| (path.to_string_lossy().into_owned(), word))
                .collect(),
        )
    }

    fn stable(&self, words: &[String]) -> Vec<String> {
        let stable = |word: &String| {
            let by = |word: String, (path, name): &(String, &str)| replaced(&word, path, name);
            self.0.iter().fold(word.clone(), by)
        };
        words.iter().map(stable).collect()
    }
}

#[cfg(test)]
mod tests {
    use klp_livepatch::Arch;

    use super::*;
    use crate::extract::{CompileCommand, Unpatched};

    #[test]
    fn two_machines_folders_become_the_same_words() {
        let words = |root: &str| {
            let command = CompileCommand {
                compiler: "gcc".into(),
                args: Vec::new(),
                directory: format!("{root}/tree/obj").into(),
            };
            let request = Request {
                arch: Arch::X86_64,
                file: "a.c".into(),
                functions: Vec::new(),
                object: "vmlinux".into(),
                src_dir: format!("{root}/work/1/view").into(),
                obj_dir: format!("{root}/tree/obj").into(),
                command: command.clone(),
                scratch: format!("{root}/work/1").into(),
                avoid: Vec::new(),
                unpatched: Some(Unpatched {
                    src_dir: format!("{root}/tree").into(),
                    command,
                }),
            };
            let symvers = format!("{root}/tree/obj/Module.symvers");
            let places = Places::of(&request, Path::new(&symvers), Some("/opt/policy:/opt/more"));
            let given = [
                format!("-I{root}/work/1/view/include"),
                format!("-fmacro-prefix-map={root}/tree/=./"),
                format!("{root}/work/1/tool-1/x.c"),
                format!("KCP_MOD_SYMVERS={symvers}"),
                format!("{root}/tree/obj/a"),
                format!("{root}/tree-other"),
                "P=/opt/policy:/opt/more".to_owned(),
            ];
            places.stable(&given)
        };
        let here = words("/a");
        let expected = [
            "-I${patched}/include",
            "-fmacro-prefix-map=${source}/=./",
            "${scratch}/tool-1/x.c",
            "KCP_MOD_SYMVERS=${symvers}",
            "${objects}/a",
            "/a/tree-other",
            "P=${policy}:${policy}",
        ];
        assert_eq!(here, expected);
        let there = words("/b/c");
        assert_eq!(here[..5], there[..5]);
    }
}
