//! Records and bytes per second.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::HumanCount;

/// What went through in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Throughput {
    /// Records.
    pub(crate) records: u64,
    /// Bytes of them.
    pub(crate) bytes: u64,
    /// The time it took.
    pub(crate) time: Duration,
}

/// As `1,200 records/s, 3.4 MB/s`; a megabyte has 1 000 000 bytes.
impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64().max(1e-9);
        let records = (self.records as f64 / seconds).round() as u64;
        write!(
            f,
            "{} records/s, {:.1} MB/s",
            HumanCount(records),
            self.bytes as f64 / seconds / 1e6
        )
    }
}

impl Throughput {
    /// What has been done all together, in a sentence: `1,200 records (3.4 MB) in 2.0 s: 600
    /// records/s, 1.7 MB/s`.
    pub(crate) fn in_all(&self) -> String {
        format!(
            "{} records ({:.1} MB) in {:.1} s: {self}",
            HumanCount(self.records),
            self.bytes as f64 / 1e6,
            self.time.as_secs_f64()
        )
    }
}

/// Measures from look to look.
#[derive(Debug)]
pub(crate) struct Meter {
    began: Instant,
    looked: Instant,
    records: u64,
    bytes: u64,
}

impl Meter {
    /// Begins now, with nothing.
    pub(crate) fn start() -> Meter {
        let now = Instant::now();
        Meter {
            began: now,
            looked: now,
            records: 0,
            bytes: 0,
        }
    }

    /// How long ago the last look was, or the beginning.
    pub(crate) fn since(&self) -> Duration {
        self.looked.elapsed()
    }

    /// What came since the last look, if `records` and `bytes` have come in all.
    pub(crate) fn look(&mut self, records: u64, bytes: u64) -> Throughput {
        let now = Instant::now();
        let new = Throughput {
            records: records.saturating_sub(self.records),
            bytes: bytes.saturating_sub(self.bytes),
            time: now - self.looked,
        };
        (self.looked, self.records, self.bytes) = (now, records, bytes);
        new
    }

    /// The same since the beginning.
    pub(crate) fn in_all(&self, records: u64, bytes: u64) -> Throughput {
        Throughput {
            records,
            bytes,
            time: self.began.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_came_over_the_time() {
        for (records, bytes, millis, shown) in [
            (0, 0, 1000, "0 records/s, 0.0 MB/s"),
            (1_200, 3_400_000, 1000, "1,200 records/s, 3.4 MB/s"),
            (1_000_000, 100_000_000, 4000, "250,000 records/s, 25.0 MB/s"),
            (5, 10, 0, "5,000,000,000 records/s, 10000.0 MB/s"),
        ] {
            let throughput = Throughput {
                records,
                bytes,
                time: Duration::from_millis(millis),
            };
            assert_eq!(throughput.to_string(), shown);
        }
        let all = Throughput {
            records: 1_200,
            bytes: 3_400_000,
            time: Duration::from_secs(2),
        };
        assert_eq!(
            all.in_all(),
            "1,200 records (3.4 MB) in 2.0 s: 600 records/s, 1.7 MB/s"
        );
    }

    #[test]
    fn a_look_sees_what_is_new() {
        let mut meter = Meter::start();
        assert_eq!(
            (meter.look(10, 100).records, meter.look(15, 160).bytes),
            (10, 60)
        );
        assert_eq!(meter.in_all(15, 160).records, 15);
    }
}
