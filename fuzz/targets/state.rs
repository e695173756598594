//! Damaged files of the state and of groups: an input is how they are damaged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_delivery::embedded::properties::{check_groups, check_state};

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    check_state(folder.path(), data);
    check_groups(folder.path(), data);
});
