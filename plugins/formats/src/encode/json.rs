//! Encodes columns as JSON.
//!
//! arrow-json encodes most types. Where it differs from what Pseidon documents, the encoders are
//! here: `json` columns are written unchanged, binary is base64, and timestamps are RFC 3339 in UTC
//! with as many digits as their unit has. Strings are here because most of them need no escape.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayAccessor, AsArray, StringArray, UnionArray};
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate, SecondsFormat, TimeDelta};
use pseidon_plugin::format::is_json;

use crate::json::has_special_bytes;

/// The options for all columns: NULL is written as `null`.
pub(crate) fn options() -> EncoderOptions {
    EncoderOptions::default()
        .with_explicit_nulls(true)
        .with_encoder_factory(Arc::new(PseidonEncoderFactory))
}

#[derive(Debug)]
struct PseidonEncoderFactory;

impl EncoderFactory for PseidonEncoderFactory {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Utf8 if is_json(innermost(field)) => Box::new(JsonStrings(array.as_string())),
            DataType::Utf8 => Box::new(Strings(array.as_string())),
            DataType::Binary => Box::new(Base64Values(array.as_binary::<i32>())),
            DataType::LargeBinary => Box::new(Base64Values(array.as_binary::<i64>())),
            DataType::FixedSizeBinary(_) => Box::new(Base64Values(array.as_fixed_size_binary())),
            DataType::BinaryView => Box::new(Base64Values(array.as_binary_view())),
            DataType::Timestamp(unit, _) => Box::new(Timestamps {
                unit: *unit,
                values: timestamps(array, *unit),
            }),
            DataType::Union(fields, _) => {
                let union = array.as_union();
                let child = |(id, field): (i8, &'a FieldRef)| {
                    Ok((id, make_encoder(field, union.child(id), options)?))
                };
                Box::new(Unions {
                    union,
                    children: fields
                        .iter()
                        .map(child)
                        .collect::<Result<_, ArrowError>>()?,
                })
            }
            DataType::Date32 => Box::new(Dates(array.as_primitive::<Date32Type>().values())),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

/// The field of a list's innermost elements; arrow-json passes the list's own field for them.
fn innermost(field: &Field) -> &Field {
    match field.data_type() {
        DataType::List(element) => innermost(element),
        _ => field,
    }
}

/// Values of a union: each is encoded as its own type.
struct Unions<'a> {
    union: &'a UnionArray,
    children: Vec<(i8, NullableEncoder<'a>)>,
}

impl Encoder for Unions<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let (id, at) = (self.union.type_id(row), self.union.value_offset(row));
        match self.children.iter_mut().find(|(child, _)| *child == id) {
            Some((_, child)) if !child.is_null(at) => child.encode(at, out),
            _ => out.extend_from_slice(b"null"),
        }
    }
}

struct Strings<'a>(&'a StringArray);

impl Encoder for Strings<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let text = self.0.value(row);
        if !has_special_bytes(text.as_bytes()) {
            return push_quoted(text, out);
        }
        serde_json::to_writer(out, text).expect("writing to a vector does not fail");
    }
}

/// JSON values, unchanged but on one line.
struct JsonStrings<'a>(&'a StringArray);

impl Encoder for JsonStrings<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        push_on_one_line(self.0.value(row).as_bytes(), out);
    }
}

/// Appends JSON and replaces line feeds, which can only be white space in JSON, by spaces.
pub(super) fn push_on_one_line(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(json);
    let mut at = start;
    while let Some(newline) = memchr::memchr(b'\n', &out[at..]) {
        out[at + newline] = b' ';
        at += newline + 1;
    }
}

struct Base64Values<B>(B);

impl<'a, B: ArrayAccessor<Item = &'a [u8]>> Encoder for Base64Values<B> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        push_quoted(&STANDARD.encode(self.0.value(row)), out);
    }
}

struct Timestamps<'a> {
    unit: TimeUnit,
    values: &'a [i64],
}

fn timestamps(array: &dyn Array, unit: TimeUnit) -> &[i64] {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().values(),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().values(),
    }
}

impl Encoder for Timestamps<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.values[row];
        let (at, digits) = match self.unit {
            TimeUnit::Second => (DateTime::from_timestamp(value, 0), SecondsFormat::Secs),
            TimeUnit::Millisecond => (
                DateTime::from_timestamp_millis(value),
                SecondsFormat::Millis,
            ),
            TimeUnit::Microsecond => (
                DateTime::from_timestamp_micros(value),
                SecondsFormat::Micros,
            ),
            TimeUnit::Nanosecond => (
                Some(DateTime::from_timestamp_nanos(value)),
                SecondsFormat::Nanos,
            ),
        };
        match at {
            Some(at) => push_quoted(&at.to_rfc3339_opts(digits, true), out),
            None => push_number(value, out),
        }
    }
}

struct Dates<'a>(&'a [i32]);

impl Encoder for Dates<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let days = self.0[row];
        let date = NaiveDate::default().checked_add_signed(TimeDelta::days(days.into()));
        match date {
            Some(date) => push_quoted(&date.to_string(), out),
            None => push_number(days.into(), out),
        }
    }
}

/// Appends a string that needs no escaping.
fn push_quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Appends a time that is outside the calendar's range, as a number.
fn push_number(value: i64, out: &mut Vec<u8>) {
    write!(out, "{value}").expect("writing to a vector does not fail");
}
