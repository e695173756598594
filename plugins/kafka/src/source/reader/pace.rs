//! The pace of the consumer's thread: how long a fetch may wait for messages, and how often the
//! periodic work is done.

use std::time::{Duration, Instant};

/// How long an idle source waits for messages before it does its other work.
pub(super) const IDLE: Duration = Duration::from_millis(250);
/// The same while partitions arrive or leave.
const BUSY: Duration = Duration::from_millis(10);
/// The same at the beginning of that phase, when most responses arrive: each of several steps waits
/// for the fetch before it.
const QUICK: Duration = Duration::from_millis(1);
/// The length of that beginning.
const QUICK_PHASE: Duration = Duration::from_millis(200);
/// The interval between two ticks.
const TICK: Duration = Duration::from_secs(1);

/// The times that decide what the consumer's thread does next.
pub(super) struct Pace {
    /// Since when partitions arrive or leave.
    busy_since: Option<Instant>,
    /// When the next tick is due.
    next_tick: Instant,
}

impl Pace {
    /// Of an idle source whose first tick is due.
    pub(super) fn new() -> Pace {
        Pace {
            busy_since: None,
            next_tick: Instant::now(),
        }
    }

    /// How long the next fetch may wait for messages. `is_busy` says whether partitions arrive or
    /// leave.
    pub(super) fn fetch_timeout(&mut self, is_busy: bool) -> Duration {
        if !is_busy {
            self.busy_since = None;
            return IDLE;
        }
        let since = *self.busy_since.get_or_insert_with(Instant::now);
        if since.elapsed() < QUICK_PHASE {
            QUICK
        } else {
            BUSY
        }
    }

    /// Whether a tick is due. If so, the next one is due after the interval.
    pub(super) fn start_tick(&mut self) -> bool {
        let now = Instant::now();
        let is_due = now >= self.next_tick;
        if is_due {
            self.next_tick = now + TICK;
        }
        is_due
    }
}
