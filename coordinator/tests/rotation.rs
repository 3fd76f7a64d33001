//! The farm's CA is replaced beside a running coordinator: each step names whom it would cut off, and cuts off nobody.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use klp_coordinator::admin::{Backup, backup};
use klp_identity::authority;
use klp_proto::v1;
use serde_json::Value;
use support::process::run;
use support::secure::Secure;
use support::soon;
use tonic::Code;

const LIST: &str = "/klpfarm.v1.LivepatchService/List";
const SESSION: &str = "/klpfarm.v1.WorkerService/Session";

fn tls(farm: &Secure, name: &str) -> PathBuf {
    farm.config.data_dir.join("tls").join(name)
}

fn read(farm: &Secure, name: &str) -> String {
    std::fs::read_to_string(tls(farm, name)).unwrap()
}

async fn step(farm: &Secure, args: &[&str]) -> (i32, String, String) {
    let args = ["init", "--output", "json", "--rotate-ca"].iter().chain(args);
    run(&farm.config.data_dir, &args.copied().collect::<Vec<_>>()).await
}

/// Takes a step; answers the fingerprints that are trusted, the issuer's first.
async fn taken(farm: &Secure, args: &[&str]) -> Vec<String> {
    let (code, out, err) = step(farm, args).await;
    assert_eq!(code, 0, "{err}");
    let taken: Value = serde_json::from_str(&out).unwrap();
    let trusted: Vec<String> = serde_json::from_value(taken["trusted_sha256"].clone()).unwrap();
    assert_eq!(taken["issuer_sha256"], trusted[0]);
    trusted
}

async fn refused(farm: &Secure, args: &[&str], said: &[&str]) {
    let (code, _, err) = step(farm, args).await;
    assert_eq!(code, 2, "{err}");
    for part in said {
        assert!(err.contains(part), "{part}: {err}");
    }
}

/// The worker's next key and certificate, and whom it is to trust.
async fn renew(farm: &Secure, worker: &str, pem: &str) -> (String, String) {
    let (key, request_pem) = authority::request(&worker.parse().unwrap()).unwrap();
    let called = farm.with_certificate(pem).await;
    let given = called
        .access()
        .renew_certificate(v1::RenewCertificateRequest { request_pem })
        .await;
    let given = given.unwrap().into_inner();
    (key + &given.certificate_pem, given.ca_pem)
}

async fn authorities(farm: &Secure) -> String {
    let told = farm.admin().access().authorities(v1::AuthoritiesRequest {}).await;
    told.unwrap().into_inner().ca_pem
}

