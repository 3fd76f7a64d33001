//! Measures a backend: extracts the functions of a list from one tree and prints which compile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Parser;
use klp_livepatch::spec::Backend;
use klp_livepatch::{Arch, Codestream};
use klp_worker::config::ToolPaths;
use klp_worker::extract::ccp::Ccp;
use klp_worker::extract::clang_extract::ClangExtract;
use klp_worker::extract::{Engine, Job, faithful};
use klp_worker::trees::{Tree, TreeStore};

/// Extract and compile each line of a list (`FILE FUNCTION[,FUNCTION...] OBJECT`) and print a table.
#[derive(Parser)]
struct Args {
    /// The folder of kernel trees
    #[arg(long, env = "KLP_FARM_TREES")]
    trees: PathBuf,
    /// The kernel to extract from [default: the newest]
    #[arg(long)]
    codestream: Option<Codestream>,
    /// Which backend: native, ccp or ce
    #[arg(long = "type", default_value = "native", value_parser = backend)]
    backend: Backend,
    /// Symbols to copy rather than externalize
    #[arg(long, value_delimiter = ',')]
    avoid_ext: Vec<String>,
    /// Of this architecture [default: this machine's]
    #[arg(long)]
    arch: Option<Arch>,
    /// Where outputs go
    #[arg(long)]
    work: PathBuf,
    /// A file of lines to extract; `#` starts a comment.
    #[arg(long)]
    list: Option<PathBuf>,
    /// Print the extracted source and the findings.
    #[arg(long)]
    print: bool,
    /// Print the warnings.
    #[arg(long)]
    warnings: bool,
    /// Compare the replacements with the originals after the preprocessor, and show where they first differ.
    #[arg(long)]
    faithful: bool,
    /// One extraction: FILE FUNCTIONS OBJECT.
    one: Vec<String>,
}

/// As klp-build calls them, or as we do.
fn backend(text: &str) -> Result<Backend, String> {
    let known = Backend::ALL
        .into_iter()
        .find(|b| [b.as_str(), b.output_dir()].contains(&text));
    known.ok_or_else(|| "one of native, ccp, ce".to_owned())
}

fn engine(backend: Backend) -> anyhow::Result<Engine> {
    let paths = ToolPaths::from_env();
    let absent = || format!("{backend} is not in PATH");
    Ok(match backend {
        Backend::Native => Engine::Native,
        Backend::Ccp => Engine::Ccp(Ccp {
            program: paths.ccp().with_context(absent)?,
            policy: paths.policy,
        }),
        Backend::ClangExtract => Engine::ClangExtract(ClangExtract {
            program: paths.clang_extract().with_context(absent)?,
        }),
    })
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.work)?;
    let mut trees = TreeStore::open(&args.trees)?.list().trees;
    let arch = args.arch.or_else(Arch::host);
    trees.retain(|tree| {
        Some(tree.platform.arch) == arch && args.codestream.as_ref().is_none_or(|c| *c == tree.platform.codestream)
    });
    let tree = trees.pop().context("no such tree; see `klp-worker tree list`")?;
    let text = match &args.list {
        Some(list) => std::fs::read_to_string(list).with_context(|| format!("read {}", list.display()))?,
        None => args.one.join(" "),
    };
    let lines: Vec<&str> = text
        .lines()
        .map(|l| l.split('#').next().unwrap_or("").trim())
        .filter(|l| !l.is_empty())
        .collect();
    let engine = engine(args.backend)?;
    let (mut clean, mut produced) = (0, 0);
    let mut forms: BTreeMap<String, usize> = BTreeMap::new();
    for line in &lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [file, functions, object] = words[..] else {
            bail!("{line}: expected FILE FUNCTIONS OBJECT")
        };
        let (verdict, ok) = match one(&args, &engine, &tree, file, functions, object) {
            Ok((verdict, form, ok)) => {
                produced += 1;
                if ok {
                    *forms.entry(form).or_default() += 1;
                }
                (verdict, ok)
            }
            Err(e) => (format!("ERROR {e:#}"), false),
        };
        clean += usize::from(ok);
        println!(
            "{} {file} {functions} {object}: {verdict}",
            if ok { "ok  " } else { "FAIL" }
        );
    }
    println!(
        "{}: {produced} produced, {clean} of {} ({:.1} %) compile with nothing unresolved; forms {forms:?}",
        args.backend,
        lines.len(),
        100.0 * clean as f64 / lines.len().max(1) as f64
    );
    Ok(())
}

fn one(
    args: &Args,
    engine: &Engine,
    tree: &Tree,
    file: &str,
    functions: &str,
    object: &str,
) -> anyhow::Result<(String, String, bool)> {
    let started = Instant::now();
    let scratch = args.work.join("scratch");
    std::fs::create_dir_all(&scratch)?;
    let functions_list = functions.split(',').map(str::to_owned).collect();
    let mut job = Job::for_tree(tree, file, functions_list, object, &scratch.canonicalize()?)?;
    job.engine = engine.clone();
    job.avoid = args.avoid_ext.clone();
    let symbols = job.symbols()?;
    let (extraction, check, kept) = job.clone().run(&symbols)?;
    let took = started.elapsed();
    for file in kept {
        let to = args.work.join(&file.name);
        std::fs::create_dir_all(to.parent().unwrap_or(&args.work))?;
        std::fs::copy(&file.path, to)?;
    }
    let saved = args
        .work
        .join(format!("{}.{}.c", file.replace('/', "_"), functions.replace(',', "_")));
    std::fs::write(&saved, &extraction.source)?;
    if args.print {
        println!("{}", extraction.source);
        println!(
            "{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}",
            extraction.externalized,
            extraction.patched,
            extraction.warnings,
            extraction.expanded,
            extraction.dependencies
        );
    }
    let form = format!("{:?}", extraction.form);
    let mut verdict = format!(
        "{form} {} lines, {} externalized, {} expanded, {:.2} s",
        extraction.source.lines().count(),
        extraction.externalized.len(),
        extraction.expanded.len(),
        took.as_secs_f64()
    );
    if args.faithful {
        let request = job.into_request()?;
        let found = faithful::differences(&request, &extraction, &saved)?;
        if found.is_empty() {
            verdict.push_str(", text as in the kernel");
        }
        for d in found {
            verdict.push_str(&format!(
                "\n       {} differs: {}\n         in the kernel: {}",
                d.function, d.replacement, d.original
            ));
        }
    }
    for w in extraction.warnings.iter().filter(|_| args.warnings) {
        verdict.push_str(&format!("\n       warning: {w}"));
    }
    for e in check.errors.iter().take(if args.print { 20 } else { 3 }) {
        verdict.push_str(&format!("\n       {e}"));
    }
    if !check.missing_functions.is_empty() || !check.unresolved.is_empty() {
        verdict.push_str(&format!(
            "\n       missing {:?} unresolved {:?}",
            check.missing_functions, check.unresolved
        ));
    }
    Ok((verdict, form, check.ok))
}
