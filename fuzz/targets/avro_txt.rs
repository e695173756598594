//! Avro from Confluent's serializers: the first part of an input is the schema, as the registry has
//! it, and if that is not JSON, the registry's whole response.
#![no_main]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::{column, decode, format, parts, serve};
use pseidon_plugin::Payloads;
use pseidon_plugin::format::WantedColumn;

static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static PORT: LazyLock<u16> = LazyLock::new(|| serve(&ANSWER, true));
/// A schema is fetched once for each ID.
static ID: AtomicU32 = AtomicU32::new(0);

static COLUMNS: LazyLock<[WantedColumn; 3]> = LazyLock::new(|| {
    [
        column("msg", "utf8"),
        column("ts", "timestamp_ms"),
        column("a", "int64"),
    ]
});

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let schema = String::from_utf8_lossy(parts(data).next().unwrap_or_default());
    let body = match schema.starts_with(['{', '[', '"']) {
        true => serde_json::json!({"schema": schema}).to_string(),
        false => schema.into_owned(),
    };
    let head = format!(
        "HTTP/1.1 200 x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    *ANSWER.lock().unwrap() = [head.as_bytes(), body.as_bytes()].concat();
    let id = ID.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let records: Vec<Vec<u8>> = parts(data)
        .skip(1)
        .map(|body| [&[0], &id[..], body].concat())
        .collect();
    let payloads = Payloads::copied(records.iter().map(Vec::as_slice).chain(parts(data)));
    let settings = format!("ts=0;msg=-1;fields=a;registry=http://127.0.0.1:{}", *PORT);
    decode(format("avro-txt").as_ref(), &settings, &*COLUMNS, &payloads);
});
