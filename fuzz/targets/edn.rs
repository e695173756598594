//! EDN: nothing panics, and what is printed is read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_dsl::{edn, print};
use pseidon_fuzz::check_errors;

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |text: &str| {
    if let Err(errors) = edn::read_all(text) {
        check_errors(text, &errors);
    }
    if let Ok(node) = edn::read(text) {
        for printed in [print::print(&node), print::pretty(&node)] {
            let read = edn::read(&printed).expect("what is printed is valid");
            assert_eq!(print::print(&read), print::print(&node));
        }
    }
});
