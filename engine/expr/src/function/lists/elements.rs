//! The elements of JSON lists.

use std::cmp::Ordering;

use datafusion_common::{Result, exec_datafusion_err};

use crate::json::{Number, text_of};

/// The elements of a list as JSON. `None` for `null`.
///
/// # Errors
/// The value is not a list.
pub(super) fn elements(json: &str) -> Result<Option<Vec<String>>> {
    let json = json.trim_ascii();
    if json == "null" {
        return Ok(None);
    }
    if !json.starts_with('[') {
        return Err(exec_datafusion_err!("the value is not a list"));
    }
    let elements = sonic_rs::to_array_iter(json).map(|element| {
        let element = element.map_err(|_| exec_datafusion_err!("invalid JSON list"))?;
        Ok(element.as_raw_str().to_owned())
    });
    elements.collect::<Result<_>>().map(Some)
}

/// Whether two JSON values are equal: numbers by their values, and strings without their escapes.
pub(super) fn is_equal(left: &str, right: &str) -> bool {
    let (left, right) = (left.trim_ascii(), right.trim_ascii());
    match (left.starts_with('"'), right.starts_with('"')) {
        (true, true) => match (text_of(left), text_of(right)) {
            (Ok(left), Ok(right)) => left == right,
            _ => false,
        },
        (false, false) => match (number(left), number(right)) {
            (Some(left), Some(right)) => left.compare(right) == Ordering::Equal,
            _ => left == right,
        },
        _ => false,
    }
}

fn number(json: &str) -> Option<Number> {
    Number::of(json).ok().flatten()
}
