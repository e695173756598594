//! Typed columns that JSON values are read into.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Decimal256Builder, PrimitiveBuilder, StringBuilder,
};
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    i256,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pseidon_plugin::format::is_json;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sonic_rs::LazyValue;

use super::nested::{ListColumn, StructColumn};
use crate::values::timestamp;
use crate::{decimal, shortened, values};

/// The first value of a record that does not fit its column.
#[derive(Default)]
pub(super) struct Misfit(Option<String>);

impl Misfit {
    /// The reason, if there is one, as an error.
    pub(super) fn into_result(self) -> Result<(), String> {
        self.0.map_or(Ok(()), Err)
    }
}

/// A column that is being filled.
pub(super) struct Column {
    /// Where its values are in the record, for reasons.
    path: String,
    data_type: DataType,
    values: Values,
}

enum Values {
    Boolean(BooleanBuilder),
    Whole(Box<dyn WholeNumbers>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Utf8(StringBuilder),
    /// Base64 (standard alphabet, padded) in JSON.
    Binary(BinaryBuilder),
    /// Whole numbers in the unit, or RFC 3339 texts, which are cut to the unit; without a zone they
    /// are UTC.
    Timestamp(TimeUnit, Box<dyn WholeNumbers>),
    Date32(Date32Builder),
    Decimal128(u8, i8, Decimal128Builder),
    Decimal256(u8, i8, Decimal256Builder),
    /// The value's own text.
    Json(StringBuilder),
    Struct(StructColumn),
    List(ListColumn),
}

impl Column {
    /// A column for values at `path`. An error says why values of this type cannot be had from
    /// JSON.
    pub(super) fn new(field: &Field, path: String) -> Result<Column, String> {
        let data_type = field.data_type().clone();
        let values = match &data_type {
            DataType::Utf8 if is_json(field) => Values::Json(StringBuilder::new()),
            DataType::Boolean => Values::Boolean(BooleanBuilder::new()),
            DataType::Int8 => Values::Whole(whole::<Int8Type>(&data_type)),
            DataType::Int16 => Values::Whole(whole::<Int16Type>(&data_type)),
            DataType::Int32 => Values::Whole(whole::<Int32Type>(&data_type)),
            DataType::Int64 => Values::Whole(whole::<Int64Type>(&data_type)),
            DataType::UInt8 => Values::Whole(whole::<UInt8Type>(&data_type)),
            DataType::UInt16 => Values::Whole(whole::<UInt16Type>(&data_type)),
            DataType::UInt32 => Values::Whole(whole::<UInt32Type>(&data_type)),
            DataType::UInt64 => Values::Whole(whole::<UInt64Type>(&data_type)),
            DataType::Float32 => Values::Float32(PrimitiveBuilder::new()),
            DataType::Float64 => Values::Float64(PrimitiveBuilder::new()),
            DataType::Utf8 => Values::Utf8(StringBuilder::new()),
            DataType::Binary => Values::Binary(BinaryBuilder::new()),
            DataType::Timestamp(unit, _) => {
                let values = match unit {
                    TimeUnit::Second => whole::<TimestampSecondType>(&data_type),
                    TimeUnit::Millisecond => whole::<TimestampMillisecondType>(&data_type),
                    TimeUnit::Microsecond => whole::<TimestampMicrosecondType>(&data_type),
                    TimeUnit::Nanosecond => whole::<TimestampNanosecondType>(&data_type),
                };
                Values::Timestamp(*unit, values)
            }
            DataType::Date32 => Values::Date32(Date32Builder::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal128(
                *precision,
                *scale,
                Decimal128Builder::new().with_data_type(data_type.clone()),
            ),
            DataType::Decimal256(precision, scale) => Values::Decimal256(
                *precision,
                *scale,
                Decimal256Builder::new().with_data_type(data_type.clone()),
            ),
            DataType::Struct(fields) => Values::Struct(StructColumn::new(fields, &path)?),
            DataType::List(field) => Values::List(ListColumn::new(field, &path)?),
            other => return Err(format!("`{path}` cannot be had as {other} from json")),
        };
        Ok(Column {
            path,
            data_type,
            values,
        })
    }

    /// Reads the value that comes next as the column's value number `at`. A second value for the
    /// same place (a repeated key) is skipped.
    pub(super) fn read<'de, D: Deserializer<'de>>(
        &mut self,
        at: usize,
        next: D,
        misfit: &mut Misfit,
    ) -> Result<(), D::Error> {
        if self.len() > at {
            return IgnoredAny::deserialize(next).map(|_| ());
        }
        match &self.values {
            Values::Json(_) | Values::Decimal128(..) | Values::Decimal256(..) => {
                let value = LazyValue::deserialize(next)?;
                self.add_raw(value.as_raw_str(), misfit);
                Ok(())
            }
            _ => next.deserialize_any(Fill {
                column: self,
                misfit,
            }),
        }
    }

    /// Makes it `len` long with nulls, unless it is already.
    pub(super) fn fill(&mut self, len: usize) {
        if self.len() < len {
            self.add_null();
        }
    }

    pub(super) fn len(&self) -> usize {
        match &self.values {
            Values::Boolean(values) => values.len(),
            Values::Whole(values) | Values::Timestamp(_, values) => values.len(),
            Values::Float32(values) => values.len(),
            Values::Float64(values) => values.len(),
            Values::Utf8(values) | Values::Json(values) => values.len(),
            Values::Binary(values) => values.len(),
            Values::Date32(values) => values.len(),
            Values::Decimal128(_, _, values) => values.len(),
            Values::Decimal256(_, _, values) => values.len(),
            Values::Struct(values) => values.len(),
            Values::List(values) => values.len(),
        }
    }

    fn add_null(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.append_null(),
            Values::Whole(values) | Values::Timestamp(_, values) => values.add_null(),
            Values::Float32(values) => values.append_null(),
            Values::Float64(values) => values.append_null(),
            Values::Utf8(values) | Values::Json(values) => values.append_null(),
            Values::Binary(values) => values.append_null(),
            Values::Date32(values) => values.append_null(),
            Values::Decimal128(_, _, values) => values.append_null(),
            Values::Decimal256(_, _, values) => values.append_null(),
            Values::Struct(values) => values.close(false),
            Values::List(values) => values.close(false),
        }
    }

