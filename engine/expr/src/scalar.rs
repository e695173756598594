//! Calls of scalar functions: DataFusion's configuration for them, and calls of our own functions.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field};
use datafusion_common::config::ConfigOptions;
use datafusion_expr::{ScalarUDF, ScalarUDFImpl};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

static CONFIG: LazyLock<Arc<ConfigOptions>> = LazyLock::new(Arc::default);

/// The configuration of DataFusion. It has no time zone: with one, functions that parse times declare
/// it and return columns without it. Without one, all times are in UTC, and
/// [`canonical`](crate::types::canonical) adds the zone to the type.
pub(crate) fn config() -> Arc<ConfigOptions> {
    Arc::clone(&CONFIG)
}

/// A call of one of our own functions with one argument.
pub(crate) fn unary_call(
    function: impl ScalarUDFImpl + 'static,
    argument: Arc<dyn PhysicalExpr>,
    result: DataType,
) -> Arc<dyn PhysicalExpr> {
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
