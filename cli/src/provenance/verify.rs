//! Checks all codestreams' folders below one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use klp_identity::Trusted;
use klp_livepatch::grouping::groups_file;
use klp_livepatch::layout;
use klp_livepatch::provenance::{FOLDER, STATEMENTS};

use super::contents::Contents;
use super::inventory::Inventory;
use super::report::{Checked, Extraction, Problem, Report};
use super::statements::{Stated, stated};
use crate::cmd::get::{Digests, merged_groups};

/// # Errors
/// The folder can't be read. What is wrong in it is told by the report.
pub fn verify(dir: &Path, trusted: &Trusted, now_ms: i64) -> anyhow::Result<Report> {
    let root = dir
        .canonicalize()
        .with_context(|| format!("can't read {}", dir.display()))?;
    ensure!(
        root.is_dir(),
        "{} is no folder: name the one that `klp-farm get` wrote",
        dir.display()
    );
    let inventory = Inventory::take(&root)?;
    let mut check = Check {
        inventory: &inventory,
        trusted,
        now_ms,
        report: Report::default(),
        covered: BTreeSet::new(),
        digests: BTreeMap::new(),
    };
    for folder in codestreams(&inventory) {
        check.codestream(&folder);
    }
    check.finish();
    Ok(check.report)
}

/// The folders that have statements.
fn codestreams(inventory: &Inventory) -> Vec<PathBuf> {
    let statements = Path::new(FOLDER).join(STATEMENTS);
    let all = inventory.files.keys().chain(inventory.odd.keys());
    let named = all.filter(|path| path.ends_with(&statements));
    named
        .filter_map(|path| Some(path.parent()?.parent()?.to_owned()))
        .collect()
}

struct Check<'a> {
    inventory: &'a Inventory,
    trusted: &'a Trusted,
    now_ms: i64,
    report: Report,
    covered: BTreeSet<PathBuf>,
    /// Of all sources that compile, by the folder that has the list of groups.
    digests: BTreeMap<PathBuf, Digests>,
}

impl Check<'_> {
    fn codestream(&mut self, folder: &Path) {
        let shown = match folder.as_os_str().is_empty() {
            true => ".".to_owned(),
            false => folder.display().to_string(),
        };
        let stated = stated(self.inventory, folder, self.trusted, self.now_ms)
            .and_then(|stated| self.in_its_place(folder, &stated).map(|()| stated));
        let stated = match stated {
            Ok(stated) => stated,
            Err(error) => {
                let file = folder.join(FOLDER).join(STATEMENTS);
                self.report
                    .problems
                    .push(Problem::new(file.display(), format!("{error:#}")));
                self.report.codestreams.push(Checked {
                    folder: shown,
                    ..Checked::default()
                });
                return;
            }
        };
        let mut contents = Contents::compare(self.inventory, folder, &stated);
        if let Some(livepatch) = folder.parent().and_then(Path::parent) {
            contents.fixes(livepatch);
        }
        let whole = &stated.codestream;
        if let Some(parent) = folder.parent() {
            let digests = contents.digests.iter();
            let keyed = digests.map(|(arch, d)| ((whole.codestream.to_string(), arch.to_string()), d.to_string()));
            self.digests.entry(parent.to_owned()).or_default().extend(keyed);
        }
        self.report.codestreams.push(Checked {
            folder: shown,
            livepatch: whole.spec.name.to_string(),
            codestream: whole.codestream.to_string(),
            extractions: extractions(&stated, &contents),
            files: contents.files(),
            notes: stated.notes.iter().chain(&contents.notes).cloned().collect(),
            verified: contents.problems.is_empty(),
        });
        self.covered.extend(contents.covered.into_keys());
        self.report.problems.extend(contents.problems);
    }

    /// Whether the folder is called as its statements say: a codestream's sources, put in the place of another's, are signed
    /// just as well.
    fn in_its_place(&self, folder: &Path, stated: &Stated) -> anyhow::Result<()> {
        let spec = &stated.codestream.spec;
        let expected = layout::codestream_dir(spec, &stated.codestream.codestream);
        let place = self.inventory.root.join(folder);
        ensure!(
            place.ends_with(&expected),
            "the statements are about {}, but this is {}: they, or the folder, belong elsewhere",
            expected.display(),
            place.display()
        );
        Ok(())
    }

    /// The lists of groups beside the codestreams, if they are what is rendered of all that are there.
    fn groups(&mut self) {
        for (parent, digests) in &self.digests {
            let path = parent.join(layout::GROUPS);
            let again = groups_file(&merged_groups(digests));
            if let Ok(Some(bytes)) = self.inventory.read(&path)
                && bytes == again.as_bytes()
            {
                self.covered.insert(path);
            }
        }
    }

    /// Sources that have no statements beside them.
    fn unstated(&mut self) {
        let known = self
            .report
            .codestreams
            .iter()
            .map(|c| self.inventory.root.join(&c.folder));
        let known: BTreeSet<PathBuf> = known.collect();
        let of_source = |path: &&PathBuf| path.extension() == Some(OsStr::new("c"));
        let folders = self
            .inventory
            .files
            .keys()
            .filter(of_source)
            .filter_map(|path| path.parent());
        let folders: BTreeSet<&Path> = folders.filter(|f| f.file_name() == Some(OsStr::new("lp"))).collect();
        for folder in folders {
            // A codestream's own, or that of one of its architectures.
            let mut above = folder.ancestors().skip(1).take(2);
            if !above.any(|above| known.contains(&self.inventory.root.join(above))) {
                let what = "there are sources in it, and no statements beside it: they were removed, or never written";
                self.report.problems.push(Problem::new(folder.display(), what));
            }
        }
    }

    fn finish(&mut self) {
        self.groups();
        self.unstated();
        let report = &mut self.report;
        for (path, what) in &self.inventory.odd {
            let what = format!("it is {what}, which `get` does not write; it is not followed");
            report.problems.push(Problem::new(path.display(), what));
        }
        if report.codestreams.is_empty() && report.problems.is_empty() {
            let what = format!("there is no {FOLDER}/{STATEMENTS} below it: name a folder that `klp-farm get` wrote");
            report.problems.push(Problem::new(self.inventory.root.display(), what));
        }
        let named: BTreeSet<PathBuf> = report.problems.iter().map(|p| PathBuf::from(&p.path)).collect();
        let uncovered = self.inventory.files.keys();
        let uncovered = uncovered.filter(|path| !self.covered.contains(*path) && !named.contains(*path));
        report.not_covered = uncovered.map(|path| path.display().to_string()).collect();
        report.verified = report.problems.is_empty();
    }
}

fn extractions(stated: &Stated, contents: &Contents<'_>) -> Vec<Extraction> {
    let all = stated.extractions.iter().map(|(arch, statement)| {
        let run = &statement.predicate.run_details;
        Extraction {
            arch: arch.to_string(),
            builder: run.builder.id.clone(),
            finished_on: run.metadata.finished_on.to_string(),
            compiles: contents.digests.contains_key(arch),
        }
    });
    all.collect()
}