    /// Adds null and remembers why. What the record has instead of a value is a phrase such as `a
    /// text`.
    fn add_misfit(&mut self, instead: fmt::Arguments<'_>, misfit: &mut Misfit) {
        if misfit.0.is_none() {
            misfit.0 = Some(format!(
                "`{}` is {instead}, but {} is wanted",
                self.path,
                type_name(&self.data_type)
            ));
        }
        self.add_null();
    }

    fn add_bool(&mut self, value: bool, misfit: &mut Misfit) {
        match &mut self.values {
            Values::Boolean(values) => values.append_value(value),
            _ => self.add_misfit(format_args!("a boolean"), misfit),
        }
    }

    fn add_number(&mut self, number: Number, misfit: &mut Misfit) {
        let fits = match &mut self.values {
            Values::Whole(values) | Values::Timestamp(_, values) => {
                number.whole().is_some_and(|whole| values.add(whole))
            }
            Values::Float32(values) => {
                let value = number.float() as f32;
                if value.is_finite() {
                    values.append_value(value);
                }
                value.is_finite()
            }
            Values::Float64(values) => {
                values.append_value(number.float());
                true
            }
            _ => return self.add_misfit(format_args!("a number"), misfit),
        };
        if !fits {
            self.add_misfit(format_args!("{number}"), misfit);
        }
    }

    fn add_text(&mut self, text: &str, misfit: &mut Misfit) {
        let fits = match &mut self.values {
            Values::Utf8(values) => {
                values.append_value(text);
                return;
            }
            Values::Binary(values) => STANDARD
                .decode(text)
                .ok()
                .map(|bytes| values.append_value(bytes)),
            Values::Timestamp(unit, values) => timestamp(text, *unit)
                .filter(|at| values.add((*at).into()))
                .map(|_| ()),
            Values::Date32(values) => Date32Type::parse(text).map(|days| values.append_value(days)),
            _ => return self.add_misfit(format_args!("a text"), misfit),
        };
        if fits.is_none() {
            self.add_misfit(format_args!("the text {:?}", shortened(text)), misfit);
        }
    }

