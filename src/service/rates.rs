//! How many records a second come in: over all of the time, and over the last 1, 5 and 15 minutes.
//!
//! The averages are exponentially weighted as Unix' load averages are (Neil Gunther, "UNIX Load
//! Average, Part 1: How It Works"): every five seconds `average += (1 - e^(-t/period)) * (rate now
//! - average)`, where `t` is the time since the last look. Coda Hale's metrics library, whose names
//! the documented page has, does the same; as there, the first look sets the average to what it
//! sees.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often to look.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);

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

    /// What the rate was during the last `elapsed`.
    fn update(&mut self, rate: f64, elapsed: Duration) {
        let weight = 1.0 - (-elapsed.as_secs_f64() / self.period.as_secs_f64()).exp();
        self.rate = Some(
            self.rate
                .map_or(rate, |average| average + weight * (rate - average)),
        );
    }
}

/// Records a second, averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rate {
    /// Over the last minute.
    pub(crate) one: f64,
    /// Over the last five minutes.
    pub(crate) five: f64,
    /// Over the last fifteen minutes.
    pub(crate) fifteen: f64,
}

#[derive(Debug)]
struct Meter {
    /// The count at the last look.
    count: u64,
    averages: [Average; 3],
}

impl Meter {
    fn new() -> Meter {
        Meter {
            count: 0,
            averages: [1, 5, 15].map(Average::over_minutes),
        }
    }

    /// Looks at a count that only grows; one that is less than before has begun anew.
    fn look(&mut self, count: u64, elapsed: Duration) {
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
    looked: Instant,
    total: Meter,
    entries: BTreeMap<String, Meter>,
}

impl Rates {
    /// All rates are zero until the first look.
    pub(crate) fn new(now: Instant) -> Rates {
        Rates {
            looked: now,
            total: Meter::new(),
            entries: BTreeMap::new(),
        }
    }

    /// Looks at how many records have come in, by entry. Entries that are not named any more are
    /// forgotten.
    pub(crate) fn look(&mut self, counts: impl IntoIterator<Item = (String, u64)>, now: Instant) {
        let elapsed = now.saturating_duration_since(self.looked);
        if elapsed.is_zero() {
            return;
        }
        self.looked = now;
        let mut total = 0;
        let mut before = std::mem::take(&mut self.entries);
        for (name, count) in counts {
            let mut meter = before.remove(&name).unwrap_or_else(Meter::new);
            meter.look(count, elapsed);
            total += count;
            self.entries.insert(name, meter);
        }
        self.total.look(total, elapsed);
    }

    /// The rate over all entries.
    pub(crate) fn total(&self) -> Rate {
        self.total.rate()
    }

    /// The rate of one entry.
    pub(crate) fn of(&self, entry: &str) -> Rate {
        self.entries.get(entry).map(Meter::rate).unwrap_or_default()
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

    /// Each case: the rates at successive looks, the seconds between them, and what is expected,
    /// written out from the formula.
    #[test]
    fn averages_follow_the_formula() {
        let decay = |seconds: f64, minutes: f64| (-seconds / (60.0 * minutes)).exp();
        type Looks<'a> = &'a [(f64, u64)];
        let cases: [(u32, Looks<'_>, f64); 6] = [
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
        for (minutes, looks, expected) in cases {
            let mut average = Average::over_minutes(minutes);
            for (rate, seconds) in looks {
                average.update(*rate, Duration::from_secs(*seconds));
            }
            close(average.rate.unwrap(), expected);
        }
    }

    #[test]
    fn twelve_looks_without_records_leave_what_a_load_average_leaves_after_a_minute() {
        let mut average = Average::over_minutes(1);
        average.update(1.0, LOOK_EVERY);
        (0..12).for_each(|_| average.update(0.0, LOOK_EVERY));
        close(average.rate.unwrap(), (-1.0_f64).exp());
    }

    #[test]
    fn each_entry_has_a_rate_and_all_have_one_together() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        let counts = |a: u64, b: u64| [("a".to_owned(), a), ("b".to_owned(), b)];
        rates.look(counts(500, 50), start + LOOK_EVERY);
        close(rates.of("a").one, 100.0);
        close(rates.of("b").fifteen, 10.0);
        close(rates.total().five, 110.0);
        assert_eq!(rates.of("c"), Rate::default());
        // Where a count begins anew, what it says is what has come since.
        rates.look(counts(500, 25), start + 2 * LOOK_EVERY);
        let weight = 1.0 - (-5.0_f64 / 60.0).exp();
        close(rates.of("b").one, 10.0 + weight * (5.0 - 10.0));
        rates.look([], start + 3 * LOOK_EVERY);
        assert_eq!(
            rates.of("a"),
            Rate::default(),
            "an entry that is gone is forgotten"
        );
    }
}
