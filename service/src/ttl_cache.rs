//! A cache of one value with a time to live, which limits how often an expensive value is computed.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// Computing a value takes at most this fraction of a processor's time (1/200): a page of many
/// logs, which takes longer, is computed less often. Time for which the thread waits for a
/// processor does not count, so pages of a busy process are not older than those of an idle one.
const COST_FACTOR: u32 = 200;
/// The longest time to live that is derived from the cost.
const MAX_TTL: Duration = Duration::from_secs(10);

/// The last value, and the time at which it expires.
pub(crate) struct TtlCache<T> {
    min_ttl: Duration,
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> TtlCache<T> {
    /// Creates an empty cache. Values live for `min_ttl` or longer.
    pub(crate) fn new(min_ttl: Duration) -> TtlCache<T> {
        TtlCache {
            min_ttl,
            last: Mutex::new(None),
        }
    }

    /// Returns the last value, or a new one if it has expired. Concurrent callers wait for one
    /// computation.
    pub(crate) fn get(&self, compute: impl FnOnce() -> T) -> T {
        let mut last = self.last.lock();
        match last.as_ref().filter(|(expiry, _)| Instant::now() < *expiry) {
            Some((_, value)) => value.clone(),
            None => {
                let before = processor_time();
                let value = compute();
                let cost = processor_time().saturating_sub(before);
                last.insert((Instant::now() + ttl(self.min_ttl, cost), value))
                    .1
                    .clone()
            }
        }
    }
}

/// The processor time that this thread has used.
fn processor_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

/// The time to live of a value that took `cost` to compute.
fn ttl(min_ttl: Duration, cost: Duration) -> Duration {
    min_ttl.max((cost * COST_FACTOR).min(MAX_TTL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_computed_once_until_it_expires() {
        let cache = TtlCache::new(Duration::from_secs(3600));
        assert_eq!((cache.get(|| 1), cache.get(|| 2)), (1, 1));
    }

    #[test]
    fn the_time_to_live_grows_with_the_cost() {
        let cases = [
            (250, 0, 250),
            (250, 1, 250),
            (250, 2, 400),
            (250, 10, 2000),
            (250, 1000, 10_000),
            (20_000, 1000, 20_000),
        ];
        for (min_ttl, cost, expected) in cases {
            assert_eq!(
                ttl(Duration::from_millis(min_ttl), Duration::from_millis(cost)),
                Duration::from_millis(expected),
                "{min_ttl} {cost}"
            );
        }
    }
}
