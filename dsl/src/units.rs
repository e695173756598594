//! Parsers for sizes (`128MB`, `1GiB`) and durations (`90s`, `1h30m`).

use std::time::Duration;

/// The reason why a string is not a valid size or duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The string is empty.
    #[error("expected {expected}, found nothing")]
    Empty {
        /// What is expected, with an example.
        expected: &'static str,
    },
    /// A number is missing.
    #[error("`{found}` does not start with a number; expected {expected}")]
    NoNumber {
        /// The text found instead.
        found: String,
        /// What is expected, with an example.
        expected: &'static str,
    },
    /// The word after a number is not a unit.
    #[error("unknown unit `{found}`; {}", expected_unit(found, known))]
    UnknownUnit {
        /// The text found instead.
        found: String,
        /// All units, separated by commas.
        known: String,
    },
    /// The last number has no unit, although an earlier one has.
    #[error("missing unit after the last number; expected one of {known}")]
    NoUnit {
        /// All units, separated by commas.
        known: String,
    },
    /// A number that is too small to be meant in the smallest unit.
    #[error("`{found}` has no unit; write \"{example}\", or \"{found}{smallest}\"")]
    Bare {
        /// The number.
        found: String,
        /// The same number in a usual unit.
        example: String,
        /// The smallest unit.
        smallest: &'static str,
    },
    /// The value does not fit in 64 bits, in bytes or nanoseconds.
    #[error("the value is too large")]
    TooLarge,
}

/// The name of a unit, and its value in the smallest unit.
type Unit = (&'static str, u128);

/// The units of sizes, in bytes.
const SIZES: [Unit; 10] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// The units of durations, in nanoseconds.
const DURATIONS: [Unit; 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// Parses a size in bytes: `128MB`, `1.5 GiB`, `64k`. MB is 1000² bytes, MiB is 1024² bytes. The
/// `B` is optional. A number without a unit is in bytes, and has at least four digits: `128` would
/// hardly be meant in bytes. Case is ignored.
///
/// # Errors
/// The error's message is written for the user.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let expected = "a size such as \"128MB\"";
    let (number, unit, rest) = quantity(text.trim(), expected)?;
    let unit_text = if unit.is_empty() { "B" } else { unit };
    let fits = |name: &str| {
        name.eq_ignore_ascii_case(unit_text)
            || name.trim_end_matches('B').eq_ignore_ascii_case(unit_text)
    };
    if unit.is_empty() && rest.is_empty() && number.is_between(0, LARGEST_BARE) {
        return Err(bare(text, "MB", "B"));
    }
    let (_, factor) = SIZES
        .into_iter()
        .find(|(name, _)| fits(name))
        .ok_or_else(|| unknown_unit(unit, &SIZES))?;
    if !rest.is_empty() {
        return Err(unknown_unit(&format!("{unit}{rest}"), &SIZES));
    }
    u64::try_from(number.times(factor)?).map_err(|_| UnitError::TooLarge)
}

/// Parses a duration: `250ms`, `60s`, `1h30m`, `7d`. Only 0 needs no unit.
///
/// # Errors
/// The error's message is written for the user.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let expected = "a duration such as \"90s\" or \"1h30m\"";
    let mut rest = text.trim();
    let mut nanos = 0_u128;
    loop {
        let (number, unit, after) = quantity(rest, expected)?;
        let is_alone = unit.is_empty() && after.is_empty() && rest.len() == text.trim().len();
        if is_alone && number.units > 0 {
            return Err(bare(text, "s", "ms"));
        }
        let unit_text = if is_alone { "ms" } else { unit };
        let found = DURATIONS.into_iter().find(|(name, _)| *name == unit_text);
        let (_, factor) = found.ok_or_else(|| unknown_unit(unit, &DURATIONS))?;
        nanos = nanos
            .checked_add(number.times(factor)?)
            .ok_or(UnitError::TooLarge)?;
        if after.is_empty() {
            break;
        }
        rest = after;
    }
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| UnitError::TooLarge)
}

/// The largest size that has to have a unit.
const LARGEST_BARE: u128 = 999;

fn bare(text: &str, usual: &str, smallest: &'static str) -> UnitError {
    let found = text.trim().to_owned();
    let example = format!("{found}{usual}");
    UnitError::Bare {
        found,
        example,
        smallest,
    }
}

/// What to write instead of an unknown unit: its short form, or one of those that are known.
fn expected_unit(found: &str, known: &str) -> String {
    let short = match found.to_lowercase().as_str() {
        "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => "ms",
        "sec" | "secs" | "second" | "seconds" => "s",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hr" | "hrs" | "hour" | "hours" => "h",
        "day" | "days" => "d",
        "week" | "weeks" => "w",
        _ => return format!("expected one of {known}"),
    };
    format!("write `{short}`")
}

/// A decimal number with up to nine fractional digits, as `units / scale`.
struct Number {
    units: u128,
    scale: u128,
}

impl Number {
    /// Whether the number is greater than `low` and at most `high`.
    fn is_between(&self, low: u128, high: u128) -> bool {
        self.units > low * self.scale && self.units <= high * self.scale
    }

    fn times(&self, factor: u128) -> Result<u128, UnitError> {
        self.units
            .checked_mul(factor)
            .map(|product| product / self.scale)
            .ok_or(UnitError::TooLarge)
    }
}

/// Splits `text` into the number and the unit at its start, and the rest.
fn quantity<'a>(
    text: &'a str,
    expected: &'static str,
) -> Result<(Number, &'a str, &'a str), UnitError> {
    if text.is_empty() {
        return Err(UnitError::Empty { expected });
    }
    let (digits, rest) = text.split_at(
        text.find(|next: char| !next.is_ascii_digit() && next != '.')
            .unwrap_or(text.len()),
    );
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let no_number = || UnitError::NoNumber {
        found: text.to_owned(),
        expected,
    };
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
        return Err(no_number());
    }
    let fraction = fraction.get(..9).unwrap_or(fraction);
    let units = format!("{whole}{fraction}")
        .parse()
        .map_err(|_| UnitError::TooLarge)?;
    let rest = rest.trim_start();
    let (unit, rest) = rest.split_at(
        rest.find(|next: char| !next.is_ascii_alphabetic())
            .unwrap_or(rest.len()),
    );
    Ok((
        Number {
            units,
            scale: 10_u128.pow(fraction.len() as u32),
        },
        unit,
        rest.trim_start(),
    ))
}

fn unknown_unit(found: &str, units: &[Unit]) -> UnitError {
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    let known = names.join(", ");
    if found.is_empty() {
        UnitError::NoUnit { known }
    } else {
        UnitError::UnknownUnit {
            found: found.to_owned(),
            known,
        }
    }
}
