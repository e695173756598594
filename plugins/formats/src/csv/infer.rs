//! Infers the types of fields from sample records.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use pseidon_plugin::Payloads;
use sonic_rs::JsonNumberTrait;

use super::columns::with_point;
use super::fields::{Fields, Value};
use super::layout::{CsvLayout, FieldNames, numbered};
use crate::decimal::fits_float64;
use crate::inferred_fields::{InferredFields, MAX_IN_HEADER, check_count};
use crate::values::timestamp;

/// What the values of a field are, from the most special to the most general.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldType {
    /// No value yet.
    Nothing,
    Boolean,
    Integer,
    /// An integer that float64 may not represent.
    LargeInteger,
    Float,
    Date,
    Time,
    Text,
}

/// The fields of all headers, in the order of their first occurrence, with the type that all sample
/// values have: `boolean`, `int64`, `float64`, `date`, a timestamp in microseconds, or else `utf8`.
/// What would not be written back with the same digits is a string: `007`, integers of more than 64
/// bits, and fractions of more digits than a float has.
///
/// # Errors
/// No sample has a header, or without one a record; or there are too many fields.
pub(super) fn infer(layout: &CsvLayout, samples: &[Payloads]) -> Result<SchemaRef, String> {
    let mut fields = Fields::default();
    let mut found = InferredFields::default();
    for payloads in samples {
        let names = match (&layout.names, payloads.header()) {
            (FieldNames::Given { names, .. }, _) => names.clone(),
            (FieldNames::Numbered, _) => match width(&mut fields, layout, samples) {
                Some(width) => (0..width).map(numbered).collect(),
                None => return Err("no record has fields".to_owned()),
            },
            (FieldNames::InHeader, Some(header)) => fields.names(header, layout)?,
            (FieldNames::InHeader, None) => continue,
        };
        let places: Vec<usize> = names
            .iter()
            .map(|name| found.place(name, || FieldType::Nothing))
            .collect();
        for record in payloads.iter().flatten() {
            let is_valid = fields.split(record, layout).is_ok() && fields.len() == places.len();
            if !is_valid {
                continue;
            }
            for (number, place) in places.iter().enumerate() {
                if let Value::Text(text) = fields.value(record, number) {
                    let known = found.at(*place);
                    *known = known.merge(FieldType::of(text, layout));
                }
            }
        }
    }
    if found.is_empty() {
        return Err("the fields have no names: the header is missing".to_owned());
    }
    let fields = found.into_iter();
    let schema = Schema::new(
        fields
            .map(|(name, inferred)| Field::new(&*name, inferred.data_type(), true))
            .collect::<Vec<_>>(),
    );
    check_count(&schema, MAX_IN_HEADER)?;
    Ok(Arc::new(schema))
}

/// How many fields the first record has that can be split.
fn width(fields: &mut Fields, layout: &CsvLayout, samples: &[Payloads]) -> Option<usize> {
    let mut records = samples
        .iter()
        .flat_map(|payloads| payloads.iter().flatten());
    records.find_map(|record| fields.split(record, layout).ok().map(|()| fields.len()))
}

impl FieldType {
    fn of(text: &[u8], layout: &CsvLayout) -> FieldType {
        if layout.has_decimal_comma && memchr::memchr2(b',', b'.', text).is_some() {
            let number = with_point(text).and_then(|it| number(std::str::from_utf8(&it).ok()?));
            return number
                .or_else(|| time(std::str::from_utf8(text).ok()?))
                .unwrap_or(FieldType::Text);
        }
        let Ok(text) = std::str::from_utf8(text) else {
            return FieldType::Text;
        };
        if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            return FieldType::Boolean;
        }
        if let Some(number) = number(text) {
            return number;
        }
        match time(text) {
            Some(time) => time,
            None => FieldType::Text,
        }
    }

    /// The type that covers both.
    fn merge(self, other: FieldType) -> FieldType {
        match (self, other) {
            (one, other) if one == other => one,
            (FieldType::Nothing, one) | (one, FieldType::Nothing) => one,
            (FieldType::Integer, FieldType::Float) | (FieldType::Float, FieldType::Integer) => {
                FieldType::Float
            }
            (FieldType::Integer, FieldType::LargeInteger)
            | (FieldType::LargeInteger, FieldType::Integer) => FieldType::LargeInteger,
            (FieldType::Date, FieldType::Time) | (FieldType::Time, FieldType::Date) => {
                FieldType::Time
            }
            _ => FieldType::Text,
        }
    }

    fn data_type(self) -> DataType {
        match self {
            FieldType::Boolean => DataType::Boolean,
            FieldType::Integer | FieldType::LargeInteger => DataType::Int64,
            FieldType::Float => DataType::Float64,
            FieldType::Date => DataType::Date32,
            FieldType::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            FieldType::Nothing | FieldType::Text => DataType::Utf8,
        }
    }
}

/// The type of a number as JSON writes it, without zeros before it.
fn number(text: &str) -> Option<FieldType> {
    let number: sonic_rs::Number = sonic_rs::from_str(text).ok()?;
    // JSON allows white space around a number.
    if text.trim().len() != text.len() {
        return None;
    }
    let is_integer = text
        .bytes()
        .all(|byte| byte == b'-' || byte.is_ascii_digit());
    if !is_integer {
        return fits_float64(text).then_some(FieldType::Float);
    }
    let integer = number.as_i64()?;
    match integer.unsigned_abs() > 1 << f64::MANTISSA_DIGITS {
        true => Some(FieldType::LargeInteger),
        false => Some(FieldType::Integer),
    }
}

/// The type of an ISO 8601 date, or of a time with at most six digits of a second.
fn time(text: &str) -> Option<FieldType> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok() && text.len() == 10 {
        return Some(FieldType::Date);
    }
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let is_time = digits <= 6 && timestamp(text, TimeUnit::Microsecond).is_some();
    is_time.then_some(FieldType::Time)
}
