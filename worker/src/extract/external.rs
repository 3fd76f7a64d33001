//! Extraction by a tool of its own, klp-ccp or clang-extract: what is the same for both. Its inputs are put together, it
//! is run with all it says kept, its outputs are parsed and cleaned up, and the compile check judges the source.
//!
//! Exit codes prove nothing, so success is judged from what the tool wrote.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use klp_livepatch::Arch;
use serde::{Deserialize, Serialize};

use super::ccp::Ccp;
use super::clang_extract::ClangExtract;
use super::compile_check::{self, CompileCheck};
use super::declarations::Text;
use super::invocation::Invocation;
use super::native::lexer;
use super::never::NEVER_EXTERNAL;
use super::{Error, Externalized, Extraction, Request, Symbols, ipa_clones, symbol_file, tool};
use super::{preprocessor, relocations};

/// What does an extraction, and where it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum Engine {
    #[default]
    Native,
    Ccp(Ccp),
    ClangExtract(ClangExtract),
}

/// A file that is kept beside the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The artifact's name.
    pub name: String,
    pub path: PathBuf,
}

/// What a tool is given beside the request.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub symvers: PathBuf,
    /// Where the patched object's symbols are: the module, or vmlinux's name table.
    pub symbols: PathBuf,
    pub arch: Arch,
    /// Externalized symbols are resolved by relocation, as kernels with indirect branch tracking need it.
    pub ibt: bool,
}

/// Files made for one run of a tool.
pub(super) struct Prepared {
    /// A folder of the run's own. The tool writes here and nowhere else.
    pub dir: PathBuf,
    pub symbol_file: PathBuf,
    pub ipa_clones: PathBuf,
}

/// A tool's outputs, read.
pub(super) struct Outputs {
    pub extraction: Extraction,
    /// The source as the tool wrote it.
    pub original: PathBuf,
    /// Its other outputs.
    pub others: Vec<PathBuf>,
}

/// How one tool is driven.
pub(super) trait External: Send + Sync {
    fn name(&self) -> &'static str;

    /// The name its log is known by.
    fn log_name(&self) -> &'static str;

    /// In how many ways it can be asked, the best first.
    fn manners(&self) -> usize {
        1
    }

    /// How it is started. `avoid`: symbols that it must not externalize; `manner`: which of the ways.
    fn invocation(
        &self,
        request: &Request,
        inputs: &Inputs,
        files: &Prepared,
        avoid: &BTreeSet<&str>,
        manner: usize,
    ) -> Invocation;

    /// Reads what a run left; `said` is its log.
    fn read(&self, request: &Request, files: &Prepared, said: &str) -> Result<Outputs, String>;

    /// The function that it says is not in the file.
    fn missing<'s>(&self, _said: &'s str) -> Option<&'s str> {
        None
    }

    /// What to tell its user of whatever it said before it failed.
    fn last_words(&self, said: &str) -> String {
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        last.unwrap_or("it said nothing").trim().to_owned()
    }
}

/// Extracts and checks, and copies the symbols to avoid as far as their definitions are there.
///
/// # Errors
/// The tool can't be run, or gives no source; a source that doesn't compile is no error: the check says so.
pub(super) fn extract_and_check(
    external: &dyn External,
    request: &Request,
    inputs: &Inputs,
    symbols: &dyn Symbols,
) -> Result<(Extraction, CompileCheck, Vec<Kept>), Error> {
    let mut run = Run::prepare(external, request, inputs)?;
    let mut avoid: BTreeSet<&str> = request.avoid.iter().map(String::as_str).collect();
    let mut warnings = Vec::new();
    loop {
        let (mut outputs, check) = run.best(symbols, &avoid)?;
        // What was neither externalized nor copied is defined elsewhere.
        let elsewhere = |symbol: &&str| check.unresolved.iter().any(|u| u == symbol);
        let elsewhere: Vec<&str> = avoid.iter().copied().filter(elsewhere).collect();
        let broken = broken_copies(&outputs.extraction.source, &check.error_lines, &avoid);
        if elsewhere.is_empty() && broken.is_empty() {
            outputs.extraction.warnings.splice(0..0, warnings);
            let kept = run.keep(&outputs)?;
            return Ok((outputs.extraction, check, kept));
        }
        warnings.extend(elsewhere.iter().map(|symbol| not_copied(symbol, &request.file)));
        warnings.extend(broken.iter().map(|symbol| {
            format!("{symbol} was to be copied rather than externalized, but its copy does not compile: it stays externalized")
        }));
        avoid.retain(|symbol| !elsewhere.contains(symbol) && !broken.contains(symbol));
    }
}

/// Said of a symbol to avoid that stays externalized.
pub(super) fn not_copied(symbol: &str, file: &str) -> String {
    format!(
        "{symbol} was to be copied rather than externalized, but {file} does not define it: it stays externalized, and must \
         be found at run time on every kernel"
    )
}

