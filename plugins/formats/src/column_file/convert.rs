//! Converts the values of a file to the types that are wanted.
//!
//! A value that the wanted type cannot represent exactly does not fit, at any depth: a fraction as
//! an integer, a time of nanoseconds as one of microseconds, a text that is not JSON as `json`.
//! Arrow's casts round such values. Only floats are the nearest ones, as those of JSON are.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, ListArray, StringArray, StringBuilder,
    StructArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::writer::make_encoder;
use arrow::util::display::FormatOptions;
use pseidon_plugin::format::is_json;
use serde::de::IgnoredAny;

use super::types::{field_of, is_uuid, type_of};
use crate::encode::json_options;
use crate::parts::has_json;
use crate::values::TextColumn;

/// Values in the wanted type.
pub(super) struct Conversion {
    pub(super) values: ArrayRef,
    /// Whether the value of each row does not fit.
    pub(super) misfits: Vec<bool>,
}

/// Casts in which a value that does not fit becomes null.
const SAFE: CastOptions<'static> = CastOptions {
    safe: true,
    format_options: FormatOptions::new(),
};

/// Converts the values of the column `from` to the type of the column `to`.
///
/// # Errors
/// No value of the one type is one of the other, or the values together are too many for it.
pub(super) fn convert(
    stored: &ArrayRef,
    from: &Field,
    to: &Field,
) -> Result<Conversion, ArrowError> {
    if let DataType::Dictionary(_, values) = from.data_type() {
        return convert(&cast(stored, values)?, &of_type(from, values), to);
    }
    if let DataType::RunEndEncoded(_, values) = from.data_type() {
        let values = values.data_type();
        return convert(&cast(stored, values)?, &of_type(from, values), to);
    }
    if is_uuid(from) && *to.data_type() == DataType::Utf8 && !is_json(to) {
        let texts = uuids(stored.as_fixed_size_binary());
        return convert(&texts, &of_type(from, &DataType::Utf8), to);
    }
    if is_json(to) {
        return match type_of(from.data_type()) {
            DataType::Utf8 => json_of_texts(&cast(stored, &DataType::Utf8)?),
            _ => json_of_values(stored, from),
        };
    }
    match (element(from.data_type()), to.data_type()) {
        (Some(element), DataType::List(to)) => convert_lists(stored, element, to),
        _ if from.data_type() == to.data_type() && !has_json(to) => Ok(fitting(stored.clone())),
        _ => match (from.data_type(), to.data_type()) {
            (DataType::Struct(from), DataType::Struct(to)) => convert_structs(stored, from, to),
            (from, to) => convert_single(stored, from, to),
        },
    }
}

/// The lists of a column of any type of lists, with 32-bit offsets. Their elements stay as they are.
pub(super) fn lists_of(stored: &ArrayRef) -> Result<Option<ListArray>, ArrowError> {
    let Some(element) = element(stored.data_type()) else {
        return Ok(None);
    };
    let lists = cast(stored, &DataType::List(element.clone()))?;
    Ok(lists.as_list_opt().cloned())
}

/// The elements of a type of lists.
pub(super) fn element(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::FixedSizeList(element, _)
        | DataType::ListView(element)
        | DataType::LargeListView(element) => Some(element),
        _ => None,
    }
}

fn of_type(field: &Field, data_type: &DataType) -> Field {
    field.clone().with_data_type(data_type.clone())
}

fn fitting(values: ArrayRef) -> Conversion {
    Conversion {
        misfits: vec![false; values.len()],
        values,
    }
}

fn cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(values, to, &SAFE)
}

/// Converts structs field by field. A field that the file does not have is null.
fn convert_structs(
    stored: &ArrayRef,
    from: &[FieldRef],
    to: &arrow::datatypes::Fields,
) -> Result<Conversion, ArrowError> {
    let structs = stored.as_struct();
    let mut misfits = vec![false; structs.len()];
    let mut columns = Vec::with_capacity(to.len());
    for to in to {
        let number = from.iter().position(|from| from.name() == to.name());
        let Some(number) = number else {
            columns.push(new_null_array(to.data_type(), structs.len()));
            continue;
        };
        let converted = convert(structs.column(number), &from[number], to)?;
        for (row, misfit) in converted.misfits.iter().enumerate() {
            misfits[row] |= *misfit && structs.is_valid(row);
        }
        columns.push(converted.values);
    }
    let nulls = structs.nulls().cloned();
    let values = StructArray::try_new_with_length(to.clone(), columns, nulls, structs.len())?;
    Ok(Conversion {
        values: Arc::new(values),
        misfits,
    })
}

/// Converts the elements of lists.
fn convert_lists(
    stored: &ArrayRef,
    from: &FieldRef,
    to: &FieldRef,
) -> Result<Conversion, ArrowError> {
    let lists = cast(stored, &DataType::List(from.clone()))?;
    let lists = lists.as_list::<i32>();
    let offsets = lists.value_offsets();
    let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
    let elements = convert(&lists.values().slice(first, last - first), from, to)?;
    let misfits = (0..lists.len()).map(|row| {
        let elements_of = offsets[row] as usize - first..offsets[row + 1] as usize - first;
        lists.is_valid(row) && elements.misfits[elements_of].contains(&true)
    });
    let offsets = OffsetBuffer::from_lengths(lists.offsets().lengths());
    let misfits = misfits.collect();
    let nulls = lists.nulls().cloned();
    let values = ListArray::try_new(to.clone(), offsets, elements.values, nulls)?;
    Ok(Conversion {
        values: Arc::new(values),
        misfits,
    })
}

