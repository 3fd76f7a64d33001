//! Reads a `codestreams.json` of any klp-build.
//!
//! Four generations are in the field, told apart by their keys:
//! - until 2024-10 the codestreams alone, with `conf.json` beside them for what is about the whole livepatch;
//! - until v1.1.0 `codestreams` beside `archs`, `commits`, `cve` and more, each with its name taken apart (`sle`, `sp` ..);
//! - v1.2.0 with whole names, and `upstream` instead of `commits`;
//! - v2 with `eol` and `required_patches`.
//!
//! What a generation lacks is taken for empty, with a note for the person who imports. Keys we don't know are kept. Only what
//! is there and of the wrong form is an error, with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::json::{Object, parse, text};
use super::project::{DataPath, ModulePath, PatchName, Project, ProjectCodestream, ProjectFile};
use crate::Codestream;
use crate::catalog::MAX_CODESTREAMS;
use crate::compression::{Known, compress};
use crate::names::{ConfigName, KernelVersion, SourcePath, quoted};
use crate::report::ConfigValue;
use crate::suse::SuseName;

/// Longest accepted file, in bytes.
const MAX_FILE: usize = 16 << 20;

/// Where codestreams are kept that klp-build's reader would end at: it knows names of SUSE's form only.
pub(super) const OTHERS: &str = "klp_farm_codestreams";

/// Which klp-build wrote a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Until 2024-10.
    Flat,
    /// v0.0.1 to v1.1.0.
    Parts,
    /// v1.2.0.
    Names,
    /// v2, and what we write.
    Current,
}

/// What was read, and what a person should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    pub project: Project,
    pub generation: Generation,
    /// What was missing or left out, a sentence each.
    pub notes: Vec<String>,
}

/// What is wrong in a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct ImportError {
    pub place: String,
    pub message: String,
}

impl ImportError {
    pub(super) fn new(place: &str, message: impl fmt::Display) -> Self {
        Self {
            place: place.to_owned(),
            message: message.to_string(),
        }
    }

    pub(super) fn wanted(place: &str, wanted: &str, found: &Value) -> Self {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        Self::new(place, format!("{wanted} is wanted, not {found}"))
    }
}

/// Reads a `codestreams.json`, and the `conf.json` beside it if there is one.
///
/// # Errors
/// The first value that is not of its form.
pub fn import(codestreams_json: &str, conf_json: Option<&str>) -> Result<Imported, ImportError> {
    for (name, text) in [("codestreams.json", Some(codestreams_json)), ("conf.json", conf_json)] {
        if let Some(len) = text.map(str::len).filter(|len| *len > MAX_FILE) {
            return Err(ImportError::new(name, format!("{len} bytes long; at most {MAX_FILE}")));
        }
    }
    let mut notes = Notes::default();
    let top = Object::parse("codestreams.json", codestreams_json)?;
    let flat = !top.get("codestreams").is_some_and(Value::is_object);
    let (generation, project) = if flat {
        (Generation::Flat, import_flat(top, conf_json, &mut notes)?)
    } else {
        if conf_json.is_some() {
            notes.say("conf.json is of an older klp-build; codestreams.json has all that is needed");
        }
        import_nested(top, &mut notes)?
    };
    Ok(Imported {
        project,
        generation,
        notes: notes.finish(),
    })
}

fn import_flat(top: Object, conf: Option<&str>, notes: &mut Notes) -> Result<Project, ImportError> {
    let mut project = Project::default();
    if let Some(conf) = conf {
        let conf = Object::parse("conf.json", conf)?;
        let rest = import_livepatch(conf, &mut project, notes)?;
        project.extra.insert("conf.json".to_owned(), Value::Object(rest));
    } else {
        notes.say("no conf.json: CVE, upstream commits and patched codestreams are unknown");
    }
    import_codestreams(top, &mut project, notes)?;
    if project.archs.is_empty() {
        project.archs = project.codestreams.values().flat_map(|c| c.archs.clone()).collect();
    }
    Ok(project)
}

fn import_nested(mut top: Object, notes: &mut Notes) -> Result<(Generation, Project), ImportError> {
    let parts = !top.has("upstream") && top.has("commits");
    let mut project = Project::default();
    let codestreams = top.object("codestreams")?;
    let others = top.object(OTHERS)?;
    project.extra = import_livepatch(top, &mut project, notes)?;
    for codestreams in [codestreams, others].into_iter().flatten() {
        import_codestreams(codestreams, &mut project, notes)?;
    }
    let generation = match (parts, notes.missing.contains_key("required_patches")) {
        (true, _) => Generation::Parts,
        (false, true) => Generation::Names,
        (false, false) => Generation::Current,
    };
    Ok((generation, project))
}

