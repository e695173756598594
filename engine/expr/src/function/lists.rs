//! Functions of lists: of typed ones, and of values without a known type, which may be lists of JSON.
//!
//! Both are computed of the JSON text of the list, so that they compare elements in the same way:
//! numbers as numbers, with all of their digits, and strings without their quotes and escapes.

mod arguments;
mod elements;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, Int64Builder, StringBuilder};
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

pub(super) use self::arguments::{item_type, of_list};
use self::elements::{elements, is_equal};
use crate::growth;
use crate::json::text_of;

/// What is computed of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ListFunction {
    /// The number of its elements.
    Length,
    /// Whether an element equals a value.
    Contains,
    /// The position of the first such element, from 1.
    Position,
    /// Its elements, joined to a string.
    Join,
}

impl ListFunction {
    fn result(self) -> DataType {
        match self {
            ListFunction::Length | ListFunction::Position => DataType::Int64,
            ListFunction::Contains => DataType::Boolean,
            ListFunction::Join => DataType::Utf8,
        }
    }
}

/// A function of the JSON text of a list. NULL if an argument is NULL.
///
/// # Errors
/// A value is not a list.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfList {
    function: ListFunction,
    signature: Signature,
}

impl OfList {
    fn new(function: ListFunction) -> OfList {
        OfList {
            function,
            signature: Signature::variadic_any(Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for OfList {
    fn name(&self) -> &str {
        "of_list"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.function.result())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.iter().map(|arg| arg.to_array(args.number_rows));
        let arrays: Vec<ArrayRef> = arrays.collect::<Result<_>>()?;
        let texts: Vec<_> = arrays
            .iter()
            .map(|array| array.as_string::<i32>())
            .collect();
        let rows = (0..args.number_rows).map(|row| {
            let values = texts.iter();
            let values = values.map(|values| values.is_valid(row).then(|| values.value(row)));
            values.collect::<Option<Vec<&str>>>()
        });
        let found = match self.function {
            ListFunction::Contains => contained(rows)?,
            ListFunction::Length | ListFunction::Position => numbered(rows)?,
            ListFunction::Join => joined(rows)?,
        };
        Ok(ColumnarValue::Array(found))
    }
}

/// For each row a list and the other arguments. `None` if one of them is NULL.
trait Rows<'a>: Iterator<Item = Option<Vec<&'a str>>> {}

impl<'a, I: Iterator<Item = Option<Vec<&'a str>>>> Rows<'a> for I {}

fn contained<'a>(rows: impl Rows<'a>) -> Result<ArrayRef> {
    let mut found = BooleanBuilder::new();
    for row in rows {
        let is_contained = match row.as_deref() {
            Some([list, value, ..]) => position(list, value)?.map(|position| position > 0),
            _ => None,
        };
        found.append_option(is_contained);
    }
    Ok(Arc::new(found.finish()))
}

/// The lengths of lists without another argument, or else the positions of it.
fn numbered<'a>(rows: impl Rows<'a>) -> Result<ArrayRef> {
    let mut found = Int64Builder::new();
    for row in rows {
        let number = match row.as_deref() {
            Some([list]) => elements(list)?.map(|elements| elements.len() as i64),
            Some([list, value, ..]) => position(list, value)?.filter(|position| *position > 0),
            _ => None,
        };
        found.append_option(number);
    }
    Ok(Arc::new(found.finish()))
}

/// The position of a value in a list from 1, or 0. `None` if one of them is `null`.
fn position(list: &str, value: &str) -> Result<Option<i64>> {
    if value.trim_ascii() == "null" {
        return Ok(None);
    }
    let Some(elements) = elements(list)? else {
        return Ok(None);
    };
    let found = elements.iter().position(|element| is_equal(element, value));
    Ok(Some(found.map_or(0, |at| at as i64 + 1)))
}

/// Lists whose elements are joined with a separator. Elements that are NULL are left out, or the
/// third argument.
fn joined<'a>(rows: impl Rows<'a>) -> Result<ArrayRef> {
    let mut out = StringBuilder::new();
    let (mut bytes, mut count) = (0, 0);
    for row in rows {
        let Some([list, by, for_null @ ..]) = row.as_deref() else {
            out.append_null();
            continue;
        };
        let Some(elements) = elements(list)? else {
            out.append_null();
            continue;
        };
        let mut texts = Vec::with_capacity(elements.len());
        for element in elements {
            match text_of(&element)? {
                Some(text) => texts.push(text.into_owned()),
                None => texts.extend(for_null.first().map(|text| (*text).to_owned())),
            }
        }
        count += 1;
        bytes += texts
            .iter()
            .map(|text| text.len() + by.len())
            .sum::<usize>();
        growth::check("array_to_string", bytes, count)?;
        out.append_value(texts.join(*by));
    }
    Ok(Arc::new(out.finish()))
}
