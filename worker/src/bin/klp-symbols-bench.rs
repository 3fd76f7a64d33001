//! Wall time and peak memory of looking up symbols in a vmlinux with debug information, beside a Python script that does it
//! with pyelftools as SUSE's klp-build does.
//!
//! Each run is a process of its own, measured from outside; the runs take turns, so that what else the machine does hits all
//! alike, and medians are printed. Both must find the same.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use klp_livepatch::report::Traced;
use klp_worker::symbols::{NameTable, ObjectIndex, SymbolTable, kallsyms};
use nix::sys::resource::{UsageWho, getrusage};

/// Measure the look-up of symbols.
#[derive(Parser)]
struct Args {
    /// A vmlinux with symbols, debug information and all
    #[arg(long)]
    vmlinux: PathBuf,
    /// The script to compare with
    #[arg(long)]
    script: PathBuf,
    /// A Python that has pyelftools
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The same kernel's boot image: what is recovered from it must be what vmlinux says
    #[arg(long)]
    boot_image: Option<PathBuf>,
    /// How many functions are looked up
    #[arg(long, default_value_t = 200)]
    symbols: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many times faster than the script it must be; less ends with an error
    #[arg(long, default_value_t = 50.0)]
    at_least: f64,
}

/// One measured run.
struct Run {
    seconds: f64,
    mib: f64,
    said: String,
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["measure", program, ..] => return measure(program, &words[2..]),
        ["look-up", vmlinux, names] => return look_up(Path::new(vmlinux), Path::new(names)),
        _ => {}
    }
    let args = Args::parse();
    if let Some(image) = &args.boot_image {
        compare(&args.vmlinux, image)?;
    }
    let names = some_functions(&args.vmlinux, args.symbols)?;
    let mut file = tempfile::NamedTempFile::new()?;
    writeln!(file, "{}", names.join("\n"))?;
    let own = std::env::current_exe()?;
    let words = |first: &Path, middle: &[&Path]| -> Vec<PathBuf> {
        std::iter::once(first)
            .chain(middle.iter().copied())
            .chain([args.vmlinux.as_path(), file.path()])
            .map(Path::to_owned)
            .collect()
    };
    let ours = words(&own, &[Path::new("look-up")]);
    let theirs = words(&args.python, &[args.script.as_path()]);
    let (mut our_runs, mut their_runs) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds.max(1) {
        our_runs.push(measured(&ours)?);
        their_runs.push(measured(&theirs)?);
    }
    ensure!(our_runs[0].said == their_runs[0].said, "the two did not find the same");
    let (ours, theirs) = (median(our_runs), median(their_runs));
    let ratio = theirs.seconds / ours.seconds;
    let size = args.vmlinux.metadata()?.len() >> 20;
    println!(
        "{} symbols in a vmlinux of {size} MiB, medians of {} runs",
        names.len(),
        args.rounds.max(1)
    );
    println!("{:<22} {:>10} {:>12}", "", "seconds", "peak MiB");
    for (what, run) in [("klp-worker", &ours), ("Python, pyelftools", &theirs)] {
        println!("{what:<22} {:>10.3} {:>12.1}", run.seconds, run.mib);
    }
    println!("{ratio:.0} times faster");
    ensure!(ratio >= args.at_least, "less than {} times", args.at_least);
    Ok(())
}

/// Looks up every name and says how many symbols it has, and whether the first is traced.
fn look_up(vmlinux: &Path, names: &Path) -> anyhow::Result<()> {
    let names = std::fs::read_to_string(names)?;
    let names: Vec<&str> = names.lines().collect();
    let places = ObjectIndex::open(vmlinux)?.places(&names).map_err(anyhow::Error::msg)?;
    let mut out = std::io::stdout().lock();
    for (name, places) in names.iter().zip(&places.by_name) {
        let traced = places.first().is_some_and(|place| place.traced == Traced::Yes);
        writeln!(out, "{name} {} {}", places.len(), u8::from(traced))?;
    }
    Ok(())
}

