//! A part of a whole in percent, as users write it: `1%`.

use std::fmt;

use pseidon_plugin::options::{Argument, OptionValue, ParseResult};
use pseidon_plugin::spec::OptionKind;

/// A number of percent, from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(f64);

impl Percent {
    /// Parses a number with a percent sign. `None` if it is not one, or not from 0 to 100.
    pub(crate) fn from_text(text: &str) -> Option<Percent> {
        let number: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
        (0.0..=100.0).contains(&number).then_some(Percent(number))
    }

    /// The number, from 0 to 100.
    pub(crate) fn number(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl OptionValue for Percent {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<Percent> {
        let text = argument.scalar()?;
        Percent::from_text(&text).ok_or_else(|| {
            argument.error(
                format!("`{text}` is not a share"),
                "expected a share such as \"1%\"",
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
        fn percentages_round_trip(number in any::<f64>(), share in 0.0..=100.0_f64) {
            for number in [number, share] {
                let percent = Percent::from_text(&format!("{number:e} %"));
                let is_valid = (0.0..=100.0).contains(&number);
                prop_assert_eq!(percent, is_valid.then_some(Percent(number)));
                let printed = percent.map(|percent| percent.to_string());
                let again = printed.as_deref().and_then(Percent::from_text);
                prop_assert_eq!(again, percent);
            }
        }

        #[test]
        fn any_string_is_a_percentage_or_refused(text in "[+-]?[0-9.e ]{0,9}%|[infNa]{3}%|\\PC{0,6}") {
            let percent = Percent::from_text(&text);
            prop_assert!(percent.is_none_or(|it| (0.0..=100.0).contains(&it.number())), "{text}");
        }
    }

    #[test]
    fn numbers_from_0_to_100_are_percentages() {
        for text in ["0%", "0.5%", "100%"] {
            assert_eq!(
                Percent::from_text(text).map(|it| it.to_string()).as_deref(),
                Some(text)
            );
        }
        for text in ["", "%", "1", "-1%", "100.1%", "NaN%", "inf%", "1/100"] {
            assert_eq!(Percent::from_text(text), None, "{text}");
        }
    }
}
