//! Formatting of times for path templates such as `{at:%Y-%m-%d}`.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use chrono::format::{Fixed, Item, Numeric, StrftimeItems};
use chrono::{DateTime, Utc};

use crate::types::{timestamp, type_name};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Formats each value with the strftime `format`, in UTC. The values are timestamps of any unit,
/// dates, or integers, which are milliseconds since 1970. NULL stays NULL. Digits below
/// microseconds are written as zeros.
///
/// # Errors
/// An invalid format (even for an empty array), a type without times, or a value outside the range
/// of the calendar.
pub fn strftime(array: &ArrayRef, format: &str) -> Result<StringArray, ArrowError> {
    let items = StrftimeItems::new(format).parse().map_err(|_| {
        ArrowError::ParseError(format!(
            "'{format}' is not a valid time format: unknown letter \
            after %; expected a format such as '%Y-%m-%d'"
        ))
    })?;
    let micros = micros_since_1970(array)?;
    let micros = micros.as_primitive::<TimestampMicrosecondType>();
    let step = items.iter().map(step_of).min().unwrap_or(i64::MAX);
    let mut texts = StringBuilder::with_capacity(micros.len(), micros.len() * (format.len() + 8));
    let mut text = String::new();
    // Adjacent rows mostly have the same value of the smallest unit in the format, such as the
    // hour. Their text is reused.
    let mut written_for = None;
    for micros in micros {
        let Some(micros) = micros else {
            texts.append_null();
            continue;
        };
        let bucket = micros.div_euclid(step);
        if written_for != Some(bucket) {
            let time = DateTime::<Utc>::from_timestamp_micros(micros).ok_or_else(|| {
                ArrowError::ComputeError(format!(
                    "{micros} µs since 1970 is outside the calendar range"
                ))
            })?;
            text.clear();
            write!(text, "{}", time.format_with_items(items.iter())).map_err(|_| {
                ArrowError::ParseError(format!("cannot format a UTC time as '{format}'"))
            })?;
            written_for = Some(bucket);
        }
        texts.append_value(&text);
    }
    Ok(texts.finish())
}

/// Whether [`strftime`] accepts values of this type: times, dates and integers.
pub fn is_time(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64 | DataType::Null
        )
}

/// The values as timestamps in microseconds, UTC.
fn micros_since_1970(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    // Without this, a value that does not fit would become NULL.
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let exact = if array.data_type().is_integer() {
        let millis = cast_with_options(array, &DataType::Int64, &strict)?;
        cast_with_options(&millis, &timestamp(TimeUnit::Millisecond), &strict)?
    } else {
        Arc::clone(array)
    };
    if !is_time(exact.data_type()) {
        return Err(ArrowError::InvalidArgumentError(format!(
            "a time format requires a timestamp, a date or milliseconds since 1970, found {}",
            type_name(exact.data_type())
        )));
    }
    cast_with_options(&exact, &timestamp(TimeUnit::Microsecond), &strict)
        .map_err(|_| ArrowError::ComputeError("a time is outside the calendar range".to_owned()))
}

