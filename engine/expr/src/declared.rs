//! Results that have the type that their function declares.
//!
//! `to_timestamp` and its relatives declare times in UTC, but return columns without a time zone
//! when they parse strings. The next operator then fails, since the types differ.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::Result;
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// Wraps a function that returns times in a [`DeclaredResult`]. Any other function is returned
/// unchanged.
pub(crate) fn declared(function: Arc<ScalarUDF>, result: &DataType) -> Arc<ScalarUDF> {
    if !matches!(result, DataType::Timestamp(_, Some(_))) {
        return function;
    }
    Arc::new(ScalarUDF::from(DeclaredResult { function }))
}

/// A function whose result is cast to its declared type. Times without a time zone are in UTC.
#[derive(Debug)]
struct DeclaredResult {
    function: Arc<ScalarUDF>,
}

impl PartialEq for DeclaredResult {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function
    }
}

impl Eq for DeclaredResult {}

impl Hash for DeclaredResult {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.hash(state);
    }
}

impl ScalarUDFImpl for DeclaredResult {
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
        let wanted = args.return_field.data_type().clone();
        // `ScalarUDF::invoke_with_args` asserts in debug builds that the type is the declared one.
        let result = self.function.inner().invoke_with_args(args)?;
        if result.data_type() == wanted {
            return Ok(result);
        }
        result.cast_to(&wanted, None)
    }
}
