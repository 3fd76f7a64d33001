//! An extraction: every target that this kernel is built with, from its sources with the fixes applied.

use std::collections::BTreeMap;

use klp_livepatch::names::{ObjectName, SymbolName};
use klp_livepatch::outcome::{Cause, Ending, Failure};
use klp_livepatch::provenance::origin::{FileUsed, Limits, TargetOrigin, ToolUsed};
use klp_livepatch::provenance::{Digests, Origin};
use klp_livepatch::report::{ExtractReport, Report, TargetExtraction};
use klp_livepatch::spec::Target;
use klp_livepatch::task::Platform;
use klp_livepatch::words::amount;

use tracing::{Instrument as _, info_span};

use super::{Context, Job, aside, checking, farm};
use crate::check::{self, Position};
use crate::extract::{ExtractRequest, Extracted, ToolIdentity};
use crate::fixes;
use crate::outbox::Product;
use crate::trees::Tree;
use crate::trees::overlay::View;
use crate::worker::Shared;

pub(super) async fn run(shared: &Shared, tree: &Tree, job: &Job, context: &Context) -> Result<Product, Failure> {
    let tool = shared.inventory.extractor(job.backend);
    let tool = tool.ok_or_else(|| {
        farm(format!(
            "{}: the {} backend does not work here",
            shared.config.name, job.backend
        ))
    })?;
    if !tool.supports(job.platform.arch) {
        let message = format!(
            "{}: the {} backend can't read {} kernels yet",
            job.platform, job.backend, job.platform.arch
        );
        return Err(Failure::new(Cause::Codestream, message));
    }
    let (view, fixes) = patched(shared, tree, job, context).await?;
    let identity = tool.identity();
    let mut report = ExtractReport {
        ibt: tree.kernel_config().map_err(|e| farm(e.to_string()))?.has_ibt(),
        tool: format!("{} {}", identity.backend, identity.version),
        targets: Vec::new(),
        origin: None,
    };
    let avoid: Vec<String> = job.avoid.iter().map(SymbolName::to_string).collect();
    let mut origin = origin(tree, identity, &avoid, fixes, context).await?;
    let mut files = Vec::new();
    for target in &job.targets {
        let Some(object) = object_of(tree, target, job.forgiving, context).await? else {
            continue;
        };
        context.progress(&format!("extracting {}", target.file));
        let span = info_span!("extract", klp.file = %target.file, klp.object = %object, klp.backend = %job.backend);
        let request = ExtractRequest {
            tree,
            view: view.as_ref(),
            target,
            object: &object,
            avoid: &avoid,
        };
        let Extracted {
            source,
            report: mut extraction,
            measured,
            files: kept,
        } = tool.extract(request, context).instrument(span).await?;
        if let Some(view) = &view {
            extraction.warnings.splice(0..0, view.warnings().iter().cloned());
        }
        position(tree, &mut extraction).await?;
        log(&extraction, context);
        origin.tool.sha256 = measured.tool;
        origin.targets.push(TargetOrigin {
            file: extraction.file.clone(),
            source: measured.source,
            command: measured.command,
            compile: measured.compile,
            compiler: measured.compiler,
        });
        files.push((extraction.source_artifact.clone(), source.into_bytes()));
        files.extend(kept);
        report.targets.push(extraction);
    }
    if report.targets.is_empty() {
        let message = format!(
            "{}: no target is built here, so there is nothing to extract",
            job.platform
        );
        return Err(Failure::new(Cause::Yours, message));
    }
    report.origin = Some(Box::new(origin));
    Ok(Product {
        ending: ending(&job.platform, &report),
        report: Some(Report::Extract(report)),
        files,
    })
}

/// What the attempt is made with, as far as it is the same for all targets. The tree's files are read while nothing else
/// is under way: it doesn't change.
async fn origin(
    tree: &Tree,
    tool: &ToolIdentity,
    avoid: &[String],
    fixes: Vec<FileUsed>,
    context: &Context,
) -> Result<Origin, Failure> {
    let measuring = tree.clone();
    Ok(Origin {
        worker_version: env!("CARGO_PKG_VERSION").to_owned(),
        tool: ToolUsed {
            name: tool.backend.to_string(),
            version: tool.version.clone(),
            sha256: None,
        },
        limits: Limits {
            time_ms: u64::try_from(context.time_limit.as_millis()).unwrap_or(u64::MAX),
            memory: context.memory_limit,
        },
        avoided: avoid.to_vec(),
        tree: aside("measuring of the tree", move || measuring.measure()).await?,
        fixes,
        targets: Vec::new(),
    })
}

/// The sources with the fixes applied, `None` if there are none to apply here; and the fixes.
async fn patched(
    shared: &Shared,
    tree: &Tree,
    job: &Job,
    context: &Context,
) -> Result<(Option<View>, Vec<FileUsed>), Failure> {
    if job.fixes.is_empty() {
        return Ok((None, Vec::new()));
    }
    context.progress(&format!("applying {}", amount(job.fixes.len(), "fix", "fixes")));
    let fetching = fixes::fetch(&shared.courier, &job.fixes, job.parent);
    let patches = fetching
        .instrument(info_span!("fetch fixes", klp.fixes = job.fixes.len()))
        .await?;
    let used = patches.iter().map(|patch| FileUsed {
        name: patch.name.clone(),
        digests: Digests::of(&patch.bytes),
    });
    let used = used.collect();
    let viewing = View::new(tree, &context.scratch, &patches, &context.cell, &context.cancel);
    let view = viewing.instrument(info_span!("view")).await?;
    for warning in view.iter().flat_map(View::warnings) {
        context.log.line(&format!("warning: {warning}"));
    }
    Ok((view, used))
}

