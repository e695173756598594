//! A bound on how long a text a function may make.
//!
//! `repeat`, `lpad` and `rpad` take the length from an argument, which may come from a record:
//! without a bound one record could ask for all memory.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::{Result, exec_datafusion_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// The longest text, in characters, that these functions make of one value; in copies for `repeat`.
const MAX_LENGTH: i64 = 1 << 20;

/// The functions whose second argument is a length.
pub(crate) const LENGTHENING: [&str; 3] = ["lpad", "repeat", "rpad"];

/// A length that is not too large. One below zero is zero.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Length {
    signature: Signature,
}

impl Length {
    pub(crate) fn new() -> Length {
        Length {
            signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &str {
        "length_limit"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [lengths] = arrays.as_slice() else {
            return Err(exec_datafusion_err!(
                "one length is needed, not {}",
                arrays.len()
            ));
        };
        let lengths = lengths
            .as_primitive::<Int64Type>()
            .try_unary::<_, Int64Type, _>(|length| match length {
                0..=MAX_LENGTH => Ok(length),
                ..0 => Ok(0),
                _ => Err(exec_datafusion_err!(
                    "{length} is too long for a text, up to {MAX_LENGTH} is possible"
                )),
            })?;
        let lengths: ArrayRef = Arc::new(lengths);
        Ok(ColumnarValue::Array(lengths))
    }
}
