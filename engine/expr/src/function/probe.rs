//! Calls that fail for every record because of their constant arguments or the types of the others.
//!
//! DataFusion accepts any unit, format or algorithm when a call is planned, and fails when it is
//! evaluated. So a call is evaluated once when it is compiled, for some values of each type.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::{ScalarUDF, Volatility};
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use pseidon_dsl::{Diagnostic, Span};

use super::argument;
use crate::constants::fails_for_other_strings;
use crate::operand::{Operand, reason};
use crate::panics;
use crate::scalar::config;
use crate::types::is_text;

/// Strings of which functions of strings accept at least one, and functions of times another.
const TEXTS: [&str; 8] = [
    "",
    "a",
    "a=1",
    "i",
    "1",
    "2024-02-29",
    "2024-02-29T12:34:56Z",
    "12:34:56",
];
/// As many numbers.
const NUMBERS: [i64; TEXTS.len()] = [1, 0, 2, 3, 100, 1000, -1, 7];

/// Checks that a call can succeed.
pub(super) fn check(
    function: &Arc<ScalarUDF>,
    args: &[Operand],
    returned: &FieldRef,
    span: Span,
) -> Result<(), Diagnostic> {
    let is_constant = |arg: &Operand| arg.as_literal().is_some();
    if function.signature().volatility == Volatility::Volatile || args.iter().all(is_constant) {
        return Ok(());
    }
    let mut first_error = None;
    for number in 0..TEXTS.len() {
        let Err(error) = evaluated(function, args, returned, Some(number)) else {
            return Ok(());
        };
        first_error.get_or_insert(error);
    }
    if fails_for_other_strings(function.name(), args.len())
        && evaluated(function, args, returned, None).is_ok()
    {
        return Ok(());
    }
    let reason = first_error.unwrap_or_default();
    let message = format!("this call always fails: {reason}");
    Err(Diagnostic::new(span, message, "fails for every record"))
}

/// Evaluates a call for one row with its constants, and the sample with this number in place of the
/// other arguments, or NULL.
fn evaluated(
    function: &Arc<ScalarUDF>,
    args: &[Operand],
    returned: &FieldRef,
    number: Option<usize>,
) -> Result<(), String> {
    let failed = |error: DataFusionError| reason(&error);
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut fields: Vec<FieldRef> = Vec::new();
    let mut physical: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
    for arg in args {
        if arg.as_literal().is_some() {
            physical.push(arg.physical.clone());
            continue;
        }
        physical.push(Arc::new(Column::new("argument", columns.len())));
        columns.push(sample(&arg.data_type, number).map_err(failed)?);
        fields.push(argument(&arg.data_type));
    }
    let schema = Arc::new(Schema::new(fields));
    let row = RecordBatch::try_new(schema, columns).map_err(|error| error.to_string())?;
    let name = function.name();
    let call =
        ScalarFunctionExpr::new(name, function.clone(), physical, returned.clone(), config());
    let value = panics::catch_panic(|| call.evaluate(&row))?;
    value
        .and_then(|value| value.into_array(1))
        .map_err(failed)?;
    Ok(())
}

/// A value of a type.
fn sample(data_type: &DataType, number: Option<usize>) -> Result<ArrayRef, DataFusionError> {
    let Some(number) = number else {
        return Ok(new_null_array(data_type, 1));
    };
    let value = match data_type {
        text if is_text(text) => ScalarValue::from(TEXTS[number]).cast_to(text)?,
        number_type if number_type.is_numeric() => {
            let value = ScalarValue::from(NUMBERS[number]).cast_to(number_type);
            value.or_else(|_| ScalarValue::new_default(number_type))?
        }
        other => match ScalarValue::new_default(other) {
            Ok(value) => value,
            Err(_) => return Ok(new_null_array(other, 1)),
        },
    };
    // A default list has another name for its elements than one of a Parquet file.
    match value.to_array()? {
        sample if sample.data_type() == data_type => Ok(sample),
        _ => Ok(new_null_array(data_type, 1)),
    }
}
