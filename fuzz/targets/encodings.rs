//! Encodings of pipeline files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_dsl::document::{from_edn, from_toml};
use pseidon_dsl::encoding::decode;
use pseidon_dsl::encoding::properties::check_encoding;
use pseidon_fuzz::check_errors;

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    check_encoding(data);
    let Ok(text) = decode(data.to_vec()) else {
        return;
    };
    for document in [from_edn(&text), from_toml(&text)] {
        if let Err(errors) = document {
            check_errors(&text, &errors);
        }
    }
});
