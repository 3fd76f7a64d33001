//! Wall time and peak memory of one native extraction, beside the kernel's compiler compiling the same file with the same flags.
//!
//! Each run is a process of its own, measured from outside; the runs are interleaved, so that what else the machine does hits
//! all alike, and medians are printed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Parser;
use klp_worker::extract::compile_check::module_args;
use klp_worker::extract::{CommandSource, Request, compile_command, native};
use klp_worker::symbols::{NameTable, Symbols, kallsyms};
use nix::sys::resource::{UsageWho, getrusage};

/// Measure one extraction against one compilation.
#[derive(Parser)]
struct Args {
    #[arg(long)]
    src: PathBuf,
    #[arg(long)]
    obj: PathBuf,
    #[arg(long, default_value = "gcc-12")]
    cc: String,
    /// The patched module; without it, vmlinux.
    #[arg(long)]
    module: Option<PathBuf>,
    /// The boot image, whose kallsyms name vmlinux's symbols.
    #[arg(long)]
    image: PathBuf,
    /// A directory for temporary files.
    #[arg(long)]
    work: PathBuf,
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    #[arg(long, default_value = "sound/core/pcm.c")]
    file: String,
    #[arg(long, default_value = "snd_pcm_attach_substream,snd_pcm_detach_substream")]
    functions: String,
    /// Used by the tool itself: do one extraction (`extract`, `check`) of the stored request.
    #[arg(long, hide = true)]
    child: Option<String>,
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
    if let Some(what) = &args.child {
        return child(&args, what);
    }
    std::fs::create_dir_all(&args.work)?;
    let mut names = Vec::new();
    NameTable::write(kallsyms::read_boot_image(&args.image)?, &mut names)?;
    std::fs::write(args.work.join("vmlinux.names"), names)?;
    let command = compile_command(
        &CommandSource {
            src_dir: &args.src,
            obj_dir: &args.obj,
            cc: &args.cc,
            make_args: &[format!("CC={}", args.cc), "RUSTC=/bin/false".to_owned()],
        },
        &args.file,
    )?;
    let object = args.module.as_ref().and_then(|m| m.file_stem()).map_or_else(
        || "vmlinux".to_owned(),
        |s| s.to_string_lossy().trim_end_matches(".ko").to_owned(),
    );
    let request = Request {
        file: args.file.clone(),
        functions: args.functions.split(',').map(str::to_owned).collect(),
        object,
        src_dir: args.src.clone(),
        obj_dir: args.obj.clone(),
        command,
        scratch: args.work.clone(),
    };
    std::fs::write(args.work.join("request.json"), serde_json::to_vec(&request)?)?;

    let mut gcc: Vec<String> = vec![request.command.compiler.clone()];
    gcc.extend(module_args(&request));
    gcc.extend([
        "-c".into(),
        "-o".into(),
        args.work.join("bench.o").to_string_lossy().into_owned(),
        args.src.join(&args.file).to_string_lossy().into_owned(),
    ]);
    let own = std::env::current_exe()?.to_string_lossy().into_owned();
    let again = |what: &str| {
        let mut line: Vec<String> = vec![own.clone()];
        line.extend(std::env::args().skip(1));
        line.extend(["--child".into(), what.into()]);
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
    println!("{} ({}), {} rounds, medians", args.file, args.functions, args.rounds);
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

fn child(args: &Args, what: &str) -> anyhow::Result<()> {
    let request: Request = serde_json::from_slice(&std::fs::read(args.work.join("request.json"))?)?;
    let symbols = Symbols::open(
        &args.obj.join("Module.symvers"),
        &args.work.join("vmlinux.names"),
        args.module.as_deref(),
    )?;
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
