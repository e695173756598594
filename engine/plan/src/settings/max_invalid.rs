//! `:max-invalid`: how many records of a run may be invalid.

use std::fmt;

use pseidon_plugin::options::{Argument, OptionValue, ParseResult};
use pseidon_plugin::spec::OptionKind;

use crate::percent::Percent;

/// The limit of invalid records, beyond which a run is not a success.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxInvalid {
    /// This many.
    Count(u64),
    /// This many of a hundred that were read.
    Percent(Percent),
}

impl MaxInvalid {
    /// Parses a number of records, or a number of percent. `None` if it is neither.
    fn from_text(text: &str) -> Option<MaxInvalid> {
        let percent = Percent::from_text(text).map(MaxInvalid::Percent);
        percent.or_else(|| text.parse().ok().map(MaxInvalid::Count))
    }

    /// Whether `invalid` of `read` records are more than the limit.
    pub fn is_exceeded(self, invalid: u64, read: u64) -> bool {
        match self {
            MaxInvalid::Count(limit) => invalid > limit,
            MaxInvalid::Percent(limit) => invalid as f64 * 100.0 > limit.number() * read as f64,
        }
    }
}

impl fmt::Display for MaxInvalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaxInvalid::Count(limit) => limit.fmt(f),
            MaxInvalid::Percent(limit) => limit.fmt(f),
        }
    }
}

impl OptionValue for MaxInvalid {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<MaxInvalid> {
        let text = argument.scalar()?;
        MaxInvalid::from_text(&text).ok_or_else(|| {
            let message = format!("`{text}` is not a limit of invalid records");
            argument.error(
                message,
                "expected a share such as \"1%\", or a number of records",
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
        fn limits_round_trip(count in any::<u64>(), percent in 0.0..=100.0_f64) {
            for text in [count.to_string(), format!("{percent}%")] {
                let limit = MaxInvalid::from_text(&text);
                prop_assert!(limit.is_some(), "{text}");
                prop_assert_eq!(limit.map(|limit| limit.to_string()), Some(text));
            }
        }

        #[test]
        fn any_string_is_a_limit_or_refused(
            text in "[+-]?[0-9]{0,21}|[0-9.e-]{0,6} ?%|\\PC{0,6}",
            read in any::<u64>(),
        ) {
            let Some(limit) = MaxInvalid::from_text(&text) else { return Ok(()) };
            prop_assert_eq!(MaxInvalid::from_text(&limit.to_string()), Some(limit));
            prop_assert!(!limit.is_exceeded(0, read), "{limit}");
            let exceeds = |invalid: u64| limit.is_exceeded(invalid, read);
            prop_assert!(!exceeds(read / 2) || exceeds(read), "{limit}");
        }
    }

    #[test]
    fn a_share_counts_what_was_read() {
        let percent = |text| MaxInvalid::Percent(Percent::from_text(text).expect("a percentage"));
        let cases = [
            (percent("1%"), 10, 1000, false),
            (percent("1%"), 11, 1000, true),
            (percent("0%"), 0, 0, false),
            (percent("0%"), 1, u64::MAX, true),
            (percent("100%"), 5, 5, false),
            (MaxInvalid::Count(3), 3, 3, false),
            (MaxInvalid::Count(3), 4, u64::MAX, true),
        ];
        for (limit, invalid, read, expected) in cases {
            assert_eq!(
                limit.is_exceeded(invalid, read),
                expected,
                "{limit}: {invalid} of {read}"
            );
        }
    }
}
