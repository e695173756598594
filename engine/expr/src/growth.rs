//! A limit on the result size of an evaluation, so that no expression can exhaust the memory.
//!
//! Most expressions produce no more bytes than their inputs have. Two things can turn a small batch
//! into a large one: functions whose result is longer than their arguments ([`BoundedFunction`]),
//! and a long constant that is combined with each of thousands of rows ([`constant_bytes`]). Both
//! are estimated before anything is computed. An evaluation that would exceed [`MAX_RESULT`] fails
//! with [`too_large`], and the caller retries with fewer rows. A single row may have a value of up
//! to [`MAX_VALUE`], or as large as its arguments. The steps of a comparison of strings are bounded
//! in the same way.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type, Schema};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{CaseExpr, Literal};

use crate::types::is_text;

/// The maximum number of bytes that one node of an expression may produce for several rows
/// together.
pub(crate) const MAX_RESULT: usize = 8 << 20;

/// The maximum number of bytes that a function may produce for one row, unless its arguments are
/// larger.
const MAX_VALUE: usize = 16 << 20;

/// The error for a result that would be too large. Its variant distinguishes it from other errors,
/// even if DataFusion wraps it.
pub(crate) fn too_large(what: &str, bytes: usize) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!(
        "{what} would produce {bytes} bytes, more than the limit for one evaluation"
    ))
}

/// The error for a comparison of each character of a string with each of another one.
fn too_slow(what: &str, _: usize) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!("{what} of such long strings would take too long"))
}

/// Checks the bytes that a function has produced for some rows.
pub(crate) fn check(what: &str, bytes: usize, rows: usize) -> Result<()> {
    let limit = if rows <= 1 { MAX_VALUE } else { MAX_RESULT };
    match bytes > limit {
        true => Err(too_large(what, bytes)),
        false => Ok(()),
    }
}

/// An upper bound on the result of a function in bytes, computed from its string arguments and from
/// all of its arguments.
type Growth = fn(&[StringArray], &[ArrayRef]) -> usize;

/// Wraps a function whose result can be larger than its arguments in a [`BoundedFunction`]. Any
/// other function is returned unchanged.
pub(crate) fn bounded(function: &Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let growth: Growth = match function.name() {
        "repeat" => repeated,
        "lpad" | "rpad" => padded,
        "replace" => replaced,
        "regexp_replace" => regexp_replaced,
        "redact" => redacted,
        "to_char" => formatted,
        "encode" => encoded,
        "levenshtein" => compared,
        "logfmt" => objects,
        _ => return Arc::clone(function),
    };
    Arc::new(ScalarUDF::from(BoundedFunction {
        function: Arc::clone(function),
        growth,
        refusal: match function.name() {
            "levenshtein" => too_slow,
            _ => too_large,
        },
    }))
}

/// A function that checks the size of its result before it computes it.
#[derive(Debug)]
struct BoundedFunction {
    function: Arc<ScalarUDF>,
    growth: Growth,
    refusal: fn(&str, usize) -> DataFusionError,
}

impl PartialEq for BoundedFunction {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function
    }
}

impl Eq for BoundedFunction {}

impl Hash for BoundedFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.hash(state);
    }
}

impl ScalarUDFImpl for BoundedFunction {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args
            .args
            .iter()
            .map(one_or_all)
            .collect::<Result<Vec<_>>>()?;
        let texts = arrays.iter().filter(|array| is_text(array.data_type()));
        let texts = texts
            .map(|array| Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone()))
            .collect::<Result<Vec<_>>>()?;
        let is_constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let made = (self.growth)(&texts, &arrays);
        let limit = if args.number_rows <= 1 || is_constant {
            texts
                .iter()
                .map(|text| text.value_data().len())
                .sum::<usize>()
                .max(MAX_VALUE)
        } else {
            MAX_RESULT
        };
        if made > limit {
            return Err((self.refusal)(self.name(), made));
        }
        self.function.invoke_with_args(args)
    }
}

/// The value as an array. A constant becomes an array of one element: it can be long, so it is not
/// repeated for each row.
fn one_or_all(value: &ColumnarValue) -> Result<ArrayRef> {
    match value {
        ColumnarValue::Array(array) => Ok(Arc::clone(array)),
        ColumnarValue::Scalar(scalar) => scalar.to_array(),
    }
}

/// The length of a row's string in bytes. An array of one element is the value of every row.
fn length(texts: &StringArray, row: usize) -> usize {
    let row = if texts.len() == 1 { 0 } else { row };
    if texts.is_valid(row) {
        texts.value_length(row).unsigned_abs() as usize
    } else {
        0
    }
}

/// The integer of a row, 0 for NULL and for negative numbers. An array of one element is the value
/// of every row.
fn number(numbers: &ArrayRef, row: usize) -> usize {
    let Some(numbers) = numbers.as_primitive_opt::<Int64Type>() else {
        return 0;
    };
    let row = if numbers.len() == 1 { 0 } else { row };
    if numbers.is_valid(row) {
        usize::try_from(numbers.value(row)).unwrap_or(0)
    } else {
        0
    }
}

/// The sum over all rows, saturating.
fn sum(arrays: &[ArrayRef], of_row: impl Fn(usize) -> usize) -> usize {
    // Constants have one element. In a batch without rows, the other arrays are empty.
    let lengths = || arrays.iter().map(|array| array.len());
    let rows = if lengths().any(|length| length == 0) {
        0
    } else {
        lengths().max().unwrap_or(0)
    };
    (0..rows).map(of_row).fold(0, usize::saturating_add)
}

