//! The position at which a topic is first read.

use std::str::FromStr;

use chrono::DateTime;

/// Where to start reading a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    /// At the first record.
    Earliest,
    /// After the last record.
    Latest,
    /// At this offset, or at the nearest available one.
    Offset(u64),
    /// At the first record that is not older: milliseconds since 1970.
    Time(i64),
}

impl FromStr for StartPosition {
    type Err = String;

    /// `earliest`, `latest`, an offset such as `1000`, or a time such as `2026-01-31T00:00:00Z`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(StartPosition::Earliest),
            "latest" => return Ok(StartPosition::Latest),
            _ => {}
        }
        if let Ok(offset) = text.parse::<u64>()
            && i64::try_from(offset).is_ok()
        {
            return Ok(StartPosition::Offset(offset));
        }
        let time = DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|time| time.timestamp_millis())
            .filter(|millis| *millis >= 0);
        time.map(StartPosition::Time).ok_or_else(|| {
            "expected earliest, latest, an offset, or a time such as 2026-01-31T00:00:00Z"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_keyword_an_offset_or_a_time() {
        for (text, begin) in [
            ("earliest", Some(StartPosition::Earliest)),
            ("latest", Some(StartPosition::Latest)),
            ("0", Some(StartPosition::Offset(0))),
            (
                "1769817600000",
                Some(StartPosition::Offset(1_769_817_600_000)),
            ),
            (
                "2026-01-31T00:00:00Z",
                Some(StartPosition::Time(1_769_817_600_000)),
            ),
            (
                "2026-01-31T01:00:00.500+01:00",
                Some(StartPosition::Time(1_769_817_600_500)),
            ),
            ("1969-12-31T23:59:59Z", None),
            ("18446744073709551615", None),
            ("-1", None),
            ("2026-01-31", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), begin, "{text}");
        }
    }
}
