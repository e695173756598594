//! `& | # ~ << >>`: operators on the bits of integers.
//!
//! They compute with int64, or with uint64 if an operand is one; a constant beside it is one too
//! (`compile/unsigned.rs`). A value without a known type is an integer here, and one that is not is an
//! error of the record.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{DataType, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use datafusion_common::{Result, ScalarValue, exec_datafusion_err};
use datafusion_expr::{
    ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use pseidon_dsl::{Diagnostic, Span};

use crate::operand::{Operand, operation};
use crate::scalar::own_call;

/// Compiles `left op right` for one of `& | #`.
pub(crate) fn bitwise(
    left: Operand,
    op: Operator,
    right: Operand,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let symbol = match op {
        Operator::BitwiseAnd => "&",
        Operator::BitwiseOr => "|",
        _ => "#",
    };
    let is_unsigned = [&left, &right].map(|operand| operand.data_type == DataType::UInt64);
    let data_type = match is_unsigned {
        [false, false] => DataType::Int64,
        _ => DataType::UInt64,
    };
    let left = integer(left, symbol, &data_type)?;
    let right = integer(right, symbol, &data_type)?;
    operation(left, op, right, data_type, span)
}

/// Compiles `~operand`.
pub(crate) fn inverted(operand: Operand, span: Span) -> Result<Operand, Diagnostic> {
    let operand = signed_or_not(operand, "~")?;
    let (all_bits, data_type) = match operand.data_type {
        DataType::UInt64 => (ScalarValue::from(u64::MAX), DataType::UInt64),
        _ => (ScalarValue::from(-1_i64), DataType::Int64),
    };
    let all_bits = Operand::literal(all_bits, span);
    operation(operand, Operator::BitwiseXor, all_bits, data_type, span)
}

/// Compiles `left << right` or `left >> right`. The result has the type of the left operand.
pub(crate) fn shift(
    left: Operand,
    direction: Direction,
    right: Operand,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let left = signed_or_not(left, direction.symbol())?;
    let right = integer(right, direction.symbol(), &DataType::Int64)?;
    let data_type = left.data_type.clone();
    let function = Shift::new(direction);
    let physical = own_call(
        function,
        vec![left.physical, right.physical],
        data_type.clone(),
    );
    Operand::computed(physical, data_type, span)
}

/// Casts an operand to int64, and leaves a uint64 as it is.
fn signed_or_not(operand: Operand, symbol: &str) -> Result<Operand, Diagnostic> {
    let data_type = match operand.data_type {
        DataType::UInt64 => DataType::UInt64,
        _ => DataType::Int64,
    };
    integer(operand, symbol, &data_type)
}

/// Casts an operand to one of the two types. Types other than integers and JSON are errors.
fn integer(operand: Operand, symbol: &str, data_type: &DataType) -> Result<Operand, Diagnostic> {
    if operand.json || operand.is_null() || operand.data_type.is_integer() {
        return operand.cast(data_type);
    }
    let name = operand.type_name();
    let error = Diagnostic::new(
        operand.span,
        format!("`{symbol}` requires integers, found {name}"),
        "expected an integer",
    );
    Err(error.with_help(match (&operand.data_type, symbol) {
        (DataType::Boolean, "&") => "combine conditions with `and`",
        (DataType::Boolean, "|") => "combine conditions with `or`",
        (DataType::Boolean, "~") => "negate a condition with `not`",
        _ => "convert it to an integer: cast(x as bigint)",
    }))
}

/// Where the bits of a number are moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// `<<`
    Left,
    /// `>>`: the highest bit of an int64 fills in.
    Right,
}

impl Direction {
    fn symbol(self) -> &'static str {
        match self {
            Direction::Left => "<<",
            Direction::Right => ">>",
        }
    }
}

/// A function that shifts the bits of an int64 or a uint64. Bits that are shifted out are lost.
///
/// # Errors
/// The number of bits is negative, or not less than 64.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Shift {
    direction: Direction,
    signature: Signature,
}

impl Shift {
    fn new(direction: Direction) -> Shift {
        let signed = vec![DataType::Int64, DataType::Int64];
        let unsigned = vec![DataType::UInt64, DataType::Int64];
        let signatures = [signed, unsigned].map(datafusion_expr::TypeSignature::Exact);
        Shift {
            direction,
            signature: Signature::one_of(signatures.to_vec(), Volatility::Immutable),
        }
    }

    fn shifted<T: ArrowPrimitiveType>(
        &self,
        values: &PrimitiveArray<T>,
        bits: &PrimitiveArray<Int64Type>,
        shift: impl Fn(T::Native, u32) -> Option<T::Native>,
    ) -> Result<ArrayRef, ArrowError> {
        let symbol = self.direction.symbol();
        let shifted: PrimitiveArray<T> = try_binary(values, bits, |value, bits| {
            let shifted = u32::try_from(bits).ok().and_then(|bits| shift(value, bits));
            shifted.ok_or_else(|| {
                let message = format!("`{symbol}` by {bits} bits; expected 0 to 63");
                ArrowError::ComputeError(message)
            })
        })?;
        Ok(Arc::new(shifted))
    }
}

impl ScalarUDFImpl for Shift {
    fn name(&self) -> &str {
        match self.direction {
            Direction::Left => "shift_left",
            Direction::Right => "shift_right",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Int64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [values, bits] = arrays.as_slice() else {
            return Err(exec_datafusion_err!("expected a number and how many bits"));
        };
        let bits = bits.as_primitive::<Int64Type>();
        let is_left = self.direction == Direction::Left;
        let shifted = match values.data_type() {
            DataType::UInt64 => {
                let shift = if is_left {
                    u64::checked_shl
                } else {
                    u64::checked_shr
                };
                self.shifted(values.as_primitive::<UInt64Type>(), bits, shift)
            }
            _ => {
                let shift = if is_left {
                    i64::checked_shl
                } else {
                    i64::checked_shr
                };
                self.shifted(values.as_primitive::<Int64Type>(), bits, shift)
            }
        };
        Ok(ColumnarValue::Array(shifted?))
    }
}
