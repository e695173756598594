//! What is made anew at most every so often, however often it is asked for.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Making a value takes at most this part of the time: a page of many logs, which takes longer, is
/// made less often.
const SHARE: u32 = 200;
/// No value is older.
const OLDEST: Duration = Duration::from_secs(10);

/// The last value, and until when it is good.
pub(crate) struct Kept<T> {
    keep: Duration,
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Kept<T> {
    /// Values are kept at least this long.
    pub(crate) fn new(keep: Duration) -> Kept<T> {
        Kept {
            keep,
            last: Mutex::new(None),
        }
    }

    /// The last value, or a new one if that is too old.
    pub(crate) fn get(&self, make: impl FnOnce() -> T) -> T {
        let mut last = self.last.lock();
        let began = Instant::now();
        match last.as_ref().filter(|(until, _)| began < *until) {
            Some((_, value)) => value.clone(),
            None => {
                let value = make();
                let made = Instant::now();
                last.insert((made + lasting(self.keep, made - began), value))
                    .1
                    .clone()
            }
        }
    }
}

/// How long a value is kept that took this long to make.
fn lasting(keep: Duration, cost: Duration) -> Duration {
    keep.max((cost * SHARE).min(OLDEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_for_as_long_as_it_is_kept() {
        let kept = Kept::new(Duration::from_secs(3600));
        assert_eq!((kept.get(|| 1), kept.get(|| 2)), (1, 1));
    }

    #[test]
    fn what_takes_longer_is_kept_longer() {
        let cases = [
            (250, 0, 250),
            (250, 1, 250),
            (250, 2, 400),
            (250, 10, 2000),
            (250, 1000, 10_000),
            (20_000, 1000, 20_000),
        ];
        for (keep, cost, expected) in cases {
            assert_eq!(
                lasting(Duration::from_millis(keep), Duration::from_millis(cost)),
                Duration::from_millis(expected),
                "{keep} {cost}"
            );
        }
    }
}
