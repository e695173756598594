//! Sizes (`128MB`, `1GiB`) and durations (`90s`, `1h30m`) as people write them.

use std::time::Duration;

/// Why a text is no size or no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There is nothing to read.
    #[error("expected {expected}, found nothing")]
    Empty {
        /// An example of what is expected.
        expected: &'static str,
    },
    /// A number is missing where there should be one.
    #[error("`{found}` does not begin with a number; expected {expected}")]
    NoNumber {
        /// What stands there.
        found: String,
        /// An example of what is expected.
        expected: &'static str,
    },
    /// The word after a number is no unit.
    #[error("`{found}` is not a unit; expected one of {known}")]
    UnknownUnit {
        /// What stands there.
        found: String,
        /// The units there are.
        known: String,
    },
    /// There is no unit after the last number, though there is one after another.
    #[error("a unit is missing at the end; expected one of {known}")]
    NoUnit {
        /// The units there are.
        known: String,
    },
    /// The value does not fit.
    #[error("this is too large")]
    TooLarge,
}

/// A unit and how many of the smallest ones it is.
type Unit = (&'static str, u128);

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

/// In nanoseconds.
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

/// A size in bytes: `128MB`, `1.5 GiB`, `64k`. MB is 1000², MiB 1024²; the `B` may be left out, and
/// a number alone is bytes. Case makes no difference.
///
/// # Errors
/// Says what is wrong in words for the user.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let expected = "a size such as \"128MB\"";
    let (number, unit, rest) = quantity(text.trim(), expected)?;
    let unit_text = if unit.is_empty() { "B" } else { unit };
    let fits = |name: &str| {
        name.eq_ignore_ascii_case(unit_text)
            || name.trim_end_matches('B').eq_ignore_ascii_case(unit_text)
    };
    let (_, factor) = SIZES
        .into_iter()
        .find(|(name, _)| fits(name))
        .ok_or_else(|| unknown_unit(unit, &SIZES))?;
    if !rest.is_empty() {
        return Err(unknown_unit(&format!("{unit}{rest}"), &SIZES));
    }
    u64::try_from(number.times(factor)?).map_err(|_| UnitError::TooLarge)
}

/// A duration: `250ms`, `60s`, `1h30m`, `7d`. A number alone is milliseconds.
///
/// # Errors
/// Says what is wrong in words for the user.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let expected = "a duration such as \"90s\" or \"1h30m\"";
    let mut rest = text.trim();
    let mut nanos = 0_u128;
    loop {
        let (number, unit, after) = quantity(rest, expected)?;
        let is_alone = unit.is_empty() && after.is_empty() && rest.len() == text.trim().len();
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

/// A number with up to nine digits after its point.
struct Number {
    units: u128,
    scale: u128,
}

impl Number {
    fn times(&self, factor: u128) -> Result<u128, UnitError> {
        self.units
            .checked_mul(factor)
            .map(|product| product / self.scale)
            .ok_or(UnitError::TooLarge)
    }
}

/// The number and the unit at the beginning of `text`, and what follows them.
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
