//! What `setup` and `submit` have in common: the flags that make a spec, with klp-build's names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use klp_livepatch::Share;
use klp_livepatch::outcome::Digest;
use klp_livepatch::spec::{Draft, FixDraft, MAX_FIX, Spec, TargetDraft, Violation};
use klp_worker::config;

use crate::client::Client;
use crate::cmd::scan::{self, Taken};
use crate::local::LocalArgs;
use crate::output::Failed;

/// Bytes of all fixes that one submission may bring along.
const MAX_SENT: usize = 3 << 20;

#[derive(Args)]
pub struct SpecArgs {
    /// The livepatch's name, unique on the farm, such as bsc1197597
    #[arg(long, short)]
    pub name: String,
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
    #[arg(long, value_name = "CONFIG", default_value = "", hide_default_value = true)]
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
    /// Tell what is wrong with symbols, and let it stop nothing
    #[arg(long, conflicts_with = "full_checks")]
    no_check: bool,
    /// Accepted for klp-build's sake: all checks are always made
    #[arg(long)]
    full_checks: bool,
    /// The fix: patches for all codestreams, applied in this order before anything is extracted
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "fixes")]
    patch: Vec<PathBuf>,
    /// Patches of the kernel-source repository that are fixes beside those of the CVE, wherever a branch has them
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "cve", conflicts_with_all = ["patch", "fixes"])]
    add_patches: Vec<String>,
    /// Take what a scan proposes without asking
    #[arg(long, short)]
    yes: bool,
    /// Fixes by codestream, as klp-build keeps them: FOLDER/<codestream, product or all>/NN-name.patch. Of the folders that fit
    /// a codestream the closest counts, alone; instead of --patch
    #[arg(long, value_name = "FOLDER")]
    fixes: Option<PathBuf>,
    /// Memory that one extraction needs, such as 8G [default: as the coordinator is configured]
    #[arg(long, value_name = "SIZE", value_parser = config::parse_size, default_value = "0", hide_default_value = true)]
    memory: u64,
    #[command(flatten)]
    pub share: ShareArgs,
    #[command(flatten)]
    pub local: LocalArgs,
}

/// How sources are extracted.
#[derive(Args, Clone)]
pub struct ExtractionArgs {
    /// The extraction tool: ccp, ce, native, or auto for the first of these that the trees' holders have
    #[arg(long = "type", alias = "backend", value_name = "TOOL", default_value = "auto", value_parser = parse_tool)]
    pub tool: String,
    /// Symbols to copy into the livepatch rather than to externalize
    #[arg(long, value_name = "SYMBOL", num_args = 1..)]
    pub avoid_ext: Vec<String>,
    /// Keep the fixes with the livepatch, and don't apply them
    #[arg(long)]
    pub no_patches: bool,
}

