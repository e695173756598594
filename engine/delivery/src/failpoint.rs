//! Fail points: named steps at which a test can kill the process, freeze it, or make it panic.
//!
//! Compiled in only with the feature `failpoints`; without it [`reach`] does nothing. With it,
//! `PSEIDON_FAIL=published:3` kills the process (SIGKILL, so that nothing can clean up) when the
//! step `published` is reached for the third time, and `PSEIDON_FREEZE=synced:2` stops it (SIGSTOP)
//! when `synced` is reached for the second time, until it is resumed (SIGCONT).
//! `PSEIDON_PANIC=planned` panics there, once. `PSEIDON_SPOIL=out:text` panics whenever the
//! sink `out` encodes a record with this text, as an encoder may.

use crate::SinkId;

/// Marks that the process reaches the step `name`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_name: &str) {}

/// Marks that the process reaches the step `name`. It dies, freezes or panics there if the
/// environment says so.
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    struct FailPoint {
        name: String,
        left: AtomicI64,
    }

    impl FailPoint {
        fn of(variable: &str) -> Option<FailPoint> {
            let text = std::env::var(variable).ok()?;
            let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
            Some(FailPoint {
                name: name.to_owned(),
                left: AtomicI64::new(count.parse().unwrap_or(1)),
            })
        }

        fn is_met(&self, name: &str) -> bool {
            self.name == name && self.left.fetch_sub(1, Ordering::SeqCst) == 1
        }
    }

    static DEATH: LazyLock<Option<FailPoint>> = LazyLock::new(|| FailPoint::of("PSEIDON_FAIL"));
    static FREEZE: LazyLock<Option<FailPoint>> = LazyLock::new(|| FailPoint::of("PSEIDON_FREEZE"));
    static PANIC: LazyLock<Option<FailPoint>> = LazyLock::new(|| FailPoint::of("PSEIDON_PANIC"));

    if DEATH.as_ref().is_some_and(|target| target.is_met(name)) {
        let _ = kill_process(getpid(), Signal::KILL);
        std::process::abort();
    }
    if FREEZE.as_ref().is_some_and(|target| target.is_met(name)) {
        let _ = kill_process(getpid(), Signal::STOP);
    }
    if PANIC.as_ref().is_some_and(|target| target.is_met(name)) {
        panic!("PSEIDON_PANIC is set for `{name}`");
    }
}

/// Marks that a sink encodes these records.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn spoil<'r, R: Iterator<Item = &'r [u8]>>(_sink: &SinkId, _records: impl FnOnce() -> R) {}

/// Marks that a sink encodes these records. Panics if the environment says so of one of them.
#[cfg(feature = "failpoints")]
pub fn spoil<'r, R: Iterator<Item = &'r [u8]>>(sink: &SinkId, records: impl FnOnce() -> R) {
    use std::sync::LazyLock;

    static SPOILED: LazyLock<Option<(String, String)>> = LazyLock::new(|| {
        let variable = std::env::var("PSEIDON_SPOIL").ok()?;
        let (sink, text) = variable.split_once(':')?;
        Some((sink.to_owned(), text.to_owned()))
    });

    let Some((_, text)) = SPOILED
        .as_ref()
        .filter(|(spoiled, _)| spoiled == sink.as_str())
    else {
        return;
    };
    let is_spoiled = |record: &[u8]| {
        record
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    if records().any(is_spoiled) {
        panic!("PSEIDON_SPOIL is set for a record");
    }
}
