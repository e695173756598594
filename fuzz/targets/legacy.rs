//! Configurations of pseidon-etl: what they are converted to is a pipeline file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_dsl::document::from_edn;
use pseidon_fuzz::check_errors;
use pseidon_legacy::pseidon_etl::{convert, is_config};

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |text: &str| {
    let _ = is_config(text);
    match convert(text) {
        Ok(converted) => assert!(from_edn(&converted.text).is_ok(), "{}", converted.text),
        Err(errors) => check_errors(text, &errors),
    }
});