/// klp-build's short name is understood beside the farm's.
fn parse_tool(text: &str) -> Result<String, String> {
    match text {
        "ce" => Ok("clang-extract".to_owned()),
        "ccp" | "clang-extract" | "native" | "auto" => Ok(text.to_owned()),
        _ => Err("one of ccp, ce, native, auto".to_owned()),
    }
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

/// A spec with the bytes of its fixes.
pub struct Order {
    pub spec: Spec,
    /// The farm is to choose the tool; the spec's stands for any.
    pub auto: bool,
    pub fixes: Vec<Vec<u8>>,
}

impl Order {
    /// The checks of a livepatch that klp-build began.
    ///
    /// # Errors
    /// Every field that is wrong, or a patch that can't be read.
    pub fn of_project(
        name: String,
        cve: String,
        targets: Vec<TargetDraft>,
        codestreams: String,
        archs: Vec<String>,
        fixes: Option<&Path>,
    ) -> Result<Self, Failed> {
        let scoped = fixes.map(scoped).transpose()?.unwrap_or_default();
        let (drafts, fixes) = read_fixes(scoped)?;
        let draft = Draft {
            name,
            cve,
            targets,
            codestreams,
            archs,
            checks_only: true,
            fixes: drafts,
            ..Draft::default()
        };
        let spec = Spec::parse(&draft).map_err(Failed::Invalid)?;
        Ok(Self {
            spec,
            auto: true,
            fixes,
        })
    }
}

impl SpecArgs {
    /// The order, with what a scan knows of its CVE: without a fix given by hand, the fixes and the codestreams that lack
    /// them; without targets, these too.
    ///
    /// # Errors
    /// As [`Self::order`], and what the scan says.
    pub async fn scanned(self, extraction: Option<ExtractionArgs>, client: &Client) -> Result<Order, Failed> {
        let by_hand = !self.patch.is_empty() || self.fixes.is_some();
        if self.files.is_empty() {
            let found = scan::scan(client, &self.cve, &self.codestreams, &self.add_patches).await?;
            let taken = scan::proposed(&found, self.yes)?;
            return self.order(extraction, Some(taken));
        }
        // What is wrong with it needs no scan to be told.
        let order = self.order(extraction.clone(), None)?;
        if self.cve.is_empty() || by_hand {
            return Ok(order);
        }
        let found = scan::scan_if_can(client, &self.cve, &self.codestreams, &self.add_patches).await?;
        match &found {
            Some(found) => self.order(extraction, Some(scan::fixes_alone(found)?)),
            None => Ok(order),
        }
    }

    /// Checks all here first: no farm is needed to say that a spec is wrong. The coordinator checks again.
    ///
    /// # Errors
    /// Every field that is wrong, or a patch that can't be read.
    fn order(&self, extraction: Option<ExtractionArgs>, taken: Option<Taken>) -> Result<Order, Failed> {
        let (mut drafts, fixes) = self.read_fixes()?;
        let mut targets = self.files.targets(&self.conf, &self.module);
        let mut codestreams = self.codestreams.clone();
        if let Some(taken) = taken {
            targets.extend(taken.targets);
            drafts.extend(taken.fixes);
            codestreams = taken.codestreams;
        }
        let checks_only = extraction.is_none();
        let extraction = extraction.unwrap_or(ExtractionArgs {
            tool: "auto".to_owned(),
            avoid_ext: Vec::new(),
            no_patches: false,
        });
        let auto = extraction.tool == "auto";
        let draft = Draft {
            targets,
            name: self.name.clone(),
            cve: self.cve.strip_prefix("CVE-").unwrap_or(&self.cve).to_owned(),
            codestreams,
            archs: self.archs.clone(),
            backend: if auto { String::new() } else { extraction.tool },
            memory: self.memory,
            checks_only,
            forgiving: self.no_check,
            avoid: extraction.avoid_ext,
            fixes: drafts,
            unpatched: extraction.no_patches,
        };
        let spec = Spec::parse(&draft).map_err(Failed::Invalid)?;
        Ok(Order { spec, auto, fixes })
    }

    fn read_fixes(&self) -> Result<(Vec<FixDraft>, Vec<Vec<u8>>), Failed> {
        let mut files: Vec<(String, PathBuf)> = self.patch.iter().map(|p| (String::new(), p.clone())).collect();
        if let Some(folder) = &self.fixes {
            files.extend(scoped(folder)?);
        }
        read_fixes(files)
    }
}

/// Reads patches with their scopes; equal contents once.
fn read_fixes(files: Vec<(String, PathBuf)>) -> Result<(Vec<FixDraft>, Vec<Vec<u8>>), Failed> {
    let mut contents: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
    let mut drafts = Vec::with_capacity(files.len());
    for (scope, path) in files {
        let size = fs::metadata(&path)
            .with_context(|| format!("can't read {}", path.display()))?
            .len();
        if size > MAX_FIX {
            return Err(Failed::Invalid(vec![Violation {
                field: "fixes".to_owned(),
                message: format!("{} has {size} bytes; at most {MAX_FIX}", path.display()),
            }]));
        }
        let bytes = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        let digest = Digest::of(&bytes);
        // The workers look closer; but what is no patch at all is told before anything is stored.
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = text.parse::<klp_livepatch::fix::patch::Patch>() {
            return Err(Failed::Invalid(vec![Violation {
                field: "fixes".to_owned(),
                message: format!("{}: {error}", path.display()),
            }]));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        drafts.push(FixDraft {
            scope,
            name: name.unwrap_or_default(),
            digest: digest.to_string(),
            size: bytes.len() as u64,
        });
        contents.insert(digest, bytes);
    }
    let total: usize = contents.values().map(Vec::len).sum();
    if total > MAX_SENT {
        return Err(Failed::Invalid(vec![Violation {
            field: "fixes".to_owned(),
            message: format!("{total} bytes of patches together; at most {MAX_SENT}"),
        }]));
    }
    Ok((drafts, contents.into_values().collect()))
}

/// The patches in klp-build's `fixes` folder: a folder for each scope, its files in the order of their names.
fn scoped(folder: &Path) -> Result<Vec<(String, PathBuf)>, Failed> {
    let list = |folder: &Path| -> anyhow::Result<Vec<PathBuf>> {
        let read = || {
            fs::read_dir(folder)?
                .map(|entry| Ok(entry?.path()))
                .collect::<std::io::Result<Vec<_>>>()
        };
        let mut paths = read().with_context(|| format!("can't read the folder {}", folder.display()))?;
        paths.sort();
        Ok(paths)
    };
    let mut found = Vec::new();
    for scope in list(folder)?.into_iter().filter(|path| path.is_dir()) {
        let name = scope.file_name().map(|name| name.to_string_lossy().into_owned());
        let patches = list(&scope)?
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "patch"));
        found.extend(patches.map(|path| (name.clone().unwrap_or_default(), path)));
    }
    match found.is_empty() {
        true => Err(Failed::Error(anyhow::anyhow!(
            "{} holds no fixes: a folder for each codestream or product, with .patch files, is wanted",
            folder.display()
        ))),
        false => Ok(found),
    }
}

