//! Writes a `codestreams.json` as klp-build v2 does: its keys in its order, indented by four, ASCII, no final newline,
//! codestreams in natural order.

use std::fmt::Write as _;

use serde::Serialize as _;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

use super::import::OTHERS;
use super::project::{Extra, Project, ProjectCodestream, ProjectFile};
use crate::suse::SuseName;

/// The file's text. Codestreams without a SUSE name stand apart, under a key that klp-build doesn't read: its reader
/// ends at a name of another form.
pub fn export(project: &Project) -> String {
    let (mut codestreams, mut others) = (Map::new(), Map::new());
    for (name, codestream) in &project.codestreams {
        let part = if SuseName::of(name).is_some() {
            &mut codestreams
        } else {
            &mut others
        };
        part.insert(name.to_string(), codestream_value(name.as_str(), codestream));
    }
    let mut top = Map::new();
    top.insert("archs".into(), texts(sorted_archs(&project.archs)));
    top.insert("upstream".into(), texts(&project.upstream));
    top.insert("cve".into(), json!(project.cve));
    top.insert("patched_cs".into(), texts(&project.patched));
    top.insert("codestreams".into(), Value::Object(codestreams));
    if !others.is_empty() {
        top.insert(OTHERS.into(), Value::Object(others));
    }
    print(&with(top, &project.extra))
}

fn codestream_value(name: &str, codestream: &ProjectCodestream) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), json!(name));
    map.insert("project".into(), json!(codestream.project));
    map.insert("patchid".into(), json!(codestream.patchid));
    let optional = |text: Option<String>| json!(text.unwrap_or_default());
    map.insert(
        "kernel".into(),
        optional(codestream.kernel.as_ref().map(ToString::to_string)),
    );
    map.insert("eol".into(), optional(codestream.eol.map(|day| day.to_string())));
    map.insert("archs".into(), texts(sorted_archs(&codestream.archs)));
    let files = codestream
        .files
        .iter()
        .map(|file| (file.file.to_string(), file_value(file)));
    map.insert("files".into(), Value::Object(files.collect()));
    let modules = codestream.modules.iter();
    let modules = modules.map(|(module, path)| (module.to_string(), json!(path.as_str())));
    map.insert("modules".into(), Value::Object(modules.collect()));
    map.insert("configs".into(), json!(codestream.configs));
    map.insert("required_patches".into(), texts(&codestream.required_patches));
    with(map, &codestream.extra)
}

fn file_value(file: &ProjectFile) -> Value {
    let mut map = Map::new();
    map.insert("module".into(), json!(file.module.as_str()));
    let config = file.config.as_ref().map(ToString::to_string);
    map.insert("conf".into(), json!(config.unwrap_or_default()));
    map.insert("symbols".into(), texts(&file.symbols));
    if file.ibt {
        map.insert("ibt".into(), json!(true));
    }
    if !file.duplicated.is_empty() {
        map.insert("dup_symbols".into(), texts(&file.duplicated));
    }
    if let Some(externalized) = &file.externalized {
        map.insert("ext_symbols".into(), json!(externalized));
    }
    if let Some(replacements) = &file.replacements {
        map.insert("klpp_symbols".into(), json!(replacements));
    }
    with(map, &file.extra)
}

/// By name, as klp-build writes them.
fn sorted_archs(archs: &std::collections::BTreeSet<crate::Arch>) -> Vec<&'static str> {
    let mut names: Vec<_> = archs.iter().map(|arch| arch.as_str()).collect();
    names.sort_unstable();
    names
}

fn texts<T: ToString>(list: impl IntoIterator<Item = T>) -> Value {
    list.into_iter().map(|item| item.to_string()).collect()
}

/// The known keys, then the others.
fn with(mut known: Map<String, Value>, extra: &Extra) -> Value {
    for (key, value) in extra {
        known.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Value::Object(known)
}

/// As Python's `json.dumps(.., indent=4)` does.
pub(super) fn print(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"    ");
    // Values always serialise, and as UTF-8.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter));
    let text = String::from_utf8_lossy(&bytes);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // What is not ASCII can only be within a text.
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}
