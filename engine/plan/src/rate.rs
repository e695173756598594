//! A number of records in a time, as users write it: `1000/s`.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use pseidon_plugin::options::{Argument, OptionValue, ParseResult};
use pseidon_plugin::spec::OptionKind;

/// The units of time, with their names and their lengths in seconds.
const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

/// A number of records in a unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    records: NonZeroU32,
    unit: (&'static str, u64),
}

impl Rate {
    /// Parses a number, a slash and a unit. `None` if the text is something else.
    pub fn from_text(text: &str) -> Option<Rate> {
        let (records, name) = text.split_once('/')?;
        let records = records.trim().parse().ok()?;
        let name = name.trim();
        let unit = UNITS.into_iter().find(|(unit, _)| *unit == name)?;
        Some(Rate { records, unit })
    }

    /// The time that this number of records takes.
    pub fn time_of(self, records: u64) -> Duration {
        let nanos = u128::from(records) * u128::from(self.unit.1) * 1_000_000_000;
        let nanos = nanos / u128::from(self.records.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many records there are in a time.
    pub fn records_in(self, time: Duration) -> u64 {
        let records = u128::from(self.records.get()) * time.as_nanos();
        let records = records / (u128::from(self.unit.1) * 1_000_000_000);
        u64::try_from(records).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.records, self.unit.0)
    }
}

impl OptionValue for Rate {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<Rate> {
        let text = argument.scalar()?;
        Rate::from_text(&text).ok_or_else(|| {
            argument.error(
                format!("`{text}` is not a rate"),
                "expected a number of records per second, minute, hour or day, such as \"1000/s\", \
                 \"60/m\", \"100/h\" or \"1/d\"",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rates_round_trip_and_their_times_fit(
            records in 1..=u32::MAX,
            unit in prop::sample::select(UNITS.to_vec()),
            count in any::<u64>(),
        ) {
            let rate = Rate::from_text(&format!("{records} / {} ", unit.0));
            let expected = Rate { records: records.try_into().unwrap(), unit };
            prop_assert_eq!(rate, Some(expected));
            prop_assert_eq!(Rate::from_text(&expected.to_string()), rate);
            // In the time that records take there are no more, and the next one is not there yet.
            let count = count >> 34;
            prop_assert!(expected.records_in(expected.time_of(count)) <= count);
            let more = expected.time_of(count) + expected.time_of(1) + Duration::from_nanos(2);
            prop_assert!(expected.records_in(more) >= count);
        }

        #[test]
        fn any_string_is_a_rate_or_refused(text in "[+-]?[0-9. ]{0,11}/? ?[smhd]{0,2}|\\PC{0,8}") {
            if let Some(rate) = Rate::from_text(&text) {
                prop_assert_eq!(Rate::from_text(&rate.to_string()), Some(rate), "{}", text);
            }
        }
    }

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        for (text, shown) in [
            ("1/s", Some("1/s")),
            (" 1000 / m ", Some("1000/m")),
            ("4294967295/h", Some("4294967295/h")),
            ("7/d", Some("7/d")),
            ("0/s", None),
            ("-1/s", None),
            ("1.5/s", None),
            ("4294967296/s", None),
            ("1", None),
            ("/s", None),
            ("1/", None),
            ("1/2s", None),
            ("1/min", None),
            ("10/s/s", None),
        ] {
            let found = Rate::from_text(text).map(|rate| rate.to_string());
            assert_eq!(found.as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn records_take_their_time() {
        let rate = |text| Rate::from_text(text).expect("a rate");
        for (text, records, time) in [
            ("1/s", 1, Duration::from_secs(1)),
            ("1000/s", 1, Duration::from_millis(1)),
            ("1000/s", 2500, Duration::from_millis(2500)),
            ("3/s", 1, Duration::from_nanos(333_333_333)),
            ("60/m", 1, Duration::from_secs(1)),
            ("1/h", 2, Duration::from_secs(7200)),
            ("4/d", 1, Duration::from_secs(21_600)),
            ("4294967295/s", 1, Duration::ZERO),
            ("1/d", u64::MAX, Duration::from_nanos(u64::MAX)),
        ] {
            assert_eq!(rate(text).time_of(records), time, "{text} {records}");
        }
        for (text, time, records) in [
            ("1000/s", Duration::from_millis(100), 100),
            ("9/s", Duration::from_millis(100), 0),
            ("1/d", Duration::from_secs(86_400), 1),
            ("4294967295/s", Duration::MAX, u64::MAX),
        ] {
            assert_eq!(rate(text).records_in(time), records, "{text}");
        }
    }
}
