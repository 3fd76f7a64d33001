//! What a repository says about a CVE, gathered in a fixed number of questions to git.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klp_livepatch::fix::patch::Patch;
use klp_livepatch::fix::series::Series;
use klp_livepatch::names::RefName;
use klp_livepatch::names::{ConfigName, TreePath};
use klp_livepatch::report::ConfigValue;
use klp_livepatch::scan::branches::config_flavours;
use klp_livepatch::scan::propose::{self, Draft};
use klp_livepatch::scan::{KernelFacts, PatchFact, ProductPatches};
use klp_livepatch::{Arch, Codestream};
use tokio_util::sync::CancellationToken;

use super::git::{KernelSource, Object, ObjectId};
use super::{FixFile, ScanCodestream, ScanError, ScanRequest};
use crate::trees::KernelConfig;
use crate::trees::config::Setting;

/// Where a kernel-source repository keeps its patches.
const PATCHES: &str = "patches.suse";
const SERIES: &str = "series.conf";
/// Commits of one CVE's fixes that are looked for.
const MAX_COMMITS: usize = 500;

/// All that was gathered.
pub(super) struct Facts {
    pub products: BTreeMap<String, ProductPatches>,
    pub problems: Vec<String>,
    kernels: BTreeMap<String, KernelFacts>,
    /// The commits that tags lead to, by kernel.
    tags: BTreeMap<String, ObjectId>,
    /// By product and path.
    files: BTreeMap<(String, TreePath), Arc<File>>,
}

/// A patch's bytes, and what they say.
struct File {
    bytes: Vec<u8>,
    patch: Arc<Patch>,
}

/// A branch that is there.
struct Branch {
    product: String,
    name: RefName,
    commit: ObjectId,
}

impl Facts {
    pub async fn collect(
        source: &KernelSource,
        request: &ScanRequest,
        cancel: &CancellationToken,
    ) -> Result<Self, ScanError> {
        let (branches, tags, mut problems) = refs(source, request, cancel).await?;
        let commits: BTreeSet<&ObjectId> = branches.iter().map(|branch| &branch.commit).collect();
        let mut found = Found::default();
        for commit in &commits {
            let added = request.add_patches.iter().cloned().collect();
            found.paths.insert((*commit).clone(), added);
        }
        let cve = format!("CVE-{}", request.cve);
        found.search(source, &[cve], &commits, cancel, &mut problems).await?;
        // A branch may have the same fix under no CVE's name.
        let fixed_by = found.fixed_by(request);
        let texts: Vec<String> = fixed_by.iter().map(|commit| format!("Git-commit: {commit}")).collect();
        found.search(source, &texts, &commits, cancel, &mut problems).await?;

        let names = commits.iter().copied().chain(tags.values());
        let names: BTreeSet<String> = names.map(|commit| at(commit, SERIES)).collect();
        let objects = source.resolve(&names, cancel).await?;
        // Of a kernel's patches only those are of interest that are in question anywhere.
        let wanted: BTreeSet<&TreePath> = found.paths.values().flatten().collect();
        let series = read_series(source, objects.values(), &wanted, cancel).await?;

        let mut facts = Facts {
            products: BTreeMap::new(),
            problems,
            kernels: BTreeMap::new(),
            tags,
            files: BTreeMap::new(),
        };
        let series_of = |commit: &ObjectId| series.get(&objects.get(&at(commit, SERIES))?.id);
        for branch in &branches {
            let patches = found.files_of(&branch.commit);
            facts.product(branch, series_of(&branch.commit), patches, &fixed_by, request);
        }
        for codestream in &request.codestreams {
            let kernel = match facts.tags.get(&codestream.kernel) {
                None => Err(format!(
                    "the repository has no tag rpm-{}; fetch its tags",
                    codestream.kernel
                )),
                Some(commit) => match series_of(commit) {
                    None => Err(format!("tag rpm-{} has no {SERIES}", codestream.kernel)),
                    Some(Err(why)) => Err(format!("tag rpm-{}: {why}", codestream.kernel)),
                    Some(Ok(order)) => Ok(order.keys().cloned().collect()),
                },
            };
            facts.kernels.insert(codestream.kernel.clone(), kernel);
        }
        Ok(facts)
    }

