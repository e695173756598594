//! What the system tests share: a place to work in, the real binary, records to feed it, and the
//! proof at the end.
//!
//! - [`site`]: a test's folder and seed; [`process`]: the binary as a child that can be killed,
//!   frozen and woken.
//! - [`feed`]: records with unique ids, produced to Kafka or appended to log files, before and
//!   during a run.
//! - [`watch`]: looks at the output all the time: what is visible must be complete and must never
//!   change.
//! - [`pipeline`]: pipeline files for these records.
//! - [`output`]: reads what was written, and compares it with what was fed.
//! - [`topics`]: fills topics, and reads them as a consumer of committed records does. [`redis`]: a
//!   Redis server of the test's own. [`mysql`]: a table of logs.
//! - [`servers`]: servers of a test's own, to be killed and cut off. [`held_commit`]: a way to
//!   Redis on which a commit is held.

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

/// Tries until something holds; panics when that takes too long.
pub(crate) fn wait_until(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "after {seconds} s still waiting: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What `vagrant/scripts/local-up` says of a server.
pub(crate) fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: start the servers and tell the tests where they are with: eval \"$(vagrant/scripts/local-up)\"")
    })
}

/// The brokers of the test's Kafka.
pub(crate) fn brokers() -> String {
    server("PSEIDON_TEST_KAFKA")
}
