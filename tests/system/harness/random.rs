//! Reproducible randomness: every test prints its seed, and `PSEIDON_TEST_SEED` sets it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A SplitMix64 generator.
pub(crate) struct Random(AtomicU64);

impl Random {
    /// Takes the seed from the environment, or from the current time, and prints it.
    pub(crate) fn new(test: &str) -> Random {
        let from_clock = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |since| since.as_nanos() as u64)
        };
        let seed = match std::env::var("PSEIDON_TEST_SEED") {
            Ok(seed) => seed.parse().expect("PSEIDON_TEST_SEED is a number"),
            Err(_) => from_clock() % 1_000_000_007,
        };
        println!("{test}: PSEIDON_TEST_SEED={seed}");
        Random(AtomicU64::new(seed))
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        let state = self
            .0
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(state)
    }

    /// A number in the range.
    pub(crate) fn of(&self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// A duration with a number of milliseconds in the range.
    pub(crate) fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.of(range))
    }
}

/// A pseudorandom number derived from another number.
pub(crate) fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
