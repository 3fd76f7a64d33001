//! Where artifacts are kept, as the setting `artifacts` names it: a folder, or a part of a bucket of S3.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The setting `artifacts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// The folder `blobs` in the data folder.
    #[default]
    DataDir,
    /// Another folder of this machine.
    Folder(PathBuf),
    S3(Bucket),
}

/// A bucket, and what every key of ours in it begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    name: String,
    /// Without slashes at its ends; perhaps empty.
    prefix: String,
}

/// This names no place for artifacts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error(
        "{0:?} is no place for artifacts; name one as in `s3://bucket/prefix` or `file:///srv/artifacts`, or leave it empty for \
         the folder in data_dir"
    )]
    NoUrl(String),
    #[error(
        "artifacts can't be kept at {0}://: there are `s3://bucket/prefix`, for whatever speaks S3, and `file:///srv/artifacts`"
    )]
    Scheme(String),
    // Not repeated here: what is there may be a secret.
    #[error(
        "a place for artifacts holds no user, password or parameters: credentials come from the environment's AWS_* or the file \
         that artifacts_credentials names, all else from settings of their own"
    )]
    Laden,
    #[error(
        "{0:?} is no bucket's name; that has 3 to 63 of a-z, 0-9, `.` and `-`, and begins and ends with a letter or a digit"
    )]
    Bucket(String),
    #[error(
        "{0:?} can't be part of a prefix in a bucket; that has A-Z, a-z, 0-9, `.`, `_` and `-`, in parts with `/` between"
    )]
    Prefix(String),
    #[error("{0:?} is no folder's absolute path, as in `file:///srv/artifacts`")]
    Path(String),
}

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        if text.is_empty() {
            return Ok(Self::DataDir);
        }
        if text.contains(['@', '?', '#']) {
            return Err(NoPlace::Laden);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(NoPlace::NoUrl(text.to_owned()));
        };
        match scheme {
            "s3" => rest.parse().map(Self::S3),
            "file" => {
                let path = Path::new(rest);
                let plain = path.is_absolute() && path.parent().is_some() && !rest.contains(['%', '\0']);
                let inside = path
                    .components()
                    .all(|part| !matches!(part, std::path::Component::ParentDir));
                match plain && inside {
                    true => Ok(Self::Folder(path.to_owned())),
                    false => Err(NoPlace::Path(rest.to_owned())),
                }
            }
            _ => Err(NoPlace::Scheme(scheme.to_owned())),
        }
    }
}

impl FromStr for Bucket {
    type Err = NoPlace;

    /// By what follows `s3://`.
    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let (name, prefix) = text.split_once('/').unwrap_or((text, ""));
        let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let named = (3..=63).contains(&name.len())
            && name.chars().all(|c| end(c) || matches!(c, '.' | '-'))
            && name.starts_with(end)
            && name.ends_with(end);
        if !named {
            return Err(NoPlace::Bucket(name.to_owned()));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let plain = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            !matches!(part, "" | "." | "..") && part.chars().all(known)
        };
        if let Some(bad) = prefix.split('/').find(|part| !prefix.is_empty() && !plain(part)) {
            return Err(NoPlace::Prefix(bad.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

impl Bucket {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of what has this name here.
    pub fn key(&self, name: &str) -> String {
        match self.prefix.as_str() {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "s3://{}", self.name)?;
        match self.prefix.as_str() {
            "" => Ok(()),
            prefix => write!(out, "/{prefix}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataDir => Ok(()),
            Self::Folder(path) => write!(out, "file://{}", path.display()),
            Self::S3(bucket) => bucket.fmt(out),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = NoPlace;

    fn try_from(text: String) -> Result<Self, NoPlace> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_as_they_are_written() {
        for text in [
            "",
            "s3://farm",
            "s3://my.farm-2/klp",
            "s3://farm/klp/artifacts_1.x",
            "file:///srv/artifacts",
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        let place: Place = "s3://farm/klp/".parse().unwrap();
        assert_eq!(place.to_string(), "s3://farm/klp");
        let Place::S3(bucket) = place else { panic!() };
        assert_eq!(bucket.key("ab/abcd"), "klp/ab/abcd");
        assert_eq!("farm".parse::<Bucket>().unwrap().key("ab/abcd"), "ab/abcd");
    }

    #[test]
    fn what_names_no_place_is_refused_by_what_is_wrong_and_no_secret_is_repeated() {
        for (text, said) in [
            ("/srv/artifacts", "is no place for artifacts"),
            ("s3:/farm", "is no place for artifacts"),
            ("gs://farm/x", "can't be kept at gs://"),
            ("S3://farm", "can't be kept at S3://"),
            ("https://farm.s3.amazonaws.com", "can't be kept at https://"),
            ("s3://AKIA:hunter2@farm/x", "holds no user, password or parameters"),
            ("s3://farm/x?secret=hunter2", "holds no user, password or parameters"),
            ("s3://farm/x#hunter2", "holds no user, password or parameters"),
            ("s3://", "\"\" is no bucket's name"),
            ("s3:///x", "\"\" is no bucket's name"),
            ("s3://ab", "\"ab\" is no bucket's name"),
            ("s3://Farm", "\"Farm\" is no bucket's name"),
            ("s3://-farm", "\"-farm\" is no bucket's name"),
            ("s3://farm.", "\"farm.\" is no bucket's name"),
            ("s3://farm:9000/x", "\"farm:9000\" is no bucket's name"),
            ("s3://farm//x", "\"\" can't be part of a prefix"),
            ("s3://farm/a/../b", "\"..\" can't be part of a prefix"),
            ("s3://farm/a b", "\"a b\" can't be part of a prefix"),
            ("s3://farm/a%2fb", "\"a%2fb\" can't be part of a prefix"),
            ("file://srv/artifacts", "is no folder's absolute path"),
            ("file:///", "is no folder's absolute path"),
            ("file:///srv/../etc", "is no folder's absolute path"),
            ("file:///srv/a%20b", "is no folder's absolute path"),
        ] {
            let error = text.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
