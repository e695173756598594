//! The elements of lists, one below the other.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder, UInt32Array, UInt32Builder};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use sonic_rs::JsonValueTrait;

use crate::types::{is_json, json_field};

/// The elements of the lists of a column.
pub struct Elements {
    /// For each element the row of its list, ascending.
    pub rows: UInt32Array,
    /// The elements.
    pub values: ArrayRef,
}

/// The type of the elements of a column of lists, or of JSON values; `None` if it is neither.
pub fn element(field: &Field, name: &str) -> Option<FieldRef> {
    match field.data_type() {
        DataType::List(element) => {
            let element = element.as_ref().clone();
            Some(Arc::new(element.with_name(name).with_nullable(true)))
        }
        _ if is_json(field) => Some(Arc::new(json_field(name))),
        _ => None,
    }
}

/// The elements of a column for which [`element`] returns a type. NULL has none.
///
/// # Errors
/// A JSON value is not a list.
pub fn elements(lists: &ArrayRef) -> Result<Elements, ArrowError> {
    if let Some(texts) = lists.as_string_opt::<i32>() {
        return json_elements(texts.iter());
    }
    let lists = lists
        .as_list_opt::<i32>()
        .ok_or_else(|| ArrowError::InvalidArgumentError("expected a column of lists".to_owned()))?;
    let (mut rows, mut places) = (UInt32Builder::new(), UInt32Builder::new());
    let offsets = lists.value_offsets();
    for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
        for place in offsets[row]..offsets[row + 1] {
            rows.append_value(row as u32);
            places.append_value(place as u32);
        }
    }
    Ok(Elements {
        rows: rows.finish(),
        values: take(lists.values(), &places.finish(), None)?,
    })
}

fn json_elements<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Result<Elements, ArrowError> {
    let (mut rows, mut values) = (UInt32Builder::new(), StringBuilder::new());
    for (row, text) in texts.enumerate() {
        let text = text.unwrap_or("null").trim_ascii();
        if text == "null" {
            continue;
        }
        if !text.starts_with('[') {
            return Err(ArrowError::ComputeError(
                "the value is not a list".to_owned(),
            ));
        }
        for element in sonic_rs::to_array_iter(text) {
            let element =
                element.map_err(|_| ArrowError::ComputeError("invalid JSON list".to_owned()))?;
            rows.append_value(row as u32);
            values.append_option((!element.is_null()).then(|| element.as_raw_str()));
        }
    }
    Ok(Elements {
        rows: rows.finish(),
        values: Arc::new(values.finish()),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn lists_have_their_elements_in_order() {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
            Some(vec![Some(3)]),
        ]);
        // The first list is cut off, so offsets do not begin at 0.
        let all: ArrayRef = Arc::new(lists);
        let some = elements(&all.slice(2, 2)).unwrap();
        assert_eq!(some.rows.values(), &[1]);
        let found = elements(&all).unwrap();
        assert_eq!(found.rows.values(), &[0, 0, 3]);
        let expected = Int64Array::from(vec![Some(1), None, Some(3)]);
        assert_eq!(found.values.as_primitive::<Int64Type>(), &expected);
    }

    #[test]
    fn elements_of_json_are_their_text() {
        let texts = [
            Some(r#" [1.50, {"a": [2]}, null, "x"]"#),
            Some("null"),
            None,
            Some("[]"),
        ];
        let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let found = elements(&texts).unwrap();
        assert_eq!(found.rows.values(), &[0, 0, 0, 0]);
        let values: Vec<_> = found.values.as_string::<i32>().iter().collect();
        assert_eq!(
            values,
            [Some("1.50"), Some(r#"{"a": [2]}"#), None, Some("\"x\"")]
        );
        for wrong in ["{}", "5", "\"[1]\"", "[1"] {
            let texts: ArrayRef = Arc::new(StringArray::from(vec![wrong]));
            assert!(elements(&texts).is_err(), "{wrong}");
        }
    }
}