    /// Adds a value of which the raw text is looked at.
    fn add_raw(&mut self, raw: &str, misfit: &mut Misfit) {
        if raw == "null" {
            return self.add_null();
        }
        let number = raw.trim_matches('"');
        let fits = match &mut self.values {
            Values::Json(values) => {
                values.append_value(raw);
                return;
            }
            Values::Decimal128(precision, scale, values) => {
                let value = decimal::unscaled(number, *precision, *scale)
                    .and_then(|digits| digits.parse().ok());
                value.map(|value| values.append_value(value))
            }
            Values::Decimal256(precision, scale, values) => {
                let value = decimal::unscaled(number, *precision, *scale)
                    .and_then(|digits| i256::from_string(&digits));
                value.map(|value| values.append_value(value))
            }
            _ => None,
        };
        if fits.is_none() {
            self.add_misfit(format_args!("{}", shortened(raw)), misfit);
        }
    }

    /// Gives what was read, and starts anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Boolean(values) => Arc::new(values.finish()),
            Values::Whole(values) | Values::Timestamp(_, values) => values.finish(),
            Values::Float32(values) => Arc::new(values.finish()),
            Values::Float64(values) => Arc::new(values.finish()),
            Values::Utf8(values) | Values::Json(values) => {
                // The next batch will need about as much.
                let (len, bytes) = (values.len(), values.values_slice().len());
                Arc::new(
                    std::mem::replace(values, StringBuilder::with_capacity(len, bytes)).finish(),
                )
            }
            Values::Binary(values) => Arc::new(values.finish()),
            Values::Date32(values) => Arc::new(values.finish()),
            Values::Decimal128(_, _, values) => Arc::new(values.finish()),
            Values::Decimal256(_, _, values) => Arc::new(values.finish()),
            Values::Struct(values) => values.finish(),
            Values::List(values) => values.finish(),
        }
    }
}

/// Puts a value into a column: always exactly one, null if it does not fit.
struct Fill<'a> {
    column: &'a mut Column,
    misfit: &'a mut Misfit,
}

impl<'de> Visitor<'de> for Fill<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a json value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.column.add_null();
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.column.add_bool(value, self.misfit);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.column.add_number(Number::Signed(value), self.misfit);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.column.add_number(Number::Unsigned(value), self.misfit);
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.column.add_number(Number::Float(value), self.misfit);
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.column.add_text(text, self.misfit);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Values::Struct(values) = &mut self.column.values {
            let read = values.read(map, self.misfit);
            values.close(true);
            return read;
        }
        self.column
            .add_misfit(format_args!("an object"), self.misfit);
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if let Values::List(values) = &mut self.column.values {
            let read = values.read(list, self.misfit);
            values.close(true);
            return read;
        }
        self.column.add_misfit(format_args!("a list"), self.misfit);
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// A number as the parser gives it; what fits no 64-bit integer is a float.
#[derive(Clone, Copy)]
enum Number {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
}

/// Up to here every whole number is a float.
const WHOLE_FLOATS: f64 = 9_007_199_254_740_992.0;

impl Number {
    fn float(self) -> f64 {
        match self {
            Number::Signed(value) => value as f64,
            Number::Unsigned(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    /// The number if it is a whole one; `1.0` and `1e3` are.
    fn whole(self) -> Option<i128> {
        match self {
            Number::Signed(value) => Some(value.into()),
            Number::Unsigned(value) => Some(value.into()),
            Number::Float(value) => {
                (value.fract() == 0.0 && value.abs() <= WHOLE_FLOATS).then_some(value as i128)
            }
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Signed(value) => value.fmt(f),
            Number::Unsigned(value) => value.fmt(f),
            Number::Float(value) => write!(f, "{value:?}"),
        }
    }
}

/// A builder of whole numbers.
trait WholeNumbers: ArrayBuilder {
    /// Adds a number, if it fits.
    fn add(&mut self, number: i128) -> bool;

    fn add_null(&mut self);
}

impl<T: ArrowPrimitiveType> WholeNumbers for PrimitiveBuilder<T>
where
    T::Native: TryFrom<i128>,
{
    fn add(&mut self, number: i128) -> bool {
        T::Native::try_from(number)
            .map(|number| self.append_value(number))
            .is_ok()
    }

    fn add_null(&mut self) {
        self.append_null();
    }
}

fn whole<T: ArrowPrimitiveType>(data_type: &DataType) -> Box<dyn WholeNumbers>
where
    T::Native: TryFrom<i128>,
{
    Box::new(PrimitiveBuilder::<T>::new().with_data_type(data_type.clone()))
}

/// A type as reasons name it.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Binary => "base64 text".to_owned(),
        other => values::type_name(other),
    }
}