/// Functions from all over the file.
fn some_functions(vmlinux: &Path, count: usize) -> anyhow::Result<Vec<String>> {
    let mut all: Vec<String> = ObjectIndex::open(vmlinux)?
        .to_named()
        .map_err(anyhow::Error::msg)?
        .into_iter()
        .filter(|symbol| symbol.letter.eq_ignore_ascii_case(&b't') && !symbol.name.contains('.'))
        .map(|symbol| symbol.name)
        .collect();
    all.sort();
    all.dedup();
    ensure!(
        all.len() >= count && count > 0,
        "{} has {} functions",
        vmlinux.display(),
        all.len()
    );
    let step = all.len() / count;
    Ok(all.into_iter().step_by(step).take(count).collect())
}

/// Every function of the boot image must be at its place in vmlinux, and traced as there.
fn compare(vmlinux: &Path, image: &Path) -> anyhow::Result<()> {
    let table = |symbols| -> anyhow::Result<NameTable> {
        let mut file = tempfile::NamedTempFile::new()?;
        NameTable::write(symbols, file.as_file_mut())?;
        Ok(NameTable::open(file.path())?)
    };
    let whole = ObjectIndex::open(vmlinux)?.to_named().map_err(anyhow::Error::msg)?;
    let whole = table(whole)?;
    let recovered = kallsyms::read_boot_image(image)?;
    let functions: Vec<String> = recovered
        .iter()
        .filter(|symbol| symbol.letter.eq_ignore_ascii_case(&b't'))
        .map(|symbol| symbol.name.clone())
        .collect();
    let recovered = table(recovered)?;
    let names: Vec<&str> = functions.iter().map(String::as_str).collect();
    let (a, b) = (whole.places(&names), recovered.places(&names));
    let (a, b) = (a.map_err(anyhow::Error::msg)?, b.map_err(anyhow::Error::msg)?);
    let mut traced = 0;
    let mut differing = 0;
    for ((name, a), b) in names.iter().zip(&a.by_name).zip(&b.by_name) {
        let facts = |all: &[klp_worker::symbols::Place]| -> Vec<_> {
            all.iter()
                .map(|place| (place.address, place.position, place.traced == Traced::Yes))
                .collect()
        };
        traced += usize::from(b.iter().any(|place| place.traced == Traced::Yes));
        if facts(a) != facts(b) {
            differing += 1;
            if differing <= 20 {
                println!("  {name}: vmlinux {:x?}, boot image {:x?}", facts(a), facts(b));
            }
        }
    }
    println!(
        "boot image beside vmlinux: {} functions, {traced} traced, {differing} differ",
        functions.len()
    );
    // Marks that the linker script puts between functions are none to vmlinux, and some to kallsyms.
    ensure!(differing < 20, "the boot image was not read rightly");
    Ok(())
}

fn measured(words: &[PathBuf]) -> anyhow::Result<Run> {
    let done = Command::new(std::env::current_exe()?)
        .arg("measure")
        .args(words)
        .stderr(Stdio::inherit())
        .output()?;
    let said = String::from_utf8(done.stdout)?;
    let (said, figures) = said.trim_end().rsplit_once('\n').context("no figures")?;
    let mut figures = figures.split(' ').map(str::parse::<f64>);
    match (done.status.success(), figures.next(), figures.next()) {
        (true, Some(Ok(seconds)), Some(Ok(mib))) => Ok(Run {
            seconds,
            mib,
            said: said.to_owned(),
        }),
        _ => bail!("{} failed", words[0].display()),
    }
}

/// A process of its own, so that the peak of its children is that of the one it runs.
fn measure(program: &str, args: &[String]) -> anyhow::Result<()> {
    let start = Instant::now();
    let status = Command::new(program).args(args).status()?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{program} {status}");
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    println!("{seconds} {}", peak as f64 / 1024.0);
    Ok(())
}

fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    runs.swap_remove(runs.len() / 2)
}
