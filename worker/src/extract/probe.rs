//! Whether a tool works here: it extracts one function of a file of three lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use klp_livepatch::Arch;
use klp_livepatch::outcome::Digest;
use tokio_util::sync::CancellationToken;

use super::declarations::Text;
use super::external::{External, Inputs, Prepared};
use super::{CompileCommand, Error, Request, symbol_file};
use crate::isolation::{Cell, Room};
use crate::process::{self, Limits};
use crate::symbols::NameTable;
use crate::symbols::table::NamedSymbol;

const FILE: &str = "probe.c";
const FUNCTION: &str = "probe";
const SOURCE: &str = "int other;\nint probe(int n)\n{\n\treturn other + n;\n}\n";

/// Address space a tool may take for this, in bytes.
const MEMORY: u64 = 2 << 30;

/// The tool's version, after it did what it was asked.
///
/// # Errors
/// What it said instead.
pub(super) async fn tool(external: &dyn External, program: &Path, cell: &Cell) -> Result<String, String> {
    let shown = program.display();
    let bytes = fs::read(program).map_err(|e| format!("can't read {shown}: {e}; correct the path"))?;
    // Neither tells a version: what it is made of is one.
    let version = format!("build {}", &Digest::of(&bytes).to_string()[..12]);
    let dir = tempfile::tempdir().map_err(|e| format!("can't make a scratch folder: {e}"))?;
    let (request, inputs, files) = lay_out(dir.path()).map_err(|e| e.to_string())?;
    let invocation = external.invocation(&request, &inputs, &files, &BTreeSet::new(), 0);
    let limits = Limits {
        wall: Duration::from_secs(20),
        memory: Some(MEMORY),
        ..Limits::default()
    };
    let room = Room::at(dir.path().to_owned()).and_then(|room| cell.reading([program]).writing(&room));
    let cell = room.map_err(|e| format!("can't hand over a scratch folder: {e}"))?;
    let child = process::capture(&invocation.to_child().within(&cell), &limits, &CancellationToken::new())
        .await
        .map_err(|e| e.to_string())?;
    let said = format!("{}{}", child.stdout, child.stderr);
    if !child.finish.end.success() {
        let last = external.last_words(&said);
        return Err(format!("{shown} {}: {last}", child.finish.describe()));
    }
    let outputs = external
        .read(&request, &files, &said)
        .map_err(|why| format!("{shown} {why}"))?;
    let replacement = format!("klpp_{FUNCTION}");
    match Text::new(&outputs.extraction.source).functions(&replacement).next() {
        Some(_) => Ok(version),
        None => Err(format!("{shown} did not extract a function that is there")),
    }
}

fn lay_out(dir: &Path) -> Result<(Request, Inputs, Prepared), Error> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io {
            action: "write",
            path,
            source,
        }
    };
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(io(&path)).map(|()| path)
    };
    let source = put(FILE, SOURCE)?;
    let symvers = put("Module.symvers", "0x00000000\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n")?;
    let table = dir.join("names");
    let symbols = [(FUNCTION, b'T'), ("other", b'B')].map(|(name, letter)| NamedSymbol {
        name: name.to_owned(),
        letter,
        ..NamedSymbol::default()
    });
    fs::File::create(&table)
        .and_then(|mut file| NameTable::write(symbols.into(), &mut file))
        .map_err(io(&table))?;
    let arch = Arch::X86_64;
    let from = symbol_file::Source {
        object: "vmlinux",
        file: &table,
        arch,
    };
    let files = Prepared {
        dir: dir.to_owned(),
        symbol_file: symbol_file::write(&from, &|_| true, dir)?,
        ipa_clones: put("ipa-clones", "")?,
    };
    let args = ["-D__KERNEL__", "-O2", &source.to_string_lossy()].map(str::to_owned);
    let request = Request {
        arch,
        file: FILE.to_owned(),
        functions: vec![FUNCTION.to_owned()],
        object: "vmlinux".to_owned(),
        src_dir: dir.to_owned(),
        obj_dir: dir.to_owned(),
        command: CompileCommand {
            compiler: "gcc".to_owned(),
            args: args.into(),
            directory: dir.to_owned(),
        },
        scratch: dir.to_owned(),
        avoid: Vec::new(),
        unpatched: None,
    };
    let inputs = Inputs {
        symvers,
        symbols: table,
        arch,
        ibt: false,
    };
    Ok((request, inputs, files))
}
