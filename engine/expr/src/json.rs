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
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use pseidon_dsl::expr::{Path, PathStep};
use sonic_rs::{JsonValueTrait, PointerNode};

pub(crate) use self::arithmetic::{JsonArithmetic, Number};
pub(crate) use self::parse::JsonParse;
pub(crate) use self::rounding::{FloatToJson, JsonIntegerRounding, Rounding};
pub(crate) use self::write::JsonOf;

/// A function that converts a JSON value to a string.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct JsonText {
    signature: Signature,
}

impl JsonText {
    pub(crate) fn new() -> JsonText {
        JsonText {
            signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for JsonText {
    fn name(&self) -> &str {
        "json_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        map_texts(args, |json, out| {
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
pub(crate) struct JsonNumber {
    strings: StringsAs,
    signature: Signature,
}

impl JsonNumber {
    pub(crate) fn new(strings: StringsAs) -> JsonNumber {
        JsonNumber {
            strings,
            signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable),
        }
    }

    fn number(&self, json: &str) -> Option<f64> {
        let json = json.trim_matches([' ', '\t', '\r', '\n']);
        let text = match json.strip_prefix('"') {
            Some(_) if self.strings == StringsAs::Strings => return None,
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

impl ScalarUDFImpl for JsonNumber {
    fn name(&self) -> &str {
        "json_number"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = only_argument(&args)?;
        let numbers = texts.as_string::<i32>().iter();
        let numbers: Float64Array = numbers.map(|json| self.number(json?)).collect();
        let numbers: ArrayRef = Arc::new(numbers);
        Ok(ColumnarValue::Array(numbers))
    }
}

/// A function that returns the JSON value at a path inside a JSON value, or NULL if there is none.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct JsonGet {
    steps: Vec<PathStep>,
    signature: Signature,
}

impl JsonGet {
    pub(crate) fn new(steps: &[PathStep]) -> JsonGet {
        JsonGet {
            steps: steps.to_vec(),
            signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        "json_get"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let pointer: Vec<PointerNode> = self
            .steps
            .iter()
            .map(|step| match step {
                PathStep::Field(name) => PointerNode::Key(name.clone().into()),
                PathStep::Index(index) => PointerNode::Index(*index as usize),
            })
            .collect();
        map_texts(args, |json, out| {
            match sonic_rs::get(json, &pointer) {
                Ok(value) if value.is_null() => out.append_null(),
                Ok(value) => out.append_value(value.as_raw_str()),
                Err(error) if error.is_not_found() || error.is_unmatched_type() => {
                    out.append_null()
                }
                Err(_) => {
                    return Err(exec_datafusion_err!(
                        "invalid JSON on the path to {}",
                        Path(self.steps.clone())
                    ));
                }
            }
            Ok(())
        })
    }
}

/// The column of JSON values that a function is called with.
fn only_argument(args: &ScalarFunctionArgs) -> Result<ArrayRef> {
    match args.args.as_slice() {
        [texts] => texts.to_array(args.number_rows),
        args => Err(exec_datafusion_err!(
            "expected one JSON value, found {} arguments",
            args.len()
        )),
    }
}

/// Maps each string of a column. NULL stays NULL.
fn map_texts(
    args: ScalarFunctionArgs,
    mut map: impl FnMut(&str, &mut StringBuilder) -> Result<()>,
) -> Result<ColumnarValue> {
    let texts = only_argument(&args)?;
    let texts = texts.as_string::<i32>();
    let mut out = StringBuilder::with_capacity(texts.len(), texts.values().len());
    for text in texts {
        match text {
            Some(text) => map(text, &mut out)?,
            None => out.append_null(),
        }
    }
    let out: ArrayRef = Arc::new(out.finish());
    Ok(ColumnarValue::Array(out))
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

/// The beginning of a value, for messages.
fn abbreviated(text: &str) -> String {
    const MAX_CHARS: usize = 40;
    let mut shown: String = text.chars().take(MAX_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