/// Waits until who asks for this is answered so, or refused by TLS.
async fn until(farm: &Secure, pem: Option<&str>, wanted: Code) {
    let asked = async {
        loop {
            let (code, _) = match pem {
                Some(pem) => farm.with_certificate(pem).await.call(SESSION).await,
                None => farm.admin().call(LIST).await,
            };
            if code == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("the coordinator takes what is in its files", asked).await;
}

#[tokio::test]
async fn each_step_waits_for_those_whom_it_would_cut_off_and_names_them() {
    let mut farm = Secure::start("").await;
    let (w1, _w2) = (farm.enroll("w1").await, farm.enroll("w2").await);
    let old = read(&farm, "ca.pem");
    refused(&farm, &["issue"], &["begins with --rotate-ca trust"]).await;
    let first = taken(&farm, &["trust"]).await;
    assert_eq!(first.len(), 2);
    refused(&farm, &["trust"], &["next step is --rotate-ca issue"]).await;
    refused(&farm, &["retire"], &["next step is --rotate-ca issue"]).await;

    // The former CA issues; the new one comes along.
    refused(
        &farm,
        &["issue"],
        &["don't know the new CA yet", ": w1, w2. ", "klp-farm revoke"],
    )
    .await;
    let (w1_aware, both) = renew(&farm, "w1", &w1).await;
    assert_eq!((both.matches("BEGIN").count(), both.starts_with(&old)), (2, true));
    assert_eq!(authorities(&farm).await, both);
    let new = both.strip_prefix(&old).unwrap().to_owned();
    refused(&farm, &["issue"], &[": w2. "]).await;
    farm.revoke_worker("w2").await;

    // The new one issues; who trusts the former alone does not find its coordinator any more.
    let second = taken(&farm, &["issue"]).await;
    assert_eq!(second, [first[1].clone(), first[0].clone()]);
    assert!(!tls(&farm, "ca-next.key").exists());
    for file in ["server.pem", "signer.pem"] {
        assert!(read(&farm, file).ends_with(&new), "{file}");
    }
    until(&farm, None, Code::Unavailable).await;
    farm.trust(&new);
    until(&farm, None, Code::Ok).await;
    farm.trust(&both);
    assert_eq!(farm.with_certificate(&w1_aware).await.call(SESSION).await.0, Code::Ok);
    refused(&farm, &["trust"], &["ends with --rotate-ca retire"]).await;
    refused(&farm, &["retire"], &["of the former CA", ": w1. "]).await;
    let (w1_new, told) = renew(&farm, "w1", &w1_aware).await;
    assert_eq!(told, new.clone() + &old);
    assert!(w1_new.ends_with(&new));

    // The former one is trusted no more.
    assert_eq!(taken(&farm, &["retire"]).await, [first[1].clone()]);
    assert_eq!(
        (read(&farm, "ca.pem"), read(&farm, "ca-former.pem")),
        (new.clone(), old)
    );
    farm.trust(&new);
    until(&farm, Some(&w1_aware), Code::Unauthenticated).await;
    let (_, message) = farm.with_certificate(&w1_aware).await.call(SESSION).await;
    assert!(
        message.contains("worker `w1` was issued by a CA that this farm has replaced")
            && message.contains("klp-farm enroll w1"),
        "{message}"
    );
    assert_eq!(farm.with_certificate(&w1_new).await.call(SESSION).await.0, Code::Ok);
    assert_eq!(authorities(&farm).await, new);
    let listed = farm
        .admin()
        .access()
        .list_certificates(v1::ListCertificatesRequest {})
        .await;
    let listed = listed.unwrap().into_inner().certificates;
    assert_eq!(listed[0].ca_sha256, first[1], "{listed:?}");
    // Another farm's is another matter.
    let stranger = Secure::start("").await;
    let theirs = stranger.enroll("w1").await;
    let (_, message) = farm.with_certificate(&theirs).await.call(SESSION).await;
    assert!(message.contains("was not issued by this farm's CA"), "{message}");
    // A whole round may begin again.
    assert_eq!(taken(&farm, &["trust"]).await[0], first[1]);
}

#[tokio::test]
async fn whoever_goes_on_by_force_puts_out_those_who_did_not_follow() {
    let mut farm = Secure::start("").await;
    let w1 = farm.enroll("w1").await;
    taken(&farm, &["trust"]).await;
    farm.trust(&authorities(&farm).await);
    taken(&farm, &["issue", "--force"]).await;
    refused(&farm, &["retire"], &[": w1. "]).await;
    assert_eq!(farm.with_certificate(&w1).await.call(SESSION).await.0, Code::Ok);
    taken(&farm, &["retire", "--force"]).await;
    until(&farm, Some(&w1), Code::Unauthenticated).await;
    // Force is no way around the order.
    refused(&farm, &["retire", "--force"], &["begins with --rotate-ca trust"]).await;
}

#[tokio::test]
async fn a_step_that_breaks_off_leaves_papers_that_belong_together_and_can_be_taken_again() {
    let mut farm = Secure::start("").await;
    let w1 = farm.enroll("w1").await;
    // A key was made, and its certificate is not trusted yet.
    let (_, stray) = authority::request(&"x".parse().unwrap())
        .map(|(key, _)| ((), key))
        .unwrap();
    std::fs::write(tls(&farm, "ca-next.key"), stray).unwrap();
    taken(&farm, &["trust"]).await;
    let (w1, both) = renew(&farm, "w1", &w1).await;
    farm.trust(&both);
    // Half-way, a backup has all that it takes to go on.
    let copy = farm.config.data_dir.with_file_name("copy");
    assert!(matches!(backup(&farm.config, &copy).unwrap(), Backup::Done(_)));
    let kept = std::fs::read_to_string(copy.join("tls/ca-next.key")).unwrap();
    assert_eq!(kept, read(&farm, "ca-next.key"));
    // The new CA has begun to issue, and the coordinator's certificate is the former's still.
    std::fs::rename(tls(&farm, "ca-next.key"), tls(&farm, "ca.key")).unwrap();
    until(&farm, Some(&w1), Code::Ok).await;
    let (w1, _) = renew(&farm, "w1", &w1).await;
    refused(&farm, &["retire"], &["server.pem", "--rotate-ca issue again"]).await;
    taken(&farm, &["issue"]).await;
    taken(&farm, &["issue"]).await;
    taken(&farm, &["retire"]).await;
    farm.trust(&authorities(&farm).await);
    until(&farm, Some(&w1), Code::Ok).await;
    assert_eq!(farm.admin().call(LIST).await.0, Code::Ok);
}
