//! The compile check, the same for every backend: does the source compile as part of a module, with the kernel's own compiler
//! and flags, and can everything it leaves undefined be resolved?

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use object::{Object, ObjectSymbol};
use serde::{Deserialize, Serialize};

use super::{Error, Extraction, Request, Symbols, tool};

/// What the check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileCheck {
    /// True if it compiled, every replacement is there, and nothing is left unresolved.
    pub ok: bool,
    /// The compiler's first errors, each with the line of the source it is about.
    pub errors: Vec<String>,
    /// Lines of the source with errors.
    pub error_lines: Vec<usize>,
    /// Replacements the object does not define.
    pub missing_functions: Vec<String>,
    /// Undefined symbols that are neither exported nor supplied by the module's own making.
    pub unresolved: Vec<String>,
}

impl CompileCheck {
    /// The first finding, in a line.
    pub fn summary(&self) -> String {
        match (
            self.errors.first(),
            self.missing_functions.first(),
            self.unresolved.first(),
        ) {
            (Some(e), ..) => e.clone(),
            (_, Some(f), _) => format!("{f} is not defined"),
            (_, _, Some(u)) => format!("{u} is left unresolved"),
            _ => "it compiles".into(),
        }
    }

    /// How bad it is; less is better.
    pub(crate) fn score(&self) -> usize {
        self.errors.len() * 100 + self.missing_functions.len() * 10 + self.unresolved.len()
    }
}

/// At most so many compiler errors are kept.
const MAX_ERRORS: usize = 20;

/// Symbols the linker, modpost or the module loader (`.TOC.`, on ppc64le) makes for any module.
const MADE: [&str; 3] = ["__this_module", "_GLOBAL_OFFSET_TABLE_", ".TOC."];

/// The file's own arguments as a module of the livepatch is compiled.
pub fn module_args(request: &Request) -> Vec<String> {
    let mut out = own_args(request);
    if !request.command.is_module() {
        out.push("-DMODULE".into());
    }
    out.extend(["-iquote".into(), request.src_dir.to_string_lossy().into_owned()]);
    out
}

/// The file's own arguments without the source, the output and the dependency file.
pub fn own_args(request: &Request) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = request.command.args.iter().peekable();
    let source = format!("/{}", request.file);
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-o" | "-MF" | "-MT" | "-MQ" => {
                rest.next();
            }
            "-c" | "-S" | "-E" | "-MD" | "-MMD" | "-MP" => {}
            a if a.starts_with("-Wp,-M") => {}
            a if !a.starts_with('-') && (a == request.file || a.ends_with(&source)) => {}
            _ => out.push(arg.clone()),
        }
    }
    out
}

/// How the extraction is compiled: the compiler, then its arguments.
pub fn command_line(request: &Request) -> Vec<String> {
    let own = request.as_unpatched();
    let request = own.as_ref().unwrap_or(request);
    let mut words = vec![request.command.compiler.clone()];
    words.extend(module_args(request));
    // No -w: it would silence what the kernel's flags make an error of, such as an undeclared function.
    words.extend(["-fno-diagnostics-color", "-c", "-o"].map(str::to_owned));
    let (source, output) = files(request);
    words.extend([output, source].map(|path| path.to_string_lossy().into_owned()));
    words
}

/// The source and the object, in the scratch directory.
fn files(request: &Request) -> (PathBuf, PathBuf) {
    (request.scratch.join("livepatch.c"), request.scratch.join("livepatch.o"))
}

