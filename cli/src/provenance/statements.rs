//! Believes or refuses the statements of a codestream's folder: are they signed by whom the caller trusts, are they all of one
//! codestream, and do they say the same?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use klp_identity::{Trusted, Verifier};
use klp_livepatch::Arch;
use klp_livepatch::provenance::{
    Codestream, Digests, Envelope, FOLDER, SIGNER, STATEMENTS, Signed, Slsa, Statement, TaskFindings,
    pre_authentication, read,
};

use super::inventory::Inventory;

/// What is stated of a codestream, and believed.
#[derive(Debug)]
pub struct Stated {
    pub codestream: Codestream,
    pub extractions: BTreeMap<Arch, Statement<Slsa>>,
    /// What is not wrong, and worth knowing.
    pub notes: Vec<String>,
}

/// # Errors
/// Something of it is not to be believed; where, and why.
pub fn stated(inventory: &Inventory, folder: &Path, trusted: &Trusted, now_ms: i64) -> anyhow::Result<Stated> {
    let text = |name: &str| -> anyhow::Result<String> {
        let path = folder.join(FOLDER).join(name);
        let bytes = inventory.read(&path).with_context(|| path.display().to_string())?;
        let bytes = bytes.with_context(|| format!("{} is missing", path.display()))?;
        String::from_utf8(bytes).with_context(|| format!("{} is no text", path.display()))
    };
    let envelopes = Envelope::parse_all(&text(STATEMENTS)?).context(STATEMENTS)?;
    let verifier = Verifier::new(trusted, &text(SIGNER)?).context(SIGNER)?;
    let mut statements = Vec::with_capacity(envelopes.len());
    for (i, envelope) in envelopes.iter().enumerate() {
        let bytes = pre_authentication(&envelope.payload);
        let signed = envelope.signatures.iter().any(|s| verifier.signed(&bytes, &s.bytes));
        ensure!(
            signed,
            "{STATEMENTS}: statement {} is not signed by the key {}: it was altered, or somebody else signed it",
            i + 1,
            verifier.key_id()
        );
        statements.push(read(&envelope.payload).with_context(|| format!("{STATEMENTS}: statement {}", i + 1))?);
    }
    let mut stated = put_together(statements).context(STATEMENTS)?;
    stated.notes = notes(&stated, &verifier, now_ms)?;
    Ok(stated)
}

/// Whether they are all of one codestream and say the same, and none is missing.
fn put_together(statements: Vec<Signed>) -> anyhow::Result<Stated> {
    let (mut codestream, mut extractions) = (None, BTreeMap::new());
    for statement in statements {
        match statement {
            Signed::Codestream(whole) => {
                ensure!(codestream.is_none(), "there are two statements about a codestream");
                codestream = Some(*whole);
            }
            Signed::Extraction(extraction) => {
                let arch = extraction.predicate.build_definition.external_parameters.arch;
                let other = extractions.insert(arch, *extraction);
                ensure!(other.is_none(), "there are two statements about {arch}");
            }
        }
    }
    let whole = codestream.context("the statement about the codestream as a whole is missing")?;
    let newest = Codestream::newest_extractions(&whole.predicate.tasks);
    let (stated, extracted): (BTreeSet<Arch>, BTreeSet<Arch>) = (
        extractions.keys().copied().collect(),
        newest.iter().map(|t| t.arch).collect(),
    );
    if let Some(missing) = extracted.difference(&stated).next() {
        bail!("the statement about {missing} is missing");
    }
    if let Some(odd) = stated.difference(&extracted).next() {
        bail!("there is a statement about {odd}, which was not extracted");
    }
    let mut all = BTreeMap::new();
    for task in newest {
        // It was just found to be there.
        let Some(extraction) = extractions.get(&task.arch) else {
            continue;
        };
        agree(&whole.predicate, task, extraction).with_context(|| format!("the statement about {}", task.arch))?;
        all.extend(extraction.subject.iter().map(|s| (&s.name, &s.digest)));
    }
    let of_whole: BTreeMap<_, _> = whole.subject.iter().map(|s| (&s.name, &s.digest)).collect();
    ensure!(of_whole == all, "the statements name different sources");
    Ok(Stated {
        codestream: whole.predicate,
        extractions,
        notes: Vec::new(),
    })
}

