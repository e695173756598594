//! Values of any type as JSON text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion_common::Result;

use crate::scalar::ColumnFunction;
use crate::types::{canonical, is_json, is_text};

/// A function that writes its argument as JSON, with the same rules as the codec `json`. NULL stays
/// NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct JsonOf {
    /// The type of the argument.
    pub(crate) field: FieldRef,
}

impl ColumnFunction for JsonOf {
    const NAME: &'static str = "json_of";

    fn result(&self) -> DataType {
        DataType::Utf8
    }

    fn call(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let write = writer(values, &self.field)?;
        let nulls = values.logical_nulls();
        let (mut out, mut text) = (StringBuilder::new(), String::new());
        for row in 0..values.len() {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                out.append_null();
                continue;
            }
            text.clear();
            write(row, &mut text);
            out.append_value(&text);
        }
        Ok(Arc::new(out.finish()))
    }
}

/// Appends the value of a row as JSON.
type Write = Box<dyn Fn(usize, &mut String)>;

fn writer(values: &ArrayRef, field: &Field) -> Result<Write> {
    let write: Write = match values.data_type() {
        DataType::Dictionary(..) => {
            let plain = cast(values, &canonical(values.data_type()))?;
            return writer(&plain, field);
        }
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let lists = cast(values, &DataType::List(item.clone()))?;
            return writer(&lists, field);
        }
        DataType::List(item) => list_writer(values, item)?,
        DataType::Struct(_) => struct_writer(values)?,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let values = cast(values, &DataType::Binary)?;
            let bytes = values.as_binary::<i32>().clone();
            Box::new(move |row, out| {
                out.push('"');
                STANDARD.encode_string(bytes.value(row), out);
                out.push('"');
            })
        }
        data_type => {
            let is_raw = is_json(field) || *data_type == DataType::Boolean;
            let is_number = data_type.is_numeric();
            let is_string = is_text(data_type);
            let texts = cast(values, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>().clone();
            Box::new(move |row, out| match texts.value(row) {
                // NaN and infinity.
                number if is_number && number.ends_with(['N', 'f']) => out.push_str("null"),
                plain if is_raw || is_number => out.push_str(plain),
                text if is_string => push_quoted(text, out),
                time => {
                    out.push('"');
                    out.push_str(time);
                    out.push('"');
                }
            })
        }
    };
    let nulls = values.logical_nulls();
    Ok(Box::new(move |row, out| match &nulls {
        Some(nulls) if nulls.is_null(row) => out.push_str("null"),
        _ => write(row, out),
    }))
}

fn list_writer(lists: &ArrayRef, item: &Field) -> Result<Write> {
    let lists = lists.as_list::<i32>().clone();
    let write = writer(lists.values(), item)?;
    Ok(Box::new(move |row, out| {
        out.push('[');
        let offsets = lists.value_offsets();
        for (at, place) in (offsets[row]..offsets[row + 1]).enumerate() {
            if at > 0 {
                out.push(',');
            }
            write(place as usize, out);
        }
        out.push(']');
    }))
}

fn struct_writer(structs: &ArrayRef) -> Result<Write> {
    let structs = structs.as_struct();
    let fields = structs.fields().iter().zip(structs.columns());
    let named = |(field, values): (&FieldRef, &ArrayRef)| {
        let mut name = String::new();
        push_quoted(field.name(), &mut name);
        name.push(':');
        Ok((name, writer(values, field)?))
    };
    let fields: Vec<(String, Write)> = fields.map(named).collect::<Result<_>>()?;
    Ok(Box::new(move |row, out| {
        out.push('{');
        for (at, (name, write)) in fields.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            out.push_str(name);
            write(row, out);
        }
        out.push('}');
    }))
}

/// Appends a string as JSON.
pub(super) fn push_quoted(text: &str, out: &mut String) {
    // Strings can always be written.
    if let Ok(quoted) = sonic_rs::to_string(text) {
        out.push_str(&quoted);
    }
}
