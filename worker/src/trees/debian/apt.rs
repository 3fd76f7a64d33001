//! What apt knows: which kernels there are, which packages hold them, and what those must look like.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use klp_livepatch::Arch;
use klp_livepatch::codestream::natural_cmp;
use klp_livepatch::names::quoted;
use tokio_util::sync::CancellationToken;

use super::root::Apt;
use crate::trees::{TreeError, cross, tools};

/// The part of Debian's kernel package names that tells one binary interface from another: `6.1.0-50`,
/// `6.12.117+deb12`. Plain enough to be part of a package's or a file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abi(String);

impl Abi {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What its linux-source is named by: `6.1` of `6.1.0-50`.
    pub fn series(&self) -> String {
        let mut numbers = self.0.split('.');
        format!(
            "{}.{}",
            numbers.next().unwrap_or_default(),
            numbers.next().unwrap_or_default()
        )
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Abi {
    type Err = String;

    /// Two or more numbers with dots between, then perhaps `-` and a revision, then perhaps `+` or `~` and a suffix.
    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, suffix) = match text.split_once(['+', '~']) {
            Some((rest, suffix)) => (rest, Some(suffix)),
            None => (text, None),
        };
        let (version, revision) = match rest.split_once('-') {
            Some((version, revision)) => (version, Some(revision)),
            None => (rest, None),
        };
        let number = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
        let word = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
        };
        let good = text.len() <= 40
            && version.contains('.')
            && version.split('.').all(number)
            && revision.is_none_or(|r| word(r) && r.starts_with(|c: char| c.is_ascii_digit()))
            && suffix.is_none_or(word);
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "kernel version {} is not like 6.1.0-50 or 6.12.117+deb12",
                quoted(text)
            ))
        }
    }
}

/// `6.1`: what a linux-source package is named by.
pub fn check_series(series: &str) -> Result<(), TreeError> {
    let good = series.split_once('.').is_some_and(|(a, b)| {
        [a, b]
            .iter()
            .all(|n| (1..=3).contains(&n.len()) && n.bytes().all(|c| c.is_ascii_digit()))
    });
    if good {
        Ok(())
    } else {
        Err(TreeError::Refused(format!(
            "kernel series {} is not like 6.1",
            quoted(series)
        )))
    }
}

/// The flavour in the names of Debian's packages for an architecture's usual kernel.
fn flavour(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
        Arch::S390x => "s390x",
        Arch::Ppc64le => "powerpc64le",
    }
}

/// What `uname -r` says under this kernel.
pub fn release(abi: &Abi, arch: Arch) -> String {
    format!("{abi}-{}", flavour(arch))
}

/// A package of a certain version, and what its file must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub architecture: String,
    /// Bytes.
    pub size: u64,
    pub sha256: String,
}

impl Package {
    /// The name apt-get gives the file.
    pub fn file_name(&self) -> String {
        format!(
            "{}_{}_{}.deb",
            self.name,
            self.version.replace(':', "%3a"),
            self.architecture
        )
    }

    pub fn size_mb(&self) -> u64 {
        self.size.div_ceil(1_000_000)
    }
}

/// The packages a tree is made from, all of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packages {
    pub source: Package,
    pub headers: Package,
    pub image: Package,
    /// The compiler the headers ask for, as this host calls it, as far as their dependencies tell.
    pub compiler: Option<String>,
}

impl Packages {
    pub fn all(&self) -> [&Package; 3] {
        [&self.source, &self.headers, &self.image]
    }
}

/// Finds the packages of a kernel.
pub(super) async fn find(apt: &Apt, abi: &Abi, arch: Arch, cancel: &CancellationToken) -> Result<Packages, TreeError> {
    let headers = format!("linux-headers-{}", release(abi, arch));
    let source = format!("linux-source-{}", abi.series());
    let image = format!("linux-image-{}", release(abi, arch));
    let header_versions = versions(apt, &headers, cancel).await?;
    if header_versions.is_empty() {
        return Err(absent(apt, abi, arch, &headers, cancel).await);
    }
    let source_versions = versions(apt, &source, cancel).await?;
    let Some(version) = header_versions.iter().find(|version| source_versions.contains(version)) else {
        return Err(TreeError::Refused(format!(
            "apt has {headers} {}, but {source} only as {}; run `apt-get update`, or take another kernel",
            header_versions.join(", "),
            if source_versions.is_empty() {
                "nothing".to_owned()
            } else {
                source_versions.join(", ")
            },
        )));
    };
    let (headers, depends) = show(apt, &headers, version, cancel).await?;
    Ok(Packages {
        source: show(apt, &source, version, cancel).await?.0,
        headers,
        image: show(apt, &image, version, cancel).await?.0,
        compiler: compiler_of(&depends).map(|shipped| cross::compiler(&shipped, arch, Arch::host())),
    })
}