/// `--file-funcs FILE FUNC...` and its kin, repeatable: a list for each occurrence, which derive can't say.
struct FileFuncs {
    file: Vec<Vec<String>>,
    with_module: Vec<Vec<String>>,
    with_config: Vec<Vec<String>>,
}

const FILE: &str = "file-funcs";
const MOD_FILE: &str = "mod-file-funcs";
const CONF_MOD_FILE: &str = "conf-mod-file-funcs";

impl FileFuncs {
    fn is_empty(&self) -> bool {
        self.file.is_empty() && self.with_module.is_empty() && self.with_config.is_empty()
    }

    /// What was given beside a file stands for it alone; the rest comes from `--conf` and `--mod`.
    fn targets(&self, config: &str, module: &str) -> Vec<TargetDraft> {
        // As many words as each flag takes at least; clap has seen to it that they are there.
        let target = |words: &[String], config: &str, module: &str| {
            let (file, functions) = words.split_first()?;
            Some(TargetDraft {
                file: file.clone(),
                functions: functions.to_vec(),
                config: config.to_owned(),
                object: module.to_owned(),
            })
        };
        let plain = self.file.iter().filter_map(|words| target(words, config, module));
        let with_module = self.with_module.iter().filter_map(|words| {
            let (module, rest) = words.split_first()?;
            target(rest, config, module)
        });
        let with_config = self.with_config.iter().filter_map(|words| {
            let [config, module, rest @ ..] = words.as_slice() else {
                return None;
            };
            target(rest, config, module)
        });
        plain.chain(with_module).chain(with_config).collect()
    }
}

