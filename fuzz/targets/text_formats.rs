//! CSV, TSV, text and raw records. The first part of an input has the settings of the format.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::{column, decode, format, parts};
use pseidon_plugin::Payloads;

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let settings = parts(data).next().unwrap_or_default();
    let settings = String::from_utf8_lossy(settings);
    let columns = [
        "utf8",
        "int64",
        "float64",
        "timestamp_ms",
        "decimal(9,2)",
        "time",
        "binary",
    ]
    .map(|data_type| column("v", data_type));
    for name in ["csv", "tsv", "txt", "raw"] {
        let format = format(name);
        let payloads = Payloads::copied(parts(data).skip(2));
        let header = parts(data).nth(1).map(Bytes::copy_from_slice);
        let payloads = payloads.with_header(header);
        for columns in [
            &columns[..],
            &[column("line", "utf8")],
            &[column("msg", "utf8"), column("ts", "timestamp_ms")],
        ] {
            decode(format.as_ref(), &settings, columns, &payloads);
            decode(format.as_ref(), "", columns, &payloads);
        }
        let _ = format.infer(&settings, &[payloads]);
    }
});
