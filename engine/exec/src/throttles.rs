//! The stages `throttle` of an attempt.
//!
//! No thread waits for a throttle. What has passed one is counted, and until its time is over the
//! batches of the attempt stay in the [queue](crate::queue), which lets the others go first. A batch
//! passes in parts that are short in time, so that a slow rate is even. If few of the processed
//! records reach the throttle, more are processed at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pseidon_dsl::Span;
use pseidon_plan::rate::Rate;
use pseidon_plan::{Chain, Operator, Plan, SourceIndex};

/// The time of the records that pass at once, and of those that may pass late.
const PART: Duration = Duration::from_millis(100);

/// The most records that are processed at once because few of them reach a throttle.
const MAX_AT_ONCE: usize = 8192;

/// The throttles of a plan.
pub(crate) struct Throttles {
    /// By their places in the pipeline file, which the chains of several sources may have in common.
    stages: HashMap<Span, Arc<Mutex<TokenBucket>>>,
    /// Those that the records of a source pass; only sources that have some.
    of_sources: HashMap<SourceIndex, SourceThrottle>,
}

/// The throttles that the records of a source pass.
struct SourceThrottle {
    stages: Vec<Arc<Mutex<TokenBucket>>>,
    /// How many records pass at once.
    part: usize,
    /// How many records are processed at once.
    at_once: AtomicUsize,
}

impl SourceThrottle {
    /// Whether processed records may pass, of which `passed` have reached a throttle. If not, fewer
    /// are processed at once from now on.
    fn admits(&self, processed: usize, passed: usize) -> bool {
        let fits = passed <= self.part || processed <= self.part;
        if !fits {
            let fewer = (processed / 2).max(self.part);
            self.at_once.store(fewer, Ordering::Relaxed);
        } else if passed <= self.part / 2 && processed == self.at_once.load(Ordering::Relaxed) {
            let more = processed.saturating_mul(2).min(MAX_AT_ONCE);
            self.at_once.store(more.max(self.part), Ordering::Relaxed);
        }
        fits
    }
}

/// When the next records may pass. It is always called with the current time.
struct TokenBucket {
    rate: Rate,
    next: Instant,
}

impl TokenBucket {
    fn new(rate: Rate, now: Instant) -> TokenBucket {
        TokenBucket { rate, next: now }
    }

    /// Counts records that have passed.
    fn take(&mut self, records: u64, now: Instant) {
        // What was not used is lost, except for a part that is late.
        let earliest = now.checked_sub(PART).unwrap_or(now);
        let next = self.next.max(earliest);
        // Saturates at 100 years.
        const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);
        let time = self.rate.time_of(records).min(FOREVER);
        self.next = next.checked_add(time).unwrap_or(next);
    }
}

impl Throttles {
    /// The throttles of a plan, which have let nothing pass.
    pub(crate) fn of(plan: &Plan, now: Instant) -> Throttles {
        let mut throttles = Throttles {
            stages: HashMap::new(),
            of_sources: HashMap::new(),
        };
        for (index, source) in plan.indexed_sources() {
            let mut rates = Vec::new();
            collect(&source.chain, &mut rates);
            if rates.is_empty() {
                continue;
            }
            let part = rates.iter().map(|(rate, _)| rate.records_in(PART).max(1));
            let part = usize::try_from(part.min().unwrap_or(1)).unwrap_or(usize::MAX);
            let stages = rates.into_iter().map(|(rate, place)| {
                let new = || Arc::new(Mutex::new(TokenBucket::new(rate, now)));
                throttles.stages.entry(place).or_insert_with(new).clone()
            });
            let stages = stages.collect();
            let throttle = SourceThrottle {
                stages,
                part,
                at_once: AtomicUsize::new(part),
            };
            throttles.of_sources.insert(index, throttle);
        }
        throttles
    }

    /// Whether the records of a source pass a throttle.
    pub(crate) fn apply_to(&self, source: SourceIndex) -> bool {
        self.of_sources.contains_key(&source)
    }

    /// How many records of a source are processed at once.
    pub(crate) fn at_once(&self, source: SourceIndex) -> usize {
        let throttle = self.of_sources.get(&source);
        throttle.map_or(usize::MAX, |throttle| {
            throttle.at_once.load(Ordering::Relaxed)
        })
    }

    /// Whether processed records of a source may pass, of which `passed` have reached a throttle. If
    /// not, fewer are processed at once from now on.
    pub(crate) fn admit(&self, source: SourceIndex, processed: usize, passed: usize) -> bool {
        let throttle = self.of_sources.get(&source);
        throttle.is_none_or(|throttle| throttle.admits(processed, passed))
    }

