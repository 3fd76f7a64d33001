//! Measures the native backend: extracts the functions of a list from one tree and prints which compile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Parser;
use klp_livepatch::{Arch, Codestream};
use klp_worker::extract::{Job, faithful, native};
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
    let mut clean = 0;
    let mut forms: BTreeMap<String, usize> = BTreeMap::new();
    for line in &lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [file, functions, object] = words[..] else {
            bail!("{line}: expected FILE FUNCTIONS OBJECT")
        };
        let (verdict, ok) = match one(&args, &tree, file, functions, object) {
            Ok((verdict, form, ok)) => {
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
        "{clean} of {} ({:.1} %) compile with nothing unresolved; forms {forms:?}",
        lines.len(),
        100.0 * clean as f64 / lines.len().max(1) as f64
    );
    Ok(())
}

fn one(args: &Args, tree: &Tree, file: &str, functions: &str, object: &str) -> anyhow::Result<(String, String, bool)> {
    let started = Instant::now();
    let scratch = args.work.join("scratch");
    std::fs::create_dir_all(&scratch)?;
    let functions_list = functions.split(',').map(str::to_owned).collect();
    let job = Job::for_tree(tree, file, functions_list, object, &scratch.canonicalize()?)?;
    let symbols = job.symbols()?;
    let request = job.into_request()?;
    let commanded = started.elapsed();
    let (extraction, check) = native::extract_and_check(&request, &symbols)?;
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
        "{form} {} lines, {} externalized, {} expanded, {:.2} s + {:.2} s for the command",
        extraction.source.lines().count(),
        extraction.externalized.len(),
        extraction.expanded.len(),
        (started.elapsed() - commanded).as_secs_f64(),
        commanded.as_secs_f64()
    );
    if args.faithful {
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
