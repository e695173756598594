//! The names of all functions.

use crate::{aggregate, function};

/// Functions that have words between their arguments, and another name here.
const WITH_WORDS: [&str; 2] = ["extract", "position"];

/// The names of all functions in lower case, also of those that are computed over many records.
pub fn function_names() -> impl Iterator<Item = &'static str> {
    function::names()
        .chain(aggregate::names())
        .chain(WITH_WORDS)
}
