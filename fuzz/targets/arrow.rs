//! Arrow IPC files: the footer, the messages and their buffers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_formats::ColumnFormat;
use pseidon_fuzz::read_columns;

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    read_columns("arrow", ColumnFormat::Arrow, data);
});
