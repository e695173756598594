//! CSV, TSV, text and raw records. The first part of an input has the settings of the format.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::{column, decode, format, parts};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::WantedColumn;

/// The columns of three tables.
static TABLES: LazyLock<[Vec<WantedColumn>; 3]> = LazyLock::new(|| {
    let types = [
        "utf8",
        "int64",
        "float64",
        "timestamp_ms",
        "decimal(9,2)",
        "time",
        "binary",
    ];
    [
        types.map(|data_type| column("v", data_type)).to_vec(),
        vec![column("line", "utf8")],
        vec![column("msg", "utf8"), column("ts", "timestamp_ms")],
    ]
});

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let settings = parts(data).next().unwrap_or_default();
    let settings = String::from_utf8_lossy(settings);
    for name in ["csv", "tsv", "txt", "raw"] {
        let format = format(name);
        let payloads = Payloads::copied(parts(data).skip(2));
        let header = parts(data).nth(1).map(Bytes::copy_from_slice);
        let payloads = payloads.with_header(header);
        for columns in TABLES.iter() {
            decode(format.as_ref(), &settings, columns, &payloads);
            decode(format.as_ref(), "", columns, &payloads);
        }
        let _ = format.infer(&settings, &[payloads]);
    }
});
