//! Wall time and peak memory of one native extraction, beside the kernel's compiler compiling the same file with the same flags.
//!
//! Each run is a process of its own, measured from outside; the runs are interleaved, so that what else the machine does hits
//! all alike, and medians are printed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Parser;
use klp_livepatch::{Arch, Codestream};
use klp_worker::extract::compile_check::module_args;
use klp_worker::extract::{Job, Request, native};
use klp_worker::trees::TreeStore;
use nix::sys::resource::{UsageWho, getrusage};

/// Measure one extraction against one compilation.
#[derive(Parser)]
struct Args {
    /// The folder of kernel trees
    #[arg(long, env = "KLP_FARM_TREES")]
    trees: PathBuf,
    /// The kernel to extract from [default: the newest]
    #[arg(long)]
    codestream: Option<Codestream>,
    /// The module that holds the functions, or vmlinux
    #[arg(long, default_value = "snd-pcm")]
    object: String,
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    #[arg(long, default_value = "sound/core/pcm.c")]
    file: String,
    #[arg(long, default_value = "snd_pcm_attach_substream,snd_pcm_detach_substream")]
    functions: String,
    /// Used by the tool itself: do one extraction (`extract`, `check`) of the stored request.
    #[arg(long, hide = true)]
    child: Option<String>,
    /// Where the tool finds what it stored for itself.
    #[arg(long, hide = true)]
    work: Option<PathBuf>,
}

/// One measured run.
#[derive(Clone, Copy)]
struct Run {
    seconds: f64,
    mib: f64,
}

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("measure") {
        return measure(&words.collect::<Vec<_>>());
    }
    let args = Args::parse();
    if let (Some(what), Some(work)) = (&args.child, &args.work) {
        return child(work, what);
    }
    let mut trees = TreeStore::open(&args.trees)?.list().trees;
    trees.retain(|tree| {
        Some(tree.platform.arch) == Arch::host()
            && args.codestream.as_ref().is_none_or(|c| *c == tree.platform.codestream)
    });
    let tree = trees.pop().context("no such tree; see `klp-worker tree list`")?;
    let scratch = tempfile::tempdir()?;
    let work = scratch.path();
    let functions = args.functions.split(',').map(str::to_owned).collect();
    let job = Job::for_tree(&tree, &args.file, functions, &args.object, work)?;
    std::fs::write(work.join("job.json"), serde_json::to_vec(&job)?)?;
    let request = job.into_request()?;
    std::fs::write(work.join("request.json"), serde_json::to_vec(&request)?)?;

    let mut gcc: Vec<String> = vec![request.command.compiler.clone()];
    gcc.extend(module_args(&request));
    gcc.extend([
        "-c".into(),
        "-o".into(),
        work.join("bench.o").to_string_lossy().into_owned(),
        tree.src.join(&args.file).to_string_lossy().into_owned(),
    ]);
    let own = std::env::current_exe()?.to_string_lossy().into_owned();
    let again = |what: &str| {
        let mut line: Vec<String> = vec![own.clone()];
        line.extend(std::env::args().skip(1));
        line.extend([
            "--child".into(),
            what.into(),
            "--work".into(),
            work.to_string_lossy().into_owned(),
        ]);
        line
    };
    let rows = [
        ("gcc -c of the file", gcc),
        ("native extraction", again("extract")),
        ("native extraction and compile check", again("check")),
    ];
    let mut runs: [Vec<Run>; 3] = Default::default();
    for _ in 0..args.rounds {
        for (row, into) in rows.iter().zip(&mut runs) {
            into.push(run(&own, &row.1, &request.command.directory).with_context(|| row.0)?);
        }
    }
    let floor = median(&runs[0], |r| r.seconds);
    println!(
        "{} ({}) of {}, {} rounds, medians",
        args.file, args.functions, tree.platform, args.rounds
    );
    println!("{:<38} {:>9} {:>10} {:>7}", "", "seconds", "peak MiB", "ratio");
    for (row, runs) in rows.iter().zip(&runs) {
        let seconds = median(runs, |r| r.seconds);
        println!(
            "{:<38} {:>9.3} {:>10.1} {:>7.2}",
            row.0,
            seconds,
            median(runs, |r| r.mib),
            seconds / floor
        );
    }
    Ok(())
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs a command in a fresh process of this tool, whose children's peak memory is then that command's alone.
fn run(own: &str, line: &[String], directory: &std::path::Path) -> anyhow::Result<Run> {
    let output = Command::new(own)
        .arg("measure")
        .args(line)
        .current_dir(directory)
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_whitespace().map(str::parse::<f64>);
    match (words.next(), words.next()) {
        (Some(Ok(seconds)), Some(Ok(mib))) if output.status.success() => Ok(Run { seconds, mib }),
        _ => bail!("{} failed", line[0]),
    }
}

fn measure(line: &[String]) -> anyhow::Result<()> {
    let [program, args @ ..] = line else {
        bail!("measure what?")
    };
    let started = Instant::now();
    let status = Command::new(program).args(args).stdout(Stdio::null()).status()?;
    let seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    // Linux counts ru_maxrss in KiB; of several descendants it is the greatest.
    let kib = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    println!("{seconds} {}", kib as f64 / 1024.0);
    Ok(())
}

fn child(work: &Path, what: &str) -> anyhow::Result<()> {
    let request: Request = serde_json::from_slice(&std::fs::read(work.join("request.json"))?)?;
    let job: Job = serde_json::from_slice(&std::fs::read(work.join("job.json"))?)?;
    let symbols = job.symbols()?;
    if what == "check" {
        let (_, check) = native::extract_and_check(&request, &symbols)?;
        if !check.ok {
            bail!("the extraction does not compile: {check:?}");
        }
    } else {
        native::extract(&request, &symbols)?;
    }
    Ok(())
}
