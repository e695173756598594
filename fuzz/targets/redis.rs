//! Answers of a Redis server to the state store and to the reader of pseidon-etl's work.
#![no_main]

use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use pseidon_delivery::StateStore;
use pseidon_fuzz::serve;
use pseidon_redis::{RedisStore, WorkQueue};

static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static PORT: LazyLock<u16> = LazyLock::new(|| serve(&ANSWER, false));

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    *ANSWER.lock().unwrap() = data.to_vec();
    let url = format!("redis://127.0.0.1:{}", *PORT);
    if let Ok(store) = RedisStore::connect(&url, "namespace", "pipeline") {
        let _ = store.sinks();
        let _ = store.records(&"sink".into());
    }
    if let Ok(queue) = WorkQueue::connect(&url, "group") {
        let _ = (queue.offset("topic", 0), queue.left());
    }
});
