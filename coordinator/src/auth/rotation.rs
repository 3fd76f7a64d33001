//! How a farm's CA is replaced while it works: in three steps, none of which cuts off whoever has followed the one before.
//! What is decided here is done by `admin::rotate_ca`.
//!
//! 1. **Trust**: there is a new CA, which is trusted as well. Workers are told in their sessions and fetch a certificate, with
//!    which the new CA comes; people are given the new `ca.pem`.
//! 2. **Issue**: the new CA makes certificates: the coordinator's at once, and those of workers, who are told again.
//! 3. **Retire**: the former CA is trusted no more.

use std::collections::BTreeMap;

use clap::ValueEnum;
use klp_livepatch::names::WorkerName;

use crate::lifecycle::Millis;
use crate::store::CertificateRow;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// Make a new CA, and trust it beside the present one
    Trust,
    /// Have the new CA make all certificates from now on
    Issue,
    /// Trust the former CA no more
    Retire,
}

/// How far a replacement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// None is under way.
    Settled,
    /// The new CA is trusted, and the former one issues.
    Trusted,
    /// The new CA issues, and the former one is trusted still.
    Issuing,
}

/// Why a step is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Order(&'static str),
    #[error(
        "there are workers that don't know the new CA yet and would refuse the coordinator: {}. Those that are connected learn of it \
         within a minute; {OTHERS}",
        names(.0)
    )]
    Unaware(Vec<WorkerName>),
    #[error(
        "there are workers that come with certificates of the former CA, which would be refused: {}. Those that are connected renew \
         theirs within a minute; {OTHERS}",
        names(.0)
    )]
    Held(Vec<WorkerName>),
}

const OTHERS: &str = "start the others, put them out with `klp-farm revoke`, or go on with --force and let them in anew with \
                      `klp-farm enroll`";

/// How many are named.
const NAMED: usize = 20;

fn names(workers: &[WorkerName]) -> String {
    let named = workers.iter().take(NAMED).map(|worker| worker.to_string());
    let more = workers.len().checked_sub(NAMED).filter(|more| *more > 0);
    let named: Vec<String> = named.chain(more.map(|more| format!("{more} more"))).collect();
    named.join(", ")
}

/// Whether a step may be taken now. `new`: the fingerprint of the new CA; `certificates`: all that were ever made. What was
/// begun and broke off may be taken again.
///
/// # Errors
/// It is not its turn, or somebody would be cut off.
pub fn may(step: Step, stage: Stage, new: &str, certificates: &[CertificateRow], now: Millis) -> Result<(), Refused> {
    match (step, stage) {
        (Step::Trust, Stage::Settled) | (Step::Issue, Stage::Issuing) => Ok(()),
        (Step::Trust, Stage::Trusted) => Err(Refused::Order(
            "a new CA is trusted already; the next step is --rotate-ca issue",
        )),
        (Step::Trust, Stage::Issuing) => Err(Refused::Order(
            "a replacement of the CA is under way; it ends with --rotate-ca retire",
        )),
        (Step::Issue | Step::Retire, Stage::Settled) => Err(Refused::Order(
            "no replacement of the CA is under way; it begins with --rotate-ca trust",
        )),
        (Step::Retire, Stage::Trusted) => Err(Refused::Order(
            "the new CA makes no certificates yet; the next step is --rotate-ca issue",
        )),
        (Step::Issue, Stage::Trusted) => {
            let unaware = lacking(certificates, now, |trusts| trusts.iter().any(|ca| ca == new));
            unaware.map_or(Ok(()), |workers| Err(Refused::Unaware(workers)))
        }
        (Step::Retire, Stage::Issuing) => {
            let held = lacking(certificates, now, |trusts| trusts.first().is_some_and(|ca| ca == new));
            held.map_or(Ok(()), |workers| Err(Refused::Held(workers)))
        }
    }
}

