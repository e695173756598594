//! Typed columns, filled from JSON values.

mod nested;
mod numbers;

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Decimal256Builder, PrimitiveBuilder, StringBuilder, Time64MicrosecondBuilder,
};
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{
    DataType, Date32Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    i256,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pseidon_expr::ranges::timestamps;
use pseidon_plugin::format::is_json;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sonic_rs::LazyValue;

use self::nested::{ListColumn, StructColumn};
use self::numbers::{IntegerBuilder, Number, finite, integer_builder};
use crate::values::{time_of_day, timestamp};
use crate::{abbreviate, decimal, values};

/// The reason why a record is bad: its first value that does not match the type of its column.
#[derive(Default)]
pub(super) struct Mismatch(Option<String>);

impl Mismatch {
    /// Returns the reason as an error, if there is one.
    pub(super) fn into_result(self) -> Result<(), String> {
        self.0.map_or(Ok(()), Err)
    }
}

/// A column that is being filled.
pub(super) struct Column {
    /// The path of its values in the record, for messages.
    path: String,
    data_type: DataType,
    values: JsonBuilder,
}

enum JsonBuilder {
    Boolean(BooleanBuilder),
    Integer(Box<dyn IntegerBuilder>),
    /// Parsed from their text: the JSON parser drops the sign of `-0.0`, and rounds twice for 32
    /// bits.
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Utf8(StringBuilder),
    /// Base64 (standard alphabet, padded) in JSON.
    Binary(BinaryBuilder),
    /// Integers in the unit, or RFC 3339 strings, which are truncated to the unit. Without a zone
    /// they are UTC.
    Timestamp(TimeUnit, Box<dyn IntegerBuilder>),
    Date32(Date32Builder),
    Time64(Time64MicrosecondBuilder),
    Decimal128(u8, i8, Decimal128Builder),
    Decimal256(u8, i8, Decimal256Builder),
    /// The JSON text of the value.
    Json(StringBuilder),
    Struct(StructColumn),
    List(ListColumn),
}

impl Column {
    /// Creates a column for the values at `path`. The error says that this type cannot be decoded
    /// from JSON.
    pub(super) fn new(field: &Field, path: String) -> Result<Column, String> {
        let data_type = field.data_type().clone();
        let values = match &data_type {
            DataType::Utf8 if is_json(field) => JsonBuilder::Json(StringBuilder::new()),
            DataType::Boolean => JsonBuilder::Boolean(BooleanBuilder::new()),
            DataType::Int8 => JsonBuilder::Integer(integer_builder::<Int8Type>(&data_type)),
            DataType::Int16 => JsonBuilder::Integer(integer_builder::<Int16Type>(&data_type)),
            DataType::Int32 => JsonBuilder::Integer(integer_builder::<Int32Type>(&data_type)),
            DataType::Int64 => JsonBuilder::Integer(integer_builder::<Int64Type>(&data_type)),
            DataType::UInt8 => JsonBuilder::Integer(integer_builder::<UInt8Type>(&data_type)),
            DataType::UInt16 => JsonBuilder::Integer(integer_builder::<UInt16Type>(&data_type)),
            DataType::UInt32 => JsonBuilder::Integer(integer_builder::<UInt32Type>(&data_type)),
            DataType::UInt64 => JsonBuilder::Integer(integer_builder::<UInt64Type>(&data_type)),
            DataType::Float32 => JsonBuilder::Float32(PrimitiveBuilder::new()),
            DataType::Float64 => JsonBuilder::Float64(PrimitiveBuilder::new()),
            DataType::Utf8 => JsonBuilder::Utf8(StringBuilder::new()),
            DataType::Binary => JsonBuilder::Binary(BinaryBuilder::new()),
            DataType::Timestamp(unit, _) => {
                let values = match unit {
                    TimeUnit::Second => integer_builder::<TimestampSecondType>(&data_type),
                    TimeUnit::Millisecond => {
                        integer_builder::<TimestampMillisecondType>(&data_type)
                    }
                    TimeUnit::Microsecond => {
                        integer_builder::<TimestampMicrosecondType>(&data_type)
                    }
                    TimeUnit::Nanosecond => integer_builder::<TimestampNanosecondType>(&data_type),
                };
                JsonBuilder::Timestamp(*unit, values)
            }
            DataType::Date32 => JsonBuilder::Date32(Date32Builder::new()),
            DataType::Time64(TimeUnit::Microsecond) => {
                JsonBuilder::Time64(Time64MicrosecondBuilder::new())
            }
            DataType::Decimal128(precision, scale) => JsonBuilder::Decimal128(
                *precision,
                *scale,
                Decimal128Builder::new().with_data_type(data_type.clone()),
            ),
            DataType::Decimal256(precision, scale) => JsonBuilder::Decimal256(
                *precision,
                *scale,
                Decimal256Builder::new().with_data_type(data_type.clone()),
            ),
            DataType::Struct(fields) => JsonBuilder::Struct(StructColumn::new(fields, &path)?),
            DataType::List(field) => JsonBuilder::List(ListColumn::new(field, &path)?),
            other => return Err(format!("cannot decode JSON field `{path}` as {other}")),
        };
        Ok(Column {
            path,
            data_type,
            values,
        })
    }

    /// Reads the next value as the column's value at index `at`. A second value at the same index
    /// (a repeated key) is skipped.
    pub(super) fn read<'de, D: Deserializer<'de>>(
        &mut self,
        at: usize,
        next: D,
        mismatch: &mut Mismatch,
    ) -> Result<(), D::Error> {
        if self.len() > at {
            return IgnoredAny::deserialize(next).map(|_| ());
        }
        match &self.values {
            JsonBuilder::Json(_)
            | JsonBuilder::Float32(_)
            | JsonBuilder::Float64(_)
            | JsonBuilder::Decimal128(..)
            | JsonBuilder::Decimal256(..) => {
                let value = LazyValue::deserialize(next)?;
                self.add_raw(value.as_raw_str(), mismatch);
                Ok(())
            }
            _ => next.deserialize_any(ColumnVisitor {
                column: self,
                mismatch,
            }),
        }
    }

    /// Reads a value that is valid JSON, like [`Column::read`].
    pub(super) fn read_text(
        &mut self,
        at: usize,
        value: &str,
        mismatch: &mut Mismatch,
    ) -> sonic_rs::Result<()> {
        if self.len() > at {
            return Ok(());
        }
        match &mut self.values {
            JsonBuilder::Json(_) | JsonBuilder::Decimal128(..) | JsonBuilder::Decimal256(..) => {
                self.add_raw(value, mismatch);
                return Ok(());
            }
            JsonBuilder::Utf8(values) => {
                if let Some(content) = plain_string(value) {
                    values.append_value(content);
                    return Ok(());
                }
            }
            JsonBuilder::Integer(_) | JsonBuilder::Timestamp(..) => {
                if let Ok(number) = value.parse() {
                    self.add_number(Number::Signed(number), mismatch);
                    return Ok(());
                }
            }
            _ => {}
        }
        let mut parser = sonic_rs::Deserializer::from_str(value);
        self.read(at, &mut parser, mismatch)
    }

    /// Appends a null unless the column already has `len` values.
    pub(super) fn fill(&mut self, len: usize) {
        if self.len() < len {
            self.add_null();
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.values {
            JsonBuilder::Boolean(values) => values.len(),
            JsonBuilder::Integer(values) | JsonBuilder::Timestamp(_, values) => values.len(),
            JsonBuilder::Float32(values) => values.len(),
            JsonBuilder::Float64(values) => values.len(),
            JsonBuilder::Utf8(values) | JsonBuilder::Json(values) => values.len(),
            JsonBuilder::Binary(values) => values.len(),
            JsonBuilder::Date32(values) => values.len(),
            JsonBuilder::Time64(values) => values.len(),
            JsonBuilder::Decimal128(_, _, values) => values.len(),
            JsonBuilder::Decimal256(_, _, values) => values.len(),
            JsonBuilder::Struct(values) => values.len(),
            JsonBuilder::List(values) => values.len(),
        }
    }

    fn add_null(&mut self) {
        match &mut self.values {
            JsonBuilder::Boolean(values) => values.append_null(),
            JsonBuilder::Integer(values) | JsonBuilder::Timestamp(_, values) => values.add_null(),
            JsonBuilder::Float32(values) => values.append_null(),
            JsonBuilder::Float64(values) => values.append_null(),
            JsonBuilder::Utf8(values) | JsonBuilder::Json(values) => values.append_null(),
            JsonBuilder::Binary(values) => values.append_null(),
            JsonBuilder::Date32(values) => values.append_null(),
            JsonBuilder::Time64(values) => values.append_null(),
            JsonBuilder::Decimal128(_, _, values) => values.append_null(),
            JsonBuilder::Decimal256(_, _, values) => values.append_null(),
            JsonBuilder::Struct(values) => values.close(false),
            JsonBuilder::List(values) => values.close(false),
        }
    }

    /// Appends null and records why. `instead` describes the record's value, in a phrase such as `a
    /// string`.
    fn add_mismatch(&mut self, instead: fmt::Arguments<'_>, mismatch: &mut Mismatch) {
        if mismatch.0.is_none() {
            mismatch.0 = Some(format!(
                "`{}` is {instead}; expected {}",
                self.path,
                type_name(&self.data_type)
            ));
        }
        self.add_null();
    }

    fn add_bool(&mut self, value: bool, mismatch: &mut Mismatch) {
        match &mut self.values {
            JsonBuilder::Boolean(values) => values.append_value(value),
            _ => self.add_mismatch(format_args!("a boolean"), mismatch),
        }
    }

    fn add_number(&mut self, number: Number, mismatch: &mut Mismatch) {
        let fits = match &mut self.values {
            JsonBuilder::Integer(values) => number
                .as_integer()
                .is_some_and(|integer| values.add(integer)),
            JsonBuilder::Timestamp(unit, values) => number
                .as_integer()
                .filter(|at| {
                    (*at)
                        .try_into()
                        .is_ok_and(|at| timestamps(*unit).contains(&at))
                })
                .is_some_and(|at| values.add(at)),
            _ => return self.add_mismatch(format_args!("a number"), mismatch),
        };
        if !fits {
            self.add_mismatch(format_args!("{number}"), mismatch);
        }
    }

    fn add_text(&mut self, text: &str, mismatch: &mut Mismatch) {
        let fits = match &mut self.values {
            JsonBuilder::Utf8(values) => {
                values.append_value(text);
                return;
            }
            JsonBuilder::Binary(values) => STANDARD
                .decode(text)
                .ok()
                .map(|bytes| values.append_value(bytes)),
            JsonBuilder::Timestamp(unit, values) => timestamp(text, *unit)
                .filter(|at| values.add((*at).into()))
                .map(|_| ()),
            JsonBuilder::Date32(values) => {
                Date32Type::parse(text).map(|days| values.append_value(days))
            }
            JsonBuilder::Time64(values) => time_of_day(text).map(|time| values.append_value(time)),
            _ => return self.add_mismatch(format_args!("a string"), mismatch),
        };
        if fits.is_none() {
            self.add_mismatch(format_args!("the string {:?}", abbreviate(text)), mismatch);
        }
    }

    /// Appends a value that is built from its JSON text.
    fn add_raw(&mut self, raw: &str, mismatch: &mut Mismatch) {
        if raw == "null" {
            return self.add_null();
        }
        let number = raw.trim_matches('"');
        let fits = match &mut self.values {
            JsonBuilder::Json(values) => {
                values.append_value(raw);
                return;
            }
            JsonBuilder::Float32(values) => {
                finite(raw, f32::is_finite).map(|value| values.append_value(value))
            }
            JsonBuilder::Float64(values) => {
                finite(raw, f64::is_finite).map(|value| values.append_value(value))
            }
            JsonBuilder::Decimal128(precision, scale, values) => {
                let value = decimal::unscaled(number, *precision, *scale)
                    .and_then(|digits| digits.parse().ok());
                value.map(|value| values.append_value(value))
            }
            JsonBuilder::Decimal256(precision, scale, values) => {
                let value = decimal::unscaled(number, *precision, *scale)
                    .and_then(|digits| i256::from_string(&digits));
                value.map(|value| values.append_value(value))
            }
            _ => None,
        };
        if fits.is_none() {
            let instead = match raw.as_bytes() {
                _ if !self.data_type.is_floating() => abbreviate(raw),
                [b'"', ..] => "a string".into(),
                [b'{', ..] => "an object".into(),
                [b'[', ..] => "a list".into(),
                [b't' | b'f', ..] => "a boolean".into(),
                _ => abbreviate(raw),
            };
            self.add_mismatch(format_args!("{instead}"), mismatch);
        }
    }

    /// Returns the column and starts a new one.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            JsonBuilder::Boolean(values) => Arc::new(values.finish()),
            JsonBuilder::Integer(values) | JsonBuilder::Timestamp(_, values) => values.finish(),
            JsonBuilder::Float32(values) => Arc::new(values.finish()),
            JsonBuilder::Float64(values) => Arc::new(values.finish()),
            JsonBuilder::Utf8(values) | JsonBuilder::Json(values) => {
                // The next batch will need about the same capacity.
                let (len, bytes) = (values.len(), values.values_slice().len());
                Arc::new(
                    std::mem::replace(values, StringBuilder::with_capacity(len, bytes)).finish(),
                )
            }
            JsonBuilder::Binary(values) => Arc::new(values.finish()),
            JsonBuilder::Date32(values) => Arc::new(values.finish()),
            JsonBuilder::Time64(values) => Arc::new(values.finish()),
            JsonBuilder::Decimal128(_, _, values) => Arc::new(values.finish()),
            JsonBuilder::Decimal256(_, _, values) => Arc::new(values.finish()),
            JsonBuilder::Struct(values) => values.finish(),
            JsonBuilder::List(values) => values.finish(),
        }
    }
}