async fn absent(apt: &Apt, abi: &Abi, arch: Arch, headers: &str, cancel: &CancellationToken) -> TreeError {
    let known = match abis(apt, &abi.series(), arch, cancel).await {
        Ok(known) if !known.is_empty() => {
            let names: Vec<_> = known.iter().map(Abi::as_str).collect();
            format!("of this series apt has {}", names.join(", "))
        }
        Ok(_) => format!("apt has no kernel of series {} at all", abi.series()),
        Err(e) => return e,
    };
    TreeError::Refused(format!(
        "apt has no package {headers}; {known}; `apt-get update` may bring others"
    ))
}

/// The kernels of a series that apt has headers and source for, newest first.
pub(super) async fn abis(
    apt: &Apt,
    series: &str,
    arch: Arch,
    cancel: &CancellationToken,
) -> Result<Vec<Abi>, TreeError> {
    let out = apt_cache(apt, &["pkgnames", &format!("linux-headers-{series}.")], cancel).await?;
    let mut found: Vec<Abi> = out.lines().filter_map(|name| abi_of_headers(name, arch)).collect();
    found.sort_by(|a, b| natural_cmp(b.as_str(), a.as_str()));
    let sources = versions(apt, &format!("linux-source-{series}"), cancel).await?;
    let mut with_source = Vec::new();
    for abi in found {
        let headers = versions(apt, &format!("linux-headers-{}", release(&abi, arch)), cancel).await?;
        if headers.iter().any(|version| sources.contains(version)) {
            with_source.push(abi);
        }
    }
    Ok(with_source)
}

/// The series that this Debian's own `linux-source` stands for.
pub(super) async fn own_series(apt: &Apt, cancel: &CancellationToken) -> Result<String, TreeError> {
    let out = apt_cache(apt, &["depends", "linux-source"], cancel).await?;
    let series = out
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-source-"))
        .ok_or_else(|| {
            TreeError::Refused("apt doesn't say which linux-source is this Debian's own; give --series".into())
        })?;
    check_series(series)?;
    Ok(series.to_owned())
}

fn abi_of_headers(package: &str, arch: Arch) -> Option<Abi> {
    package
        .strip_prefix("linux-headers-")?
        .strip_suffix(flavour(arch))?
        .strip_suffix('-')?
        .parse()
        .ok()
}

/// The versions apt can get of a package, its preferred one first; none if it doesn't know the package.
async fn versions(apt: &Apt, package: &str, cancel: &CancellationToken) -> Result<Vec<String>, TreeError> {
    Ok(parse_madison(&apt_cache(apt, &["madison", package], cancel).await?))
}

/// Lines of `package | version | source`; those of source packages end with `Sources`.
fn parse_madison(text: &str) -> Vec<String> {
    let mut versions = Vec::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split('|').map(str::trim).collect();
        if let [_, version, source] = fields[..]
            && !source.ends_with("Sources")
            && !versions.iter().any(|v| v == version)
        {
            versions.push(version.to_owned());
        }
    }
    versions
}

/// `gcc-12` of dependencies such as `linux-compiler-gcc-12-x86` or `gcc-12`.
fn compiler_of(depends: &str) -> Option<String> {
    let (_, after) = depends.split_once("gcc-")?;
    let number: String = after.chars().take_while(char::is_ascii_digit).collect();
    (!number.is_empty()).then(|| format!("gcc-{number}"))
}

/// The package, and what it depends on.
async fn show(
    apt: &Apt,
    package: &str,
    version: &str,
    cancel: &CancellationToken,
) -> Result<(Package, String), TreeError> {
    let out = apt_cache(apt, &["show", &format!("{package}={version}")], cancel)
        .await
        .map_err(|e| TreeError::Refused(format!("apt has no {package} {version} ({e}); run `apt-get update`")))?;
    parse_show(&out, package, version).map_err(TreeError::Refused)
}