    /// Sorts a branch's patches into fixes, in order, and mere mentions.
    fn product(
        &mut self,
        branch: &Branch,
        series: Option<&SeriesFacts>,
        found: Vec<(&TreePath, &Arc<File>)>,
        fixed_by: &BTreeSet<String>,
        request: &ScanRequest,
    ) {
        let order = match series {
            Some(Ok(order)) => order,
            Some(Err(why)) => {
                self.problems.push(format!("branch {}: {why}", branch.name));
                return;
            }
            None => {
                self.problems
                    .push(format!("branch {} has no {SERIES}; it is left out", branch.name));
                return;
            }
        };
        let mut product = ProductPatches {
            branch: branch.name.to_string(),
            ..ProductPatches::default()
        };
        for (path, file) in found {
            let added = request.add_patches.contains(path);
            let listed = file.patch.cves().contains(&request.cve);
            let by_commit = file
                .patch
                .git_commits
                .iter()
                .any(|commit| fixed_by.contains(commit.short()));
            if !added && !listed && !by_commit {
                product.mentions.push(path.clone());
                continue;
            }
            let Some(place) = order.get(path) else {
                self.problems.push(format!(
                    "branch {}: {path} is there, but not applied by {SERIES}; it is left out",
                    branch.name
                ));
                continue;
            };
            let mut fact = PatchFact::of(path.clone(), *place, &file.patch, added);
            fact.by_commit = !listed && !added;
            product.patches.push(fact);
            self.files.insert((branch.product.clone(), path.clone()), file.clone());
        }
        // Patches that were asked for come first: they are what the fixes rest on.
        product.patches.sort_by_key(|patch| (!patch.added, patch.order));
        self.products.insert(branch.product.clone(), product);
    }

    pub fn kernel(&self, kernel: &str) -> &KernelFacts {
        const UNASKED: &KernelFacts = &Err(String::new());
        self.kernels.get(kernel).unwrap_or(UNASKED)
    }

    pub fn patch(&self, scope: &str, path: &TreePath) -> Option<Arc<Patch>> {
        Some(self.files.get(&(scope.to_owned(), path.clone()))?.patch.clone())
    }

    /// The patches as files, numbered in their order.
    pub fn fixes(&self) -> Vec<FixFile> {
        let mut fixes = Vec::new();
        for (scope, product) in &self.products {
            for (number, patch) in product.patches.iter().enumerate() {
                let Some(file) = self.files.get(&(scope.clone(), patch.path.clone())) else {
                    continue;
                };
                fixes.push(FixFile {
                    scope: scope.clone(),
                    name: patch.file_name(number + 1),
                    bytes: file.bytes.clone(),
                });
            }
        }
        fixes
    }

    /// Adds to each draft what its kernel's configuration and supported.conf say.
    pub async fn settle(
        &mut self,
        source: &KernelSource,
        drafts: Vec<(ScanCodestream, Draft)>,
        cancel: &CancellationToken,
    ) -> Result<Vec<(Codestream, Draft)>, ScanError> {
        let wanted: BTreeSet<ConfigName> = drafts.iter().flat_map(|(_, draft)| propose::configs(draft)).collect();
        let mut names = BTreeSet::new();
        for (codestream, _) in &drafts {
            let Some(tag) = self.tags.get(&codestream.kernel) else {
                continue;
            };
            names.insert(at(tag, "supported.conf"));
            for arch in &codestream.archs {
                names.extend(config_paths(&codestream.name, *arch).map(|path| at(tag, &path)));
            }
        }
        let objects = source.resolve(&names, cancel).await?;
        let mut configs: BTreeMap<ObjectId, BTreeMap<ConfigName, Option<ConfigValue>>> = BTreeMap::new();
        let mut supported: BTreeMap<ObjectId, String> = BTreeMap::new();
        let is_config = |name: &str| name.contains(":config/");
        let some = |config: bool| {
            let chosen = objects.iter().filter(move |(name, _)| is_config(name) == config);
            chosen.map(|(_, object)| object)
        };
        source
            .read(some(true), cancel, &mut |id, bytes| {
                configs.insert(id.clone(), values(&String::from_utf8_lossy(bytes), &wanted));
            })
            .await?;
        source
            .read(some(false), cancel, &mut |id, bytes| {
                supported.insert(id.clone(), String::from_utf8_lossy(bytes).into_owned());
            })
            .await?;
        let mut settled = Vec::new();
        for (codestream, draft) in drafts {
            let Some(tag) = self.tags.get(&codestream.kernel) else {
                continue;
            };
            let of = |path: &str| objects.get(&at(tag, path)).map(|object| &object.id);
            let mut by_arch = BTreeMap::new();
            for arch in &codestream.archs {
                let found: Vec<_> = config_paths(&codestream.name, *arch)
                    .filter_map(|path| configs.get(of(&path)?))
                    .collect();
                if found.is_empty() {
                    self.problems
                        .push(format!("tag rpm-{} has no configuration for {arch}", codestream.kernel));
                    continue;
                }
                // Later ones have the last word.
                let merged: BTreeMap<_, _> = found.into_iter().flatten().collect();
                let set = merged
                    .into_iter()
                    .filter_map(|(name, value)| Some((name.clone(), (*value)?)));
                by_arch.insert(*arch, set.collect());
            }
            let supported = of("supported.conf").and_then(|id| supported.get(id));
            settled.push((
                codestream.name,
                propose::settle(draft, &by_arch, supported.map(String::as_str)),
            ));
        }
        Ok(settled)
    }
}

