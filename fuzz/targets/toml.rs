//! TOML: nothing panics, and what is read is valid for the crate `toml` too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::check_errors;

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |text: &str| {
    match pseidon_dsl::toml::read(text) {
        Ok(_) => assert!(toml::from_str::<toml::Table>(text).is_ok()),
        Err(errors) => check_errors(text, &errors),
    }
});
