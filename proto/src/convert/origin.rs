//! What an extraction was made with, on the wire and in the domain.

use klp_livepatch::provenance::digests::Digests;
use klp_livepatch::provenance::origin::{FileUsed, Limits, Origin, TargetOrigin, ToolUsed, TreeUsed};
use klp_livepatch::spec::Violation;

use super::{Result, bounded, parse, required, violation};
use crate::v1;

/// The most of anything that is measured in one extraction.
const MAX_MEASURED: usize = 1000;
/// The most words of one command line, which may have a definition for each of a kernel's options.
const MAX_WORDS: usize = 10_000;

impl From<&Origin> for v1::Origin {
    fn from(origin: &Origin) -> Self {
        v1::Origin {
            worker_version: origin.worker_version.clone(),
            tool: Some(v1::ToolUsed {
                name: origin.tool.name.clone(),
                version: origin.tool.version.clone(),
                sha256: origin.tool.sha256.map(|d| d.to_string()).unwrap_or_default(),
            }),
            time_limit_ms: origin.limits.time_ms,
            memory_limit: origin.limits.memory,
            avoided: origin.avoided.clone(),
            tree: Some(v1::TreeUsed {
                kind: origin.tree.kind.clone(),
                release: origin.tree.release.clone(),
                compiler: origin.tree.compiler.clone(),
                files: origin.tree.files.iter().map(file).collect(),
            }),
            fixes: origin.fixes.iter().map(file).collect(),
            targets: origin.targets.iter().map(target).collect(),
        }
    }
}

fn file(file: &FileUsed) -> v1::FileUsed {
    v1::FileUsed {
        name: file.name.clone(),
        digests: Some(digests(&file.digests)),
    }
}

fn digests(digests: &Digests) -> v1::FileDigests {
    v1::FileDigests {
        blake3: digests.blake3.to_string(),
        sha256: digests.sha256.to_string(),
    }
}

fn target(target: &TargetOrigin) -> v1::TargetOrigin {
    v1::TargetOrigin {
        file: target.file.to_string(),
        source: Some(digests(&target.source)),
        command: target.command.clone(),
        compile: target.compile.clone(),
        compiler: target.compiler.clone(),
    }
}

impl TryFrom<v1::Origin> for Origin {
    type Error = Violation;

    fn try_from(wire: v1::Origin) -> Result<Self> {
        let tool = required("report.origin.tool", wire.tool)?;
        let tree = required("report.origin.tree", wire.tree)?;
        Ok(Origin {
            worker_version: bounded("report.origin.worker_version", wire.worker_version)?,
            tool: ToolUsed {
                name: bounded("report.origin.tool.name", tool.name)?,
                version: bounded("report.origin.tool.version", tool.version)?,
                sha256: match tool.sha256.as_str() {
                    "" => None,
                    digest => Some(parse("report.origin.tool.sha256", digest)?),
                },
            },
            limits: Limits {
                time_ms: wire.time_limit_ms,
                memory: wire.memory_limit,
            },
            avoided: at_most("report.origin.avoided", MAX_MEASURED, wire.avoided)?,
            tree: TreeUsed {
                kind: bounded("report.origin.tree.kind", tree.kind)?,
                release: bounded("report.origin.tree.release", tree.release)?,
                compiler: bounded("report.origin.tree.compiler", tree.compiler)?,
                files: all("report.origin.tree.files", tree.files, read_file)?,
            },
            fixes: all("report.origin.fixes", wire.fixes, read_file)?,
            targets: all("report.origin.targets", wire.targets, read_target)?,
        })
    }
}

fn read_file(wire: v1::FileUsed) -> Result<FileUsed> {
    Ok(FileUsed {
        name: bounded("report.origin.files.name", wire.name)?,
        digests: read_digests("report.origin.files.digests", wire.digests)?,
    })
}

fn read_digests(field: &str, wire: Option<v1::FileDigests>) -> Result<Digests> {
    let wire = required(field, wire)?;
    Ok(Digests {
        blake3: parse(field, &wire.blake3)?,
        sha256: parse(field, &wire.sha256)?,
    })
}

fn read_target(wire: v1::TargetOrigin) -> Result<TargetOrigin> {
    Ok(TargetOrigin {
        file: parse("report.origin.targets.file", &wire.file)?,
        source: read_digests("report.origin.targets.source", wire.source)?,
        command: at_most("report.origin.targets.command", MAX_WORDS, wire.command)?,
        compile: at_most("report.origin.targets.compile", MAX_WORDS, wire.compile)?,
        compiler: bounded("report.origin.targets.compiler", wire.compiler)?,
    })
}

fn at_most<T>(field: &str, most: usize, list: Vec<T>) -> Result<Vec<T>> {
    match list.len() {
        n if n > most => Err(violation(field, format!("{n} of them; at most {most}"))),
        _ => Ok(list),
    }
}

fn all<T, U>(field: &str, list: Vec<T>, read: impl Fn(T) -> Result<U>) -> Result<Vec<U>> {
    at_most(field, MAX_MEASURED, list)?.into_iter().map(read).collect()
}