    /// Until when the records of a source must wait; `None` if they may pass.
    pub(crate) fn wait(&self, source: SourceIndex, now: Instant) -> Option<Instant> {
        let stages = &self.of_sources.get(&source)?.stages;
        let next = stages.iter().map(|stage| stage.lock().next).max()?;
        (next > now).then_some(next)
    }

    /// Counts records that have passed the throttle at this place.
    pub(crate) fn take(&self, place: Span, records: usize, now: Instant) {
        if let Some(stage) = self.stages.get(&place) {
            stage.lock().take(records as u64, now);
        }
    }
}

/// Collects the throttles of a chain with their places.
fn collect(chain: &Chain, found: &mut Vec<(Rate, Span)>) {
    for step in &chain.steps {
        if let Operator::Throttle(rate, place) = step.operator {
            found.push((rate, place));
        }
        for inner in step.operator.chains() {
            collect(inner, found);
        }
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        Rate::from_text(text).unwrap()
    }

    #[test]
    fn records_pass_at_their_rate() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        // The records that pass, at which time, and when the next ones may pass.
        type Step = (u64, u64, u64);
        let cases: [(&str, &[Step]); 6] = [
            ("10/s", &[(1, 0, 100), (1, 100, 200), (1, 200, 300)]),
            ("1000/s", &[(100, 0, 100), (250, 100, 350), (0, 400, 350)]),
            // One that comes late loses nothing, as long as it is less than a part.
            ("10/s", &[(1, 0, 100), (1, 170, 200), (1, 299, 300)]),
            ("10/s", &[(1, 0, 100), (1, 900, 900), (1, 900, 1000)]),
            // Several threads may let records pass at the same time.
            ("10/s", &[(1, 0, 100), (1, 0, 200), (3, 50, 500)]),
            ("60/m", &[(1, 0, 1000), (2, 1000, 3000)]),
        ];
        for (text, steps) in cases {
            let mut bucket = TokenBucket::new(rate(text), start);
            for (records, now, next) in steps {
                bucket.take(*records, at(*now));
                let found = bucket.next - start;
                assert_eq!(found, Duration::from_millis(*next), "{text} {now}");
            }
        }
    }

    #[test]
    fn more_records_are_processed_at_once_if_few_reach_the_throttle() {
        let throttle = SourceThrottle {
            stages: Vec::new(),
            part: 10,
            at_once: AtomicUsize::new(10),
        };
        // The processed records, how many have reached the throttle, whether they may pass, and how
        // many are processed at once then.
        for (processed, passed, may_pass, at_once) in [
            (10, 10, true, 10),
            (10, 5, true, 20),
            // The end of a batch.
            (3, 0, true, 20),
            (20, 6, true, 20),
            (20, 0, true, 40),
            (40, 11, false, 20),
            (20, 20, false, 10),
            // One record became many.
            (10, 70, true, 10),
        ] {
            assert_eq!(
                throttle.admits(processed, passed),
                may_pass,
                "{processed} {passed}"
            );
            assert_eq!(
                throttle.at_once.load(Ordering::Relaxed),
                at_once,
                "{processed} {passed}"
            );
        }
        for _ in 0..20 {
            let at_once = throttle.at_once.load(Ordering::Relaxed);
            assert!(throttle.admits(at_once, 0));
        }
        assert_eq!(throttle.at_once.load(Ordering::Relaxed), MAX_AT_ONCE);
    }

    #[test]
    fn a_rate_that_is_kept_over_a_long_time_is_the_rate() {
        for text in ["7/s", "1000/s", "123456/s", "100/m"] {
            let (rate, start) = (rate(text), Instant::now());
            let at_once = rate.records_in(PART).max(1);
            let (mut bucket, mut passed, mut now) = (TokenBucket::new(rate, start), 0, start);
            let end = start + Duration::from_secs(600);
            while now < end {
                bucket.take(at_once, now);
                passed += at_once;
                // A thread continues some time after it may.
                now = bucket.next + Duration::from_millis(passed % 7);
            }
            let expected = rate.records_in(Duration::from_secs(600));
            let difference = passed.abs_diff(expected);
            assert!(difference <= 2 * at_once, "{text}: {passed} of {expected}");
        }
    }

    #[test]
    fn a_time_that_is_too_long_is_very_long() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(rate("1/d"), start);
        (0..5).for_each(|_| bucket.take(u64::MAX, start));
        assert!(bucket.next > start + Duration::from_secs(86_400));
    }
}