/// Whether a statement is about this extraction of this codestream, and no other's that is just as well signed.
fn agree(whole: &Codestream, task: &TaskFindings, extraction: &Statement<Slsa>) -> anyhow::Result<()> {
    let build = &extraction.predicate.build_definition;
    let asked = &build.external_parameters;
    let (livepatch, codestream) = (&whole.spec.name, &whole.codestream);
    ensure!(
        asked.livepatch == *livepatch && asked.codestream == *codestream,
        "is of {} for {}, the others are of {livepatch} for {codestream}",
        asked.livepatch,
        asked.codestream
    );
    let invocation = &extraction.predicate.run_details.metadata.invocation_id;
    ensure!(
        invocation.split('/').next() == Some(whole.livepatch.to_string().as_str()),
        "is of another livepatch that was called {livepatch}, too: {invocation}"
    );
    let round = build.internal_parameters.round;
    ensure!(round == task.round, "is of round {round}, not of {}", task.round);
    for artifact in &task.artifacts {
        let name = klp_livepatch::provenance::extraction::subject_name(task.arch, &artifact.name);
        let subject = extraction.subject.iter().find(|s| s.name == name);
        let subject = subject.with_context(|| format!("does not name {name}"))?;
        ensure!(subject.sha256().is_some(), "has no SHA-256 of {name}");
        let stored = subject
            .digest
            .get("blake3")
            .is_some_and(|d| *d == artifact.digest.to_string());
        ensure!(stored, "names another {name} than the one that was stored");
    }
    ensure!(
        extraction.subject.len() == task.artifacts.len(),
        "names sources that were not extracted"
    );
    Ok(())
}

/// What a person should know of the key and of how it was made.
fn notes(stated: &Stated, verifier: &Verifier, now_ms: i64) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    for (arch, extraction) in &stated.extractions {
        let run = &extraction.predicate.run_details;
        let build = &extraction.predicate.build_definition;
        if !build.internal_parameters.inputs_recorded {
            notes.push(format!(
                "{arch}: a former version extracted it: its inputs were not recorded"
            ));
        }
        let Some(certified) = &verifier.certified else { continue };
        let farm = klp_livepatch::provenance::extraction::builder_id(&certified.farm, "");
        ensure!(
            run.builder.id.starts_with(&farm),
            "{STATEMENTS}: the statement about {arch} names the builder {}, and is signed by the farm {}",
            run.builder.id,
            certified.farm
        );
        let finished = run.metadata.finished_on;
        let (from, until) = (time(certified.from_ms), time(certified.until_ms));
        ensure!(
            finished.0 <= certified.until_ms,
            "{SIGNER}: the key's certificate ended {until}, before the extraction on {arch} did, {finished}"
        );
        if finished.0 < certified.from_ms {
            notes.push(format!(
                "{arch}: it was extracted {finished}, and is signed with a key that was certified later, {from}"
            ));
        }
    }
    if let Some(certified) = verifier.certified.as_ref().filter(|c| c.until_ms < now_ms) {
        notes.push(format!(
            "the key's certificate has ended, {}: that it was signed before can't be told from the signature",
            time(certified.until_ms)
        ));
    }
    if verifier.certified.is_none() {
        notes.push("the key is believed because it was named; no certificate was asked".to_owned());
    }
    Ok(notes)
}

fn time(ms: i64) -> klp_livepatch::provenance::timestamp::Timestamp {
    klp_livepatch::provenance::timestamp::Timestamp(ms)
}

/// Whether bytes are what a statement says.
pub fn fits(resource: &klp_livepatch::provenance::Resource, bytes: &[u8]) -> Result<(), (String, String)> {
    let found = Digests::of(bytes).set();
    let differs = resource
        .digest
        .iter()
        .any(|(name, digest)| found.get(name) != Some(digest));
    match differs || !resource.digest.contains_key("sha256") {
        false => Ok(()),
        true => {
            let sha256 = |set: &BTreeMap<String, String>| set.get("sha256").cloned().unwrap_or_default();
            Err((sha256(&resource.digest), sha256(&found)))
        }
    }
}
