//! `klp-farm submit`: builds a spec, checks it here, and sends it with an id of its own.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use klp_livepatch::Share;
use klp_livepatch::spec::{Draft, Spec, TargetDraft};
use klp_proto::v1;
use klp_worker::config;
use uuid::Uuid;

use crate::client::{self, Client};
use crate::follow;
use crate::output::{self, Failed, Mode};
use crate::view;

const EXAMPLES: &str = "\
Examples:
  klp-farm submit --name bsc1197597 --cve 2022-1048 --mod snd-pcm --conf CONFIG_SND_PCM \\
      --file-funcs sound/core/pcm.c snd_pcm_attach_substream snd_pcm_detach_substream
  klp-farm submit --name bsc1 --conf CONFIG_PROC_FS \\
      --file-funcs fs/proc/cmdline.c cmdline_proc_show --codestreams '^(?!12.5)' --archs x86_64 s390x --wait

Exit codes: 0 stored (with --wait: all succeeded), 1 failed, 2 not a valid livepatch,
3 with --wait: not all succeeded.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct SubmitArgs {
    /// The livepatch's name, unique on the farm, such as bsc1197597
    #[arg(long, short)]
    name: String,
    /// The CVE it closes, such as 2022-1048
    #[arg(long, default_value = "", hide_default_value = true)]
    cve: String,
    /// The module that holds the functions where the config is `m` [default: vmlinux]
    #[arg(
        long = "mod",
        alias = "module",
        value_name = "MODULE",
        default_value = "",
        hide_default_value = true
    )]
    module: String,
    /// The config that decides whether the files are built, such as CONFIG_SND_PCM
    #[arg(long, value_name = "CONFIG")]
    conf: String,
    #[command(flatten)]
    files: FileFuncs,
    /// Codestreams to make it for: a regular expression, anchored at the start [default: all]
    #[arg(
        long,
        alias = "filter",
        value_name = "REGEX",
        default_value = "",
        hide_default_value = true
    )]
    codestreams: String,
    /// Architectures to make it for [default: all that the farm holds]
    #[arg(long, value_name = "ARCH", num_args = 1..)]
    archs: Vec<String>,
    /// The extraction tool: native, ccp or clang-extract
    #[arg(long, default_value = "native")]
    backend: String,
    /// Memory that one extraction needs, such as 8G [default: as the coordinator is configured]
    #[arg(long, value_name = "SIZE", value_parser = config::parse_size, default_value = "0", hide_default_value = true)]
    memory: u64,
    #[command(flatten)]
    share: ShareArgs,
    /// Follow it until it ends
    #[arg(long)]
    wait: bool,
}

/// How a livepatch competes for workers.
#[derive(Args, Clone, Copy)]
pub struct ShareArgs {
    /// From -100 to 100: a higher one goes first
    #[arg(long, short, allow_negative_numbers = true, default_value_t = 0)]
    pub priority: i32,
    /// From 1 to 1000: the share of workers among livepatches of one priority
    #[arg(long, default_value_t = Share::DEFAULT_WEIGHT.into())]
    pub weight: u32,
}

impl ShareArgs {
    pub fn parse(self) -> Result<Share, Failed> {
        Share::new(self.priority, self.weight).map_err(Failed::Invalid)
    }
}

/// `--file-funcs FILE FUNC...`, repeatable: a list for each occurrence, which derive can't say.
struct FileFuncs(Vec<(String, Vec<String>)>);

impl Args for FileFuncs {
    fn augment_args(command: Command) -> Command {
        command.arg(
            Arg::new("file_funcs")
                .long("file-funcs")
                .value_names(["FILE", "FUNC"])
                .num_args(2..)
                .action(ArgAction::Append)
                .required(true)
                .help("A source file and the functions to replace in it; repeat it for more files"),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FileFuncs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let occurrences = matches.get_occurrences::<String>("file_funcs").into_iter().flatten();
        Ok(Self(
            occurrences
                .filter_map(|mut words| Some((words.next()?.clone(), words.cloned().collect())))
                .collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl SubmitArgs {
    fn draft(self) -> Draft {
        let (config, object) = (self.conf, self.module);
        let target = |(file, functions)| TargetDraft {
            file,
            functions,
            config: config.clone(),
            object: object.clone(),
        };
        Draft {
            name: self.name,
            cve: self.cve,
            targets: self.files.0.into_iter().map(target).collect(),
            codestreams: self.codestreams,
            archs: self.archs,
            backend: self.backend,
            memory: self.memory,
        }
    }
}

pub async fn run(args: SubmitArgs, client: &Client, mode: Mode) -> Result<(), Failed> {
    let (wait, share) = (args.wait, args.share.parse()?);
    // Here first: no farm is needed to say that a spec is wrong. The coordinator checks again.
    let spec = Spec::parse(&args.draft()).map_err(Failed::Invalid)?;
    let livepatch = send(client, &spec, share).await?;
    if wait {
        eprintln!("{} submitted", spec.name);
        return follow::follow(client, &spec.name, mode).await;
    }
    if mode == Mode::Json {
        return output::json(&view::Livepatch::from(livepatch));
    }
    let tasks = livepatch.counts.unwrap_or_default();
    output::print(&format!(
        "{name} submitted: {count} codestreams x architectures; follow it with `klp-farm watch {name}`",
        name = spec.name,
        count = tasks.waiting + tasks.leased,
    ))
}

/// Sends a spec under one id for all tries, so that an answer that was lost does no harm.
async fn send(client: &Client, spec: &Spec, share: Share) -> Result<v1::Livepatch, Failed> {
    let request = v1::SubmitRequest {
        id: Uuid::now_v7().to_string(),
        spec: Some(spec.into()),
        share: Some(share.into()),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        match client.livepatches().submit(request.clone()).await {
            Ok(response) => return Ok(response.into_inner().livepatch.unwrap_or_default()),
            Err(status) if client::is_broken(&status) && tries < 3 => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(status) => return Err(client.explain(status)),
        }
    }
}