fn repeated(texts: &[StringArray], arrays: &[ArrayRef]) -> usize {
    let ([text, ..], [_, count, ..]) = (texts, arrays) else {
        return 0;
    };
    sum(arrays, |row| {
        length(text, row).saturating_mul(number(count, row))
    })
}

fn padded(texts: &[StringArray], arrays: &[ArrayRef]) -> usize {
    let ([text, ..], [_, count, ..]) = (texts, arrays) else {
        return 0;
    };
    // The count is in characters of up to four bytes.
    let widest = |row| texts.get(1).map_or(1, |fill| length(fill, row).clamp(1, 4));
    sum(arrays, |row| {
        length(text, row).saturating_add(number(count, row).saturating_mul(widest(row)))
    })
}

fn replaced(texts: &[StringArray], arrays: &[ArrayRef]) -> usize {
    let [text, from, to, ..] = texts else {
        return 0;
    };
    sum(arrays, |row| {
        let (length, from, to) = (length(text, row), length(from, row), length(to, row));
        // An empty string is found before each character and at the end.
        let found = length.checked_div(from).unwrap_or(length + 1);
        length.saturating_add(found.saturating_mul(to.saturating_sub(from)))
    })
}

/// Nothing grows more than `::1` that becomes `[ip:0123456789abcdef]`.
fn redacted(texts: &[StringArray], arrays: &[ArrayRef]) -> usize {
    let Some(text) = texts.first() else {
        return 0;
    };
    sum(arrays, |row| length(text, row).saturating_mul(7))
}

/// Nothing grows more than `a`, which becomes `"a":true,`.
fn objects(texts: &[StringArray], arrays: &[ArrayRef]) -> usize {
    let Some(text) = texts.first() else {
        return 0;
    };
    sum(arrays, |row| length(text, row).saturating_mul(9))
}

/// The longest result of a specifier of two characters, such as `%c` or `%+`, has 40.
fn formatted(texts: &[StringArray], arrays: &[ArrayRef]) -> usize {
    let Some(format) = texts.last() else {
        return 0;
    };
    sum(arrays, |row| length(format, row).saturating_mul(20))
}

/// This many steps of a comparison count as a byte: they take about as long.
const STEPS: usize = 64;

/// Each character is compared with each of the other string.
fn compared(texts: &[StringArray], arrays: &[ArrayRef]) -> usize {
    let [one, other, ..] = texts else {
        return 0;
    };
    sum(arrays, |row| {
        length(one, row).saturating_mul(length(other, row)) / STEPS
    })
}

/// A byte becomes two hexadecimal digits; base64 is shorter. What is encoded are bytes.
fn encoded(_: &[StringArray], arrays: &[ArrayRef]) -> usize {
    let bytes = arrays
        .first()
        .map(|bytes| cast(bytes, &DataType::LargeBinary));
    let Some(Ok(bytes)) = bytes else {
        return 0;
    };
    let bytes = bytes.as_binary::<i64>();
    sum(arrays, |row| {
        let row = if bytes.len() == 1 { 0 } else { row };
        bytes.value(row).len().saturating_mul(2)
    })
}

fn regexp_replaced(texts: &[StringArray], arrays: &[ArrayRef]) -> usize {
    let [text, _, to, flags @ ..] = texts else {
        return 0;
    };
    let value = |texts: &StringArray, row: usize| -> String {
        let row = if texts.len() == 1 { 0 } else { row };
        if texts.is_valid(row) {
            texts.value(row).to_owned()
        } else {
            String::new()
        }
    };
    sum(arrays, |row| {
        let length = length(text, row);
        let to = value(to, row);
        let everywhere = flags
            .first()
            .is_some_and(|flags| value(flags, row).contains('g'));
        let found = if everywhere { length + 1 } else { 1 };
        // Each group in the replacement can expand to the whole match.
        let groups = to
            .bytes()
            .filter(|byte| matches!(byte, b'$' | b'\\'))
            .count();
        length
            .saturating_add(found.saturating_mul(to.len()))
            .saturating_add(groups.saturating_mul(length))
    })
}

/// The maximum number of bytes that constants add to each row in any node of the expression. Nodes
/// with a [`BoundedFunction`] do not count, because they check their own arguments.
pub(crate) fn constant_bytes(physical: &Arc<dyn PhysicalExpr>, schema: &Schema) -> usize {
    let (in_result, in_any) = constants(physical, schema);
    in_result.max(in_any)
}

/// The bytes that constants add to the result of the node, and the maximum that they add to any
/// node below it that is not itself a constant.
fn constants(physical: &Arc<dyn PhysicalExpr>, schema: &Schema) -> (usize, usize) {
    if let Some(literal) = physical.downcast_ref::<Literal>() {
        let value = literal.value();
        let bytes = if value.data_type().is_primitive() {
            0
        } else {
            value.size().saturating_sub(size_of_val(value))
        };
        return (bytes, 0);
    }
    let of_children: Vec<(usize, usize)> = physical
        .children()
        .into_iter()
        .map(|child| constants(child, schema))
        .collect();
    let makes_bytes = physical
        .data_type(schema)
        .is_ok_and(|data_type| !data_type.is_primitive() && data_type != DataType::Boolean);
    let in_children = of_children.iter().map(|(in_result, _)| *in_result);
    let in_result = match physical {
        _ if !makes_bytes => 0,
        one_of if one_of.is::<CaseExpr>() => in_children.max().unwrap_or(0),
        _ => in_children.sum(),
    };
    let in_any = of_children
        .iter()
        .map(|(_, in_any)| *in_any)
        .max()
        .unwrap_or(0);
    (in_result, in_any.max(in_result))
}
