//! Compares what is in a codestream's folder with what is stated of it: sources by their digests, and all that stands around
//! them by rendering it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use klp_livepatch::outcome::Digest;
use klp_livepatch::provenance::{FOLDER, Resource, SIGNER, STATEMENTS, Sha256, WRITTEN_BY};
use klp_livepatch::{Arch, layout};

use super::inventory::Inventory;
use super::report::{By, Covered, Problem};
use super::statements::{Stated, fits};
use super::written::WrittenBy;
use crate::cmd::get::year;
use crate::results::{self, PlatformResult, Rendering, Sources};

/// The comparison of one codestream's folder.
pub struct Contents<'a> {
    inventory: &'a Inventory,
    /// The folder, relative to the inventory's.
    folder: &'a Path,
    stated: &'a Stated,
    pub covered: BTreeMap<PathBuf, By>,
    pub problems: Vec<Problem>,
    pub notes: Vec<String>,
    /// Of the sources that compile: equal where they are the same code.
    pub digests: BTreeMap<Arch, Digest>,
}

impl<'a> Contents<'a> {
    pub fn compare(inventory: &'a Inventory, folder: &'a Path, stated: &'a Stated) -> Self {
        let mut contents = Self {
            inventory,
            folder,
            stated,
            covered: BTreeMap::new(),
            problems: Vec::new(),
            notes: Vec::new(),
            digests: BTreeMap::new(),
        };
        for name in [STATEMENTS, SIGNER] {
            let path = contents.own(Path::new(FOLDER).join(name));
            contents.covered.insert(path, By::Statement);
        }
        match contents.all() {
            Ok(true) => contents.unknown(),
            // What should be there is not known.
            Ok(false) => {}
            Err(error) => {
                let path = contents.own(Path::new(FOLDER).join(WRITTEN_BY));
                contents.problem(&path, &format!("{error:#}"));
            }
        }
        contents
    }

    fn own(&self, inner: impl AsRef<Path>) -> PathBuf {
        self.folder.join(inner)
    }

    fn problem(&mut self, path: &Path, what: &str) {
        self.problems.push(Problem::new(path.display(), what));
    }

    /// Answers whether all could be compared: not without the sources.
    fn all(&mut self) -> anyhow::Result<bool> {
        let path = self.own(Path::new(FOLDER).join(WRITTEN_BY));
        let bytes = self.inventory.read(&path)?.context("it is missing")?;
        let by: WrittenBy = serde_json::from_slice(&bytes).context("it can't be read")?;
        self.covered.insert(path, By::Statement);
        let whole = &self.stated.codestream;
        let platforms = results::of_statement(&whole.tasks);
        let rendering = Rendering {
            spec: &whole.spec,
            author: &by.author,
            year: year(whole.created_on.0),
            codestream: &whole.codestream,
            platforms: &platforms,
            include_failed: by.include_failed,
        };
        let Some(sources) = self.sources(&rendering) else {
            return Ok(false);
        };
        self.digests = rendering.digests(&sources);
        self.rendered(&rendering, &sources, &by);
        self.failed(&platforms, &by);
        Ok(true)
    }

    /// The sources as they were extracted; `None` if one is not.
    fn sources(&mut self, rendering: &Rendering<'_>) -> Option<Sources> {
        let mut sources = Sources::new();
        let mut whole = true;
        let needed: BTreeSet<Arch> = rendering.needed().map(|(arch, _)| arch).collect();
        let stated = self.stated;
        for (arch, extraction) in stated.extractions.iter().filter(|(arch, _)| needed.contains(*arch)) {
            let of_arch: &mut BTreeMap<_, _> = sources.entry(*arch).or_default();
            for subject in &extraction.subject {
                let path = self.own(Path::new(FOLDER).join(&subject.name));
                let bytes = self.by_digest(&path, subject);
                whole &= bytes.is_some();
                let name = subject.name.strip_prefix(&format!("{arch}/"));
                of_arch.extend(name.map(str::to_owned).zip(bytes));
            }
        }
        whole.then_some(sources)
    }

