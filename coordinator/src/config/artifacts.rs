//! Whether the settings about where artifacts are kept fit together.

use hyper::Uri;

use super::Config;
use crate::blobs::place::Place;

pub(super) fn check(config: &Config, bad: &mut Vec<String>) {
    let given = [
        ("artifacts_endpoint", config.artifacts_endpoint.is_some()),
        ("artifacts_plain_http", config.artifacts_plain_http),
        ("artifacts_credentials", config.artifacts_credentials.is_some()),
    ];
    if !matches!(config.artifacts, Place::S3(_)) {
        for (setting, _) in given.iter().filter(|(_, given)| *given) {
            bad.push(format!(
                "setting {setting} is for artifacts in a bucket, and artifacts is {:?}; leave it out, or name a bucket as in \
                 `s3://bucket/prefix`",
                config.artifacts.to_string()
            ));
        }
        return;
    }
    if let Some(Err(why)) = config
        .artifacts_endpoint
        .as_deref()
        .map(|endpoint| endpoint_is_right(endpoint, config.artifacts_plain_http))
    {
        bad.push(format!("setting artifacts_endpoint {why}"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let region = &config.artifacts_region;
    if region.is_empty() || region.len() > 64 || !region.chars().all(plain) {
        bad.push(format!(
            "setting artifacts_region is {region:?}; it must be a region's name, as in `eu-central-1`"
        ));
    }
}

/// What is wrong is told without the text, in which a secret may be.
fn endpoint_is_right(text: &str, plain_http: bool) -> Result<(), &'static str> {
    const FORM: &str = "is no server's address; it must be as in `https://s3.example.org:9000`, without a path, and without a bucket, \
                        which `artifacts` names";
    let uri: Uri = text.parse().map_err(|_| FORM)?;
    let authority = uri.authority().ok_or(FORM)?;
    if authority.as_str().contains('@') {
        return Err(
            "holds a user or password; credentials come from the environment or the file that artifacts_credentials names",
        );
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
        return Err(FORM);
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if plain_http => Ok(()),
        Some("http") => Err(
            "is asked without TLS, so that whoever is on the way can read and alter what is stored; make it https, or say \
             `artifacts_plain_http = true` where nobody is on the way",
        ),
        _ => Err(FORM),
    }
}
