//! Typed columns from strings, for formats whose fields are text.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Decimal256Builder,
    PrimitiveBuilder, StringBuilder,
};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type, i256,
};
use chrono::{DateTime, Utc};
use pseidon_expr::ranges::{DAY, timestamps};
use pseidon_plugin::format::is_json;

use crate::decimal;

/// A column that is filled from strings.
pub(crate) struct TextColumn {
    data_type: DataType,
    values: TextBuilder,
}

enum TextBuilder {
    Utf8(StringBuilder),
    Binary(BinaryBuilder),
    Boolean(BooleanBuilder),
    Number(Box<dyn NumberBuilder>),
    Decimal128(u8, i8, Decimal128Builder),
    Decimal256(u8, i8, Decimal256Builder),
}

impl TextColumn {
    /// Creates a column of the field's type. The error says that such values cannot be decoded from
    /// strings.
    pub(crate) fn new(field: &Field) -> Result<TextColumn, String> {
        let data_type = field.data_type().clone();
        let values = match &data_type {
            DataType::Utf8 if !is_json(field) => TextBuilder::Utf8(StringBuilder::new()),
            DataType::Binary => TextBuilder::Binary(BinaryBuilder::new()),
            DataType::Boolean => TextBuilder::Boolean(BooleanBuilder::new()),
            DataType::Int8 => parsing_builder::<Int8Type>(&data_type),
            DataType::Int16 => parsing_builder::<Int16Type>(&data_type),
            DataType::Int32 => parsing_builder::<Int32Type>(&data_type),
            DataType::Int64 => parsing_builder::<Int64Type>(&data_type),
            DataType::UInt8 => parsing_builder::<UInt8Type>(&data_type),
            DataType::UInt16 => parsing_builder::<UInt16Type>(&data_type),
            DataType::UInt32 => parsing_builder::<UInt32Type>(&data_type),
            DataType::UInt64 => parsing_builder::<UInt64Type>(&data_type),
            DataType::Float32 => number_builder::<Float32Type>(&data_type, |text| {
                Float32Type::parse(text).filter(|value| value.is_finite() || !has_digits(text))
            }),
            DataType::Float64 => number_builder::<Float64Type>(&data_type, |text| {
                Float64Type::parse(text).filter(|value| value.is_finite() || !has_digits(text))
            }),
            DataType::Date32 => parsing_builder::<Date32Type>(&data_type),
            DataType::Time64(TimeUnit::Microsecond) => {
                number_builder::<Time64MicrosecondType>(&data_type, time_of_day)
            }
            DataType::Timestamp(TimeUnit::Second, _) => {
                timestamp_builder::<TimestampSecondType>(&data_type)
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                timestamp_builder::<TimestampMillisecondType>(&data_type)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                timestamp_builder::<TimestampMicrosecondType>(&data_type)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                timestamp_builder::<TimestampNanosecondType>(&data_type)
            }
            DataType::Decimal128(precision, scale) => TextBuilder::Decimal128(
                *precision,
                *scale,
                Decimal128Builder::new().with_data_type(data_type.clone()),
            ),
            DataType::Decimal256(precision, scale) => TextBuilder::Decimal256(
                *precision,
                *scale,
                Decimal256Builder::new().with_data_type(data_type.clone()),
            ),
            _ if is_json(field) => {
                return Err(format!(
                    "`{}` is a string; set its type in :schema, or cast it",
                    field.name()
                ));
            }
            other => {
                return Err(format!(
                    "cannot decode text field `{}` as {other}",
                    field.name()
                ));
            }
        };
        Ok(TextColumn { data_type, values })
    }

    /// Appends the value of a string. An empty string is null. If the string is not a value of this
    /// type, appends null and returns `false`.
    pub(crate) fn add(&mut self, text: &[u8]) -> bool {
        if text.is_empty() {
            self.add_null();
            return true;
        }
        let added = match (&mut self.values, std::str::from_utf8(text)) {
            (TextBuilder::Binary(values), _) => {
                values.append_value(text);
                true
            }
            (_, Err(_)) => false,
            (TextBuilder::Utf8(values), Ok(text)) => {
                values.append_value(text);
                true
            }
            (TextBuilder::Boolean(values), Ok(text)) => boolean(text.trim_ascii())
                .map(|value| values.append_value(value))
                .is_some(),
            (TextBuilder::Number(values), Ok(text)) => values.add(text.trim_ascii()),
            (TextBuilder::Decimal128(precision, scale, values), Ok(text)) => {
                let value = decimal::unscaled(text.trim_ascii(), *precision, *scale)
                    .and_then(|digits| digits.parse().ok());
                value.map(|value| values.append_value(value)).is_some()
            }
            (TextBuilder::Decimal256(precision, scale, values), Ok(text)) => {
                let value = decimal::unscaled(text.trim_ascii(), *precision, *scale)
                    .and_then(|digits| i256::from_string(&digits));
                value.map(|value| values.append_value(value)).is_some()
            }
        };
        if !added {
            self.add_null();
        }
        added
    }

    /// Appends the value of an empty string: null if the column has no strings.
    pub(crate) fn add_empty(&mut self) {
        match &mut self.values {
            TextBuilder::Utf8(values) => values.append_value(""),
            TextBuilder::Binary(values) => values.append_value(b""),
            _ => self.add_null(),
        }
    }

