//! By whose right a bucket is used: what the environment's AWS_* variables say, or a file. Never what is in the settings, which
//! are shown.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};

use super::super::error::BlobError;
use super::super::place::Bucket;
use crate::config::Config;

/// What is to be done where there are none.
const HELP: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the coordinator's environment, or name a file that holds them \
                    by the setting artifacts_credentials";

/// The variables that are taken from the environment; all else about S3 is a setting.
const VARIABLES: [(&str, AmazonS3ConfigKey); 10] = [
    ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
    ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
    ),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ),
    (
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
    ),
];

/// Sets of variables of which one has to be there. Without any, object_store would ask the machine's own network for the
/// credentials of a virtual machine in a cloud, and where there is none, wait for that in vain.
const ENOUGH: [&[&str]; 4] = [
    &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
    &["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"],
    &["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"],
    &[
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ],
];

/// Adds the credentials that there are.
pub(super) fn add(builder: AmazonS3Builder, config: &Config, bucket: &Bucket) -> Result<AmazonS3Builder, BlobError> {
    let unusable = |why: String, next_step: &str| BlobError::Unusable {
        place: bucket.to_string(),
        why,
        next_step: next_step.to_owned(),
    };
    if let Some(path) = &config.artifacts_credentials {
        let file = Arc::new(CredentialsFile::new(path.clone()));
        // What is wrong with it is told now, not by the first request.
        file.current()
            .map_err(|why| unusable(why, "it holds what `aws configure` writes to ~/.aws/credentials"))?;
        return Ok(builder.with_credentials(file));
    }
    let there = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let found: HashMap<&str, String> = VARIABLES
        .iter()
        .filter_map(|(name, _)| Some((*name, there(name)?)))
        .collect();
    if !is_enough(|name| found.contains_key(name)) {
        return Err(unusable("there are no credentials for it".to_owned(), HELP));
    }
    let add = |builder: AmazonS3Builder, (name, key): &(&str, AmazonS3ConfigKey)| match found.get(name) {
        Some(value) => builder.with_config(*key, value),
        None => builder,
    };
    Ok(VARIABLES.iter().fold(builder, add))
}

fn is_enough(there: impl Fn(&str) -> bool) -> bool {
    ENOUGH.iter().any(|all| all.iter().all(|name| there(name)))
}

/// A file in the form of `~/.aws/credentials`, of which the profile `default` counts. It is read again when it has changed, so
/// that keys can be replaced while the coordinator runs.
#[derive(Debug)]
struct CredentialsFile {
    path: PathBuf,
    read: Mutex<Option<(SystemTime, Arc<AwsCredential>)>>,
}

impl CredentialsFile {
    fn new(path: PathBuf) -> Self {
        let read = Mutex::default();
        Self { path, read }
    }

    fn current(&self) -> Result<Arc<AwsCredential>, String> {
        let failed = |error: std::io::Error| format!("can't read the credentials in {}: {error}", self.path.display());
        let changed = std::fs::metadata(&self.path)
            .and_then(|file| file.modified())
            .map_err(failed)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, credential)) = &*read
            && *when == changed
        {
            return Ok(Arc::clone(credential));
        }
        let text = klp_identity::files::read(&self.path).map_err(|problem| problem.to_string())?;
        let credential = Arc::new(parse(&text, &self.path)?);
        *read = Some((changed, Arc::clone(&credential)));
        Ok(credential)
    }
}

#[tonic::async_trait]
impl CredentialProvider for CredentialsFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.current().map_err(|why| object_store::Error::Generic {
            store: "S3",
            source: why.into(),
        })
    }
}

/// What is wrong is told by line and never by what it holds, which may be a secret.
fn parse(text: &str, path: &Path) -> Result<AwsCredential, String> {
    let path = path.display();
    let mut ours = true;
    let (mut key_id, mut secret_key, mut token) = (None, None, None);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(profile) = line.strip_prefix('[') {
            ours = profile.trim_end_matches(']').trim() == "default";
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!(
                "{path}, line {number}: neither `name = value` nor a `[profile]`"
            ));
        };
        let slot = match name.trim() {
            "aws_access_key_id" => &mut key_id,
            "aws_secret_access_key" => &mut secret_key,
            "aws_session_token" => &mut token,
            _ => continue,
        };
        if ours {
            *slot = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        }
    }
    match (key_id, secret_key) {
        (Some(key_id), Some(secret_key)) => Ok(AwsCredential {
            key_id,
            secret_key,
            token,
        }),
        _ => Err(format!(
            "{path} has no aws_access_key_id and aws_secret_access_key in its profile `default`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_others_write_it() {
        let plain = "aws_access_key_id=AKIA1\naws_secret_access_key = s3/cr=et\n";
        let full = "# ours\n[other]\naws_access_key_id = AKIA2\naws_secret_access_key = no\n\n[default]\n; here\nregion = x\n\
                    aws_access_key_id = AKIA1\naws_secret_access_key=s3/cr=et\naws_session_token = t\n";
        for (text, token) in [(plain, None), (full, Some("t"))] {
            let read = parse(text, Path::new("c")).unwrap();
            assert_eq!((read.key_id.as_str(), read.secret_key.as_str()), ("AKIA1", "s3/cr=et"));
            assert_eq!(read.token.as_deref(), token);
            assert!(!format!("{read:?}").contains("s3/cr=et"));
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_and_no_secret_is() {
        for (text, said) in [
            ("", "c has no aws_access_key_id"),
            (
                "[work]\naws_access_key_id = a\naws_secret_access_key = hunter2\n",
                "c has no aws_access_key_id",
            ),
            (
                "aws_access_key_id = a\naws_secret_access_key =\n",
                "c has no aws_access_key_id",
            ),
            ("aws_access_key_id = a\n\nhunter2\n", "c, line 3: neither"),
        ] {
            let error = parse(text, Path::new("c")).unwrap_err();
            assert!(error.contains(said) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_replaced_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let write = |id: &str, age: u64| {
            std::fs::write(&path, format!("aws_access_key_id = {id}\naws_secret_access_key = x\n")).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - std::time::Duration::from_secs(age))
                .unwrap();
        };
        let file = CredentialsFile::new(path.clone());
        assert!(file.current().unwrap_err().contains("can't read the credentials in"));
        write("one", 20);
        assert_eq!(file.current().unwrap().key_id, "one");
        write("two", 10);
        assert_eq!(file.current().unwrap().key_id, "two");
    }

    #[test]
    fn half_of_what_is_needed_is_not_enough() {
        let given = |names: &'static [&'static str]| is_enough(move |name| names.contains(&name));
        assert!(given(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]));
        assert!(given(&[
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_ROLE_ARN",
            "AWS_ACCESS_KEY_ID"
        ]));
        assert!(!given(&["AWS_ACCESS_KEY_ID"]) && !given(&["AWS_ROLE_ARN", "AWS_SECRET_ACCESS_KEY"]) && !given(&[]));
    }
}