/// The applied patches of a series that are of interest, with their place from 1.
type SeriesFacts = Result<BTreeMap<TreePath, usize>, String>;

fn at(commit: &ObjectId, path: &str) -> String {
    format!("{}:{path}", commit.as_str())
}

/// Where a kernel's configurations are, later ones having the last word.
fn config_paths(codestream: &Codestream, arch: Arch) -> impl Iterator<Item = String> {
    let flavours = config_flavours(codestream).iter();
    let arch = match arch {
        Arch::Aarch64 => "arm64",
        other => other.as_str(),
    };
    flavours.map(move |flavour| format!("config/{arch}/{flavour}"))
}

/// The values of the options in question. One that the file turns off is told, too: it takes back what another file says.
fn values(text: &str, wanted: &BTreeSet<ConfigName>) -> BTreeMap<ConfigName, Option<ConfigValue>> {
    let config = KernelConfig::parse(text);
    let value = |name: &ConfigName| match config.get(name.as_str()) {
        Setting::BuiltIn => Some(Some(ConfigValue::BuiltIn)),
        Setting::Module => Some(Some(ConfigValue::Module)),
        Setting::NotSet | Setting::Other(_) => Some(None),
        Setting::Unknown => None,
    };
    wanted
        .iter()
        .filter_map(|name| Some((name.clone(), value(name)?)))
        .collect()
}

/// Finds the commits of branches and tags.
async fn refs(
    source: &KernelSource,
    request: &ScanRequest,
    cancel: &CancellationToken,
) -> Result<(Vec<Branch>, BTreeMap<String, ObjectId>, Vec<String>), ScanError> {
    let mut problems = Vec::new();
    // What was fetched comes before what somebody may have made of it.
    let places =
        |branch: &RefName| ["refs/remotes/origin/", "refs/heads/"].map(|place| format!("{place}{branch}^{{commit}}"));
    let tag = |kernel: &str| -> Option<String> {
        let tag: RefName = format!("rpm-{kernel}").parse().ok()?;
        Some(format!("refs/tags/{tag}^{{commit}}"))
    };
    let wanted: BTreeSet<String> = request
        .codestreams
        .iter()
        .flat_map(|c| request.branches.wanted(&c.name))
        .collect();
    let branches: Vec<(&str, &RefName)> = request
        .branches
        .iter()
        .filter(|(product, _)| wanted.contains(*product))
        .collect();
    let mut names: BTreeSet<String> = branches.iter().flat_map(|(_, branch)| places(branch)).collect();
    names.extend(request.codestreams.iter().filter_map(|c| tag(&c.kernel)));
    let objects = source.resolve(&names, cancel).await?;
    let mut found = Vec::new();
    for (product, name) in branches {
        match places(name).iter().find_map(|place| objects.get(place)) {
            Some(object) => found.push(Branch {
                product: product.to_owned(),
                name: name.clone(),
                commit: object.id.clone(),
            }),
            None => problems.push(format!(
                "the repository has no branch {name}, which product {product} takes its patches from; fetch it"
            )),
        }
    }
    let tags = request.codestreams.iter().filter_map(|codestream| {
        let object = objects.get(&tag(&codestream.kernel)?)?;
        Some((codestream.kernel.clone(), object.id.clone()))
    });
    Ok((found, tags.collect(), problems))
}