    pub(crate) fn add_null(&mut self) {
        match &mut self.values {
            TextBuilder::Utf8(values) => values.append_null(),
            TextBuilder::Binary(values) => values.append_null(),
            TextBuilder::Boolean(values) => values.append_null(),
            TextBuilder::Number(values) => values.add_null(),
            TextBuilder::Decimal128(_, _, values) => values.append_null(),
            TextBuilder::Decimal256(_, _, values) => values.append_null(),
        }
    }

    /// The number of values, including nulls.
    pub(crate) fn len(&self) -> usize {
        match &self.values {
            TextBuilder::Utf8(values) => values.len(),
            TextBuilder::Binary(values) => values.len(),
            TextBuilder::Boolean(values) => values.len(),
            TextBuilder::Number(values) => values.len(),
            TextBuilder::Decimal128(_, _, values) => values.len(),
            TextBuilder::Decimal256(_, _, values) => values.len(),
        }
    }

    /// The name of the column's type, for messages.
    pub(crate) fn type_name(&self) -> String {
        type_name(&self.data_type)
    }

    /// Returns the column and starts a new one.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            TextBuilder::Utf8(values) => Arc::new(values.finish()),
            TextBuilder::Binary(values) => Arc::new(values.finish()),
            TextBuilder::Boolean(values) => Arc::new(values.finish()),
            TextBuilder::Number(values) => values.finish(),
            TextBuilder::Decimal128(_, _, values) => Arc::new(values.finish()),
            TextBuilder::Decimal256(_, _, values) => Arc::new(values.finish()),
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A builder for values that are numbers in Arrow: integers, floats, dates and timestamps.
trait NumberBuilder: Send {
    /// Parses and appends a number. Returns `false`, and appends nothing, if it is invalid.
    fn add(&mut self, text: &str) -> bool;

    fn add_null(&mut self);

    fn len(&self) -> usize;

    fn finish(&mut self) -> ArrayRef;
}

/// Builds numbers with a parse function: Arrow's own, or one for timestamps.
struct ParsingBuilder<T: ArrowPrimitiveType> {
    values: PrimitiveBuilder<T>,
    parse: fn(&str) -> Option<T::Native>,
}

impl<T: ArrowPrimitiveType> NumberBuilder for ParsingBuilder<T> {
    fn add(&mut self, text: &str) -> bool {
        (self.parse)(text)
            .map(|value| self.values.append_value(value))
            .is_some()
    }

    fn add_null(&mut self) {
        self.values.append_null();
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn finish(&mut self) -> ArrayRef {
        ArrayBuilder::finish(&mut self.values)
    }
}

fn parsing_builder<T: ArrowPrimitiveType + Parser>(data_type: &DataType) -> TextBuilder {
    number_builder::<T>(data_type, T::parse)
}

fn number_builder<T: ArrowPrimitiveType>(
    data_type: &DataType,
    parse: fn(&str) -> Option<T::Native>,
) -> TextBuilder {
    TextBuilder::Number(Box::new(ParsingBuilder::<T> {
        values: PrimitiveBuilder::new().with_data_type(data_type.clone()),
        parse,
    }))
}

/// Whether a string that is parsed as infinity is a number that is too large, and not a word.
fn has_digits(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

/// A builder for timestamps: integers in the unit, or ISO-8601 strings.
fn timestamp_builder<T: ArrowPrimitiveType<Native = i64>>(data_type: &DataType) -> TextBuilder {
    let parse: fn(&str) -> Option<i64> = match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => |text| parsed(text, TimeUnit::Second),
        DataType::Timestamp(TimeUnit::Millisecond, _) => |text| parsed(text, TimeUnit::Millisecond),
        DataType::Timestamp(TimeUnit::Microsecond, _) => |text| parsed(text, TimeUnit::Microsecond),
        _ => |text| parsed(text, TimeUnit::Nanosecond),
    };
    number_builder::<T>(data_type, parse)
}

/// Parses a number of this unit, or an ISO-8601 string.
fn parsed(text: &str, unit: TimeUnit) -> Option<i64> {
    match text.parse() {
        Ok(at) => timestamps(unit).contains(&at).then_some(at),
        Err(_) => timestamp(text, unit),
    }
}

/// Parses a time of day in microseconds.
pub(crate) fn time_of_day(text: &str) -> Option<i64> {
    Time64MicrosecondType::parse(text).filter(|time| DAY.contains(time))
}

/// Parses an ISO-8601 string and returns it as a number in the unit. Without a zone it is UTC. A
/// finer fraction is truncated. A year beyond four digits has a sign, as in the files that are
/// written.
pub(crate) fn timestamp(text: &str, unit: TimeUnit) -> Option<i64> {
    let at = match text.as_bytes() {
        // Arrow knows no such years.
        [b'+' | b'-', ..] => text.parse::<DateTime<Utc>>().ok()?,
        _ => string_to_datetime(&Utc, text).ok()?,
    };
    match unit {
        TimeUnit::Second => Some(at.timestamp()),
        TimeUnit::Millisecond => Some(at.timestamp_millis()),
        TimeUnit::Microsecond => Some(at.timestamp_micros()),
        TimeUnit::Nanosecond => at.timestamp_nanos_opt(),
    }
}

/// The name of a type, for messages.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(_) => "an object".to_owned(),
        DataType::List(_) => "a list".to_owned(),
        DataType::Utf8 => "a string".to_owned(),
        DataType::Binary => "binary".to_owned(),
        DataType::Timestamp(..) => "a timestamp".to_owned(),
        DataType::Date32 => "a date".to_owned(),
        DataType::Time64(_) => "a time".to_owned(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("decimal({precision}, {scale})")
        }
        other => other.to_string().to_lowercase(),
    }
}
