//! How long a run pauses between two attempts, and whether earlier failures count as overcome.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The waits after temporary failures: the first, doubled each time up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How many restarts in a row search for records that cannot be written without a pause.
const QUICK_SEARCHES: u64 = 20;
/// An attempt that lasted this long counts as a success: the next failure waits the shortest time
/// again.
const STEADY: Duration = Duration::from_secs(60);
/// After failures the run counts as healthy again when an attempt has lasted this long, and twice
/// as long as the one before.
const MIN_STEADY: Duration = Duration::from_secs(10);

/// The failures of a run so far, as far as they determine the next pause.
#[derive(Debug)]
pub(crate) struct Restarts {
    wait: Duration,
    failures: u64,
    fences: u64,
    searches: u64,
    steady_after: Duration,
}

impl Restarts {
    pub(crate) fn new() -> Restarts {
        Restarts {
            wait: FIRST_WAIT,
            failures: 0,
            fences: 0,
            searches: 0,
            steady_after: MIN_STEADY,
        }
    }

    /// How long the current attempt must last until earlier failures count as overcome.
    pub(crate) fn steady_after(&self) -> Duration {
        self.steady_after
    }

    /// An attempt has failed after this time. A call with the kind of the failure follows.
    pub(crate) fn attempt_lasted(&mut self, lasted: Duration) {
        self.steady_after = (lasted * 2).clamp(MIN_STEADY, STEADY);
        if lasted > STEADY {
            (self.wait, self.failures, self.fences) = (FIRST_WAIT, 0, 0);
            self.searches = 0;
        }
    }

    /// A stage has failed. Returns the number of failures in a row, and the pause.
    pub(crate) fn failed(&mut self) -> (u64, Duration) {
        self.failures += 1;
        (self.failures, self.next_wait())
    }

    /// Another instance has taken splits over. Once is a takeover, and work continues at once.
    /// Repeatedly means that several instances take the splits from each other. Returns the number
    /// of times in a row, and the pause.
    pub(crate) fn fenced(&mut self) -> (u64, Duration) {
        self.fences += 1;
        let pause = if self.fences == 1 {
            Duration::ZERO
        } else {
            with_jitter(self.next_wait())
        };
        (self.fences, pause)
    }

    /// Records cannot be written, and the next attempt searches for them. The pause does not grow,
    /// since each restart comes nearer to the records. Returns the number of times in a row, and
    /// the pause, which the first ones do not have.
    pub(crate) fn searched(&mut self) -> (u64, Duration) {
        self.searches += 1;
        let is_quick = self.searches <= QUICK_SEARCHES;
        let pause = if is_quick { Duration::ZERO } else { FIRST_WAIT };
        (self.searches, pause)
    }

    /// A part of the engine has ended. The pause keeps an internal error from becoming a busy loop.
    pub(crate) fn part_ended(&mut self) -> Duration {
        self.next_wait()
    }

    /// The state store does not answer. Returns the pause.
    pub(crate) fn store_unreachable(&mut self) -> Duration {
        self.next_wait()
    }

    /// The state store answers again.
    pub(crate) fn store_answered(&mut self) {
        self.wait = FIRST_WAIT;
    }

    fn next_wait(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        wait
    }
}

/// At least half of the wait, so that instances that disturb each other do not do it in step.
fn with_jitter(wait: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1000;
    wait / 2 + wait / 2 * u32::try_from(random).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    /// The pauses after this many failures in a row.
    fn pauses(count: usize, mut fail: impl FnMut(&mut Restarts) -> Duration) -> Vec<Duration> {
        let mut restarts = Restarts::new();
        let pause = |_| {
            restarts.attempt_lasted(SHORT);
            fail(&mut restarts)
        };
        (0..count).map(pause).collect()
    }

    #[test]
    fn pauses_grow() {
        let expected: Vec<Duration> = [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
            .map(Duration::from_millis)
            .to_vec();
        assert_eq!(pauses(8, |restarts| restarts.failed().1), expected);
        assert_eq!(
            pauses(8, Restarts::part_ended),
            expected,
            "an internal error must not be retried at once forever"
        );
        assert_eq!(pauses(8, Restarts::store_unreachable), expected);
    }

    /// Without a pause, instances that fence each other would do nothing else, and without
    /// randomness they would do it in step.
    #[test]
    fn the_first_fence_has_no_pause_and_later_ones_back_off() {
        for _ in 0..1000 {
            let pauses = pauses(8, |restarts| restarts.fenced().1);
            assert_eq!(pauses[0], Duration::ZERO);
            for (pause, longest) in pauses[1..]
                .iter()
                .zip([500, 1000, 2000, 4000, 8000, 16_000, 30_000].map(Duration::from_millis))
            {
                assert!(
                    (longest / 2..=longest).contains(pause),
                    "{pause:?} of {longest:?}"
                );
            }
        }
        let second = || pauses(2, |restarts| restarts.fenced().1)[1];
        let first = second();
        assert!(
            (0..1000).any(|_| second() != first),
            "two instances may wait for different times"
        );
    }

    /// A few records are found at once, and an encoder that fails often is no busy loop.
    #[test]
    fn a_long_search_has_pauses() {
        let quick = QUICK_SEARCHES as usize;
        let pauses = pauses(quick + 3, |restarts| restarts.searched().1);
        assert_eq!(pauses[..quick], vec![Duration::ZERO; quick]);
        assert_eq!(pauses[quick..], [FIRST_WAIT; 3]);
    }

    #[test]
    fn an_attempt_that_lasted_is_a_success() {
        let mut restarts = Restarts::new();
        for _ in 0..5 {
            restarts.attempt_lasted(SHORT);
            restarts.failed();
            restarts.fenced();
            restarts.searched();
        }
        restarts.attempt_lasted(STEADY + SHORT);
        assert_eq!(restarts.failed(), (1, FIRST_WAIT));
        assert_eq!(restarts.fenced(), (1, Duration::ZERO));
        assert_eq!(restarts.searched(), (1, Duration::ZERO));
    }

    /// `/health` reports a failure until an attempt has lasted longer than those that failed.
    #[test]
    fn the_steady_time_is_twice_the_last_failed_attempt() {
        let mut restarts = Restarts::new();
        for (lasted, steady) in [(0, 10), (4, 10), (7, 14), (29, 58), (45, 60), (600, 60)] {
            restarts.attempt_lasted(Duration::from_secs(lasted));
            assert_eq!(
                restarts.steady_after(),
                Duration::from_secs(steady),
                "after {lasted} s"
            );
        }
    }
}
