//! Parquet files.
#![no_main]

use std::io::{Seek, Write};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pseidon_formats::{ColumnFormat, UsedValues};
use pseidon_fuzz::{column, decode, format};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::WantedColumn;

static COLUMNS: LazyLock<[WantedColumn; 3]> = LazyLock::new(|| {
    [
        column("n", "utf8"),
        column("s", "int64"),
        column("l", "json"),
    ]
});

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(data).expect("space");
    for from in [0, 1] {
        file.rewind().expect("a file");
        let copy = file.try_clone().expect("a file");
        let Ok(mut reader) = ColumnFormat::Parquet.open(copy, &UsedValues::default(), from) else {
            return;
        };
        while let Ok(Some(rows)) = reader.next_rows() {
            let payloads = Payloads::of_columns(rows);
            decode(format("parquet").as_ref(), "", &*COLUMNS, &payloads);
        }
    }
});
