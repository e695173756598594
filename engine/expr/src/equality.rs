//! Floats that are equal have the same bits: -0.0 is written as 0.0, and each NaN as one.
//!
//! `=` compares numbers, but sets and keys compare bits: `in`, the tests of `case x when`, the keys
//! of groups, and the different values that a group counts.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion_common::Result;
use pseidon_dsl::Diagnostic;

use crate::operand::Operand;
use crate::scalar::{ColumnFunction, unary_call};

/// The floats of a column with equal bits. Other columns are returned unchanged.
pub(crate) fn with_equal_bits(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float32 => {
            let floats = values.as_primitive::<Float32Type>();
            // A sum with zero is never the negative zero.
            Arc::new(
                floats.unary::<_, Float32Type>(|value| match value.is_nan() {
                    true => f32::NAN,
                    false => value + 0.0,
                }),
            )
        }
        DataType::Float64 => {
            let floats = values.as_primitive::<Float64Type>();
            Arc::new(
                floats.unary::<_, Float64Type>(|value| match value.is_nan() {
                    true => f64::NAN,
                    false => value + 0.0,
                }),
            )
        }
        _ => values.clone(),
    }
}

/// The operand with equal bits, for what compares bits. One that is not a float is returned
/// unchanged.
pub(crate) fn by_bits(operand: Operand) -> Result<Operand, Diagnostic> {
    match operand.data_type.is_floating() {
        true => called(operand),
        false => Ok(operand),
    }
}

/// An item of the list of `in` with equal bits. One that is not a constant becomes a call whatever
/// its type: DataFusion evaluates the items for no rows to find constants, and takes a `case` for
/// one, since its result for no rows is a constant NULL.
pub(crate) fn item_by_bits(item: Operand) -> Result<Operand, Diagnostic> {
    match item.as_literal() {
        Some(_) => by_bits(item),
        None => called(item),
    }
}

fn called(operand: Operand) -> Result<Operand, Diagnostic> {
    let (data_type, span) = (operand.data_type, operand.span);
    let call = unary_call(EqualBits(data_type.clone()), operand.physical);
    Operand::computed(call, data_type, span)
}

/// [`with_equal_bits`] as a function of columns of this type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct EqualBits(DataType);

impl ColumnFunction for EqualBits {
    const NAME: &'static str = "equal_bits";

    fn result(&self) -> DataType {
        self.0.clone()
    }

    fn call(&self, values: &ArrayRef) -> Result<ArrayRef> {
        Ok(with_equal_bits(values))
    }
}
