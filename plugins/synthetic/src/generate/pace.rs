//! The pace at which records are generated.

use std::time::Duration;

/// The shortest pause. Records are generated in small groups, so that a high rate does not cost a
/// wake-up per record.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause. The caller checks what is due after it.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// A steady rate. The number of due records depends only on the time since the start, so delays are
/// caught up and errors do not accumulate.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_second: f64,
}

impl Pace {
    /// Creates a pace; `None` unless `per_second` is positive and finite.
    pub fn new(per_second: f64) -> Option<Pace> {
        (per_second > 0.0 && per_second.is_finite()).then_some(Pace { per_second })
    }

    /// The number of records that are due after `elapsed`. The first is due at once.
    pub fn due(self, elapsed: Duration) -> u64 {
        ((elapsed.as_secs_f64() * self.per_second) as u64).saturating_add(1)
    }

    /// How long to sleep when `done` records have been generated after `elapsed` and no more are
    /// due.
    pub fn pause(self, done: u64, elapsed: Duration) -> Duration {
        let next_due =
            Duration::try_from_secs_f64(done as f64 / self.per_second).unwrap_or(Duration::MAX);
        next_due.saturating_sub(elapsed).clamp(MIN_PAUSE, MAX_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positive_finite_rates_are_valid() {
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Pace::new(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn due_records_depend_on_elapsed_time_only() {
        for (rate, millis, due) in [
            (1000.0, 0, 1),
            (1000.0, 50, 51),
            (1000.0, 3_600_000, 3_600_001),
            (0.5, 1999, 1),
            (0.5, 2000, 2),
            (1e300, 1000, u64::MAX),
        ] {
            assert_eq!(
                Pace::new(rate).unwrap().due(Duration::from_millis(millis)),
                due,
                "{rate}/s after {millis} ms"
            );
        }
    }

    #[test]
    fn pauses_end_when_a_record_is_due_within_limits() {
        for (rate, done, elapsed, pause) in [
            (1000.0, 51, 50, 50),
            (1.0, 1, 0, 1000),
            (1.0, 1, 400, 600),
            (1.0, 1, 5000, 50),
            (1e-9, 1, 0, 3_600_000),
            (1e-300, 1, 0, 3_600_000),
        ] {
            let found = Pace::new(rate)
                .unwrap()
                .pause(done, Duration::from_millis(elapsed));
            assert_eq!(
                found,
                Duration::from_millis(pause),
                "{rate}/s with {done} done after {elapsed} ms"
            );
        }
    }
}