/// Compiles the extraction in the request's scratch directory and looks at the object.
///
/// # Errors
/// When the compiler can't be started or a file can't be written; a source that doesn't compile is a finding, not an error.
pub fn check(request: &Request, symbols: &dyn Symbols, extraction: &Extraction) -> Result<CompileCheck, Error> {
    let own = request.as_unpatched();
    let request = own.as_ref().unwrap_or(request);
    let (source, output) = files(request);
    let io = |action, path: &std::path::Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    std::fs::write(&source, &extraction.source).map_err(io("write", &source))?;
    let run = tool::output(
        Command::new(&request.command.compiler)
            .args(&command_line(request)[1..])
            .current_dir(&request.command.directory)
            .env("LC_ALL", "C"),
    )?;
    let mut check = CompileCheck::default();
    if !run.status.success() {
        read_errors(
            &String::from_utf8_lossy(&run.stderr),
            &source.to_string_lossy(),
            &extraction.source,
            &mut check,
        );
        if check.errors.is_empty() {
            let limit = tool::limited(run.status);
            let compiler = &request.command.compiler;
            check
                .errors
                .push(format!("{compiler} ended with {}{limit}", run.status));
        }
        return Ok(check);
    }
    let bytes = std::fs::read(&output).map_err(io("read", &output))?;
    let file = object::File::parse(&*bytes).map_err(|e| Error::Preprocess {
        file: request.file.clone(),
        why: format!("the compiled object can't be read: {e}"),
    })?;
    // These get their addresses from relocations that are made later.
    let relocated: BTreeSet<&str> = extraction
        .externalized
        .iter()
        .filter(|e| e.variable == e.symbol)
        .map(|e| e.symbol.as_str())
        .collect();
    let mut defined = BTreeSet::new();
    for symbol in file.symbols() {
        let Ok(name) = symbol.name() else { continue };
        if name.is_empty() {
            continue;
        }
        if symbol.is_undefined() {
            let resolved =
                MADE.contains(&name) || symbols.exported(name).is_some() || relocated.contains(relocation(name));
            if !symbol.is_weak() && !resolved {
                check.unresolved.push(name.to_owned());
            }
        } else {
            defined.insert(name.to_owned());
        }
    }
    check.unresolved.sort();
    check.missing_functions = extraction
        .patched
        .iter()
        .filter(|p| !defined.contains(&p.replacement))
        .map(|p| p.replacement.clone())
        .collect();
    check.ok = check.unresolved.is_empty() && check.missing_functions.is_empty();
    Ok(check)
}

/// The symbol behind a name that klp-convert takes for an order: `.klp.sym.rela.OBJECT.PROVIDER.SYMBOL.POSITION`; or the
/// name itself. Neither objects' names nor C identifiers have dots.
fn relocation(name: &str) -> &str {
    let order = name.strip_prefix(".klp.sym.rela.");
    order.and_then(|order| order.split('.').nth(2)).unwrap_or(name)
}

/// Reads gcc's messages: `FILE:LINE:COLUMN: error: TEXT`.
fn read_errors(talk: &str, file: &str, source: &str, check: &mut CompileCheck) {
    let own = format!("{file}:");
    // The line of ours that an error inside a header's macro or an inlined function was reached from.
    let mut via: Option<usize> = None;
    for line in talk.lines() {
        let ours = line
            .find(&own)
            .and_then(|at| line[at + own.len()..].split(':').next()?.parse::<usize>().ok());
        if line.contains("In function") || line.contains("In file included") {
            via = None;
        }
        via = ours.or(via);
        let Some((_, text)) = line.split_once("error: ") else {
            if let (Some(n), true) = (ours, line.contains("note: ")) {
                check.error_lines.push(n);
            }
            continue;
        };
        if check.errors.len() >= MAX_ERRORS {
            continue;
        }
        check.error_lines.extend(ours.or(via));
        match ours.or(via) {
            Some(n) => check.errors.push(format!(
                "line {n}: {text}: `{}`",
                source.lines().nth(n.saturating_sub(1)).unwrap_or("").trim()
            )),
            None => check.errors.push(text.to_owned()),
        }
    }
    check.error_lines.sort_unstable();
    check.error_lines.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_for_a_relocation_names_its_symbol() {
        assert_eq!(relocation(".klp.sym.rela.snd_pcm.vmlinux.do_it.0"), "do_it");
        assert_eq!(relocation("do_it"), "do_it");
        assert_eq!(relocation(".klp.sym.rela.odd"), ".klp.sym.rela.odd");
    }

    #[test]
    fn errors_are_told_with_the_line_they_are_about() {
        let mut check = CompileCheck::default();
        let talk = "/t/livepatch.c: In function 'f':\n/t/livepatch.c:2:5: error: 'x' undeclared (first use in this function)\n    2 |   x = 1;\n/inc/a.h:9:1: error: impossible constraint in 'asm'\n";
        read_errors(talk, "/t/livepatch.c", "int f(void) {\n\tx = 1;\n}\n", &mut check);
        assert_eq!(
            check.errors[0],
            "line 2: 'x' undeclared (first use in this function): `x = 1;`"
        );
        assert_eq!(check.error_lines, [2]);
        assert_eq!(check.errors.len(), 2);
    }
}
