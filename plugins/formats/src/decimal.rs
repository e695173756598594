//! Exact decimals from numbers in text form.

/// The digits of `number * 10^scale` with their sign; `None` unless that is an integer of at most
/// `precision` digits. `number` is written as in JSON: digits with an optional fraction and
/// exponent.
pub(crate) fn unscaled(number: &str, precision: u8, scale: i8) -> Option<String> {
    let (sign, number) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number),
    };
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            exponent
                .strip_prefix('+')
                .unwrap_or(exponent)
                .parse::<i64>()
                .ok()?,
        ),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty()
        || !whole
            .bytes()
            .chain(fraction.bytes())
            .all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    let zeros = exponent
        .checked_add(i64::from(scale))?
        .checked_sub(fraction.len() as i64)?
        .checked_add(trailing as i64)?;
    let zeros = usize::try_from(zeros).ok()?;
    if significant.len().checked_add(zeros)? > usize::from(precision) {
        return None;
    }
    Some(format!("{sign}{significant}{}", "0".repeat(zeros)))
}

/// Whether a float64 keeps the digits of a number: it is printed with as many digits as the number
/// has, and they are the same. `number` is written as in JSON.
pub(crate) fn fits_float64(number: &str) -> bool {
    let Some((digits, exponent)) = scientific(number) else {
        return false;
    };
    if digits.is_empty() {
        return true;
    }
    // No float has more digits of its own.
    const MAX_DIGITS: usize = 17;
    let float: f64 = match number.parse() {
        Ok(float) if digits.len() <= MAX_DIGITS => float,
        _ => return false,
    };
    let printed = format!("{float:.*e}", digits.len() - 1);
    scientific(&printed) == Some((digits, exponent))
}

/// The digits of a number, without zeros before and after them, and the exponent of the first of
/// them; `None` if it is not a number.
fn scientific(number: &str) -> Option<(String, i64)> {
    let number = number.strip_prefix('-').unwrap_or(number);
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i64 = exponent
        .strip_prefix('+')
        .unwrap_or(exponent)
        .parse()
        .ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0');
    let zeros = digits.len() - significant.len();
    let first = exponent.checked_add(whole.len() as i64 - zeros as i64 - 1)?;
    Some((significant.trim_end_matches('0').to_owned(), first))
}

#[cfg(test)]
mod tests {
    use super::{fits_float64, unscaled};

    #[test]
    fn a_float_that_has_the_digits_of_a_number_fits() {
        for number in [
            "0",
            "-0.0",
            "1.5",
            "1.10",
            "0.1",
            "-12.25e3",
            "1e22",
            "1E+2",
            "100000000000000000000",
            "0.30000000000000004",
            "0.10000000000000001",
            "9007199254740992",
            "1.7976931348623157e308",
            "5e-324",
            "0.00012",
        ] {
            assert!(fits_float64(number), "{number}");
        }
        for number in [
            "12345678901234567890123",
            "0.1234567890123456789",
            "9007199254740993",
            "1e400",
            "1e-400",
            "1.79769313486231571e308",
            "x",
            "1e99999999999999999999",
        ] {
            assert!(!fits_float64(number), "{number}");
        }
    }

    #[test]
    fn inexact_decimals_are_rejected() {
        let cases = [
            ("12.30", 4, 2, Some("1230")),
            ("-12.3", 4, 2, Some("-1230")),
            ("12.345", 9, 2, None),
            ("12.3400", 4, 2, Some("1234")),
            ("123", 4, 2, None),
            ("12", 4, 2, Some("1200")),
            ("1e2", 5, 2, Some("10000")),
            ("1.5E+1", 5, 0, Some("15")),
            ("150e-1", 5, 0, Some("15")),
            ("15e-1", 5, 0, None),
            ("0", 1, 1, Some("0")),
            ("-0.00", 1, 1, Some("0")),
            ("0e999999999999999999", 5, 2, Some("0")),
            ("1e999999999999999999", 5, 2, None),
            ("1e99999999999999999999", 5, 2, None),
            ("1200", 2, -2, Some("12")),
            ("1250", 3, -2, None),
            ("", 5, 2, None),
            (".5", 5, 2, None),
            ("1_0", 5, 2, None),
            ("12e", 5, 2, None),
        ];
        for (number, precision, scale, expected) in cases {
            assert_eq!(
                unscaled(number, precision, scale).as_deref(),
                expected,
                "{number} as decimal({precision}, {scale})"
            );
        }
        assert_eq!(unscaled(&"1".repeat(1000), 38, 2), None);
    }
}
