//! Calls of scalar functions: DataFusion's configuration for them, and calls of our own functions.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, exec_datafusion_err};
use datafusion_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

static CONFIG: LazyLock<Arc<ConfigOptions>> = LazyLock::new(Arc::default);

/// The configuration of DataFusion. It has no time zone: with one, functions that parse times declare
/// it and return columns without it. Without one, all times are in UTC, and
/// [`canonical`](crate::types::canonical) adds the zone to the type.
pub(crate) fn config() -> Arc<ConfigOptions> {
    Arc::clone(&CONFIG)
}

/// One of our own functions of one column. Equal functions have equal results.
pub(crate) trait ColumnFunction: Debug + Eq + Hash + Send + Sync + 'static {
    /// The name of its calls in plans.
    const NAME: &'static str;

    /// The type of its results.
    fn result(&self) -> DataType;

    /// Its results for the values of a column, one for each.
    fn call(&self, values: &ArrayRef) -> Result<ArrayRef>;
}

/// A column function as DataFusion calls it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Unary<F> {
    function: F,
    signature: Signature,
}

impl<F: ColumnFunction> ScalarUDFImpl for Unary<F> {
    fn name(&self) -> &str {
        F::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.function.result())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [values] = args.args.as_slice() else {
            let found = args.args.len();
            return Err(exec_datafusion_err!("expected one argument, found {found}"));
        };
        let values = values.to_array(args.number_rows)?;
        self.function.call(&values).map(ColumnarValue::Array)
    }
}

/// A call of a column function. The argument must have the type that the function requires.
pub(crate) fn unary_call(
    function: impl ColumnFunction,
    argument: Arc<dyn PhysicalExpr>,
) -> Arc<dyn PhysicalExpr> {
    let result = function.result();
    let signature = Signature::any(1, Volatility::Immutable);
    let function = Unary {
        function,
        signature,
    };
    own_call(function, vec![argument], result)
}

/// A call of one of our own functions.
pub(crate) fn own_call(
    function: impl ScalarUDFImpl + 'static,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    result: DataType,
) -> Arc<dyn PhysicalExpr> {
    let function = Arc::new(ScalarUDF::from(function));
    let field = Arc::new(Field::new(function.name(), result, true));
    let name = function.name().to_owned();
    Arc::new(ScalarFunctionExpr::new(
        &name,
        function,
        arguments,
        field,
        config(),
    ))
}
