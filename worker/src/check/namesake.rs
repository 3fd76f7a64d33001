//! Which of several symbols of one name is the one that a source file means?

use std::collections::BTreeSet;

use klp_livepatch::names::SourcePath;

use super::definitions::Definitions;
use super::near;
use crate::symbols::Place;

/// What must speak for one: a global neighbour, of which there is no other, or two that are local: another file may happen to
/// have one of the same name, while the file's own was inlined.
const ENOUGH: usize = 2;

/// How many namesakes a sentence describes.
const DESCRIBED: usize = 6;

/// The symbol that `file` means by `name`: its own if it defines one, else the global one. `source` is the file's text.
/// `None`: it can't be told.
pub(super) fn choose<'a>(
    places: &'a [Place],
    name: &str,
    file: &SourcePath,
    source: Option<&Definitions>,
) -> Option<&'a Place> {
    let kept: Vec<&Place> = places.iter().filter(|place| place.position.is_some()).collect();
    if let [one] = kept[..] {
        return Some(one);
    }
    let (globals, locals): (Vec<&Place>, Vec<&Place>) = kept.iter().partition(|place| place.global);
    let the_global = match globals[..] {
        [one] => Some(one),
        _ => None,
    };
    let own = file.as_str().rsplit('/').next().unwrap_or_default();
    let of_this_file: Vec<&Place> = locals
        .iter()
        .copied()
        .filter(|place| place.file.as_deref() == Some(own))
        .collect();
    match (&of_this_file[..], source.map(|source| source.is_static(name))) {
        ([one], None | Some(Some(true))) => Some(one),
        // The file is there, but what is of its name is not of its making.
        (_, Some(None)) if the_global.is_some() => the_global,
        (_, Some(Some(false))) if the_global.is_some() => the_global,
        ([], Some(_)) => match (&locals[..], source.and_then(|source| source.is_static(name))) {
            ([one], Some(true)) => Some(one),
            _ => by_neighbours(&kept, source?),
        },
        (several, Some(_)) => by_neighbours(several, source?),
        (_, None) => None,
    }
}

/// The one among whose neighbours are clearly more names of the file than among any other's. Names that lie beside several
/// tell nothing: drivers that were copied from one another have them all alike.
fn by_neighbours<'a>(places: &[&'a Place], source: &Definitions) -> Option<&'a Place> {
    // `f.isra.0` and `f.cold` lie where f would.
    let base = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let beside: Vec<BTreeSet<String>> = places
        .iter()
        .map(|place| place.neighbours.iter().map(|name| base(name)).collect())
        .collect();
    let alone = |name: &String| beside.iter().filter(|names| names.contains(name)).count() == 1;
    let weight = |name: &String| match source.is_static(name) {
        Some(is_static) if alone(name) => {
            if is_static {
                1
            } else {
                ENOUGH
            }
        }
        _ => 0,
    };
    let mut scored: Vec<(usize, &Place)> = beside
        .iter()
        .zip(places)
        .map(|(names, place)| (names.iter().map(weight).sum(), *place))
        .collect();
    scored.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    match scored[..] {
        [(best, place), (second, _), ..] if best >= ENOUGH && best > 2 * second => Some(place),
        [(best, place)] if best >= ENOUGH => Some(place),
        _ => None,
    }
}

/// `at 1 in pcm.c, at 2 beside snd_a and snd_b`
pub(super) fn describe(places: &[Place]) -> String {
    let mut all: Vec<String> = places.iter().take(DESCRIBED).map(describe_one).collect();
    if places.len() > DESCRIBED {
        all.push(format!("{} more", places.len() - DESCRIBED));
    }
    near::and_list(&all)
}

