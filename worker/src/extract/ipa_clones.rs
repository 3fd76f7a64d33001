//! Where gcc's account of its inlining and cloning for one source file is: the `.ipa-clones` file. klp-ccp and
//! clang-extract read it to find the callers a function went into.
//!
//! Kernels that are built to be livepatched have one beside each object. For others it is made by the file's own compile
//! command, from which the same compiler makes the same choices.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Error, Request, compile_check, tool};

/// What gcc appends to a dump's base name: its number among the passes, and its name.
const SUFFIX: &str = ".000i.ipa-clones";

/// The name of a dump made here.
const BASE: &str = "own";

/// An `.ipa-clones` file and how it came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpaClones {
    pub path: PathBuf,
    /// True if it came with the kernel; false if it was made now, from the source as it is now.
    pub shipped: bool,
}

/// The file that came with the kernel's objects, or one made in `dir`.
///
/// # Errors
/// The compiler can't be started, or rejects the kernel's own file.
pub fn find_or_make(request: &Request, dir: &Path) -> Result<IpaClones, Error> {
    let shipped = request.obj_dir.join(format!("{}{SUFFIX}", request.file));
    if shipped.is_file() {
        return Ok(IpaClones {
            path: shipped,
            shipped: true,
        });
    }
    let path = make(request, dir)?;
    Ok(IpaClones { path, shipped: false })
}

fn make(request: &Request, dir: &Path) -> Result<PathBuf, Error> {
    let path = dir.join(format!("{BASE}{SUFFIX}"));
    let io = |source| Error::Io {
        action: "write",
        path: path.clone(),
        source,
    };
    // gcc writes none for a file without functions.
    std::fs::write(&path, "").map_err(io)?;
    let dump = format!("-fdump-ipa-clones={}", path.display());
    let run = tool::output(
        Command::new(&request.command.compiler)
            .args(compile_check::own_args(request))
            .args(["-w", &dump, "-c", "-o"])
            .arg(dir.join(format!("{BASE}.o")))
            .arg(request.src_dir.join(&request.file))
            .current_dir(&request.command.directory)
            .env("LC_ALL", "C"),
    )?;
    if run.status.success() {
        return Ok(path);
    }
    let talk = String::from_utf8_lossy(&run.stderr);
    let first = talk.lines().find(|l| l.contains("error")).unwrap_or("no message");
    Err(Error::Preprocess {
        file: request.file.clone(),
        why: format!(
            "{} does not compile it as it is, to tell what it inlines: {first}{}",
            request.command.compiler,
            tool::limited(run.status)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::CompileCommand;

    fn request(dir: &Path) -> Request {
        for part in ["src", "obj", "scratch"] {
            std::fs::create_dir_all(dir.join(part)).unwrap();
        }
        let source = dir.join("src/a.c");
        std::fs::write(
            &source,
            "static inline int twice(int x) { return 2 * x; }\nint f(int x) { return twice(x) + 1; }\n",
        )
        .unwrap();
        Request {
            arch: klp_livepatch::Arch::X86_64,
            file: "a.c".into(),
            functions: vec!["f".into()],
            object: "vmlinux".into(),
            src_dir: dir.join("src"),
            obj_dir: dir.join("obj"),
            command: CompileCommand {
                compiler: "gcc".into(),
                args: ["-O2", "-Wp,-MMD,a.d", "-c", "-o", "a.o", &source.to_string_lossy()]
                    .map(str::to_owned)
                    .to_vec(),
                directory: dir.join("obj"),
            },
            scratch: dir.join("scratch"),
            avoid: Vec::new(),
            unpatched: None,
        }
    }

    #[test]
    fn a_missing_file_is_made_without_writing_beside_the_objects() {
        let dir = tempfile::tempdir().unwrap();
        let request = request(dir.path());
        let made = find_or_make(&request, &request.scratch).unwrap();
        assert!(!made.shipped && made.path.starts_with(&request.scratch));
        let text = std::fs::read_to_string(&made.path).unwrap();
        assert!(text.contains("Callgraph") && text.contains("twice"), "{text}");
        assert_eq!(std::fs::read_dir(&request.obj_dir).unwrap().count(), 0);
    }

    #[test]
    fn one_that_came_with_the_kernel_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let request = request(dir.path());
        let shipped = request.obj_dir.join("a.c.000i.ipa-clones");
        std::fs::write(&shipped, "").unwrap();
        let found = find_or_make(&request, &request.scratch).unwrap();
        assert_eq!((found.path, found.shipped), (shipped, true));
    }
}