/// Reads what is about the livepatch as a whole; what else there is comes back.
fn import_livepatch(
    mut top: Object,
    project: &mut Project,
    notes: &mut Notes,
) -> Result<super::project::Extra, ImportError> {
    project.archs = top.list("archs")?.unwrap_or_default().into_iter().collect();
    project.upstream = match top.texts("upstream")? {
        Some(upstream) => upstream,
        None => upstream_of_commits(&top).unwrap_or_else(|| {
            notes.say("no upstream commits: commit messages will name none");
            Vec::new()
        }),
    };
    project.cve = match top.text("cve")? {
        None => None,
        Some(cve) if cve.is_empty() => None,
        Some(cve) => {
            let number = cve.strip_prefix("CVE-").unwrap_or(&cve);
            Some(parse(&top.place("cve"), number)?)
        }
    };
    project.patched = top.list("patched_cs")?.unwrap_or_default().into_iter().collect();
    Ok(top.rest())
}

/// `commits`: by branch, with mainline's under `upstream`.
fn upstream_of_commits(top: &Object) -> Option<Vec<String>> {
    let commits = top.get("commits")?.get("upstream")?.get("commits")?.as_array()?;
    commits.iter().map(|c| c.as_str().map(str::to_owned)).collect()
}

fn import_codestreams(all: Object, project: &mut Project, notes: &mut Notes) -> Result<(), ImportError> {
    for (name, object) in all.objects::<Codestream>()? {
        let place = object.place("name");
        if project.codestreams.len() >= MAX_CODESTREAMS {
            return Err(ImportError::new(
                &place,
                format!("more than {MAX_CODESTREAMS} codestreams"),
            ));
        }
        let codestream = import_codestream(&name, object, project, notes)?;
        if project.codestreams.insert(name.clone(), codestream).is_some() {
            return Err(ImportError::new(&place, format!("{name} is there a second time")));
        }
    }
    Ok(())
}

fn import_codestream(
    name: &Codestream,
    mut object: Object,
    project: &Project,
    notes: &mut Notes,
) -> Result<ProjectCodestream, ImportError> {
    if let Some(other) = object.text("name")?.filter(|other| other != name.as_str()) {
        let message = format!("{} stands under {name}", quoted(&other));
        return Err(ImportError::new(&object.place("name"), message));
    }
    for key in [
        "project",
        "patchid",
        "kernel",
        "eol",
        "archs",
        "files",
        "configs",
        "required_patches",
    ] {
        if !object.has(key) {
            notes.missing(key, name);
        }
    }
    let kernel = object.parsed::<KernelVersion>("kernel")?;
    let archs = object.list("archs")?.map(|archs| archs.into_iter().collect());
    let mut files = Vec::new();
    if let Some(all) = object.object("files")? {
        for (file, object) in all.objects()? {
            files.push(import_file(name, file, object, notes)?);
        }
    }
    Ok(ProjectCodestream {
        project: object.text("project")?.unwrap_or_default(),
        patchid: object.text("patchid")?.unwrap_or_default(),
        eol: import_eol(&mut object)?,
        archs: archs
            .unwrap_or_else(|| SuseName::of(name).map_or_else(|| project.archs.clone(), SuseName::default_archs)),
        files,
        modules: import_modules(name, &mut object, kernel.as_ref(), notes)?,
        configs: import_configs(&mut object)?,
        required_patches: import_patches(&mut object)?,
        kernel,
        extra: object.rest(),
    })
}

fn import_eol(object: &mut Object) -> Result<Option<crate::date::Date>, ImportError> {
    let place = object.place("eol");
    match object.text("eol")?.as_deref() {
        // klp-build copies the words of supported.csv.
        None | Some("" | "only LTSS supported") => Ok(None),
        Some(day) => parse(&place, day).map(Some),
    }
}

