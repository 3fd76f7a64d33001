//! What a user has configured: a TOML file whose values stand where neither a flag nor the environment says otherwise.

use std::path::PathBuf;
use std::{env, fs};

use klp_livepatch::render::Author;
use klp_worker::config::parse_coordinator;
use serde::Deserialize;
use tonic::transport::Uri;

/// Longest accepted file, in bytes.
const MAX_FILE: u64 = 64 << 10;

const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7420";

/// For `--help`: what counts when several say something.
pub const PRECEDENCE: &str = "\
Settings: a flag counts before the environment, the environment before the configuration file, and that before the default.
  KLP_FARM_COORDINATOR  where the coordinator listens            coordinator = \"https://farm:7420\"
  KLP_FARM_CA           the farm's CA                            ca = \"/etc/klp-farm/ca.pem\"
  KLP_FARM_TOKEN        the token itself                         token_file = \"/home/me/.config/klp-farm/token\"
  KLP_WORK_DIR          where livepatches are written            work_dir = \"/home/me/livepatches\"
  KLP_FARM_CONFIG       the file [default: ~/.config/klp-farm/config.toml]
  In the file alone, whose name is on what is written:           [author] name, mail, company, licence";

/// The configuration file's content. Unknown keys are errors, lest a slip go unnoticed.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    /// URL of the coordinator.
    coordinator: Option<String>,
    /// Certificates by which the coordinator is recognised over https.
    ca: Option<PathBuf>,
    /// Holds the token that says who asks. `~/` is the home folder.
    token_file: Option<PathBuf>,
    /// Where livepatches are written.
    work_dir: Option<PathBuf>,
    /// The catalog of codestreams, for `--data-dir`.
    catalog: Option<PathBuf>,
    author: AuthorFile,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AuthorFile {
    /// As in `Signed-off-by`. Default: git's `user.name` in the environment, else `unknown`.
    name: Option<String>,
    mail: Option<String>,
    /// Who holds the copyright; default: the author.
    company: String,
    /// The licence's notice at the head of each C file; default: an SPDX line for GPL-2.0-or-later.
    licence: Option<String>,
}

#[derive(Debug)]
pub struct Settings {
    pub coordinator: Uri,
    pub ca: Option<PathBuf>,
    /// `None`: the environment may hold the token itself.
    pub token_file: Option<PathBuf>,
    pub work_dir: PathBuf,
    /// The catalog of codestreams, for a farm in this process.
    pub catalog: Option<PathBuf>,
    pub author: Author,
}

