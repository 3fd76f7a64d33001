//! What a former version's workers reported can still be stated, as far as it is known.

use klp_livepatch::provenance::Envelope;
use klp_tests::{Farm, WorkerOptions, one_codestream, trees};
use rusqlite::Connection;

use super::got::{codestreams, fetch, got, verify};

#[test]
fn inputs_that_were_not_recorded_are_told() {
    let Some(trees) = trees() else { return };
    let codestream = one_codestream(&trees);
    let mut farm = Farm::start();
    farm.add_worker(WorkerOptions {
        trees: &trees,
        codestreams: &codestream,
        ..WorkerOptions::default()
    });
    got(&farm, &trees);
    farm.kill_coordinator();
    let db = Connection::open(farm.dir.path().join("coordinator/farm.db")).unwrap();
    let former = "UPDATE attempts SET report = json_remove(report, '$.origin') WHERE report LIKE '%worker_version%'";
    assert_eq!(db.execute(former, []).unwrap(), 1);
    drop(db);
    farm.restart_coordinator();
    let livepatch = fetch(&farm);
    let text = std::fs::read_to_string(codestreams(&livepatch)[0].join("provenance/provenance.intoto.jsonl")).unwrap();
    let statement = &Envelope::parse_all(&text).unwrap()[0];
    let statement: serde_json::Value = serde_json::from_slice(&statement.payload).unwrap();
    let build = &statement["predicate"]["buildDefinition"];
    assert_eq!(build["internalParameters"]["inputsRecorded"], false);
    assert_eq!(build["resolvedDependencies"].as_array().unwrap().len(), 0);
    let key = farm.dir.path().join("coordinator/signer.pem");
    let told = verify(&livepatch, &["--key", key.to_str().unwrap()]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("its inputs were not recorded"), "{told:?}");
    // Without a CA nobody can vouch for the key but who runs the farm.
    let bare = verify(&livepatch, &["--ca", key.to_str().unwrap()]);
    assert_eq!(bare.code, Some(2), "{bare:?}");
}
