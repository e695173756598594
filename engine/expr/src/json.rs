//! Functions over values without a known type: JSON source text, as found by the decoder.
//!
//! In an operator or a function, such a value is converted to a string: a JSON string without its
//! quotes and escapes; a number, an object or an array as written; and NULL for `null`.

mod arithmetic;
mod parse;
mod rounding;
mod write;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringBuilder};
use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_datafusion_err};
use pseidon_dsl::expr::{Path, PathStep};
use sonic_rs::{JsonValueTrait, PointerNode};

use crate::scalar::ColumnFunction;

pub(crate) use self::arithmetic::{JsonArithmetic, Number};
pub(crate) use self::parse::JsonParse;
pub(crate) use self::rounding::{FloatToJson, JsonIntegerRounding, Rounding};
pub(crate) use self::write::JsonOf;

/// A function that converts a JSON value to a string.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct JsonText;

impl ColumnFunction for JsonText {
    const NAME: &'static str = "json_text";

    fn result(&self) -> DataType {
        DataType::Utf8
    }

    fn call(&self, values: &ArrayRef) -> Result<ArrayRef> {
        map_texts(values, |json, out| {
            match text_of(json)? {
                Some(text) => out.append_value(text),
                None => out.append_null(),
            }
            Ok(())
        })
    }
}

/// What a string that contains a number is for [`JsonNumber`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StringsAs {
    /// The number: `"12"` is 12.
    Numbers,
    /// Not a number.
    Strings,
}

/// A function that converts a JSON value to a number, or to NULL if it is not one.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct JsonNumber(pub(crate) StringsAs);

impl JsonNumber {
    fn number(&self, json: &str) -> Option<f64> {
        let json = json.trim_matches([' ', '\t', '\r', '\n']);
        let text = match json.strip_prefix('"') {
            Some(_) if self.0 == StringsAs::Strings => return None,
            Some(rest) => rest.strip_suffix('"')?,
            None => json,
        };
        // Rust also parses `inf`, `nan` and `+1`.
        if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return None;
        }
        text.parse().ok().filter(|number: &f64| !number.is_nan())
    }
}

impl ColumnFunction for JsonNumber {
    const NAME: &'static str = "json_number";

    fn result(&self) -> DataType {
        DataType::Float64
    }

    fn call(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let numbers = values.as_string::<i32>().iter();
        let numbers: Float64Array = numbers.map(|json| self.number(json?)).collect();
        Ok(Arc::new(numbers))
    }
}

/// A function that returns the JSON value at a path inside a JSON value, or NULL if there is none.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct JsonGet(pub(crate) Vec<PathStep>);

impl ColumnFunction for JsonGet {
    const NAME: &'static str = "json_get";

    fn result(&self) -> DataType {
        DataType::Utf8
    }

    fn call(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let pointer: Vec<PointerNode> = self
            .0
            .iter()
            .map(|step| match step {
                PathStep::Field(name) => PointerNode::Key(name.clone().into()),
                PathStep::Index(index) => PointerNode::Index(*index as usize),
            })
            .collect();
        map_texts(values, |json, out| {
            match sonic_rs::get(json, &pointer) {
                Ok(value) if value.is_null() => out.append_null(),
                Ok(value) => out.append_value(value.as_raw_str()),
                Err(error) if error.is_not_found() || error.is_unmatched_type() => {
                    out.append_null()
                }
                Err(_) => {
                    return Err(exec_datafusion_err!(
                        "invalid JSON on the path to {}",
                        Path(self.0.clone())
                    ));
                }
            }
            Ok(())
        })
    }
}

/// Maps each string of a column. NULL stays NULL.
fn map_texts(
    texts: &ArrayRef,
    mut map: impl FnMut(&str, &mut StringBuilder) -> Result<()>,
) -> Result<ArrayRef> {
    let texts = texts.as_string::<i32>();
    let mut out = StringBuilder::with_capacity(texts.len(), texts.values().len());
    for text in texts {
        match text {
            Some(text) => map(text, &mut out)?,
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// The string for a JSON value, as in an expression. `None` for `null`.
///
/// # Errors
/// It is a JSON string that is malformed.
pub fn text_of(json: &str) -> Result<Option<Cow<'_, str>>> {
    let json = json.trim_matches([' ', '\t', '\r', '\n']);
    if json == "null" {
        return Ok(None);
    }
    let Some(rest) = json.strip_prefix('"') else {
        return Ok(Some(json.into()));
    };
    match rest.strip_suffix('"') {
        Some(content) if !content.contains(['\\', '"']) => Ok(Some(content.into())),
        _ => match sonic_rs::from_str::<String>(json) {
            Ok(text) => Ok(Some(text.into())),
            Err(_) => Err(exec_datafusion_err!("invalid JSON string")),
        },
    }
}

/// How many characters of a value are in a message.
const MAX_SHOWN: usize = 40;
