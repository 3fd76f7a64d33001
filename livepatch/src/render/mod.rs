//! Everything a codestream's `lp` folder holds, made of plain values.
//!
//! [`livepatch`] is the whole of it: it picks the template by [`Flavour`] (a folder of SUSE's livepatches, with or without
//! klp-convert, or a module of its own), and what differs between architectures goes under conditions of the C
//! preprocessor. [`commit_message`] and [`cover_letter`] go with it to whoever reviews it.

mod condition;
mod functions;
mod header;
mod input;
mod message;
mod notice;
mod plain;
mod prototype;
mod suse;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::BTreeMap;

pub use input::{ArchFacts, Author, Flavour, LivepatchOutput, Provider, RenderError, SourceFile};
pub use message::{Commit, CoverLetter, GroupSummary, commit_message, cover_letter, manual_work};
pub use plain::{externalized, header, patched_funcs};

use crate::klp_build::{kbuild, naming};
use crate::{layout, patched_funcs as csv};

/// The files of one codestream's `lp` folder, by their names.
///
/// # Errors
/// What there is nothing to write of, or what the backend's outputs don't fit together in.
pub fn livepatch(output: &LivepatchOutput<'_>) -> Result<BTreeMap<String, String>, RenderError> {
    output.check()?;
    let mut files = BTreeMap::new();
    let joining = format!("livepatch_{}.c", output.name);
    for file in &output.files {
        let text = match output.flavour {
            Flavour::Upstream => upstream::source(output, file),
            _ => suse::source(output, file),
        };
        files.insert(format!("{}.c", stem(output, file)), text);
    }
    match output.flavour {
        Flavour::Upstream => {
            files.insert(joining, upstream::module(output));
            files.insert(layout::MAKEFILE.to_owned(), upstream::makefile(output));
        }
        _ => {
            if let Some(text) = suse::joining(output) {
                files.insert(joining, text);
            }
            let sources: Vec<String> = files.keys().cloned().collect();
            files.insert(layout::KBUILD_INC.to_owned(), kbuild::print(output.name, &sources));
        }
    }
    files.insert(header::name(output), header::header(output));
    let lines = functions::patched_funcs(&functions::replaced(&output.files, &output.archs));
    files.insert(layout::PATCHED_FUNCS.to_owned(), csv::print(&lines));
    Ok(files)
}

/// A source's name in the `lp` folder, without its `.c`. `livepatch_<name>` is the only one's, as klp-build has it; of a
/// module of its own that is always the file that registers the functions.
fn stem(output: &LivepatchOutput<'_>, file: &SourceFile) -> String {
    let name = if output.files.len() == 1 && output.flavour != Flavour::Upstream {
        format!("livepatch_{}.c", output.name)
    } else {
        naming::out_file(output.name, &file.file)
    };
    name.strip_suffix(".c").unwrap_or(&name).to_owned()
}
