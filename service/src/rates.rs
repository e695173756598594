//! Rates: the records read per second, averaged over the last 1, 5 and 15 minutes.
//!
//! The averages are exponentially weighted, like Unix load averages (Neil Gunther, "UNIX Load
//! Average, Part 1: How It Works"): every five seconds
//! `average += (1 - e^(-t/period)) * (rate now - average)`, where `t` is the time since the last
//! sample. The metrics library of Coda Hale, whose names `/metrics` uses, does the same; as there,
//! the first sample sets the average to its rate.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often the counts are sampled.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

const MINUTE: Duration = Duration::from_secs(60);

/// An exponentially weighted moving average of a rate.
#[derive(Clone, Copy, Debug)]
struct Average {
    period: Duration,
    rate: Option<f64>,
}

impl Average {
    fn over_minutes(minutes: u32) -> Average {
        Average {
            period: MINUTE * minutes,
            rate: None,
        }
    }

    /// Adds the rate during the last `elapsed`.
    fn update(&mut self, rate: f64, elapsed: Duration) {
        let weight = 1.0 - (-elapsed.as_secs_f64() / self.period.as_secs_f64()).exp();
        self.rate = Some(
            self.rate
                .map_or(rate, |average| average + weight * (rate - average)),
        );
    }
}

/// The average of records per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rate {
    /// Over the last minute.
    pub(crate) one: f64,
    /// Over the last five minutes.
    pub(crate) five: f64,
    /// Over the last fifteen minutes.
    pub(crate) fifteen: f64,
}

/// The averages of one counter.
#[derive(Debug)]
struct CounterAverages {
    /// The count at the last sample.
    count: u64,
    averages: [Average; 3],
}

impl CounterAverages {
    fn new() -> CounterAverages {
        CounterAverages {
            count: 0,
            averages: [1, 5, 15].map(Average::over_minutes),
        }
    }

    /// Samples a count that only grows. A count lower than the last one was restarted from zero.
    fn sample(&mut self, count: u64, elapsed: Duration) {
        let more = count.checked_sub(self.count).unwrap_or(count);
        self.count = count;
        let rate = more as f64 / elapsed.as_secs_f64();
        self.averages
            .iter_mut()
            .for_each(|average| average.update(rate, elapsed));
    }

    fn rate(&self) -> Rate {
        let [one, five, fifteen] = self.averages.map(|average| average.rate.unwrap_or(0.0));
        Rate { one, five, fifteen }
    }
}

/// The rates of all entries.
#[derive(Debug)]
pub(crate) struct Rates {
    sampled: Instant,
    total: CounterAverages,
    entries: BTreeMap<String, CounterAverages>,
}

impl Rates {
    /// Creates rates that are zero until the first sample.
    pub(crate) fn new(now: Instant) -> Rates {
        Rates {
            sampled: now,
            total: CounterAverages::new(),
            entries: BTreeMap::new(),
        }
    }

    /// Samples the number of records read, by entry. Entries without a count are removed.
    pub(crate) fn sample(&mut self, counts: impl IntoIterator<Item = (String, u64)>, now: Instant) {
        let elapsed = now.saturating_duration_since(self.sampled);
        if elapsed.is_zero() {
            return;
        }
        self.sampled = now;
        let mut total = 0;
        let mut before = std::mem::take(&mut self.entries);
        for (name, count) in counts {
            let mut averages = before.remove(&name).unwrap_or_else(CounterAverages::new);
            averages.sample(count, elapsed);
            total += count;
            self.entries.insert(name, averages);
        }
        self.total.sample(total, elapsed);
    }

    /// The rate of all entries together.
    pub(crate) fn total(&self) -> Rate {
        self.total.rate()
    }

    /// The rate of an entry; zero if it is unknown.
    pub(crate) fn of(&self, entry: &str) -> Rate {
        self.entries
            .get(entry)
            .map(CounterAverages::rate)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(one: f64, other: f64) {
        assert!(
            (one - other).abs() < 1e-9 * other.abs().max(1.0),
            "{one} is not {other}"
        );
    }

    /// Each case has the rates of successive samples with the seconds before each, and the expected
    /// average, written out from the formula.
    #[test]
    fn averages_follow_the_formula() {
        let decay = |seconds: f64, minutes: f64| (-seconds / (60.0 * minutes)).exp();
        type Samples<'a> = &'a [(f64, u64)];
        let cases: [(u32, Samples<'_>, f64); 6] = [
            (1, &[(600.0, 5)], 600.0),
            (1, &[(600.0, 5), (600.0, 5), (600.0, 5)], 600.0),
            (1, &[(600.0, 5), (0.0, 60)], 600.0 * decay(60.0, 1.0)),
            (
                5,
                &[(600.0, 5), (0.0, 5), (0.0, 5)],
                600.0 * decay(10.0, 5.0),
            ),
            (15, &[(0.0, 5), (90.0, 5)], 90.0 * (1.0 - decay(5.0, 15.0))),
            (1, &[(10.0, 5), (20.0, 7)], 20.0 - 10.0 * decay(7.0, 1.0)),
        ];
        for (minutes, samples, expected) in cases {
            let mut average = Average::over_minutes(minutes);
            for (rate, seconds) in samples {
                average.update(*rate, Duration::from_secs(*seconds));
            }
            close(average.rate.unwrap(), expected);
        }
    }

    #[test]
    fn an_idle_minute_decays_the_average_like_a_load_average() {
        let mut average = Average::over_minutes(1);
        average.update(1.0, SAMPLE_INTERVAL);
        (0..12).for_each(|_| average.update(0.0, SAMPLE_INTERVAL));
        close(average.rate.unwrap(), (-1.0_f64).exp());
    }

    #[test]
    fn there_is_a_rate_for_each_entry_and_for_all() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        let counts = |a: u64, b: u64| [("a".to_owned(), a), ("b".to_owned(), b)];
        rates.sample(counts(500, 50), start + SAMPLE_INTERVAL);
        close(rates.of("a").one, 100.0);
        close(rates.of("b").fifteen, 10.0);
        close(rates.total().five, 110.0);
        assert_eq!(rates.of("c"), Rate::default());
        // A count that was restarted is itself the number of new records.
        rates.sample(counts(500, 25), start + 2 * SAMPLE_INTERVAL);
        let weight = 1.0 - (-5.0_f64 / 60.0).exp();
        close(rates.of("b").one, 10.0 + weight * (5.0 - 10.0));
        rates.sample([], start + 3 * SAMPLE_INTERVAL);
        assert_eq!(
            rates.of("a"),
            Rate::default(),
            "a removed entry has no rate"
        );
    }
}
