//! A limit on the length of strings that a function produces.
//!
//! `repeat`, `lpad` and `rpad` take the length of their result from an argument, which may come
//! from a record. Without a limit, a single record could exhaust the memory.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::{Result, exec_datafusion_err};

use crate::scalar::ColumnFunction;

/// The maximum value of that argument: characters for `lpad` and `rpad`, copies for `repeat`.
const MAX_LENGTH: i64 = 1 << 20;

/// The functions whose second argument is a length.
pub(crate) const LENGTHENING: [&str; 3] = ["lpad", "repeat", "rpad"];

/// A function that checks a length argument: a negative length becomes 0, and a length above the
/// limit is an error.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct LengthLimit;

impl ColumnFunction for LengthLimit {
    const NAME: &'static str = "length_limit";

    fn result(&self) -> DataType {
        DataType::Int64
    }

    fn call(&self, lengths: &ArrayRef) -> Result<ArrayRef> {
        let lengths = lengths
            .as_primitive::<Int64Type>()
            .try_unary::<_, Int64Type, _>(|length| match length {
                0..=MAX_LENGTH => Ok(length),
                ..0 => Ok(0),
                _ => Err(exec_datafusion_err!(
                    "the length {length} is too large; expected at most {MAX_LENGTH}"
                )),
            })?;
        Ok(Arc::new(lengths))
    }
}