impl Settings {
    /// Reads the file that the environment names, or the usual one if it is there.
    ///
    /// # Errors
    /// The file can't be read or holds what makes no sense, in words for whoever wrote it.
    pub fn load(coordinator: Option<Uri>, ca: Option<PathBuf>, token_file: Option<PathBuf>) -> Result<Self, String> {
        let file = match env::var_os("KLP_FARM_CONFIG") {
            Some(path) => Some(PathBuf::from(path)),
            None => usual().filter(|path| path.exists()),
        };
        let text = match &file {
            None => String::new(),
            Some(path) => {
                let failed = |error| format!("can't read the configuration {}: {error}", path.display());
                let size = fs::metadata(path).map_err(failed)?.len();
                if size > MAX_FILE {
                    return Err(format!("{} has {size} bytes; at most {MAX_FILE}", path.display()));
                }
                fs::read_to_string(path).map_err(failed)?
            }
        };
        let work_dir = env::var_os("KLP_WORK_DIR")
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from);
        let mut settings = Self::of(&text, coordinator, work_dir).map_err(|error| {
            let file = file.unwrap_or_default();
            format!("{}: {error}", file.display())
        })?;
        settings.ca = ca.or(settings.ca);
        let in_environment = env::var_os("KLP_FARM_TOKEN").is_some_and(|token| !token.is_empty());
        settings.token_file = match (token_file, in_environment) {
            (Some(named), _) => Some(named),
            (None, true) => None,
            (None, false) => settings.token_file,
        };
        Ok(settings)
    }

    /// The settings by the file's text, and what flags and the environment say.
    fn of(text: &str, coordinator: Option<Uri>, work_dir: Option<PathBuf>) -> Result<Self, String> {
        let file: File = klp_settings::parse(text).map_err(|slip| slip.to_string())?;
        let configured = file.coordinator.as_deref().unwrap_or(DEFAULT_COORDINATOR);
        let user = || env::var("GIT_AUTHOR_NAME").or_else(|_| env::var("USER"));
        Ok(Self {
            coordinator: match coordinator {
                Some(uri) => uri,
                None => parse_coordinator(configured).map_err(|error| format!("coordinator: {error}"))?,
            },
            ca: file.ca.map(from_home),
            token_file: file.token_file.map(from_home),
            work_dir: work_dir.or(file.work_dir).unwrap_or_else(|| PathBuf::from(".")),
            catalog: env::var_os("KLP_FARM_CATALOG").map(PathBuf::from).or(file.catalog),
            author: Author {
                name: file
                    .author
                    .name
                    .or_else(|| user().ok())
                    .unwrap_or_else(|| "unknown".to_owned()),
                mail: file
                    .author
                    .mail
                    .or_else(|| env::var("GIT_AUTHOR_EMAIL").ok())
                    .unwrap_or_else(|| "unknown@localhost".to_owned()),
                company: file.author.company,
                licence: file.author.licence.unwrap_or_else(|| Author::LICENCE.to_owned()),
            },
        })
    }
}

/// A path in a file, where no shell reads it.
fn from_home(path: PathBuf) -> PathBuf {
    match (path.strip_prefix("~"), env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => path,
    }
}

fn usual() -> Option<PathBuf> {
    let config = env::var_os("XDG_CONFIG_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")))?;
    Some(config.join("klp-farm/config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "coordinator = \"http://farm:1\"\nwork_dir = \"/w\"\n[author]\nname = \"A\"\nmail = \"a@b\"\n";

    #[test]
    fn what_is_said_nearer_counts() {
        let from_file = Settings::of(FILE, None, None).unwrap();
        assert_eq!(from_file.coordinator.to_string(), "http://farm:1/");
        assert_eq!(
            (from_file.work_dir, from_file.author.address()),
            ("/w".into(), "A <a@b>".to_owned())
        );
        let flag = Settings::of(FILE, Some("http://other:2".parse().unwrap()), Some("/x".into())).unwrap();
        assert_eq!(
            (flag.coordinator.to_string(), flag.work_dir),
            ("http://other:2/".to_owned(), "/x".into())
        );
        let nothing = Settings::of("", None, None).unwrap();
        assert_eq!(nothing.coordinator.to_string(), "http://127.0.0.1:7420/");
    }

    #[test]
    fn slips_are_told() {
        for (bad, word) in [
            (
                "workdir = \"/w\"",
                "line 1: unknown setting `workdir`; did you mean `work_dir`?",
            ),
            ("coordinator = \"ftp://x\"", "coordinator"),
            (
                "[author]\nnane = 1",
                "line 2: unknown setting `nane`; did you mean `name`?",
            ),
        ] {
            let error = Settings::of(bad, None, None).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_sample_names_every_setting() {
        use std::collections::BTreeSet;

        use klp_settings::{keys, sample};

        const SAMPLE: &str = include_str!("../../deploy/klp-farm.toml");
        let everything = sample::with_everything(SAMPLE);
        Settings::of(SAMPLE, None, None).unwrap();
        Settings::of(&everything, None, None).unwrap();
        let table: toml::Table = toml::from_str(&everything).unwrap();
        let named = |table: &toml::Table| table.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(named(&table), keys::<File>().into_iter().collect());
        let author = table["author"].as_table().unwrap();
        assert_eq!(named(author), keys::<AuthorFile>().into_iter().collect());
    }
}
