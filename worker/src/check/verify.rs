//! Where symbols that a livepatch reaches are on this platform: for the sources of this one, and for those made on another.

use std::collections::HashMap;

use klp_livepatch::names::{ObjectName, SourcePath};
use klp_livepatch::report::{VerifiedSymbol, VerifyReport};
use klp_livepatch::round::WantedSymbol;

use super::definitions::Definitions;
use super::object::folder;
use super::{Kernel, TreeError, namesake, view};
use crate::symbols::{Place, SymbolTable};
use crate::trees::{ModuleError, Tree};

/// Modules of the file's folder that are searched for a symbol whose object has it not.
const MAX_NEIGHBOURS: usize = 20;

/// A symbol's position in its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// What a livepatch gives as `sympos`; 0: it is the only one of its name.
    At(u32),
    /// There are several, and which is meant can't be told; what they are, as in `at 1 in a.c and at 2 in b.c`.
    Ambiguous(String),
    /// There are several, and the tree doesn't tell where; why.
    Unknown(String),
    Missing,
}

/// The positions of symbols that the code of `file` means, in an object of a tree, in the order of the names.
///
/// # Errors
/// There is no such module, or the tree is damaged.
pub fn positions(
    tree: &Tree,
    object: &ObjectName,
    file: &SourcePath,
    names: &[&str],
) -> Result<Vec<Position>, TreeError> {
    let kernel = view::TreeView::open(tree)?;
    let table = if object.is_vmlinux() {
        kernel.vmlinux()?
    } else {
        kernel.module(object.as_str())?
    };
    let source = kernel.source(file).map(|text| Definitions::of(&text));
    Ok(positions_in(&*table, names, Some(file), source.as_ref()))
}

/// Looks for each wanted symbol on a tree.
///
/// # Errors
/// If the tree is damaged.
pub fn verify(tree: &Tree, symbols: &[WantedSymbol]) -> Result<VerifyReport, TreeError> {
    verify_kernel(&view::TreeView::open(tree)?, symbols)
}

/// Looks for each wanted symbol on any kernel.
///
/// # Errors
/// As for [`verify`].
pub fn verify_kernel(kernel: &dyn Kernel, symbols: &[WantedSymbol]) -> Result<VerifyReport, TreeError> {
    // One walk through an object for all that is asked of it for one file.
    let mut together: HashMap<(&ObjectName, &SourcePath), Vec<usize>> = HashMap::new();
    for (i, wanted) in symbols.iter().enumerate() {
        together.entry((&wanted.object, &wanted.file)).or_default().push(i);
    }
    let mut found: Vec<Option<(ObjectName, u32)>> = vec![None; symbols.len()];
    for ((object, file), asked) in together {
        let source = kernel.source(file).map(|text| Definitions::of(&text));
        for (name, table) in candidates(kernel, object, file)? {
            let left: Vec<usize> = asked.iter().copied().filter(|i| found[*i].is_none()).collect();
            if left.is_empty() {
                break;
            }
            let names: Vec<&str> = left.iter().map(|i| symbols[*i].symbol.as_str()).collect();
            for (i, position) in left
                .iter()
                .zip(positions_in(&*table, &names, Some(file), source.as_ref()))
            {
                // A symbol that nobody can point at is as good as missing: a livepatch with it would not load.
                if let Position::At(sympos) = position {
                    found[*i] = Some((name.clone(), sympos));
                }
            }
        }
    }
    let verified = symbols.iter().zip(found).map(|(wanted, found)| {
        let (found_in, sympos) = found.map_or((None, 0), |(object, sympos)| (Some(object), sympos));
        VerifiedSymbol {
            object: wanted.object.clone(),
            symbol: wanted.symbol.to_string(),
            found_in,
            sympos,
        }
    });
    Ok(VerifyReport {
        symbols: verified.collect(),
    })
}

type Named = (ObjectName, std::sync::Arc<dyn SymbolTable>);

/// The objects that may have what `object` has elsewhere, the likeliest first: that of its name, vmlinux, and the modules
/// that are built beside the file.
fn candidates(kernel: &dyn Kernel, object: &ObjectName, file: &SourcePath) -> Result<Vec<Named>, TreeError> {
    let mut all = Vec::new();
    if !object.is_vmlinux() {
        all.extend(module(kernel, object.clone())?);
    }
    all.push((ObjectName::vmlinux(), kernel.vmlinux()?));
    let beside = kernel.modules_in(folder(file.as_str()));
    for name in beside.into_iter().take(MAX_NEIGHBOURS) {
        if let Ok(name) = name.parse::<ObjectName>()
            && name.kernel_name() != object.kernel_name()
        {
            all.extend(module(kernel, name)?);
        }
    }
    Ok(all)
}

fn module(kernel: &dyn Kernel, name: ObjectName) -> Result<Option<Named>, TreeError> {
    match kernel.module(name.as_str()) {
        Ok(table) => Ok(Some((name, table))),
        // Not built here; or two of its name, of which a livepatch can't say which it means.
        Err(TreeError::Module(ModuleError::Absent { .. } | ModuleError::Ambiguous { .. })) => Ok(None),
        Err(e) => Err(e),
    }
}

fn positions_in(
    table: &dyn SymbolTable,
    names: &[&str],
    file: Option<&SourcePath>,
    source: Option<&Definitions>,
) -> Vec<Position> {
    match table.places(names) {
        Ok(places) => names
            .iter()
            .zip(&places.by_name)
            .map(|(name, places)| position(places, name, file, source))
            .collect(),
        // A name that occurs once has its position without any order.
        Err(why) => names
            .iter()
            .map(|name| match table.lookup(name) {
                None => Position::Missing,
                Some(info) if info.count == 1 => Position::At(0),
                Some(_) => Position::Unknown(why.clone()),
            })
            .collect(),
    }
}

fn position(places: &[Place], name: &str, file: Option<&SourcePath>, source: Option<&Definitions>) -> Position {
    let kept: Vec<u32> = places.iter().filter_map(|place| place.position).collect();
    if kept.len() < 2 {
        return kept.first().map_or(Position::Missing, |only| Position::At(*only));
    }
    file.and_then(|file| namesake::choose(places, name, file, source))
        .and_then(|place| place.position)
        .map_or_else(|| Position::Ambiguous(namesake::describe(places)), Position::At)
}