/// The number of microseconds for which the item produces the same text.
fn step_of(item: &Item<'_>) -> i64 {
    const MINUTE: i64 = 60 * MICROS_PER_SECOND;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    match item {
        Item::Literal(_) | Item::OwnedLiteral(_) | Item::Space(_) | Item::OwnedSpace(_) => i64::MAX,
        Item::Numeric(numeric, _) => match numeric {
            Numeric::Hour | Numeric::Hour12 => HOUR,
            Numeric::Minute => MINUTE,
            Numeric::Second | Numeric::Timestamp => MICROS_PER_SECOND,
            Numeric::Nanosecond | Numeric::Internal(_) => 1,
            _ => DAY,
        },
        Item::Fixed(fixed) => match fixed {
            Fixed::ShortMonthName
            | Fixed::LongMonthName
            | Fixed::ShortWeekdayName
            | Fixed::LongWeekdayName => DAY,
            Fixed::LowerAmPm | Fixed::UpperAmPm => HOUR,
            Fixed::TimezoneName
            | Fixed::TimezoneOffset
            | Fixed::TimezoneOffsetColon
            | Fixed::TimezoneOffsetColonZ
            | Fixed::TimezoneOffsetZ
            | Fixed::TimezoneOffsetDoubleColon
            | Fixed::TimezoneOffsetTripleColon => i64::MAX,
            Fixed::RFC2822 => MICROS_PER_SECOND,
            _ => 1,
        },
        Item::Error => 1,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Date32Array, Int32Array, Int64Array, NullArray, TimestampMillisecondArray,
        TimestampNanosecondArray, TimestampSecondArray,
    };

    use super::*;

    /// 2024-02-29T23:59:58.123Z
    const LEAP: i64 = 1_709_251_198_123;

    fn texts(array: impl Array + 'static, format: &str) -> Vec<Option<String>> {
        let array: ArrayRef = Arc::new(array);
        strftime(&array, format)
            .unwrap()
            .iter()
            .map(|text| text.map(str::to_owned))
            .collect()
    }

    #[test]
    fn all_types_of_times_are_formatted() {
        let expected = vec![Some("2024-02-29 23:59:58".to_owned()), None];
        let format = "%Y-%m-%d %H:%M:%S";
        assert_eq!(
            texts(
                TimestampMillisecondArray::from(vec![Some(LEAP), None]).with_timezone("UTC"),
                format
            ),
            expected
        );
        assert_eq!(
            texts(
                TimestampMillisecondArray::from(vec![Some(LEAP), None]),
                format
            ),
            expected
        );
        assert_eq!(
            texts(
                TimestampSecondArray::from(vec![Some(LEAP / 1000), None]).with_timezone("UTC"),
                format
            ),
            expected
        );
        assert_eq!(
            texts(
                TimestampNanosecondArray::from(vec![Some(LEAP * 1_000_000), None]),
                format
            ),
            expected
        );
        assert_eq!(
            texts(Int64Array::from(vec![Some(LEAP), None]), format),
            expected
        );
        assert_eq!(
            texts(Int32Array::from(vec![-1]), format),
            vec![Some("1969-12-31 23:59:59".to_owned())]
        );
        assert_eq!(
            texts(Date32Array::from(vec![Some(19782), None]), "%d.%m.%y"),
            vec![Some("29.02.24".to_owned()), None]
        );
        assert_eq!(texts(NullArray::new(2), format), vec![None, None]);
        assert_eq!(
            texts(Int64Array::from(vec![0]), ""),
            vec![Some(String::new())]
        );
    }

    #[test]
    fn times_in_another_zone_are_formatted_in_utc() {
        let array = TimestampMillisecondArray::from(vec![LEAP]).with_timezone("+05:30");
        assert_eq!(texts(array, "%H:%M"), vec![Some("23:59".to_owned())]);
    }

    /// Formatting adjacent times together returns the same as formatting each one alone: the text
    /// of another time is never reused incorrectly.
    #[test]
    fn reused_texts_are_correct() {
        let mut times: Vec<i64> = Vec::new();
        for unit in [
            1,
            999,
            1000,
            59_999,
            60_000,
            3_599_999,
            3_600_000,
            86_399_999,
            86_400_000,
            31_536_000_000,
        ] {
            for around in [0, LEAP, -LEAP] {
                times.extend([around - unit, around, around + 1, around + unit, around]);
            }
        }
        let letters = "YCyqmbBhdeaAwuUWGgVjDxFvHkIlPpMSfRTXrZz+cst%";
        let formats = letters
            .chars()
            .map(|letter| format!("%{letter}"))
            .chain(["%.3f", "%3f", "%9f", "%:z", "%-H", "%_d", "year=%Y/h=%H"].map(str::to_owned));
        for format in formats {
            let together = texts(Int64Array::from(times.clone()), &format);
            for (time, text) in times.iter().zip(&together) {
                let alone = DateTime::<Utc>::from_timestamp_millis(*time)
                    .unwrap()
                    .format(&format)
                    .to_string();
                assert_eq!(text.as_deref(), Some(alone.as_str()), "{format} of {time}");
            }
        }
    }

    #[test]
    fn errors_are_explained() {
        let none: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
        let error = strftime(&none, "%Y-%E").unwrap_err().to_string();
        assert!(
            error.contains("'%Y-%E' is not a valid time format"),
            "{error}"
        );
        let text: ArrayRef = Arc::new(StringArray::from(vec!["2024"]));
        let error = strftime(&text, "%Y").unwrap_err().to_string();
        assert!(error.contains("found utf8"), "{error}");
        for far in [i64::MAX, i64::MIN, i64::MAX / 1000] {
            let array: ArrayRef = Arc::new(Int64Array::from(vec![far]));
            let error = strftime(&array, "%Y").unwrap_err().to_string();
            assert!(error.contains("outside the calendar range"), "{error}");
        }
    }
}
