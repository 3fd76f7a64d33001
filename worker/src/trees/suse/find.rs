//! Which kernels a data folder has, and where each keeps what.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klp_livepatch::Arch;

use super::Flavour;

/// What a compressed file's name ends with; the plain one first.
const PACKED: [&str; 4] = ["", ".gz", ".xz", ".zst"];

/// A kernel of which there is at least a part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    /// As packages number it: `6.4.0-150600.23.73`.
    pub kernel: String,
    pub flavour: Flavour,
    pub arch: Arch,
}

/// A kernel's files and folders.
#[derive(Debug)]
pub(super) struct Pieces {
    pub src: PathBuf,
    pub obj: PathBuf,
    pub config: PathBuf,
    pub symvers: PathBuf,
    pub vmlinux: PathBuf,
    pub modules: PathBuf,
}

impl Found {
    /// As `uname -r` prints it.
    pub fn release(&self) -> String {
        format!("{}-{}", self.kernel, self.flavour)
    }

    /// Where all its pieces are.
    ///
    /// # Errors
    /// Those that are missing, with where they should be.
    pub fn pieces(&self, data: &Path) -> Result<Pieces, Vec<String>> {
        let root = data.join(self.arch.as_str());
        let mut missing = Vec::new();
        let release = self.release();
        // Since SLE 16 all is in one folder.
        let usr = root.join("usr/lib/modules").join(&release);
        let (boot, lib) = (root.join("boot"), root.join("lib/modules").join(&release));
        let src = self.source(&root);
        let obj = {
            let mut name = src.clone().into_os_string();
            name.push("-obj");
            PathBuf::from(name).join(self.arch.as_str()).join(self.flavour.as_str())
        };
        let mut file = |name: &str, devel: Option<&str>| {
            let in_usr = PACKED.iter().map(|packed| usr.join(format!("{name}{packed}")));
            let in_boot = PACKED
                .iter()
                .map(|packed| boot.join(format!("{name}-{release}{packed}")));
            let in_devel = devel.map(|name| obj.join(name));
            match in_usr.chain(in_boot).chain(in_devel).find(|file| file.is_file()) {
                Some(file) => file,
                None => {
                    let should_be = match usr.is_dir() {
                        true => usr.join(name),
                        false => boot.join(format!("{name}-{release}")),
                    };
                    missing.push(shown(&root, &should_be));
                    should_be
                }
            }
        };
        let vmlinux = file("vmlinux", None);
        let config = file("config", Some(".config"));
        let symvers = file("symvers", Some("Module.symvers"));
        let modules = if usr.is_dir() { usr } else { lib };
        let folders = [&src, &obj, &modules].into_iter().filter(|dir| !dir.is_dir());
        missing.extend(folders.map(|dir| shown(&root, dir)));
        // Without either nobody knows how a file is compiled.
        let ways = ["compile_commands.json", "Makefile"];
        if obj.is_dir() && !ways.iter().any(|name| obj.join(name).is_file()) {
            missing.push(format!("{} or Makefile", shown(&root, &obj.join(ways[0]))));
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        Ok(Pieces {
            src,
            obj,
            config,
            symvers,
            vmlinux,
            modules,
        })
    }

    /// Up to SLE 15 the sources for real time are a package of their own.
    fn source(&self, root: &Path) -> PathBuf {
        let common = root.join("usr/src").join(format!("linux-{}", self.kernel));
        let own = root.join("usr/src").join(format!("linux-{}-rt", self.kernel));
        match self.flavour == Flavour::Rt && own.is_dir() {
            true => own,
            false => common,
        }
    }
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// All kernels of an architecture of which anything is there, in order of their names.
pub(super) fn kernels(data: &Path, arch: Arch) -> BTreeSet<Found> {
    let root = data.join(arch.as_str());
    let mut all = BTreeSet::new();
    let mut add = |release: &str| {
        for flavour in Flavour::ALL {
            let kernel = release
                .strip_suffix(flavour.as_str())
                .and_then(|rest| rest.strip_suffix('-'));
            if let Some(kernel) = kernel.filter(|kernel| is_version(kernel)) {
                all.insert(Found {
                    kernel: kernel.to_owned(),
                    flavour,
                    arch,
                });
            }
        }
    };
    for modules in ["usr/lib/modules", "lib/modules"] {
        names(&root.join(modules)).iter().for_each(|name| add(name));
    }
    for name in names(&root.join("boot")) {
        let release = ["vmlinux-", "config-", "symvers-"]
            .iter()
            .find_map(|what| name.strip_prefix(what));
        if let Some(release) = release {
            let packed = PACKED.iter().skip(1).find_map(|packed| release.strip_suffix(packed));
            add(packed.unwrap_or(release));
        }
    }
    let sources = names(&root.join("usr/src"));
    for name in &sources {
        let Some(version) = name.strip_prefix("linux-").and_then(|name| name.strip_suffix("-obj")) else {
            continue;
        };
        for flavour in names(&root.join("usr/src").join(name).join(arch.as_str())) {
            // An -rt that is the flavour's is no part of the version.
            match flavour == "rt" {
                true => add(&format!("{}-rt", version.strip_suffix("-rt").unwrap_or(version))),
                false => add(&format!("{version}-{flavour}")),
            }
        }
    }
    // Sources that nothing else speaks of: a kernel whose other packages did not arrive.
    for name in &sources {
        let Some(version) = name.strip_prefix("linux-").filter(|name| !name.ends_with("-obj")) else {
            continue;
        };
        let known = |found: &Found| found.kernel == version || format!("{}-rt", found.kernel) == version;
        if is_version(version) && !all.iter().any(known) {
            let rt = version.strip_suffix("-rt");
            all.insert(Found {
                kernel: rt.unwrap_or(version).to_owned(),
                flavour: if rt.is_some() { Flavour::Rt } else { Flavour::Default },
                arch,
            });
        }
    }
    all
}

fn is_version(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.+~".contains(c))
}

/// What is in a folder, if it is there.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(paths: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            let path = dir.path().join("x86_64").join(path);
            match path.to_str().unwrap().ends_with('/') {
                true => std::fs::create_dir_all(path).unwrap(),
                false => {
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(path, b"x").unwrap();
                }
            }
        }
        dir
    }

    fn releases(paths: &[&str]) -> Vec<String> {
        let dir = data(paths);
        kernels(dir.path(), Arch::X86_64).iter().map(Found::release).collect()
    }

    #[test]
    fn a_kernel_is_found_by_any_of_its_parts() {
        for part in [
            "boot/vmlinux-5.14.21-150400.24-default.xz",
            "boot/config-5.14.21-150400.24-default",
            "boot/symvers-5.14.21-150400.24-default.gz",
            "lib/modules/5.14.21-150400.24-default/",
            "usr/lib/modules/5.14.21-150400.24-default/",
            "usr/src/linux-5.14.21-150400.24-obj/x86_64/default/",
            "usr/src/linux-5.14.21-150400.24/",
        ] {
            assert_eq!(releases(&[part]), ["5.14.21-150400.24-default"], "{part}");
        }
        let rt = "5.14.21-150400.15-rt";
        for part in [
            "lib/modules/5.14.21-150400.15-rt/",
            "usr/src/linux-5.14.21-150400.15-rt-obj/x86_64/rt/",
            "usr/src/linux-5.14.21-150400.15-rt/",
        ] {
            assert_eq!(releases(&[part]), [rt], "{part}");
        }
        assert_eq!(releases(&["usr/src/linux-6.12.0-1-obj/x86_64/rt/"]), ["6.12.0-1-rt"]);
        let none = [
            "boot/grub/",
            "usr/src/packages/",
            "usr/src/linux/",
            "lib/modules/x-default/",
            "boot/vmlinux-6-kvmsmall",
        ];
        assert!(releases(&none).is_empty());
    }

    #[test]
    fn what_is_missing_is_named_by_its_place() {
        let dir = data(&[
            "boot/config-5.3.18-1-default",
            "usr/src/linux-5.3.18-1-obj/x86_64/default/",
        ]);
        let found = kernels(dir.path(), Arch::X86_64).into_iter().next().unwrap();
        assert_eq!(
            found.pieces(dir.path()).unwrap_err(),
            [
                "boot/vmlinux-5.3.18-1-default",
                "boot/symvers-5.3.18-1-default",
                "usr/src/linux-5.3.18-1",
                "lib/modules/5.3.18-1-default",
                "usr/src/linux-5.3.18-1-obj/x86_64/default/compile_commands.json or Makefile",
            ]
        );
    }
}
