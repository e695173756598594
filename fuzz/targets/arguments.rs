//! Arguments of the command line: `NAME=VALUE`.
//!
//! The module of the program is compiled here, since no other crate can name what is in a program.
#![no_main]

use libfuzzer_sys::fuzz_target;

use self::pairs::{parameter, property};

#[path = "../../src/cli/pairs.rs"]
mod pairs;

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |text: &str| {
    let pair = parameter(text);
    assert_eq!(property(text).ok(), pair.clone().ok());
    if let Ok((name, value)) = pair {
        assert!(!name.is_empty() && text.contains(&name) && text.ends_with(&value));
        assert_eq!(parameter(&format!("{name}={value}")), Ok((name, value)));
    }
});
