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

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

pub(crate) use process::Pseidon;
pub(crate) use random::Random;
pub(crate) use site::Site;

/// How many times as long a busy machine may take as an idle one. Time limits of tests are those of
/// an idle machine.
pub(crate) const BUSY: u32 = 3;

/// Polls a condition until it holds; panics after the time limit, on a busy machine. `what` describes
/// the condition.
pub(crate) fn wait_until(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let limit = Duration::from_secs(seconds) * BUSY;
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "not true after {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Exchanges two paths in one step, so that nothing can be created in between.
pub(crate) fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("the paths can be exchanged");
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
