//! Throughput: records and bytes per second.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::HumanCount;

use crate::counted::counted;

/// How many records and bytes were processed in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Throughput {
    /// The number of records.
    pub(crate) records: u64,
    /// The size of these records in bytes.
    pub(crate) bytes: u64,
    /// The time in which they were processed.
    pub(crate) time: Duration,
}

/// For example `1,200 records/s, 3.4 MB/s`; a megabyte has 1 000 000 bytes.
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
    /// A summary such as `1,200 records (3.4 MB) in 2.0 s: 600 records/s, 1.7 MB/s`.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} ({:.1} MB) in {:.1} s: {self}",
            counted(self.records, "record"),
            self.bytes as f64 / 1e6,
            self.time.as_secs_f64()
        )
    }
}

/// A meter that measures throughput between samples.
#[derive(Debug)]
pub(crate) struct Meter {
    began: Instant,
    sampled: Instant,
    records: u64,
    bytes: u64,
}

impl Meter {
    /// Starts measuring now, from zero.
    pub(crate) fn start() -> Meter {
        let now = Instant::now();
        Meter {
            began: now,
            sampled: now,
            records: 0,
            bytes: 0,
        }
    }

    /// The time since the last sample, or since the start.
    pub(crate) fn since(&self) -> Duration {
        self.sampled.elapsed()
    }

    /// The throughput since the last sample. `records` and `bytes` are totals since the start.
    pub(crate) fn sample(&mut self, records: u64, bytes: u64) -> Throughput {
        let now = Instant::now();
        let new = Throughput {
            records: records.saturating_sub(self.records),
            bytes: bytes.saturating_sub(self.bytes),
            time: now - self.sampled,
        };
        (self.sampled, self.records, self.bytes) = (now, records, bytes);
        new
    }

    /// The throughput since the start.
    pub(crate) fn total(&self, records: u64, bytes: u64) -> Throughput {
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
    fn throughput_is_shown_per_second() {
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
            all.summary(),
            "1,200 records (3.4 MB) in 2.0 s: 600 records/s, 1.7 MB/s"
        );
    }

    #[test]
    fn a_sample_counts_what_is_new() {
        let mut meter = Meter::start();
        assert_eq!(
            (meter.sample(10, 100).records, meter.sample(15, 160).bytes),
            (10, 60)
        );
        assert_eq!(meter.total(15, 160).records, 15);
    }
}