/// Reads the paragraph of the package from what `apt-cache show` prints; it prints several if several repositories have it.
fn parse_show(text: &str, package: &str, version: &str) -> Result<(Package, String), String> {
    for paragraph in text.split("\n\n") {
        let fields: BTreeMap<&str, &str> = paragraph
            .lines()
            .filter(|line| !line.starts_with(' '))
            .filter_map(|line| line.split_once(": "))
            .collect();
        let get = |name: &str| fields.get(name).copied().unwrap_or_default();
        if get("Package") != package || get("Version") != version {
            continue;
        }
        let sha256 = get("SHA256");
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if let Ok(size) = get("Size").parse()
            && sha256.len() == 64
            && plain(sha256)
            && plain(get("Architecture"))
        {
            let package = Package {
                name: package.to_owned(),
                version: version.to_owned(),
                architecture: get("Architecture").to_owned(),
                size,
                sha256: sha256.to_ascii_lowercase(),
            };
            return Ok((package, get("Depends").to_owned()));
        }
    }
    Err(format!(
        "apt doesn't tell size and SHA-256 of {package} {version}; run `apt-get update`"
    ))
}

async fn apt_cache(apt: &Apt, args: &[&str], cancel: &CancellationToken) -> Result<String, TreeError> {
    tools::ask(&apt.command("apt-cache", Path::new("/")).args(args), cancel).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abis_are_plain() {
        for good in [
            "6.1.0-50",
            "6.12.117+deb12",
            "6.1.0-0.deb11.17",
            "5.10.0-8",
            "6.18.5+deb14",
        ] {
            assert_eq!(good.parse::<Abi>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-o",
            "6",
            "6.1.0-50-cloud",
            "6.1.0 -y",
            "../6.1",
            "6.1/..",
            "--help",
            "6.1.0-50=1",
            "6.1.0-50;id",
            "6.1.0-",
            "6.1.0-rt",
            "6..1",
            "6.1+",
            "6.1.0-50\n",
            "６.1",
        ] {
            assert!(bad.parse::<Abi>().is_err(), "{bad:?}");
        }
        assert_eq!("6.12.117+deb12".parse::<Abi>().unwrap().series(), "6.12");
        for bad in ["6", "6.1.0", "-o.1", "6.x", ""] {
            assert!(check_series(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn flavours_are_not_taken_for_abis() {
        let abi = |name| abi_of_headers(name, Arch::X86_64).map(|abi| abi.0);
        assert_eq!(abi("linux-headers-6.1.0-50-amd64").as_deref(), Some("6.1.0-50"));
        assert_eq!(
            abi("linux-headers-6.12.117+deb12-amd64").as_deref(),
            Some("6.12.117+deb12")
        );
        for other in [
            "linux-headers-6.1.0-50-cloud-amd64",
            "linux-headers-6.1.0-50-rt-amd64",
            "linux-headers-6.1.0-50-common",
            "linux-headers-6.1.0-50-arm64",
            "linux-headers-amd64",
        ] {
            assert_eq!(abi(other), None, "{other}");
        }
    }

    #[test]
    fn apts_answers_are_read() {
        let madison = "linux-source-6.1 |  6.1.192-2 | http://deb.example.org bookworm/main amd64 Packages\n\
                       linux-source-6.1 |  6.1.176-1 | http://deb.example.org bookworm/main amd64 Packages\n\
                       linux-source-6.1 |  6.1.176-1 | http://other.example.org bookworm/main amd64 Packages\n\
                       linux |  6.1.9-1 | http://deb.example.org bookworm/main Sources\nN: noise\n";
        assert_eq!(parse_madison(madison), ["6.1.192-2", "6.1.176-1"]);
        let digest = "a".repeat(64);
        let show = format!(
            "Package: x\nVersion: 1\nSize: 5\n\nPackage: x\nVersion: 1:2\nArchitecture: all\nDescription: d\n Size: 9\n\
             Size: 7\nSHA256: {digest}\n\n"
        );
        let (package, _) = parse_show(&show, "x", "1:2").unwrap();
        assert_eq!((package.size, package.file_name().as_str()), (7, "x_1%3a2_all.deb"));
        assert!(parse_show(&show, "x", "1").unwrap_err().contains("SHA-256"));
        assert!(parse_show("", "x", "1").is_err());
        let compiler = |depends| compiler_of(depends).unwrap_or_default();
        assert_eq!(
            compiler("linux-kbuild-6.1 (>= 6.1), linux-compiler-gcc-12-x86"),
            "gcc-12"
        );
        assert_eq!(compiler("linux-kbuild-6.12, gcc-14"), "gcc-14");
        assert_eq!(compiler("libc6"), "");
    }
}
