//! Which branch of a kernel-source repository a codestream's fixes come from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Codestream;
use crate::names::{Product, RefName};

/// Branches by product: a codestream's name without its update, such as `15.6` or `15.6rt`, or `cve-5.14` for what several
/// products take from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Branches(BTreeMap<Product, RefName>);

/// The public branches of SUSE's kernel-source repository, in 2026.
const KNOWN: &[(&str, &str)] = &[
    ("12.5", "SLE12-SP5"),
    ("15.4", "SLE15-SP4-LTSS"),
    ("15.5", "SLE15-SP5-LTSS"),
    ("15.6", "SLE15-SP6-LTSS"),
    ("15.7", "SLE15-SP7"),
    ("15.7rt", "SLE15-SP7-RT"),
    ("16.0", "SL-16.0"),
    ("6.0", "SUSE-2024"),
    ("6.0rt", "SUSE-2024-RT"),
    ("cve-5.3", "cve/linux-5.3-LTSS"),
    ("cve-5.14", "cve/linux-5.14-LTSS"),
];

impl Default for Branches {
    fn default() -> Self {
        let known = KNOWN
            .iter()
            .filter_map(|(product, branch)| Some((product.parse().ok()?, branch.parse().ok()?)));
        Self(known.collect())
    }
}

impl Branches {
    /// None but these.
    pub fn only(branches: impl IntoIterator<Item = (Product, RefName)>) -> Self {
        Self(branches.into_iter().collect())
    }

    /// Adds branches, or replaces those of the same products.
    pub fn extend(&mut self, branches: impl IntoIterator<Item = (Product, RefName)>) {
        self.0.extend(branches);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &RefName)> {
        self.0.iter().map(|(product, branch)| (product.as_str(), branch))
    }

    /// The products a codestream takes patches from, the nearest first: its own; for real time, the one without; then what
    /// its service packs share. The order is that of the folders below klp-build's `fixes/`.
    pub fn wanted(&self, codestream: &Codestream) -> Vec<String> {
        let Some(product) = product(codestream.as_str()) else {
            // Any other name may be told a branch of its own.
            let named = self.0.keys().find(|product| product.as_str() == codestream.as_str());
            return named.map(ToString::to_string).into_iter().collect();
        };
        let plain = product.strip_suffix("rt").unwrap_or(product);
        let shared = match plain
            .split_once('.')
            .map(|(major, minor)| (major, minor.parse::<u32>()))
        {
            Some(("15", Ok(0..=3))) => Some("cve-5.3"),
            Some(("15", Ok(4..=5))) => Some("cve-5.14"),
            _ => None,
        };
        let mut wanted = vec![product.to_owned()];
        wanted.extend((plain != product).then(|| plain.to_owned()));
        wanted.extend(shared.map(str::to_owned));
        wanted
    }
}

/// `15.6rt` of `15.6rtu2`; `None` for names of another form.
fn product(codestream: &str) -> Option<&str> {
    let (product, update) = codestream.rsplit_once('u')?;
    let (major, minor) = product.strip_suffix("rt").unwrap_or(product).split_once('.')?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (number(update) && number(major) && number(minor)).then_some(product)
}

/// The configuration files of a codestream's kernel, by flavour: later ones have the last word. A real-time kernel has one of
/// its own; from SLE 16 on, that only has what differs.
pub fn config_flavours(codestream: &Codestream) -> &'static [&'static str] {
    match product(codestream.as_str()).and_then(|product| product.strip_suffix("rt")) {
        None => &["default"],
        Some(plain) => match plain.split_once('.').and_then(|(major, _)| major.parse::<u32>().ok()) {
            Some(..16) => &["rt"],
            _ => &["default", "rt"],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codestream_has_its_products_in_order() {
        let branches = Branches::default();
        let wanted = |name: &str| branches.wanted(&name.parse().unwrap());
        assert_eq!(wanted("15.6rtu2"), ["15.6rt", "15.6"]);
        assert_eq!(wanted("15.5u40"), ["15.5", "cve-5.14"]);
        assert_eq!(wanted("15.3u100"), ["15.3", "cve-5.3"]);
        assert_eq!(wanted("16.10u1"), ["16.10"]);
        assert!(wanted("debian12-6.1.0-50").is_empty());
        let mut more = branches.clone();
        more.extend([("debian12-6.1.0-50".parse().unwrap(), "debian".parse().unwrap())]);
        assert_eq!(
            more.wanted(&"debian12-6.1.0-50".parse().unwrap()),
            ["debian12-6.1.0-50"]
        );
    }

    #[test]
    fn real_time_kernels_have_a_configuration_of_their_own() {
        let flavours = |name: &str| config_flavours(&name.parse().unwrap());
        assert_eq!(flavours("15.6u1"), ["default"]);
        assert_eq!(flavours("15.6rtu1"), ["rt"]);
        assert_eq!(flavours("6.0rtu1"), ["rt"]);
        assert_eq!(flavours("16.0rtu1"), ["default", "rt"]);
        assert_eq!(flavours("debian12"), ["default"]);
    }

    #[test]
    fn every_known_branch_is_a_valid_name() {
        assert_eq!(Branches::default().iter().count(), KNOWN.len());
        let read = |json: &str| serde_json::from_str::<Branches>(json);
        assert!(read(r#"{"15.8": "SLE15-SP8"}"#).is_ok());
        assert!(read(r#"{"../x": "SLE15-SP8"}"#).is_err() && read(r#"{"15.8": "--output=x"}"#).is_err());
        for bad in [
            "", "-x", "a..b", "a b", "a:b", "a^{}", "a@{1}", "/a", "a/", "a//b", "a/-b", "a/.b", "a.lock", "a\nb", "a*",
        ] {
            assert!(bad.parse::<RefName>().is_err(), "{bad:?}");
        }
    }
}
