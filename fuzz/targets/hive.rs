//! Responses of Hive's metastore and of a HiveServer2, and the types of columns in them.
#![no_main]

use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::serve;
use pseidon_hive::{HiveEndpoint, columns};

static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static PORT: LazyLock<u16> = LazyLock::new(|| serve(&ANSWER, false));

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    *ANSWER.lock().unwrap() = data.to_vec();
    for url in [
        format!("thrift://127.0.0.1:{}", *PORT),
        format!("jdbc:hive2://127.0.0.1:{}/d;auth=noSasl", *PORT),
    ] {
        let endpoint: HiveEndpoint = url.parse().expect("the URL is valid");
        let _ = columns(&endpoint, "d.t");
    }
});
