//! Pipeline files in EDN and TOML, and flows: from the text to the plan.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pseidon_dsl::document::{from_edn, from_flow, from_toml};
use pseidon_dsl::interpolate;
use pseidon_fuzz::{check_errors, plan_document};

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |text: &str| {
    for document in [from_edn(text), from_toml(text), from_flow(text)] {
        let planned = document.and_then(|mut document| {
            interpolate::document(&mut document, &mut |_, name| Ok(name.to_owned()))?;
            plan_document(&document, text, Path::new("/nonexistent"))
        });
        if let Err(errors) = planned {
            check_errors(text, &errors);
        }
    }
});