/// Paths of another layout, and what isn't a path at all, are left out: klp-build looks up what is not there.
fn import_modules(
    name: &Codestream,
    object: &mut Object,
    kernel: Option<&KernelVersion>,
    notes: &mut Notes,
) -> Result<BTreeMap<ModulePath, DataPath>, ImportError> {
    let mut modules = BTreeMap::new();
    let Some(all) = object.object("modules")? else {
        return Ok(modules);
    };
    for (module, _, value) in all.members::<ModulePath>()? {
        let path = value.as_str().and_then(|path| path.parse::<DataPath>().ok());
        let of_kernel = |path: &DataPath| kernel.is_some_and(|kernel| path.as_str().contains(kernel.as_str()));
        match path.filter(of_kernel) {
            Some(path) => {
                modules.insert(module, path);
            }
            None => notes.left_out("a module's path that is not below the data folder", name),
        }
    }
    Ok(modules)
}

fn import_configs(
    object: &mut Object,
) -> Result<BTreeMap<ConfigName, BTreeMap<crate::Arch, ConfigValue>>, ImportError> {
    let mut configs = BTreeMap::new();
    let Some(all) = object.object("configs")? else {
        return Ok(configs);
    };
    for (config, values) in all.objects::<ConfigName>()? {
        let mut by_arch = BTreeMap::new();
        for (arch, place, value) in values.members()? {
            let value = match text(&place, value)?.as_str() {
                "y" => ConfigValue::BuiltIn,
                "m" => ConfigValue::Module,
                other => {
                    return Err(ImportError::new(
                        &place,
                        format!("{} is neither y nor m", quoted(other)),
                    ));
                }
            };
            by_arch.insert(arch, value);
        }
        configs.insert(config, by_arch);
    }
    Ok(configs)
}

fn import_patches(object: &mut Object) -> Result<Vec<PatchName>, ImportError> {
    let place = object.place("required_patches");
    let names = object.texts("required_patches")?.unwrap_or_default();
    // An empty name is no patch.
    let names = names.iter().filter(|name| !name.is_empty());
    names.map(|name| parse(&place, name)).collect()
}

fn import_file(
    name: &Codestream,
    file: SourcePath,
    mut object: Object,
    notes: &mut Notes,
) -> Result<ProjectFile, ImportError> {
    let module = object.parsed("module")?;
    if module.is_none() {
        notes.missing("files: module", name);
    }
    let externalized = object.object("ext_symbols")?.map(Object::lists).transpose()?;
    let replacements = match object.object("klpp_symbols")? {
        None => None,
        Some(all) => {
            let members = all.members()?.into_iter();
            let prototypes = members.map(|(function, place, value)| Ok((function, text(&place, value)?)));
            Some(prototypes.collect::<Result<BTreeMap<_, _>, ImportError>>()?)
        }
    };
    if externalized.is_some() && replacements.is_none() {
        notes.missing("files: klpp_symbols", name);
    }
    Ok(ProjectFile {
        file,
        module: module.unwrap_or_else(ModulePath::vmlinux),
        config: object.parsed("conf")?,
        symbols: object.list("symbols")?.unwrap_or_default(),
        ibt: object.flag("ibt")?.unwrap_or_default(),
        externalized,
        replacements,
        duplicated: object.list("dup_symbols")?.unwrap_or_default(),
        extra: object.rest(),
    })
}

/// What to tell the person who imports: the same for many codestreams once.
#[derive(Default)]
struct Notes {
    missing: BTreeMap<&'static str, BTreeSet<Codestream>>,
    left_out: BTreeMap<&'static str, BTreeSet<Codestream>>,
    said: Vec<String>,
}

impl Notes {
    fn missing(&mut self, key: &'static str, codestream: &Codestream) {
        self.missing.entry(key).or_default().insert(codestream.clone());
    }

    fn left_out(&mut self, what: &'static str, codestream: &Codestream) {
        self.left_out.entry(what).or_default().insert(codestream.clone());
    }

    fn say(&mut self, note: &str) {
        self.said.push(note.to_owned());
    }

    fn finish(self) -> Vec<String> {
        let line = |codestreams: &BTreeSet<Codestream>| {
            let list: Vec<Codestream> = codestreams.iter().cloned().collect();
            compress(&list, &Known::new(&list))
        };
        let missing = self.missing.iter().map(|(key, codestreams)| {
            let taken_for = match *key {
                "archs" => "taken for those of the product",
                "files: module" => "taken for vmlinux",
                "files: klpp_symbols" => "extract again before its templates are made",
                "eol" => "taken for unknown",
                _ => "taken for empty",
            };
            format!("no `{key}` in {}: {taken_for}", line(codestreams))
        });
        let left_out = self.left_out.iter();
        let left_out = left_out.map(|(what, codestreams)| format!("left out of {}: {what}", line(codestreams)));
        self.said.iter().cloned().chain(missing).chain(left_out).collect()
    }
}
