//! Values from texts, for formats whose fields are texts.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Decimal256Builder,
    PrimitiveBuilder, StringBuilder,
};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    i256,
};
use chrono::Utc;
use pseidon_plugin::format::is_json;

use crate::decimal;

/// A column that is filled from texts.
pub(crate) struct TextColumn {
    data_type: DataType,
    values: Values,
}

enum Values {
    Utf8(StringBuilder),
    Binary(BinaryBuilder),
    Boolean(BooleanBuilder),
    Number(Box<dyn Numbers>),
    Decimal128(u8, i8, Decimal128Builder),
    Decimal256(u8, i8, Decimal256Builder),
}

impl TextColumn {
    /// A column of the field's type. An error says that such values cannot be had from texts.
    pub(crate) fn new(field: &Field) -> Result<TextColumn, String> {
        let data_type = field.data_type().clone();
        let values = match &data_type {
            DataType::Utf8 if !is_json(field) => Values::Utf8(StringBuilder::new()),
            DataType::Binary => Values::Binary(BinaryBuilder::new()),
            DataType::Boolean => Values::Boolean(BooleanBuilder::new()),
            DataType::Int8 => parsed::<Int8Type>(&data_type),
            DataType::Int16 => parsed::<Int16Type>(&data_type),
            DataType::Int32 => parsed::<Int32Type>(&data_type),
            DataType::Int64 => parsed::<Int64Type>(&data_type),
            DataType::UInt8 => parsed::<UInt8Type>(&data_type),
            DataType::UInt16 => parsed::<UInt16Type>(&data_type),
            DataType::UInt32 => parsed::<UInt32Type>(&data_type),
            DataType::UInt64 => parsed::<UInt64Type>(&data_type),
            DataType::Float32 => parsed::<Float32Type>(&data_type),
            DataType::Float64 => parsed::<Float64Type>(&data_type),
            DataType::Date32 => parsed::<Date32Type>(&data_type),
            DataType::Timestamp(TimeUnit::Second, _) => at::<TimestampSecondType>(&data_type),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                at::<TimestampMillisecondType>(&data_type)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                at::<TimestampMicrosecondType>(&data_type)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                at::<TimestampNanosecondType>(&data_type)
            }
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
            _ if is_json(field) => {
                return Err(format!(
                    "`{}` is a text; give it a type in :schema, or cast it",
                    field.name()
                ));
            }
            other => {
                return Err(format!(
                    "`{}` cannot be had as {other} from a text",
                    field.name()
                ));
            }
        };
        Ok(TextColumn { data_type, values })
    }

    /// Adds what the text stands for: null for an empty one. Gives `false`, and adds null, if it
    /// stands for no value of this type.
    pub(crate) fn add(&mut self, text: &[u8]) -> bool {
        if text.is_empty() {
            self.add_null();
            return true;
        }
        let added = match (&mut self.values, std::str::from_utf8(text)) {
            (Values::Binary(values), _) => {
                values.append_value(text);
                true
            }
            (_, Err(_)) => false,
            (Values::Utf8(values), Ok(text)) => {
                values.append_value(text);
                true
            }
            (Values::Boolean(values), Ok(text)) => boolean(text.trim_ascii())
                .map(|value| values.append_value(value))
                .is_some(),
            (Values::Number(values), Ok(text)) => values.add(text.trim_ascii()),
            (Values::Decimal128(precision, scale, values), Ok(text)) => {
                let value = decimal::unscaled(text.trim_ascii(), *precision, *scale)
                    .and_then(|digits| digits.parse().ok());
                value.map(|value| values.append_value(value)).is_some()
            }
            (Values::Decimal256(precision, scale, values), Ok(text)) => {
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

    /// Adds null.
    pub(crate) fn add_null(&mut self) {
        match &mut self.values {
            Values::Utf8(values) => values.append_null(),
            Values::Binary(values) => values.append_null(),
            Values::Boolean(values) => values.append_null(),
            Values::Number(values) => values.add_null(),
            Values::Decimal128(_, _, values) => values.append_null(),
            Values::Decimal256(_, _, values) => values.append_null(),
        }
    }

    /// How many values and nulls were added.
    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::Utf8(values) => values.len(),
            Values::Binary(values) => values.len(),
            Values::Boolean(values) => values.len(),
            Values::Number(values) => values.len(),
            Values::Decimal128(_, _, values) => values.len(),
            Values::Decimal256(_, _, values) => values.len(),
        }
    }

    /// The column's type, as reasons name it.
    pub(crate) fn type_name(&self) -> String {
        type_name(&self.data_type)
    }

    /// Gives what was added, and starts anew.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Utf8(values) => Arc::new(values.finish()),
            Values::Binary(values) => Arc::new(values.finish()),
            Values::Boolean(values) => Arc::new(values.finish()),
            Values::Number(values) => values.finish(),
            Values::Decimal128(_, _, values) => Arc::new(values.finish()),
            Values::Decimal256(_, _, values) => Arc::new(values.finish()),
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

/// Builders of values that are numbers inside.
trait Numbers: Send {
    /// Adds the number, if the text is one.
    fn add(&mut self, text: &str) -> bool;

    fn add_null(&mut self);

    fn len(&self) -> usize;

    fn finish(&mut self) -> ArrayRef;
}

/// Numbers as Arrow's own parser reads them, or timestamps.
struct Builder<T: ArrowPrimitiveType> {
    values: PrimitiveBuilder<T>,
    parse: fn(&str) -> Option<T::Native>,
}

impl<T: ArrowPrimitiveType> Numbers for Builder<T> {
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

fn parsed<T: ArrowPrimitiveType + Parser>(data_type: &DataType) -> Values {
    Values::Number(Box::new(Builder::<T> {
        values: PrimitiveBuilder::new().with_data_type(data_type.clone()),
        parse: T::parse,
    }))
}

/// Timestamps: whole numbers in the unit, or ISO-8601 texts.
fn at<T: ArrowPrimitiveType<Native = i64>>(data_type: &DataType) -> Values {
    let parse: fn(&str) -> Option<i64> = match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => |text| {
            text.parse()
                .ok()
                .or_else(|| timestamp(text, TimeUnit::Second))
        },
        DataType::Timestamp(TimeUnit::Millisecond, _) => |text| {
            text.parse()
                .ok()
                .or_else(|| timestamp(text, TimeUnit::Millisecond))
        },
        DataType::Timestamp(TimeUnit::Microsecond, _) => |text| {
            text.parse()
                .ok()
                .or_else(|| timestamp(text, TimeUnit::Microsecond))
        },
        _ => |text| {
            text.parse()
                .ok()
                .or_else(|| timestamp(text, TimeUnit::Nanosecond))
        },
    };
    Values::Number(Box::new(Builder::<T> {
        values: PrimitiveBuilder::new().with_data_type(data_type.clone()),
        parse,
    }))
}

/// An ISO-8601 text as a number in the unit; without a zone it is UTC. What is finer than the unit
/// is cut off.
pub(crate) fn timestamp(text: &str, unit: TimeUnit) -> Option<i64> {
    let at = string_to_datetime(&Utc, text).ok()?;
    match unit {
        TimeUnit::Second => Some(at.timestamp()),
        TimeUnit::Millisecond => Some(at.timestamp_millis()),
        TimeUnit::Microsecond => Some(at.timestamp_micros()),
        TimeUnit::Nanosecond => at.timestamp_nanos_opt(),
    }
}

/// A type as reasons name it.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(_) => "an object".to_owned(),
        DataType::List(_) => "a list".to_owned(),
        DataType::Utf8 => "a text".to_owned(),
        DataType::Binary => "binary".to_owned(),
        DataType::Timestamp(..) => "a timestamp".to_owned(),
        DataType::Date32 => "a date".to_owned(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("decimal({precision}, {scale})")
        }
        other => other.to_string().to_lowercase(),
    }
}