    /// A file's bytes, if they are those that were signed.
    fn by_digest(&mut self, path: &Path, resource: &Resource) -> Option<Vec<u8>> {
        let bytes = match self.inventory.read(path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                self.missing(path, resource.digest.get("sha256").cloned());
                return None;
            }
            Err(error) => {
                self.problem(path, &format!("it can't be read: {error:#}"));
                return None;
            }
        };
        match fits(resource, &bytes) {
            Ok(()) => {
                self.covered.insert(path.to_owned(), By::Digest);
                Some(bytes)
            }
            Err((expected, found)) => {
                self.altered(path, "it is not what was signed", expected, found);
                None
            }
        }
    }

    fn missing(&mut self, path: &Path, expected: Option<String>) {
        self.problems.push(Problem {
            expected,
            ..Problem::new(path.display(), "it is missing")
        });
    }

    fn altered(&mut self, path: &Path, what: &str, expected: String, found: String) {
        // It is known, though wrong.
        self.covered.insert(path.to_owned(), By::Digest);
        self.problems.push(Problem {
            expected: Some(expected),
            found: Some(found),
            ..Problem::new(path.display(), what)
        });
    }

    /// What is rendered from the sources, and what the tool left beside them.
    fn rendered(&mut self, rendering: &Rendering<'_>, sources: &Sources, by: &WrittenBy) {
        let own = env!("CARGO_PKG_VERSION");
        let other = match by.version == own {
            true => String::new(),
            false => format!(
                ": klp-farm {} wrote it, and this is {own}, which may render it otherwise",
                by.version
            ),
        };
        let stated = self.stated;
        for folder in rendering.folders(sources) {
            let base = match folder.only() {
                Some(arch) => self.own(arch.as_str()),
                None => self.folder.to_owned(),
            };
            let lp = base.join("lp");
            for (name, text) in &folder.files {
                self.same(&lp.join(name), text, &other);
            }
            let byproducts = stated.extractions.get(&folder.part.arch).into_iter();
            for resource in byproducts.flat_map(|e| &e.predicate.run_details.byproducts) {
                let prefix = format!("{}/", folder.part.arch);
                if let Some(inner) = resource.name.strip_prefix(&prefix) {
                    self.by_digest(&base.join(inner), resource);
                }
            }
        }
    }

    /// Whether a file is what is rendered again.
    fn same(&mut self, path: &Path, text: &str, other: &str) {
        let expected = || Sha256::of(text.as_bytes()).to_string();
        match self.inventory.read(path) {
            Ok(Some(bytes)) if bytes == text.as_bytes() => {
                self.covered.insert(path.to_owned(), By::Rendering);
            }
            Ok(Some(bytes)) => {
                let what = format!("it is not what is rendered from the signed sources{other}");
                self.altered(path, &what, expected(), Sha256::of(&bytes).to_string());
            }
            Ok(None) => self.missing(path, Some(expected())),
            Err(error) => self.problem(path, &format!("it can't be read: {error:#}")),
        }
    }

    fn failed(&mut self, platforms: &BTreeMap<Arch, PlatformResult>, by: &WrittenBy) {
        let broken = |p: &PlatformResult| p.source.as_ref().is_some_and(|source| !source.compiles);
        for (arch, _) in platforms.iter().filter(|(_, p)| broken(p)) {
            self.notes.push(match by.include_failed {
                true => format!(
                    "{arch}: the source DOES NOT PASS THE COMPILE CHECK; whoever wrote it asked for it all the same"
                ),
                false => format!("{arch}: the source did not pass the compile check, and is not here"),
            });
        }
    }

    /// What is there beside: in a folder that goes into a build as a whole, anything may be built or run.
    fn unknown(&mut self) {
        let whole = |inner: &Path| {
            let mut names = inner.components().map(|c| c.as_os_str().to_string_lossy());
            names.any(|name| name == FOLDER || name == "lp" || name.starts_with("work_"))
        };
        let below = self
            .inventory
            .files
            .keys()
            .filter(|path| !self.covered.contains_key(*path));
        let unknown: Vec<PathBuf> = below
            .filter(|path| path.strip_prefix(self.folder).is_ok_and(whole))
            .cloned()
            .collect();
        for path in unknown {
            let named = self.problems.iter().any(|p| Path::new(&p.path) == path);
            if !named {
                self.problem(
                    &path,
                    "nothing is stated of this file, and it is where all files go into a build",
                );
            }
        }
    }

    pub fn files(&self) -> Vec<Covered> {
        let wrong: BTreeSet<&str> = self.problems.iter().map(|p| p.path.as_str()).collect();
        let files = self.covered.iter().map(|(path, by)| Covered {
            path: path.display().to_string(),
            by: *by,
        });
        files.filter(|file| !wrong.contains(file.path.as_str())).collect()
    }

    /// The livepatch's fixes, where its folder is below the inventory's, too.
    pub fn fixes(&mut self, livepatch: &Path) {
        let stated = self.stated;
        let spec = &stated.codestream.spec;
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        for fix in &spec.fixes {
            let number = numbers.entry(fix.scope.as_str()).or_default();
            *number += 1;
            let path = layout::fix(spec, fix.scope.as_str(), *number, fix.name.as_str());
            // Its first component is the livepatch's folder.
            let path = livepatch.join(path.components().skip(1).collect::<PathBuf>());
            match self.inventory.read(&path) {
                Ok(Some(bytes)) if Digest::of(&bytes) == fix.digest => {
                    self.covered.insert(path, By::Digest);
                }
                Ok(Some(_)) => self.problem(&path, "it is not the fix that was applied"),
                Ok(None) => self.missing(&path, None),
                Err(error) => self.problem(&path, &format!("it can't be read: {error:#}")),
            }
        }
    }
}