/// Patches that may be fixes.
#[derive(Default)]
struct Found {
    /// By the branch's commit.
    paths: BTreeMap<ObjectId, BTreeSet<TreePath>>,
    /// What a commit's path leads to.
    ids: BTreeMap<String, ObjectId>,
    files: BTreeMap<ObjectId, Arc<File>>,
}

impl Found {
    /// Adds the patches that have one of the texts, and reads all that are not read yet.
    async fn search(
        &mut self,
        source: &KernelSource,
        texts: &[String],
        commits: &BTreeSet<&ObjectId>,
        cancel: &CancellationToken,
        problems: &mut Vec<String>,
    ) -> Result<(), ScanError> {
        for (commit, path) in source.grep(texts, commits, PATCHES, cancel).await? {
            match path.parse() {
                Ok(path) => {
                    self.paths.entry(commit).or_default().insert(path);
                }
                Err(why) => problems.push(format!("a patch is left out: {why}")),
            }
        }
        let all = self
            .paths
            .iter()
            .flat_map(|(commit, paths)| paths.iter().map(|path| at(commit, path.as_str())));
        let fresh: BTreeSet<String> = all.filter(|name| !self.ids.contains_key(name)).collect();
        let objects = source.resolve(&fresh, cancel).await?;
        self.ids
            .extend(objects.iter().map(|(name, object)| (name.clone(), object.id.clone())));
        let unread = objects.values().filter(|object| !self.files.contains_key(&object.id));
        let mut read = BTreeMap::new();
        let mut take = |id: &ObjectId, bytes: &[u8]| match String::from_utf8_lossy(bytes).parse::<Patch>() {
            Ok(patch) => {
                let file = File {
                    bytes: bytes.to_owned(),
                    patch: Arc::new(patch),
                };
                read.insert(id.clone(), Arc::new(file));
            }
            Err(why) => problems.push(format!("patch {}: {why}; it is left out", id.as_str())),
        };
        source.read(unread, cancel, &mut take).await?;
        self.files.extend(read);
        Ok(())
    }

    /// The commits, in 12 digits, of all patches that list the CVE.
    fn fixed_by(&self, request: &ScanRequest) -> BTreeSet<String> {
        let fixes = self
            .files
            .values()
            .filter(|file| file.patch.cves().contains(&request.cve));
        let commits = fixes.flat_map(|file| &file.patch.git_commits);
        commits
            .map(|commit| commit.short().to_owned())
            .take(MAX_COMMITS)
            .collect()
    }

    fn files_of(&self, commit: &ObjectId) -> Vec<(&TreePath, &Arc<File>)> {
        let paths = self.paths.get(commit).into_iter().flatten();
        let file = |path: &TreePath| self.files.get(self.ids.get(&at(commit, path.as_str()))?);
        paths.filter_map(|path| Some((path, file(path)?))).collect()
    }
}

async fn read_series<'o>(
    source: &KernelSource,
    objects: impl Iterator<Item = &'o Object>,
    wanted: &BTreeSet<&TreePath>,
    cancel: &CancellationToken,
) -> Result<BTreeMap<ObjectId, SeriesFacts>, ScanError> {
    let mut all = BTreeMap::new();
    let mut take = |id: &ObjectId, bytes: &[u8]| {
        let series = String::from_utf8_lossy(bytes).parse::<Series>();
        let facts = series.map_err(|why| why.to_string()).map(|series| {
            let entries = series.entries.into_iter().enumerate();
            let applied = entries.filter(|(_, entry)| entry.applied && wanted.contains(&entry.path));
            applied.map(|(place, entry)| (entry.path, place + 1)).collect()
        });
        all.insert(id.clone(), facts);
    };
    source.read(objects, cancel, &mut take).await?;
    Ok(all)
}