/// The symbols to avoid whose copies have one of these lines.
fn broken_copies<'a>(source: &str, error_lines: &[usize], avoid: &BTreeSet<&'a str>) -> Vec<&'a str> {
    let text = Text::new(source);
    let line_of = |offset: usize| source[..offset].matches('\n').count() + 1;
    let mut broken = BTreeSet::new();
    for item in text
        .items()
        .filter(|item| !error_lines.is_empty() && !item.is_directive())
    {
        let lines = line_of(item.range().start)..=line_of(item.range().end);
        if error_lines.iter().any(|line| lines.contains(line)) {
            broken.extend(item.head_words().filter_map(|(word, _)| avoid.get(word).copied()));
        }
    }
    broken.into_iter().collect()
}

/// A tool at work on one request.
struct Run<'a> {
    external: &'a dyn External,
    request: &'a Request,
    inputs: &'a Inputs,
    ipa_clones: PathBuf,
    /// The names in the source after the preprocessor.
    names: BTreeSet<String>,
    /// Commands and all that was said to them.
    log: Vec<u8>,
    /// How many times the tool was started.
    count: usize,
}

impl<'a> Run<'a> {
    fn prepare(external: &'a dyn External, request: &'a Request, inputs: &'a Inputs) -> Result<Self, Error> {
        Ok(Self {
            external,
            request,
            inputs,
            ipa_clones: ipa_clones::find_or_make(request, &request.scratch)?.path,
            names: names_in(request)?,
            log: Vec::new(),
            count: 0,
        })
    }