/// The object that holds a target here; `None`: the target is not built here. Its check has found it before, on this tree
/// or another worker's copy of it.
async fn object_of(
    tree: &Tree,
    target: &Target,
    forgiving: bool,
    context: &Context,
) -> Result<Option<ObjectName>, Failure> {
    let checked = checking::of(tree, std::slice::from_ref(target), forgiving)
        .await?
        .targets
        .pop();
    let checked =
        checked.ok_or_else(|| farm(format!("{}: the check of {} said nothing", tree.platform, target.file)))?;
    if let Some(why) = &checked.left_out {
        context.log.line(&format!("left out: {why}"));
        return Ok(None);
    }
    match checked.object {
        Some(object) => Ok(Some(object)),
        None => Err(Failure::new(
            Cause::Yours,
            format!(
                "{}: no object holds {} here; its check says more",
                tree.platform, target.file
            ),
        )),
    }
}

/// Fills in where the kernel has what the source replaces and reaches, and warns of what it hasn't: tools are believed no
/// more than their outputs.
async fn position(tree: &Tree, extraction: &mut TargetExtraction) -> Result<(), Failure> {
    let mut asked: BTreeMap<ObjectName, Vec<String>> = BTreeMap::new();
    let functions = extraction.patched.iter().map(|p| p.function.to_string());
    asked.entry(extraction.object.clone()).or_default().extend(functions);
    for symbol in &extraction.externalized {
        asked
            .entry(symbol.object.clone())
            .or_default()
            .push(symbol.symbol.clone());
    }
    let mut found: BTreeMap<(ObjectName, String), Position> = BTreeMap::new();
    for (object, names) in asked {
        let (tree, file, of) = (tree.clone(), extraction.file.clone(), object.clone());
        let asking = move || {
            let plain: Vec<&str> = names.iter().map(String::as_str).collect();
            let positions = check::positions(&tree, &of, &file, &plain)?;
            Ok::<_, crate::trees::TreeError>(names.into_iter().zip(positions).collect::<Vec<_>>())
        };
        let positions = aside("look-up of symbols", asking).await?;
        found.extend(positions.into_iter().map(|(name, at)| ((object.clone(), name), at)));
    }
    let mut warnings = Vec::new();
    let mut at = |object: &ObjectName, name: &str| match found.get(&(object.clone(), name.to_owned())) {
        Some(Position::At(sympos)) => *sympos,
        Some(Position::Ambiguous(which)) => {
            warnings.push(format!(
                "{object} has several symbols named {name}, {which}; which is meant can't be told: set its sympos by hand"
            ));
            0
        }
        Some(Position::Unknown(why)) => {
            warnings.push(format!(
                "{object} has several symbols named {name}, and their order is not known: {why}"
            ));
            0
        }
        Some(Position::Missing) | None => {
            warnings.push(format!(
                "{object} has no symbol {name}, which the source needs: the kernel will refuse the livepatch"
            ));
            0
        }
    };
    for function in &mut extraction.patched {
        function.sympos = at(&extraction.object, function.function.as_str());
    }
    for symbol in &mut extraction.externalized {
        symbol.sympos = at(&symbol.object, &symbol.symbol);
    }
    extraction.warnings.append(&mut warnings);
    Ok(())
}

fn log(extraction: &TargetExtraction, context: &Context) {
    let log = &context.log;
    log.line(&format!(
        "{}: {} patched, {} externalized, in {} ms",
        extraction.file,
        amount(extraction.patched.len(), "function", "functions"),
        amount(extraction.externalized.len(), "symbol", "symbols"),
        extraction.tool_ms
    ));
    for warning in &extraction.warnings {
        log.line(&format!("warning: {warning}"));
    }
    let compile = &extraction.compile;
    if compile.passed {
        log.line("compile check passed");
        return;
    }
    log.line("compile check FAILED");
    for error in &compile.errors {
        log.line(&format!("  {error}"));
    }
    for name in &compile.missing_functions {
        log.line(&format!("  not defined: {name}"));
    }
    for name in &compile.unresolved {
        log.line(&format!("  unresolved: {name}"));
    }
}

/// An extraction succeeds if every source compiles; a source that does not is kept, and said to be broken.
fn ending(platform: &Platform, report: &ExtractReport) -> Ending {
    let broken: Vec<String> = report
        .targets
        .iter()
        .filter(|t| !t.compile.passed)
        .map(|t| {
            format!(
                "{platform}: {}: the extracted source does not pass the compile check: {}",
                t.file,
                t.compile.summary()
            )
        })
        .collect();
    if broken.is_empty() {
        return Ending::Succeeded;
    }
    let advice = "The source is kept as an artifact, to be finished by hand; the attempt's log has all errors.";
    Ending::Failed(Failure::new(
        Cause::Codestream,
        format!("{}\n{advice}", broken.join("\n")),
    ))
}