/// Appends exactly one value to a column; null if it does not match the column's type.
struct ColumnVisitor<'a> {
    column: &'a mut Column,
    mismatch: &'a mut Mismatch,
}

impl<'de> Visitor<'de> for ColumnVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.column.add_null();
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.column.add_bool(value, self.mismatch);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.column.add_number(Number::Signed(value), self.mismatch);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.column
            .add_number(Number::Unsigned(value), self.mismatch);
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.column.add_number(Number::Float(value), self.mismatch);
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.column.add_text(text, self.mismatch);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let JsonBuilder::Struct(values) = &mut self.column.values {
            let read = values.read(map, self.mismatch);
            values.close(true);
            return read;
        }
        self.column
            .add_mismatch(format_args!("an object"), self.mismatch);
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if let JsonBuilder::List(values) = &mut self.column.values {
            let read = values.read(list, self.mismatch);
            values.close(true);
            return read;
        }
        self.column
            .add_mismatch(format_args!("a list"), self.mismatch);
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// The content of a JSON string without escapes; `None` for another value.
fn plain_string(value: &str) -> Option<&str> {
    let content = value.strip_prefix('"')?.strip_suffix('"')?;
    let is_plain = memchr::memchr(b'\\', content.as_bytes()).is_none();
    is_plain.then_some(content)
}

/// The name of a type, for messages.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Binary => "a base64 string".to_owned(),
        other => values::type_name(other),
    }
}
