//! Rollover rules: when a lane is sealed because of its content, its age or wall-clock time.

mod cron;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

pub use self::cron::Cron;

/// The rules. Each of them alone seals a lane.
#[derive(Clone, Debug)]
pub struct Rollover {
    /// Bytes in the target; `u64::MAX` for no limit.
    pub size: u64,
    /// Records; `None` for no limit.
    pub records: Option<u64>,
    /// Time since the last write; `Duration::MAX` for no limit.
    pub idle: Duration,
    /// Time since it was opened; `Duration::MAX` for no limit.
    pub age: Duration,
    /// Wall-clock times at which all open lanes are sealed.
    pub cron: Option<Cron>,
}

impl Rollover {
    /// A rule that seals a lane by its age alone.
    pub fn every(age: Duration) -> Rollover {
        Rollover {
            size: u64::MAX,
            records: None,
            idle: Duration::MAX,
            age,
            cron: None,
        }
    }

    /// Whether a lane has reached its size or record count.
    pub fn is_full(&self, bytes: u64, records: u64) -> bool {
        bytes >= self.size || self.records.is_some_and(|most| records >= most)
    }

    /// Whether a lane has reached its idle time or its age. All times are from a monotonic clock.
    pub fn is_over(&self, opened: Instant, written: Instant, now: Instant) -> bool {
        now.duration_since(written) >= self.idle || now.duration_since(opened) >= self.age
    }
}

/// Reports when a time of a [`Cron`] has come.
#[derive(Debug)]
pub struct CronAlarm {
    cron: Cron,
    asked: DateTime<Utc>,
    next: Option<DateTime<Utc>>,
}

impl CronAlarm {
    /// Creates an alarm for the times after `now`.
    pub fn new(cron: Cron, now: DateTime<Utc>) -> CronAlarm {
        let next = cron.next_after(now);
        CronAlarm {
            cron,
            asked: now,
            next,
        }
    }

    /// Whether a time has come since the last call.
    pub fn rings(&mut self, now: DateTime<Utc>) -> bool {
        let rings = self.next.is_some_and(|next| now >= next);
        // If the wall clock is set back, the alarm must not stay silent until the old time comes
        // again.
        if rings || now < self.asked {
            self.next = self.cron.next_after(now);
        }
        self.asked = now;
        rings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_seals_a_lane() {
        let rollover = Rollover {
            size: 100,
            records: Some(10),
            idle: Duration::from_secs(5),
            age: Duration::from_secs(60),
            cron: None,
        };
        for (bytes, records, full) in [(0, 0, false), (99, 9, false), (100, 1, true), (1, 10, true)]
        {
            assert_eq!(rollover.is_full(bytes, records), full, "{bytes} {records}");
        }
        let opened = Instant::now();
        for (written, now, over) in [
            (0, 4, false),
            (0, 5, true),
            (10, 14, false),
            (56, 60, true),
            (59, 59, false),
        ] {
            let at = |seconds| opened + Duration::from_secs(seconds);
            assert_eq!(
                rollover.is_over(opened, at(written), at(now)),
                over,
                "{written} {now}"
            );
        }
    }

    #[test]
    fn the_alarm_rings_once_for_each_cron_time() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let mut alarm = CronAlarm::new(
            Cron::parse("0 * * * *").unwrap(),
            at("2026-01-01T10:30:00Z"),
        );
        for (now, rings) in [
            ("2026-01-01T10:59:59Z", false),
            ("2026-01-01T11:00:00Z", true),
            ("2026-01-01T11:00:01Z", false),
            ("2026-01-01T14:20:00Z", true),
            ("2026-01-01T14:59:00Z", false),
            // The wall clock is set back by a day.
            ("2025-12-31T14:59:30Z", false),
            ("2025-12-31T15:00:00Z", true),
        ] {
            assert_eq!(alarm.rings(at(now)), rings, "{now}");
        }
    }
}
