//! The key that statements are signed with: made where there is none, and made anew before its certificate ends.

use std::path::{Path, PathBuf};

use klp_identity::{Authority, Problem, Signer, files as texts};

use super::files;
use crate::lifecycle::Millis;

/// How long before the end of its certificate a key is replaced, in milliseconds.
const AHEAD: Millis = 30 * 86_400_000;

/// The key to sign with now. A farm that has a CA has it certify the key.
///
/// # Errors
/// The key can't be read or made.
pub fn current(data_dir: &Path, now: Millis) -> Result<Signer, Problem> {
    let (path, authority) = place(data_dir)?;
    if path.exists() {
        let signer = Signer::open(&path)?;
        if signer.until_ms()?.is_none_or(|until| until - now > AHEAD) {
            return Ok(signer);
        }
    }
    make(&path, authority.as_ref(), now)
}

/// A new key in place of the former one. What that has signed is verified by its own certificate, as ever.
///
/// # Errors
/// The key can't be made.
pub fn rotate(data_dir: &Path, now: Millis) -> Result<Signer, Problem> {
    let (path, authority) = place(data_dir)?;
    make(&path, authority.as_ref(), now)
}

fn make(path: &Path, authority: Option<&Authority>, now: Millis) -> Result<Signer, Problem> {
    Signer::make(path, authority, now)?;
    let signer = Signer::open(path)?;
    tracing::info!(path = %path.display(), key = signer.key_id(), "statements are signed with a new key");
    Ok(signer)
}

fn place(data_dir: &Path) -> Result<(PathBuf, Option<Authority>), Problem> {
    let folder = files::folder(data_dir);
    if !files::ca_key(&folder).exists() {
        return Ok((files::bare_signer(data_dir), None));
    }
    let (ca, key) = (texts::read(&files::ca(&folder))?, texts::read(&files::ca_key(&folder))?);
    Ok((files::signer(&folder), Some(Authority::open(&ca, &key)?)))
}

#[cfg(test)]
mod tests {
    use klp_identity::authority::{AUTHORITY_LIFE, SIGNER_LIFE, Span};

    use super::*;

    const NOW: Millis = 1_800_000_000_000;

    #[test]
    fn a_key_stays_until_its_certificate_is_about_to_end_or_somebody_asks() {
        let data = tempfile::tempdir().unwrap();
        let (folder, id) = (files::folder(data.path()), |now| {
            current(data.path(), now).unwrap().key_id()
        });
        let bare = id(NOW);
        assert_eq!(id(NOW + 1), bare);
        texts::private_folder(&folder).unwrap();
        let span = Span::from_now(NOW, AUTHORITY_LIFE).unwrap();
        let (authority, key) = Authority::new("klp-farm of a", span).unwrap();
        texts::write_private(&files::ca_key(&folder), &key).unwrap();
        texts::write_public(&files::ca(&folder), authority.pem()).unwrap();
        let first = id(NOW);
        assert_ne!(first, bare, "a farm that got a CA has its key certified");
        let life = Millis::try_from(SIGNER_LIFE.as_millis()).unwrap();
        assert_eq!(id(NOW + life - AHEAD - 2000), first);
        let second = id(NOW + life - AHEAD + 2000);
        assert_ne!(second, first);
        assert_ne!(rotate(data.path(), NOW + life).unwrap().key_id(), second);
    }
}