impl Args for FileFuncs {
    fn augment_args(command: Command) -> Command {
        let list = |id: &'static str, names: &'static [&'static str], help: &'static str| {
            Arg::new(id)
                .long(id)
                .value_names(names)
                .num_args(names.len()..)
                .action(ArgAction::Append)
                .help(help)
        };
        command
            .arg(
                list(
                    FILE,
                    &["FILE", "FUNC"],
                    "A source file and the functions to replace in it; repeat it for more files",
                )
                .requires("conf")
                .required_unless_present_any([MOD_FILE, CONF_MOD_FILE, "cve"]),
            )
            .arg(
                list(
                    MOD_FILE,
                    &["MODULE", "FILE", "FUNC"],
                    "The same for a file of a module of its own",
                )
                .requires("conf"),
            )
            .arg(list(
                CONF_MOD_FILE,
                &["CONFIG", "MODULE", "FILE", "FUNC"],
                "The same for a file with a config and a module of its own",
            ))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FileFuncs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let lists = |id| {
            let occurrences = matches.get_occurrences::<String>(id).into_iter().flatten();
            occurrences.map(|words| words.cloned().collect()).collect()
        };
        Ok(Self {
            file: lists(FILE),
            with_module: lists(MOD_FILE),
            with_config: lists(CONF_MOD_FILE),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn order(words: &str) -> Result<Order, Failed> {
        let line = Line::try_parse_from(["x"].into_iter().chain(words.split(' '))).map_err(anyhow::Error::from)?;
        line.spec.order(None, None)
    }

    #[test]
    fn targets_take_what_is_nearest_to_them() {
        let spec = order(
            "--name a --cve CVE-2022-1048 --conf CONFIG_A --mod m --file-funcs a.c f g --mod-file-funcs n b.c h \
             --conf-mod-file-funcs CONFIG_C vmlinux c.c i --file-funcs d.c j",
        );
        let spec = spec.map_err(|_| "refused").unwrap().spec;
        let told: Vec<String> = spec
            .targets
            .iter()
            .map(|t| format!("{} {} {} {}", t.config, t.object, t.file, t.functions.len()))
            .collect();
        assert_eq!(
            told,
            [
                "CONFIG_A m a.c 2",
                "CONFIG_A m d.c 1",
                "CONFIG_A n b.c 1",
                "CONFIG_C vmlinux c.c 1"
            ]
        );
        assert_eq!(spec.cve.unwrap().to_string(), "2022-1048");
    }

    #[test]
    fn a_file_needs_a_config_from_somewhere() {
        assert!(order("--name a --file-funcs a.c f").is_err());
        assert!(order("--name a --mod-file-funcs m a.c f").is_err());
        assert!(order("--name a --conf-mod-file-funcs CONFIG_A m a.c f").is_ok());
        assert!(order("--name a --conf CONFIG_A").is_err());
    }

    #[test]
    fn fixes_are_for_all_codestreams_or_by_folder_and_not_both() {
        let refused = order("--name a --conf CONFIG_A --file-funcs a.c f --patch x.patch --fixes y");
        let Err(Failed::Error(error)) = refused else {
            panic!("both were taken");
        };
        assert!(error.to_string().contains("cannot be used with"), "{error}");
    }

    #[test]
    fn fixes_are_read_by_scope_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("15.6/02-b.patch", "b"),
            ("15.6/01-a.patch", "a"),
            ("15.6rtu1/01-a.patch", "a"),
            ("x.txt", ""),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let patch = format!("--- a/x.c\n+++ b/x.c\n@@ -1 +1 @@\n-old\n+{text}\n");
            fs::write(path, patch).unwrap();
        }
        let line = format!(
            "--name a --conf CONFIG_A --file-funcs a.c f --fixes {}",
            folder.path().display()
        );
        let order = order(&line).map_err(|_| "refused").unwrap();
        let told: Vec<String> = order
            .spec
            .fixes
            .iter()
            .map(|f| format!("{}/{}", f.scope, f.name))
            .collect();
        assert_eq!(told, ["15.6/01-a.patch", "15.6/02-b.patch", "15.6rtu1/01-a.patch"]);
        assert_eq!(order.fixes.len(), 2, "equal contents are sent once");
    }
}
