//! The harness of the system tests: a folder to work in, the real binary, records to feed it, and
//! the check of the output at the end.
//!
//! - [`site`]: a test's folder and seed; [`process`]: the binary as a child that can be killed,
//!   frozen and resumed.
//! - [`feed`]: records with unique ids, produced to Kafka or appended to log files, before and
//!   during a run.
//! - [`watch`]: watches the output continuously: visible files must be complete and must never
//!   change.
//! - [`pipeline`]: pipeline files for these records.
//! - [`output`]: reads the output, and compares it with the records that were fed.
//! - [`topics`]: fills topics, and reads them as a consumer of committed records does. [`redis`]: a
//!   Redis server for one test. [`mysql`]: a table of logs.
//! - [`servers`]: servers for one test, which can be killed and disconnected. [`held_commit`]: a
//!   proxy for Redis that holds a commit back.

pub(crate) mod feed;
pub(crate) mod held_commit;
pub(crate) mod mysql;
pub(crate) mod output;
pub(crate) mod pipeline;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod redis;
pub(crate) mod servers;
pub(crate) mod site;
pub(crate) mod topics;
pub(crate) mod watch;

use std::time::{Duration, Instant};

pub(crate) use process::Pseidon;
pub(crate) use random::Random;
pub(crate) use site::Site;

/// Polls a condition until it holds; panics after the time limit. `what` describes the condition.
pub(crate) fn wait_until(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "not true after {seconds} s: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The address of a server, from a variable that `scripts/local-up` prints.
pub(crate) fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: start the servers and set their addresses with: eval \"$(scripts/local-up)\"")
    })
}

/// The brokers of the tests' Kafka.
pub(crate) fn brokers() -> String {
    server("PSEIDON_TEST_KAFKA")
}