/// Converts values that have no parts.
fn convert_single(
    stored: &ArrayRef,
    from: &DataType,
    to: &DataType,
) -> Result<Conversion, ArrowError> {
    let is_decimal = matches!(to, DataType::Decimal128(..) | DataType::Decimal256(..));
    if is_decimal && (from.is_floating() || from.is_string()) {
        return decimals_of_texts(&cast(stored, &DataType::Utf8)?, to);
    }
    let values = cast(stored, to)?;
    let misfits = match exactness(from, to) {
        Exactness::Cast => (0..stored.len())
            .map(|row| values.is_null(row) && stored.is_valid(row))
            .collect(),
        Exactness::Whole => {
            let floats = cast(stored, &DataType::Float64)?;
            let floats = floats.as_primitive::<Float64Type>();
            (0..stored.len())
                .map(|row| floats.is_valid(row) && !is_whole(&values, row, floats.value(row)))
                .collect()
        }
        Exactness::Back if can_cast_types(to, from) => {
            let same = not_distinct(stored, &cast(&values, from)?)?;
            same.values().iter().map(|same| !same).collect()
        }
        Exactness::Back => {
            let what = format!("a value of the type {from} does not fit {to}");
            return Err(ArrowError::CastError(what));
        }
    };
    Ok(Conversion { values, misfits })
}

fn is_whole(integers: &ArrayRef, row: usize, float: f64) -> bool {
    integers.is_valid(row) && float.fract() == 0.0
}

/// What finds the values that a cast changes.
enum Exactness {
    /// The cast, which returns no value for them.
    Cast,
    /// Their fraction.
    Whole,
    /// The cast back to the type that they had.
    Back,
}

fn exactness(from: &DataType, to: &DataType) -> Exactness {
    let is_nanoseconds = matches!(from, DataType::Time64(TimeUnit::Nanosecond));
    let is_other_storage = type_of(from) == *to && !is_nanoseconds && *from != DataType::Date64;
    let is_text = |at: &DataType| at.is_string() || at.is_binary();
    match to {
        _ if is_other_storage || is_text(from) || is_text(to) => Exactness::Cast,
        _ if to.is_floating() || from.is_null() => Exactness::Cast,
        _ if from.is_floating() && to.is_integer() => Exactness::Whole,
        _ => Exactness::Back,
    }
}

/// The text of UUIDs, such as `f81d4fae-7dec-11d0-a765-00a0c91e6bf6`.
fn uuids(stored: &FixedSizeBinaryArray) -> ArrayRef {
    let text = |uuid: &[u8]| {
        let mut text = String::with_capacity(36);
        for (at, byte) in uuid.iter().enumerate() {
            let hyphen = if [4, 6, 8, 10].contains(&at) { "-" } else { "" };
            let _ = write!(text, "{hyphen}{byte:02x}");
        }
        text
    };
    let texts: StringArray = stored.iter().map(|uuid| uuid.map(text)).collect();
    Arc::new(texts)
}

/// Decimals of the digits of numbers: Arrow's cast rounds them.
fn decimals_of_texts(texts: &ArrayRef, to: &DataType) -> Result<Conversion, ArrowError> {
    let mut decimals =
        TextColumn::new(&Field::new("", to.clone(), true)).map_err(ArrowError::CastError)?;
    let mut add = |text: Option<&str>| match text {
        // An empty string is not a number, but [`TextColumn`] reads it as NULL.
        Some("") | None => {
            decimals.add_null();
            text.is_some()
        }
        Some(text) => !decimals.add(text.as_bytes()),
    };
    let misfits = texts.as_string::<i32>().iter().map(&mut add).collect();
    Ok(Conversion {
        values: decimals.finish(),
        misfits,
    })
}

/// Texts as `json`: each must be one JSON value.
fn json_of_texts(texts: &ArrayRef) -> Result<Conversion, ArrowError> {
    let mut misfits = Vec::with_capacity(texts.len());
    let mut value = |text: Option<&'_ str>| {
        let value = text.and_then(json_value);
        misfits.push(text.is_some() && value.is_none());
        value.filter(|value| *value != "null").map(str::to_owned)
    };
    let texts = texts.as_string::<i32>().iter();
    let values: StringArray = texts.map(&mut value).collect();
    Ok(Conversion {
        values: Arc::new(values),
        misfits,
    })
}

/// The JSON value that is all of a text.
fn json_value(text: &str) -> Option<&str> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    Some(text.trim_matches([' ', '\t', '\r', '\n']))
}

/// Values as `json`, in the text in which they are written as JSON.
fn json_of_values(stored: &ArrayRef, from: &Field) -> Result<Conversion, ArrowError> {
    let field = field_of(from);
    let converted = convert(stored, from, &field)?;
    let options = json_options();
    let mut encoder = make_encoder(&field, &converted.values, &options)?;
    let (mut texts, mut text) = (StringBuilder::new(), Vec::new());
    for row in 0..converted.values.len() {
        text.clear();
        if !encoder.is_null(row) && !converted.misfits[row] {
            encoder.encode(row, &mut text);
        }
        match std::str::from_utf8(&text) {
            // NaN is written as NULL.
            Ok("" | "null") => texts.append_null(),
            Ok(text) => texts.append_value(text),
            Err(error) => return Err(ArrowError::CastError(error.to_string())),
        }
    }
    Ok(Conversion {
        values: Arc::new(texts.finish()),
        misfits: converted.misfits,
    })
}

#[cfg(test)]
mod tests;
