//! Joined texts: the first part of an input is the pipeline file, each further one an included
//! file. All are TOML if the pipeline file begins with `[`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_dsl::document::{from_edn, from_toml};
use pseidon_dsl::joined::{self, MARK};
use pseidon_fuzz::{check_errors, parts};

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let texts = parts(data).map(|part| String::from_utf8_lossy(part).replace(MARK, ""));
    let texts: Vec<String> = texts.collect();
    let is_toml = texts[0].starts_with('[');
    let path = if is_toml { "a.toml" } else { "a.edn" };
    let mut joined = texts[0].clone();
    for text in &texts[1..] {
        let part = joined::append(&mut joined, path, text);
        assert_eq!(joined::parts(&joined).last(), Some(&part));
    }
    let document = joined::document(&joined, if is_toml { from_toml } else { from_edn });
    let Err(errors) = document else { return };
    let by_file = joined::by_file("main", &joined, &errors);
    let count = by_file.iter().map(|(_, errors)| errors.len()).sum::<usize>();
    assert_eq!(count, errors.len());
    for (part, errors) in by_file {
        check_errors(part.text, &errors);
    }
});