    /// The outputs that pass the compile check, or failing that the ones that fail it least.
    fn best(&mut self, symbols: &dyn Symbols, avoid: &BTreeSet<&str>) -> Result<(Outputs, CompileCheck), Error> {
        let mut best: Option<(Outputs, CompileCheck)> = None;
        let mut failure = None;
        for manner in 0..self.external.manners() {
            let mut outputs = match self.once(manner, avoid) {
                Ok(outputs) => outputs,
                Err(error @ Error::ToolFailed { .. }) => {
                    failure.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let check = compile_check::check(self.request, symbols, &outputs.extraction)?;
            if let (true, Some(first)) = (check.ok, &failure) {
                outputs.extraction.warnings.push(format!("at first, {first}"));
            }
            if check.ok {
                return Ok((outputs, check));
            }
            if best.as_ref().is_none_or(|(_, b)| check.score() < b.score()) {
                best = Some((outputs, check));
            }
        }
        match (best, failure) {
            (Some(best), _) => Ok(best),
            (None, Some(error)) => Err(error),
            (None, None) => Err(self.failed("was not run".to_owned(), "")),
        }
    }

    /// Starts the tool once, in a folder of its own.
    fn once(&mut self, manner: usize, avoid: &BTreeSet<&str>) -> Result<Outputs, Error> {
        self.count += 1;
        let dir = self.request.scratch.join(format!("tool-{}", self.count));
        fresh(&dir)?;
        let source = symbol_file::Source {
            object: &self.request.object,
            file: &self.inputs.symbols,
            arch: self.inputs.arch,
        };
        let wanted = |name: &str| self.names.contains(name) && !avoid.contains(name) && !NEVER_EXTERNAL.contains(&name);
        let files = Prepared {
            symbol_file: symbol_file::write(&source, &wanted, &dir)?,
            ipa_clones: self.ipa_clones.clone(),
            dir,
        };
        let invocation = self
            .external
            .invocation(self.request, self.inputs, &files, avoid, manner);
        self.log.extend_from_slice(invocation.shown().as_bytes());
        // What follows is handed on as it comes; this belongs to it.
        eprint!("{}", invocation.shown());
        let start = self.log.len();
        let status = tool::logged(invocation.to_command(), &mut self.log)?;
        let said = String::from_utf8_lossy(&self.log[start..]).into_owned();
        if !status.success() {
            if let Some(function) = self.external.missing(&said) {
                return Err(self.no_function(function));
            }
            // A limit that was not the reason would only mislead.
            let starved = status.code().is_none() || said.contains("bad_alloc") || said.contains("out of memory");
            let limit = if starved { tool::limited(status) } else { String::new() };
            return Err(self.failed(format!("ended with {status}{limit}"), &said));
        }
        let outputs = self.external.read(self.request, &files, &said);
        let mut outputs = outputs.map_err(|how| self.failed(how, &said))?;
        outputs.extraction.command = invocation.words();
        if self.inputs.ibt {
            relocations::append(&mut outputs.extraction, &self.request.object);
        }
        match self.request.functions.iter().find(|f| !has(&outputs.extraction, f)) {
            Some(missing) => Err(self.no_function(missing)),
            None => Ok(outputs),
        }
    }

    fn no_function(&self, function: &str) -> Error {
        Error::NoFunction {
            file: self.request.file.clone(),
            function: function.to_owned(),
            near_matches: Vec::new(),
        }
    }

    fn failed(&self, how: String, said: &str) -> Error {
        Error::ToolFailed {
            tool: self.external.name(),
            file: self.request.file.clone(),
            how,
            last: self.request.relative(&self.external.last_words(said)),
        }
    }

    /// The files to keep, in the folder where klp-build's users look for them: `work_sound_core_pcm.c/ccp.out.txt`.
    fn keep(&self, outputs: &Outputs) -> Result<Vec<Kept>, Error> {
        let log = self.request.scratch.join(self.external.log_name());
        fs::write(&log, &self.log).map_err(io("write", &log))?;
        let folder = format!("work_{}", self.request.file.replace('/', "_"));
        let flat = self.request.file.replace(['/', '-'], "_");
        let named = |name: String, path: &Path| Kept {
            name: format!("{folder}/{name}"),
            path: path.to_owned(),
        };
        let own_name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut kept = vec![
            named(own_name(&log), &log),
            named(format!("{flat}.orig"), &outputs.original),
        ];
        kept.extend(outputs.others.iter().map(|path| named(own_name(path), path)));
        Ok(kept)
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

fn fresh(dir: &Path) -> Result<(), Error> {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(io("clear", dir))?;
    }
    fs::create_dir_all(dir).map_err(io("make", dir))
}

/// All names in the file after the preprocessor, those of macros included. Of vmlinux's 140,000 symbols these are the only
/// ones a tool can ask about, and reading the others takes klp-ccp 20 seconds.
fn names_in(request: &Request) -> Result<BTreeSet<String>, Error> {
    let text = preprocessor::ask(request, &["-E", "-P", "-dD"])?;
    Ok(lexer::identifiers(&text).into_iter().map(str::to_owned).collect())
}

fn has(extraction: &Extraction, function: &str) -> bool {
    let replacement = format!("klpp_{function}");
    Text::new(&extraction.source)
        .functions(&replacement)
        .any(|f| f.is_definition())
}

/// A small text that a tool wrote, or nothing if it wrote none.
pub(super) fn read_small(path: &Path) -> Result<String, String> {
    /// Bytes. A list of symbols has some hundred KiB at most, a source some MiB.
    const MOST: u64 = 64 << 20;
    let there = fs::metadata(path).map_err(|e| format!("left no {}: {e}", path.display()))?;
    if !there.is_file() || there.len() > MOST {
        return Err(format!(
            "left something that is no text of at most {} MiB at {}",
            MOST >> 20,
            path.display()
        ));
    }
    let bytes = fs::read(path).map_err(|e| format!("left {}, which can't be read: {e}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The pointers that symbols are reached through.
pub(super) fn pointers(externalized: &[Externalized]) -> BTreeSet<&str> {
    let by_pointer = externalized.iter().filter(|e| e.variable != e.symbol);
    by_pointer.map(|e| e.variable.as_str()).collect()
}

/// The object a tool's module name means: kbuild's names have underscores where files' have dashes.
pub(super) fn object_named(module: &str, request: &Request) -> String {
    let kernel_name = |name: &str| name.replace('-', "_");
    if kernel_name(module) == kernel_name(&request.object) {
        request.object.clone()
    } else {
        module.to_owned()
    }
}

/// Whether a tool's word can be a C identifier; nothing else becomes part of a report.
pub(super) fn is_identifier(word: &str) -> bool {
    word.len() <= 512
        && word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a tool's word can be a module's name.
pub(super) fn is_module_name(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 128
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_does_not_compile_is_known_by_its_lines() {
        let source = "int other;\nstatic const int *table[] = {\n\t&other,\n\tklpe_x,\n};\nint f(void)\n{\n\treturn *table[0];\n}\n";
        let avoid = BTreeSet::from(["f", "table"]);
        assert_eq!(broken_copies(source, &[4], &avoid), ["table"]);
        assert_eq!(broken_copies(source, &[8], &avoid), ["f"]);
        assert_eq!(broken_copies(source, &[1, 99], &avoid), [""; 0]);
        assert_eq!(broken_copies(source, &[], &avoid), [""; 0]);
    }

    #[test]
    fn modules_are_named_as_their_files_are() {
        let request = |object: &str| Request {
            arch: klp_livepatch::Arch::X86_64,
            file: "a.c".into(),
            functions: Vec::new(),
            object: object.into(),
            src_dir: PathBuf::new(),
            obj_dir: PathBuf::new(),
            command: super::super::CompileCommand {
                compiler: String::new(),
                args: Vec::new(),
                directory: PathBuf::new(),
            },
            scratch: PathBuf::new(),
            avoid: Vec::new(),
            unpatched: None,
        };
        assert_eq!(object_named("snd_pcm", &request("snd-pcm")), "snd-pcm");
        assert_eq!(object_named("snd", &request("snd-pcm")), "snd");
        assert!(is_identifier("_a1") && !is_identifier("1a") && !is_identifier("a-b") && !is_identifier(""));
        assert!(is_module_name("snd-pcm") && !is_module_name("../x") && !is_module_name(""));
    }
}