fn describe_one(place: &Place) -> String {
    let position = match place.position {
        Some(position) => format!("at {position}"),
        None => "one in init code".to_owned(),
    };
    let whose = match (&place.file, place.global) {
        (Some(file), _) => format!(" in {file}"),
        (None, true) => ", global".to_owned(),
        (None, false) => String::new(),
    };
    let beside: Vec<String> = place.neighbours.iter().take(2).map(ToString::to_string).collect();
    let beside = match beside.is_empty() || place.file.is_some() {
        true => String::new(),
        false => format!(" beside {}", near::and_list(&beside)),
    };
    format!("{position}{whose}{beside}")
}

#[cfg(test)]
mod tests {
    use klp_livepatch::report::Traced;

    use super::*;
    use crate::symbols::SymbolKind;

    fn place(position: u32, global: bool, file: Option<&str>, neighbours: &[&str]) -> Place {
        Place {
            kind: SymbolKind::Function,
            global,
            file: file.map(Into::into),
            address: 0,
            size: 0,
            init: false,
            position: Some(position),
            traced: Traced::Unknown,
            neighbours: neighbours.iter().map(|name| (*name).into()).collect(),
        }
    }

    fn chosen(places: &[Place], source: Option<&str>) -> Option<u32> {
        let source = source.map(Definitions::of);
        choose(places, "reset", &"net/a.c".parse().unwrap(), source.as_ref())?.position
    }

    const STATIC: &str =
        "static int x1(void) {} static int reset(void) {} static int x2(void) {} static int x3(void) {} int g(void) {}";

    #[test]
    fn the_file_s_own_symbol_comes_first() {
        let places = [
            place(1, false, Some("b.c"), &[]),
            place(2, false, Some("a.c"), &[]),
            place(3, true, None, &[]),
        ];
        assert_eq!(chosen(&places, Some(STATIC)), Some(2));
        assert_eq!(chosen(&places, None), Some(2));
        assert_eq!(
            chosen(&places, Some("int reset(void) {}")),
            Some(3),
            "it defines the global one"
        );
        assert_eq!(
            chosen(&places, Some("int f(void) { reset(); }")),
            Some(3),
            "it uses the global one"
        );
    }

    #[test]
    fn files_of_one_name_are_told_apart_by_their_neighbours() {
        let places = [
            place(1, false, Some("a.c"), &["y1", "y2"]),
            place(2, false, Some("a.c"), &["x1.isra.0", "x2", "y2"]),
        ];
        assert_eq!(chosen(&places, Some(STATIC)), Some(2));
        assert_eq!(chosen(&places, None), None);
    }

    #[test]
    fn without_files_neighbours_decide_or_nobody_does() {
        let by = |a: &[&str], b: &[&str]| chosen(&[place(1, false, None, a), place(2, false, None, b)], Some(STATIC));
        assert_eq!(by(&["y"], &["x1", "x2"]), Some(2));
        assert_eq!(by(&["x1", "x2"], &["y"]), Some(1));
        assert_eq!(by(&["x1"], &["y"]), None, "one is not enough");
        assert_eq!(by(&["y"], &["g"]), Some(2), "but a global one is");
        assert_eq!(by(&["x1"], &["x2", "x1", "x3"]), Some(2), "x1 tells nothing");
        assert_eq!(by(&["x1", "x2"], &["x1", "x2"]), None);
        assert_eq!(by(&["x1"], &["x2", "x3"]), None, "not clear enough");
        assert_eq!(by(&["y"], &["z"]), None);
        // One local, and the file's is static.
        let places = [place(1, true, None, &[]), place(2, false, None, &[])];
        assert_eq!(chosen(&places, Some(STATIC)), Some(2));
        assert_eq!(chosen(&places, Some("int f(void) { reset(); }")), Some(1));
    }

    #[test]
    fn the_description_says_what_to_look_for() {
        let places = [
            place(1, false, Some("b.c"), &[]),
            place(2, false, None, &["x", "y", "z"]),
            place(3, true, None, &[]),
        ];
        assert_eq!(describe(&places), "at 1 in b.c, at 2 beside x and y and at 3, global");
    }
}