/// Workers whose newest certificate, if it is valid, is none of the wanted.
fn lacking(
    certificates: &[CertificateRow],
    now: Millis,
    wanted: impl Fn(&[String]) -> bool,
) -> Option<Vec<WorkerName>> {
    let mut newest: BTreeMap<&WorkerName, &CertificateRow> = BTreeMap::new();
    for row in certificates
        .iter()
        .filter(|row| row.revoked.is_none() && row.expires > now)
    {
        let known = newest.entry(&row.worker).or_insert(row);
        if row.issued > known.issued {
            *known = row;
        }
    }
    let lacking = newest.values().filter(|row| !wanted(&row.trusts));
    let lacking: Vec<WorkerName> = lacking.map(|row| row.worker.clone()).collect();
    (!lacking.is_empty()).then_some(lacking)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(worker: &str, issued: Millis, trusts: &[&str]) -> CertificateRow {
        CertificateRow {
            serial: format!("{worker}{issued}"),
            worker: worker.parse().unwrap(),
            issued,
            expires: 1000,
            revoked: None,
            trusts: trusts.iter().map(|ca| (*ca).to_owned()).collect(),
        }
    }

    fn told(step: Step, stage: Stage, rows: &[CertificateRow]) -> Result<(), String> {
        may(step, stage, "new", rows, 500).map_err(|refused| refused.to_string())
    }

    #[test]
    fn steps_are_taken_in_their_order_and_may_be_repeated_where_they_broke_off() {
        let steps = [Step::Trust, Step::Issue, Step::Retire];
        let stages = [Stage::Settled, Stage::Trusted, Stage::Issuing];
        let allowed = |step| stages.map(|stage| told(step, stage, &[]).is_ok());
        assert_eq!(
            steps.map(allowed),
            [[true, false, false], [false, true, true], [false, false, true]]
        );
        // Each refusal names the step that is next.
        assert!(
            told(Step::Retire, Stage::Trusted, &[])
                .unwrap_err()
                .contains("--rotate-ca issue")
        );
        assert!(
            told(Step::Issue, Stage::Settled, &[])
                .unwrap_err()
                .contains("--rotate-ca trust")
        );
        assert!(
            told(Step::Trust, Stage::Issuing, &[])
                .unwrap_err()
                .contains("--rotate-ca retire")
        );
    }

    #[test]
    fn nobody_is_cut_off_who_is_not_named() {
        // Of before anything was recorded, aware, and of the new CA.
        let rows = [
            row("a", 1, &[]),
            row("b", 1, &["old", "new"]),
            row("c", 1, &["new", "old"]),
        ];
        let unaware = told(Step::Issue, Stage::Trusted, &rows).unwrap_err();
        assert!(
            unaware.contains("don't know the new CA yet") && unaware.contains(": a. "),
            "{unaware}"
        );
        let held = told(Step::Retire, Stage::Issuing, &rows).unwrap_err();
        assert!(held.contains("of the former CA") && held.contains(": a, b. "), "{held}");
        assert_eq!(told(Step::Issue, Stage::Trusted, &rows[1..]), Ok(()));
        assert_eq!(told(Step::Retire, Stage::Issuing, &rows[2..]), Ok(()));
    }

    #[test]
    fn of_many_only_some_are_named() {
        let rows: Vec<_> = (0..25).map(|n| row(&format!("w{n:02}"), 1, &[])).collect();
        let unaware = told(Step::Issue, Stage::Trusted, &rows).unwrap_err();
        assert!(unaware.contains("w19, 5 more. "), "{unaware}");
    }

    #[test]
    fn the_newest_certificate_counts_that_still_lets_its_worker_in() {
        let mut rows = vec![row("a", 1, &["old"]), row("a", 2, &["new", "old"])];
        for _ in 0..2 {
            assert_eq!(told(Step::Retire, Stage::Issuing, &rows), Ok(()));
            rows.reverse();
        }
        rows[1].revoked = Some(3);
        assert!(told(Step::Retire, Stage::Issuing, &rows).is_err());
        rows[0].expires = 500;
        assert_eq!(
            told(Step::Retire, Stage::Issuing, &rows),
            Ok(()),
            "who has expired is enrolled anew anyway"
        );
    }
}
