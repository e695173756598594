//! Joined texts: each file is found again, and its errors are at their places in that file.

use proptest::prelude::*;
use pseidon_dsl::document::{Fragment, fragment_from_edn, fragment_from_toml, from_edn};
use pseidon_dsl::joined::{self, MARK};
use pseidon_dsl::{Diagnostic, Span};

use super::check_errors;
use super::texts::{mutations_of, piece};

/// Included files.
const VALID: [&str; 6] = [
    r#"{:include ["x.edn"] big (where "a > 1") to-lake (-> big (files {:path "out/{a}"}))}"#,
    r#"{:expressions {is_big "a > 1" "f(x)" "x || ''"} ; é
      a (select "f(b) as c")}"#,
    "{a (where \"b\") a (where \"c\")}",
    "include = [\"x.toml\"]\n[stages.big]\nwhere = \"a > 1\"\n",
    "[flows]\nto-lake = \"(-> big (stdout))\"\n[expressions]\nis_big = 'a > 1'\n",
    "",
];

const MAIN: &str = "{:include [\"é.edn\"] in (stdin) big (where \"x\") pipeline (-> in (stdout))}";

fn file() -> impl Strategy<Value = (String, String)> {
    let text = prop_oneof![
        4 => mutations_of(&VALID),
        1 => prop::collection::vec(piece(), 0..20).prop_map(|pieces| pieces.concat()),
    ];
    // What reads a file removes its byte order mark.
    let text = text.prop_map(|text| text.replace([MARK, '\u{feff}'], ""));
    ("[a-cé /]{0,4}x(\\.edn|\\.toml|)", text)
}

/// The file alone, not behind others.
fn alone(path: &str, text: &str) -> Result<Fragment, Vec<Diagnostic>> {
    match path.ends_with(".toml") {
        true => fragment_from_toml(text),
        false => fragment_from_edn(text),
    }
}

/// The messages of errors with their places.
fn shown<'e>(errors: impl IntoIterator<Item = &'e Diagnostic>) -> Vec<(Span, String)> {
    let errors = errors.into_iter();
    errors
        .map(|error| (error.span, error.message.clone()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_files_of_a_joined_text_are_found(files in prop::collection::vec(file(), 0..4)) {
        let mut joined = MAIN.to_owned();
        let mut expected = Vec::new();
        for (path, text) in &files {
            expected.push(joined::append(&mut joined, path, text));
        }
        let parts = joined::parts(&joined);
        prop_assert_eq!((parts[0].path, parts[0].start, parts[0].text), (None, 0, MAIN));
        prop_assert_eq!(&parts[1..], expected);
    }

    #[test]
    fn the_errors_of_an_included_file_are_those_that_it_has_alone(
        (path, text) in file(),
        before in file(),
    ) {
        let mut joined = MAIN.to_owned();
        joined::append(&mut joined, &before.0, &before.1);
        let part = joined::append(&mut joined, &path, &text);
        let found = joined::fragment(&part);
        let expected = alone(&path, &text);
        check_errors(&text, alone(&path, &text));
        let Err(expected) = expected else {
            prop_assert!(found.is_ok());
            return Ok(());
        };
        let errors = found.unwrap_err();
        let by_file = joined::by_file("main.edn", &joined, &errors);
        let of_other = by_file.iter().find(|(found, _)| *found != part);
        prop_assert!(of_other.is_none(), "{:?}", of_other);
        prop_assert_eq!(shown(by_file.iter().flat_map(|(_, errors)| errors)), shown(&expected));
    }

    #[test]
    fn every_error_of_a_joined_text_is_in_one_of_its_files(
        files in prop::collection::vec(file(), 0..4),
    ) {
        let mut joined = MAIN.to_owned();
        for (path, text) in &files {
            joined::append(&mut joined, path, text);
        }
        let Err(errors) = joined::document(&joined, from_edn) else { return Ok(()) };
        let by_file = joined::by_file("main.edn", &joined, &errors);
        prop_assert_eq!(by_file.iter().map(|(_, errors)| errors.len()).sum::<usize>(), errors.len());
        for (part, errors) in by_file {
            check_errors::<()>(part.text, Err(errors));
        }
    }
}
