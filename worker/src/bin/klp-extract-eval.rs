//! Measures the native backend: extracts the functions of a list from one tree and prints which compile.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Parser;
use klp_worker::extract::{CommandSource, Request, compile_command, faithful, native};
use klp_worker::symbols::{NameTable, Symbols, kallsyms};

/// Extract and compile each line of a list (`FILE FUNCTION[,FUNCTION...] OBJECT`) and print a table.
#[derive(Parser)]
struct Args {
    #[arg(long)]
    src: PathBuf,
    #[arg(long)]
    obj: PathBuf,
    /// The kernel's C compiler.
    #[arg(long, default_value = "gcc-12")]
    cc: String,
    /// The directory with the modules (searched recursively).
    #[arg(long)]
    modules: PathBuf,
    /// The boot image, whose kallsyms name vmlinux's symbols.
    #[arg(long)]
    image: PathBuf,
    /// Where the image's names are kept between runs, and where outputs go.
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
    let table = args.work.join("vmlinux.names");
    if !table.exists() {
        let names = kallsyms::read_boot_image(&args.image)?;
        let mut out = Vec::new();
        NameTable::write(names, &mut out)?;
        std::fs::write(&table, out)?;
    }
    let mut modules = HashMap::new();
    index_modules(&args.modules, &mut modules)?;
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
        let (verdict, ok) = match one(&args, &table, &modules, file, functions, object) {
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

fn one(
    args: &Args,
    table: &Path,
    modules: &HashMap<String, PathBuf>,
    file: &str,
    functions: &str,
    object: &str,
) -> anyhow::Result<(String, String, bool)> {
    let started = Instant::now();
    let command = compile_command(
        &CommandSource {
            src_dir: &args.src,
            obj_dir: &args.obj,
            cc: &args.cc,
            make_args: &[format!("CC={}", args.cc), "RUSTC=/bin/false".to_owned()],
        },
        file,
    )?;
    let commanded = started.elapsed();
    let module = match object {
        "vmlinux" => None,
        name => Some(
            modules
                .get(&name.replace('-', "_"))
                .with_context(|| format!("no module {name}"))?
                .as_path(),
        ),
    };
    let symbols = Symbols::open(&args.obj.join("Module.symvers"), table, module)?;
    let scratch = args.work.join("scratch");
    std::fs::create_dir_all(&scratch)?;
    let request = Request {
        file: file.to_owned(),
        functions: functions.split(',').map(str::to_owned).collect(),
        object: object.to_owned(),
        src_dir: args.src.clone(),
        obj_dir: args.obj.clone(),
        command,
        scratch,
    };
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

fn index_modules(dir: &Path, into: &mut HashMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            index_modules(&path, into)?;
        } else if let Some((stem, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            into.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}
