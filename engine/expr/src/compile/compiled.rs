//! An expression that can be evaluated over Arrow columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;

use super::Input;
use crate::function::at_one_time;
use crate::operand::reason;
use crate::{growth, panics};

/// A compiled expression. Evaluate it with [`CompiledExpr::evaluate`].
#[derive(Clone, Debug)]
pub struct CompiledExpr {
    pub(super) inputs: Vec<Input>,
    pub(super) schema: SchemaRef,
    pub(super) physical: Arc<dyn PhysicalExpr>,
    pub(super) field: FieldRef,
    pub(super) deterministic: bool,
    /// The bytes that constants add to each row; see [`growth::constant_bytes`].
    pub(super) constant_bytes: usize,
}

impl CompiledExpr {
    /// The inputs that [`CompiledExpr::evaluate`] expects, in order.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The type of its values. The name of the field is the text of the expression, or
    /// that of [`CompiledExpr::named`].
    pub fn field(&self) -> &FieldRef {
        &self.field
    }

    /// The same expression with another name, for one whose text must not be shown.
    #[must_use]
    pub fn named(self, name: &str) -> CompiledExpr {
        CompiledExpr {
            field: Arc::new(self.field.as_ref().clone().with_name(name)),
            ..self
        }
    }

    /// Whether it always returns the same value for the same record. `now()` and `random()` do not.
    pub fn is_deterministic(&self) -> bool {
        self.deterministic
    }

    /// Evaluates the expression for `rows` rows. For no rows, it never fails.
    ///
    /// # Errors
    /// At least one row is invalid (a division by zero, an overflow or a failed cast). The other
    /// rows can be evaluated without it. [`ArrowError::MemoryError`] means that the batch may have
    /// too many rows: the values would be too large together, or the evaluation panicked, as
    /// kernels do if a string column exceeds 2 GiB.
    pub fn evaluate(&self, inputs: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef, ArrowError> {
        if rows == 0 {
            return Ok(new_empty_array(self.field.data_type()));
        }
        let constants = self.constant_bytes.saturating_mul(rows);
        if rows > 1 && constants > growth::MAX_RESULT {
            return Err(as_arrow(&growth::too_large("the expression", constants)));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), inputs, &options)?;
        let evaluate = || self.physical.evaluate(&batch)?.into_array(rows);
        let value = panics::catch_panic(|| at_one_time(evaluate));
        match value {
            Ok(value) => value.map_err(|error| as_arrow(&error)),
            Err(panic) => Err(ArrowError::MemoryError(format!(
                "cannot evaluate the expression: {panic}"
            ))),
        }
    }
}

/// The root error, without the wrappers of DataFusion.
fn as_arrow(error: &DataFusionError) -> ArrowError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(what) => ArrowError::MemoryError(what.clone()),
        _ => ArrowError::ComputeError(reason(error)),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion_common::ScalarValue;
    use datafusion_physical_expr::expressions::Literal;

    use super::*;
    use crate::ranges::RangeCheck;
    use crate::scalar::own_call;

    /// Rows of which all are invalid are removed, and the others, which are none then, continue.
    #[test]
    fn an_expression_that_always_fails_is_evaluated_for_no_rows() {
        let day = Arc::new(Literal::new(ScalarValue::Date32(Some(i32::MAX))));
        let always = CompiledExpr {
            inputs: Vec::new(),
            schema: Arc::new(Schema::empty()),
            physical: own_call(
                RangeCheck::new(DataType::Date32, false),
                vec![day],
                DataType::Date32,
            ),
            field: Arc::new(Field::new("day", DataType::Date32, true)),
            deterministic: true,
            constant_bytes: 0,
        };
        assert!(always.evaluate(Vec::new(), 1).is_err());
        let none = always.evaluate(Vec::new(), 0).map(|values| values.len());
        assert_eq!(none.ok(), Some(0));
    }
}
