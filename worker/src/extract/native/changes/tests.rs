//! The difference of surveys made by hand.

use super::*;

fn spot(label: &str) -> Spot {
    Spot {
        label: label.into(),
        line: 1,
        start: 10,
        end: 20,
        public: true,
    }
}

fn found(text: &str, label: &str) -> Found {
    Found {
        text: text.into(),
        spot: spot(label),
    }
}

fn between(before: Survey, after: Survey) -> Changes {
    let headers = BTreeSet::from(["a.h".to_owned(), "b.h".to_owned()]);
    Changes::between(before, &after, headers, BTreeSet::new())
}

#[test]
fn what_moves_between_changed_headers_is_no_change() {
    let survey = |label: &str| Survey {
        macros: BTreeMap::from([("M".into(), vec![found("M 1", label)])]),
        definitions: BTreeMap::from([("f".into(), found("f", label))]),
        declarations: BTreeMap::from([("g".into(), found("int ( void )", label))]),
        ..Survey::default()
    };
    let changes = between(survey("a.h"), survey("b.h"));
    assert!(changes.told().is_empty() && changes.pieces.is_empty(), "{changes:?}");
}

#[test]
fn macros_are_followed_back_through_macros() {
    let survey = |text: &str| Survey {
        macros: BTreeMap::from([("M".into(), vec![found(text, "a.h")])]),
        mentions: BTreeMap::from([
            ("M".into(), BTreeSet::new()),
            ("N".into(), BTreeSet::from(["M".into()])),
            ("O".into(), BTreeSet::from(["N".into(), "other".into()])),
            ("P".into(), BTreeSet::from(["other".into()])),
        ]),
        ..Survey::default()
    };
    let changes = between(survey("M 1"), survey("M 2"));
    assert!(changes.touches("M") && changes.touches("O") && !changes.touches("P"));
    assert_eq!(changes.leads["O"], BTreeSet::from(["N".to_owned()]));
}

#[test]
fn an_enumeration_is_written_whole_only_if_all_of_it_is_new() {
    let constant = |value, of_start| FoundConstant {
        value,
        spot: spot("a.h"),
        of: None,
        of_start,
    };
    let before = Survey {
        constants: BTreeMap::from([("OLD".into(), constant(0, 5)), ("LAST".into(), constant(1, 5))]),
        ..Survey::default()
    };
    let mut after = before.clone();
    after.constants.insert("MORE".into(), constant(1, 5));
    after.constants.insert("LAST".into(), constant(2, 5));
    after.constants.insert("ALONE".into(), constant(7, 90));
    let changes = between(before, after);
    let pieces = &changes.pieces["a.h"];
    assert_eq!(pieces.len(), 3, "{pieces:?}");
    assert!(pieces.contains(&Piece::Declared { start: 90 }));
    assert!(
        pieces
            .iter()
            .any(|p| matches!(p, Piece::Constant { name, value: 1, .. } if name == "MORE"))
    );
    assert_eq!(
        (changes.constants["LAST"].before, changes.constants["LAST"].after),
        (1, 2)
    );
}
